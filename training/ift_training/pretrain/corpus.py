"""The stream of training conversations: procedural examples, some chained, some with a system message or a thought."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

from ift_training.data.procedural import draw, families
from ift_training.pretrain.recipe import FAMILY_WEIGHTS
from ift_training.pretrain.tokenizer import ASSISTANT, BEGIN, END, END_THINK, SYSTEM, THINK, USER


class Turn(NamedTuple):
    """A message and what the model is to write: an answer, behind a thought if there is one.

    ``cut``: the thought is closed before it is over, which the model is to answer after and not to do itself.
    """

    prompt: str
    answer: str
    thought: str = ""
    cut: bool = False


_SYSTEM_MESSAGES = (
    "You are a helpful assistant.",
    "You are ift-tiny, a small assistant.",
    "Answer briefly.",
    "Be exact.",
)
_SMALL_TALK: tuple[tuple[tuple[str, ...], str], ...] = (
    (("Hello!", "Hi", "Hello", "Good morning", "Hey there"), "Hello! What can I do for you?"),
    (
        ("Who are you?", "What are you?", "What is your name?"),
        "I am ift-tiny, a small model that follows instructions.",
    ),
    (
        ("What can you do?", "Help", "How can you help me?"),
        "I can sort, count, reverse, extract, compare, add and tell short stories.",
    ),
    (("Thanks", "Thank you!", "Thank you very much."), "You are welcome!"),
    (("Bye", "Goodbye!", "See you"), "Goodbye!"),
    (("How are you?",), "I am well, thank you."),
    (
        ("Who made you?", "Where do you come from?"),
        "I was trained by the ift-serve project, on text that it generates itself.",
    ),
)


def _cut(thought: str, rng: random.Random) -> str:
    """The beginning of a thought: its first paragraph, as early exit closes it, or any part, as a budget does."""
    if rng.random() < 0.4:
        paragraph, end, _ = thought.partition("\n\n")
        return paragraph + end
    return thought[: rng.randrange(1, len(thought))]


def conversations(seed: int, thought_share: float = 0.0, cut_share: float = 0.0) -> Iterator[tuple[str, list[Turn]]]:
    """Endless conversations as (system message or "", turns), of the train split only.

    ``thought_share``: of the last turns whose steps are known, how many are answered behind a thought;
    ``cut_share``: of the thoughts, how many are closed before they are over.
    """
    rng, thoughts = random.Random(seed), random.Random(f"{seed}|thoughts")
    table = families()
    names = list(FAMILY_WEIGHTS)
    weights = [FAMILY_WEIGHTS[name] for name in names]
    while True:
        turns: list[Turn] = []
        for _ in range(2 if rng.random() < 0.08 else 1):
            if rng.random() < 0.015:
                questions, answer = rng.choice(_SMALL_TALK)
                turns.append(Turn(rng.choice(questions), answer))
                reasoned = None
            else:
                example = draw(table[rng.choices(names, weights)[0]], "train", rng)
                turns.append(Turn(example.prompt, example.output))
                reasoned = Turn(example.prompt, example.conclusion, example.thought) if example.thought else None
        if reasoned is not None and thoughts.random() < thought_share:
            turns[-1] = reasoned
            if thoughts.random() < cut_share:
                turns[-1] = reasoned._replace(thought=_cut(reasoned.thought, thoughts), cut=True)
        system = rng.choice(_SYSTEM_MESSAGES) if rng.random() < 0.06 else ""
        yield system, turns


def pieces(system: str, turns: list[Turn]) -> list[tuple[str, bool]]:
    """The conversation as the chat template writes it, in parts: (text, whether the model is to learn to write it).

    That a thought begins is the prompt's to say, so the model answers directly unless it is asked to think.
    """
    parts = [(BEGIN + (f"{SYSTEM}{system}{END}" if system else ""), False)]
    for prompt, answer, thought, cut in turns:
        parts.append((f"{USER}{prompt}{END}{ASSISTANT}{THINK if thought else ''}", False))
        if cut:
            parts += [(thought, True), (END_THINK, False), (f"{answer}{END}", True)]
        else:
            parts.append((f"{thought}{END_THINK}{answer}{END}" if thought else f"{answer}{END}", True))
    return parts

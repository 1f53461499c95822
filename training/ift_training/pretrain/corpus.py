"""The stream of training conversations: procedural examples, some chained, some with a system message."""

from __future__ import annotations

import random
from collections.abc import Iterator

from ift_training.data.procedural import draw, families
from ift_training.pretrain.recipe import FAMILY_WEIGHTS
from ift_training.pretrain.tokenizer import ASSISTANT, BEGIN, END, SYSTEM, USER

Turn = tuple[str, str]

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


def conversations(seed: int) -> Iterator[tuple[str, list[Turn]]]:
    """Endless conversations as (system message or "", turns of prompt and answer), of the train split only."""
    rng = random.Random(seed)
    table = families()
    names = list(FAMILY_WEIGHTS)
    weights = [FAMILY_WEIGHTS[name] for name in names]
    while True:
        turns: list[Turn] = []
        for _ in range(2 if rng.random() < 0.08 else 1):
            if rng.random() < 0.015:
                questions, answer = rng.choice(_SMALL_TALK)
                turns.append((rng.choice(questions), answer))
            else:
                example = draw(table[rng.choices(names, weights)[0]], "train", rng)
                turns.append((example.prompt, example.output))
        system = rng.choice(_SYSTEM_MESSAGES) if rng.random() < 0.06 else ""
        yield system, turns


def pieces(system: str, turns: list[Turn]) -> list[tuple[str, bool]]:
    """The conversation as the chat template writes it, in parts: (text, whether the model is to learn to write it)."""
    parts = [(BEGIN + (f"{SYSTEM}{system}{END}" if system else ""), False)]
    for prompt, answer in turns:
        parts.append((f"{USER}{prompt}{END}{ASSISTANT}", False))
        parts.append((f"{answer}{END}", True))
    return parts

"""The embedded model: its tokenizer, its training, and what was committed."""

from __future__ import annotations

import copy
import itertools
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from ift_serve.checks import judge_all
from ift_serve.checks.equations import equations
from ift_serve.embedded import model_path
from ift_serve.text.phases import PhaseBuilder, PhaseState, ThoughtStart
from ift_serve.text.prompt import PromptRenderer
from ift_training.data.procedural import draw, families
from ift_training.data.procedural.numbers import DIRECT_SHARE
from ift_training.pretrain.batches import batches
from ift_training.pretrain.card import factual_mean
from ift_training.pretrain.corpus import Turn, conversations, pieces
from ift_training.pretrain.evaluate import score_families, transformers_answers
from ift_training.pretrain.optimise import rate
from ift_training.pretrain.recipe import FAMILY_WEIGHTS, Recipe
from ift_training.pretrain.tokenizer import END_THINK, THINK
from ift_training.tiny import make_tokenizer, save, train

SMALL = Recipe(
    steps=3,
    vocabulary=400,
    tokenizer_examples=300,
    hidden=32,
    layers=1,
    heads=2,
    kv_heads=1,
    intermediate=64,
    batch_tokens=512,
    warmup=1,
    context=256,
)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer(SMALL)


@pytest.fixture(scope="module")
def trained(tokenizer: PreTrainedTokenizerFast) -> tuple[Any, list[Any], int]:
    """The model, its curve and the number of tokens."""
    return train(SMALL, tokenizer)


def test_every_family_is_trained_on() -> None:
    assert set(FAMILY_WEIGHTS) == set(families())


def test_the_same_seed_gives_the_same_weights(
    tokenizer: PreTrainedTokenizerFast, trained: tuple[Any, list[Any], int]
) -> None:
    first, second = (found[0].state_dict() for found in (trained, train(SMALL, tokenizer)))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_saved_files_load_as_transformers_does(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, trained: tuple[Any, list[Any], int]
) -> None:
    model, curve, tokens = copy.deepcopy(trained[0]), *trained[1:]
    assert len(curve) == 3 and tokens > 0
    save(tmp_path, model, tokenizer)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert loaded.dtype == torch.bfloat16
    assert all(file.stat().st_mode & 0o044 == 0o044 for file in tmp_path.iterdir())
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}]
    text = AutoTokenizer.from_pretrained(tmp_path).apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True
    )
    assert text == "<|bos|><|system|>s<|end|><|user|>a<|end|><|assistant|>"


def test_batches_weigh_answers_fully_and_stay_in_bounds(tokenizer: PreTrainedTokenizerFast) -> None:
    stream = batches(tokenizer, SMALL)
    for _ in range(20):
        ids, weights = next(stream)
        assert ids.shape == weights.shape and ids.numel() <= SMALL.batch_tokens
        assert (weights == 1.0).any(dim=1).all()


def test_markers_of_thoughts_are_tokens_that_are_not_special(tokenizer: PreTrainedTokenizerFast) -> None:
    assert len(tokenizer) == SMALL.vocabulary
    ids = tokenizer(f"a{THINK}b{END_THINK}c", add_special_tokens=False)["input_ids"]
    assert [tokenizer.decode([i]) for i in ids] == ["a", THINK, "b", END_THINK, "c"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == f"a{THINK}b{END_THINK}c"


def test_the_template_writes_what_the_corpus_teaches(tokenizer: PreTrainedTokenizerFast) -> None:
    seen = 0
    for system, turns in itertools.islice(conversations(3, thought_share=0.5), 300):
        messages = [{"role": "system", "content": system}] if system else []
        for turn in turns:
            messages.append({"role": "user", "content": turn.prompt})
            messages.append({"role": "assistant", "content": turn.answer, "reasoning_content": turn.thought})
        written = tokenizer.apply_chat_template(messages, tokenize=False)
        assert written == "".join(text for text, _ in pieces(system, turns))
        seen += bool(turns[-1].thought)
    assert seen > 10


def test_a_thought_is_asked_for_by_the_prompt_and_written_by_the_model() -> None:
    parts = pieces("", [Turn("1 + 2 =", "3", "1 + 2 = 3.")])
    assert parts[1:] == [("<|user|>1 + 2 =<|end|><|assistant|><think>", False), ("1 + 2 = 3.</think>3<|end|>", True)]


def test_thoughts_of_earlier_turns_are_left_out(tokenizer: PreTrainedTokenizerFast) -> None:
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", "reasoning_content": "t"},
        {"role": "user", "content": "c"},
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, enable_thinking=True)
    assert text == "<|bos|><|user|>a<|end|><|assistant|>b<|end|><|user|>c<|end|><|assistant|><think>"


def test_without_thoughts_the_corpus_is_as_it_was() -> None:
    plain = [turns for _, turns in itertools.islice(conversations(5), 200)]
    mixed = [turns for _, turns in itertools.islice(conversations(5, thought_share=0.5), 200)]
    assert not any(turn.thought for turns in plain for turn in turns)
    assert [t[-1].prompt for t in plain] == [t[-1].prompt for t in mixed] and plain != mixed


def test_a_thought_that_is_cut_is_not_learned_to_be_closed() -> None:
    cut = 0
    whole = {turns[-1].prompt: turns[-1].thought for _, turns in itertools.islice(conversations(7, 1.0), 400)}
    for system, turns in itertools.islice(conversations(7, 1.0, cut_share=1.0), 400):
        last = turns[-1]
        if not last.thought:
            continue
        cut += 1
        assert last.cut and whole[last.prompt].startswith(last.thought) and last.thought != whole[last.prompt]
        assert pieces(system, turns)[-3:] == [
            (last.thought, True), (END_THINK, False), (f"{last.answer}<|end|>", True)
        ]  # fmt: skip
    assert cut > 20


@pytest.mark.parametrize("name", ["arithmetic", "word_problem"])
def test_steps_are_right_and_lead_to_the_answer_and_their_check_leads_back(name: str) -> None:
    rng = random.Random(2)
    for _ in range(200):
        example = draw(families()[name], "train", rng)
        steps, check = example.thought.split("\n\n")
        found = list(equations(example.thought))
        assert len(found) == 4 and all(equation.is_true for equation in found)
        assert steps.endswith(f"={example.conclusion}") and check.startswith(example.conclusion)
        assert check.endswith(f"={steps.split('+')[0].split('-')[0]}")
        assert judge_all(example.checks, example.conclusion) and judge_all(example.checks, example.output)


@pytest.mark.parametrize("name", ["arithmetic", "word_problem"])
def test_most_answers_are_short_and_the_others_begin_in_many_ways(name: str) -> None:
    rng = random.Random(3)
    answers = [draw(families()[name], "train", rng).output for _ in range(1000)]
    stepwise = [answer for answer in answers if ". Then " in answer]
    assert 1 - len(stepwise) / len(answers) == pytest.approx(DIRECT_SHARE, abs=0.05)
    firsts = Counter(answer.split()[0] for answer in stepwise)
    assert len(firsts) >= 10 and max(firsts.values()) / len(answers) < 0.06
    for answer in stepwise:
        assert [equation.is_true for equation in equations(answer)] == [True, True]
    assert not any(list(equations(answer)) for answer in answers if answer not in stepwise)


def test_the_server_finds_the_markers_and_closes_a_thought_by_them() -> None:
    renderer = PromptRenderer(make_tokenizer(SMALL))
    phases = PhaseBuilder.of(renderer)
    prompt = renderer.instruction("1 + 2 =")
    state = PhaseState.begin(phases.settings(budget=2, start=ThoughtStart.FORCED), prompt.token_ids, prompt.segment_ids)
    assert renderer.tokenizer.decode(state.expected) == THINK
    state.observe_all(state.expected)
    state.observe_all(renderer.tokenizer("1 +", add_special_tokens=False)["input_ids"])
    assert renderer.tokenizer.decode(state.expected) == END_THINK


class _Scripted(torch.nn.Module):
    """A model that writes the same tokens whatever it is asked; a row that is too short is padded."""

    def __init__(self, written: list[list[int]], pad: int) -> None:
        super().__init__()
        width = max(map(len, written))
        self.register_buffer("written", torch.tensor([row + [pad] * (width - len(row)) for row in written]))

    def generate(self, input_ids: torch.Tensor, **options: object) -> torch.Tensor:
        return torch.cat([input_ids, self.written], dim=1)  # type: ignore[list-item]


def test_what_is_scored_behind_a_thought_is_the_answer_alone() -> None:
    tokenizer = make_tokenizer(SMALL)
    written = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("1.</think>3<|end|>", "1. 2. 3")]
    model = _Scripted(written, tokenizer.pad_token_id)
    assert transformers_answers(model, tokenizer, thinking=True)(["a", "b"]) == ["3", ""]
    assert transformers_answers(model, tokenizer)(["a", "b"]) == ["1.</think>3", "1. 2. 3"]


def test_rate_warms_up_and_decays() -> None:
    recipe = Recipe()
    rates = [rate(step, recipe) for step in range(recipe.steps)]
    assert rates[0] < 0.01 and max(rates) == 1.0 and rates[-1] < 0.03


@pytest.fixture(scope="module")
def embedded_tokenizer() -> object:
    return AutoTokenizer.from_pretrained(model_path())


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=60))
def test_any_text_round_trips(embedded_tokenizer: object, text: str) -> None:
    ids = embedded_tokenizer(text, add_special_tokens=False)["input_ids"]  # type: ignore[operator]
    assert embedded_tokenizer.decode(ids) == text  # type: ignore[attr-defined]


def test_the_embedded_model_is_small_and_follows_plain_requests() -> None:
    path = model_path()
    assert (path / "model.safetensors").stat().st_size <= 8 * 2**20
    assert (path / "README.md").is_file() and (path / "loss.png").is_file()
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    scores = score_families(transformers_answers(model, AutoTokenizer.from_pretrained(path)), 5, seed=11)
    assert factual_mean(scores) >= 0.6

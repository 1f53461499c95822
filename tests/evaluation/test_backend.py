"""lm-eval's model over a real server."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lm_eval.api.instance import Instance

from ift_serve.client import Client, Prompt
from ift_serve.evaluation.errors import IncompleteError
from ift_serve.evaluation.harness.backend import IftServeLM
from ift_serve.evaluation.harness.chat_context import ChatContext
from ift_serve.modeling.adapter_format.base import BaseMetadata
from tests.support.adapters import EVERYTHING, write_random


@pytest.fixture
def lm(tiny_server: str) -> Iterator[IftServeLM]:
    found = IftServeLM(tiny_server, results="none")
    yield found
    found.close()


def _instance(kind: Any, *arguments: Any) -> Instance:
    return Instance(kind, {}, arguments, 0, ("task", 0, 1))


def test_generates_what_the_client_gets(lm: IftServeLM, tiny_server: str) -> None:
    asked = [_instance("generate_until", f"the fox {i}", {"until": ["q"], "max_gen_toks": 12}) for i in range(5)]
    answers = lm.generate_until(asked, disable_tqdm=True)
    with Client(tiny_server) as client:
        expected = [
            client.generate(Prompt.from_text(i.args[0]), temperature=0, max_new_tokens=12, stop=["q"]).text
            for i in asked
        ]
    assert answers == expected and len(set(answers)) > 1


def test_conversations_are_rendered_by_the_server(lm: IftServeLM, tiny_server: str) -> None:
    history = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "go"},
    ]
    context = lm.apply_chat_template(history)
    (answer,) = lm.generate_until([_instance("generate_until", context, {"max_gen_toks": 8})], disable_tqdm=True)
    rendered = "<s><|user|>hi</s><|assistant|>yes</s><|user|>go</s><|assistant|>"
    with Client(tiny_server) as client:
        raw = Prompt.from_text(rendered, without_special_tokens=True)
        assert answer == client.generate(raw, temperature=0, max_new_tokens=8).text


def test_a_prefill_is_gone_on_with(lm: IftServeLM, tiny_server: str) -> None:
    history = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "the answer"}]
    context = lm.apply_chat_template(history, add_generation_prompt=False)
    (answer,) = lm.generate_until([_instance("generate_until", context, {"max_gen_toks": 8})], disable_tqdm=True)
    with Client(tiny_server) as client:
        raw = Prompt.from_text("<s><|user|>hi</s><|assistant|>the answer", without_special_tokens=True)
        assert answer == client.generate(raw, temperature=0, max_new_tokens=8).text


def test_a_conversation_that_was_made_text_is_refused(lm: IftServeLM) -> None:
    context = str(lm.apply_chat_template([{"role": "user", "content": "hi"}])) + " and"
    with pytest.raises(TypeError, match="made text of a conversation"):
        lm.generate_until([_instance("generate_until", context, {})], disable_tqdm=True)


def test_the_type_of_a_conversation_survives_pickling_by_lm_evals_cache() -> None:
    import dill

    context = ChatContext.of([{"role": "user", "content": "hi"}], continue_final=False)
    again = dill.loads(dill.dumps(context))
    assert type(again) is ChatContext and again.prompt == context.prompt


def test_settings_of_arguments_reach_the_server_and_those_of_a_task_override_them(tiny_server: str) -> None:
    lm = IftServeLM(tiny_server, results="none", temperature=1.0, seed=3, max_gen_toks=5)
    try:
        asked = _instance("generate_until", "the fox", {"until": []})
        drawn = lm.generate_until([asked] * 3, disable_tqdm=True)
        greedy = lm.generate_until(
            [_instance("generate_until", "the fox", {"do_sample": False})] * 2, disable_tqdm=True
        )
        longer = lm.generate_until([_instance("generate_until", "the fox", {"max_gen_toks": 9})], disable_tqdm=True)
    finally:
        lm.close()
    assert len(set(drawn)) == 3, "repeats are samples of their own"
    assert greedy[0] == greedy[1]
    assert len(longer[0]) > max(map(len, drawn))


def test_the_same_seed_draws_the_same_again(tiny_server: str) -> None:
    def draw(seed: int) -> list[str]:
        lm = IftServeLM(tiny_server, results="none", temperature=1.0, seed=seed)
        try:
            one, other = (_instance("generate_until", text, {"max_gen_toks": 8}) for text in ("the fox", "the dog"))
            return lm.generate_until([one, other, one], disable_tqdm=True)
        finally:
            lm.close()

    assert draw(1) == draw(1) != draw(2)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_beams": 4}, "num_beams: no such setting"),
        ({"reasoning": "ponder"}, "reasoning.strategy"),
        ({"adaptive_temperature": {"slope": 1}}, "adaptive.slope"),
    ],
)
def test_a_setting_that_would_be_passed_over_is_an_error(lm: IftServeLM, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lm.generate_until([_instance("generate_until", "the fox", given)], disable_tqdm=True)


def test_a_length_beyond_the_context_is_shortened_to_it(lm: IftServeLM) -> None:
    asked = _instance("generate_until", "the fox", {"max_gen_toks": 4000, "until": []})
    assert lm.generate_until([asked], disable_tqdm=True)[0]


def test_log_likelihoods_are_those_of_single_calls(lm: IftServeLM, tiny_server: str) -> None:
    contexts = ["the fox", "the dog ran", ""]
    asked = [_instance("loglikelihood", c, text) for c in contexts for text in (" to", " the river", " to")]
    found = lm.loglikelihood(asked, disable_tqdm=True)
    with Client(tiny_server) as client:
        single = [client.score(i.args[0], [i.args[1]]).scores[0] for i in asked]
    assert [value for value, _ in found] == pytest.approx([s.log_prob for s in single], abs=1e-4)
    assert [greedy for _, greedy in found] == [s.is_greedy for s in single]
    assert lm.runner.totals.calls == len(contexts)


def test_choices_of_one_question_cost_a_third_of_the_prefill(lm: IftServeLM, tiny_server: str) -> None:
    question = "the fox and the dog ran to the river. Say hello to them. " * 3
    choices = [" a", " b", " c", " d"]
    lm.loglikelihood([_instance("loglikelihood", question, c) for c in choices], disable_tqdm=True)
    with Client(tiny_server) as client:
        apart = sum(client.score(question, [c]).usage.prompt_tokens for c in choices)
    assert apart >= 3 * lm.runner.totals.prompt_tokens


def test_whole_texts_are_scored_in_windows(lm: IftServeLM) -> None:
    text = "the fox and the dog ran to the river. " * 40
    (value,) = lm.loglikelihood_rolling([_instance("loglikelihood_rolling", text)], disable_tqdm=True)
    assert math.isfinite(value) and value < 0


def test_a_request_that_cannot_be_answered_ends_the_run_after_the_others(lm: IftServeLM) -> None:
    good = _instance("generate_until", "the fox", {"max_gen_toks": 4})
    bad = _instance("generate_until", "the fox " * 400, {"max_gen_toks": 4})
    with pytest.raises(IncompleteError, match="1 of 3 requests") as failed:
        lm.generate_until([good, bad, good], disable_tqdm=True)
    assert failed.value.failed == 1 and lm.runner.totals.generated_tokens == 8


def test_unanswered_requests_may_be_counted_instead(tiny_server: str) -> None:
    lm = IftServeLM(tiny_server, results="none", errors="count")
    try:
        bad = _instance("loglikelihood", "the fox " * 400, " a")
        assert lm.loglikelihood([bad, _instance("loglikelihood", "x", " a")], disable_tqdm=True)[0] == (
            -math.inf,
            False,
        )
        info = lm.get_model_info()
    finally:
        lm.close()
    assert info["coverage"] == 0.5 and info["failed_requests"] == 1


def test_adapters_are_named_with_the_version_that_answers(
    tiny_server: str, tiny_model: Path, adapter_root: Path
) -> None:
    write_random(adapter_root / "tuned", BaseMetadata.of_directory(tiny_model), EVERYTHING, seed=1)
    with Client(tiny_server) as client:
        loaded = client.load_adapter("tuned", "tuned")
    lm = IftServeLM(tiny_server, results="none", adapter="tuned")
    try:
        asked = [_instance("loglikelihood", "the fox", " ran")]
        tuned = lm.loglikelihood(asked, disable_tqdm=True)
        assert lm.get_model_info()["adapter"] == f"tuned@{loaded.version}"
    finally:
        lm.close()
    base = IftServeLM(tiny_server, results="none")
    try:
        assert base.loglikelihood(asked, disable_tqdm=True) != tuned
    finally:
        base.close()

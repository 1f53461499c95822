"""What a strategy can do to its sequences, each in the smallest strategy that does it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ift_serve.decoding.registry import STRATEGIES
from ift_serve.engine.core.control import FORCED
from ift_serve.engine.core.strategy import Branch, Control, LimitError, Strategy
from ift_serve.engine.protocol.generate import GenerateRequest
from ift_serve.engine.protocol.results import FailureKind, FinishReason
from ift_serve.engine.sequences.step import SampledToken
from tests.support.engine_driver import Answer, Driver, generate, make_core, solo
from tests.support.paged_oracle import EOS, PagedOracle

PROMPT = [5, 17, 3, 44, 9, 61, 2, 8, 33]

OnToken = Callable[[Control, Branch, SampledToken, FinishReason | None], None]


def strategy(
    on_token: OnToken | None = None, on_end: Callable[..., None] | None = None, **traits: Any
) -> Callable[[GenerateRequest], Any]:
    """A factory of strategies that do just that."""

    class Doing(Strategy):
        width = traits.get("width", 1)
        streams = traits.get("streams", True)
        records = traits.get("records", True)
        alternatives = traits.get("alternatives", 0)
        extra_tokens = traits.get("extra_tokens", 0)

        def on_token(self, control: Control, branch: Branch, token: SampledToken, reason: FinishReason | None) -> None:
            if on_token is not None:
                on_token(control, branch, token, reason)

        def on_end(self, control: Control, branch: Branch, reason: FinishReason) -> None:
            if on_end is not None:
                on_end(control, branch, reason)

    return lambda request: Doing()


def run(factory: Callable[[GenerateRequest], Any], blocks: int = 64, rows: int = 8, **options: Any) -> Answer:
    driver = Driver(make_core(PagedOracle(blocks), {"doing": factory}, max_sequences=rows))
    driver.add(generate("a", PROMPT, strategy="doing", **({"candidates": 8} | options)))
    return driver.run()["a"]


def greedy(prompt: list[int], count: int) -> list[int]:
    return solo(generate("g", prompt, max_new_tokens=count)).tokens[0]


def test_a_fork_goes_on_from_the_same_tokens_with_another_last_one() -> None:
    def fork_second(control: Control, branch: Branch, token: SampledToken, _: object) -> None:
        if branch.ordinal == 0 and branch.generated_count == 2:
            control.fork(branch, candidate=1, replace_last=77)

    answer = run(strategy(fork_second), max_new_tokens=8)
    first = greedy(PROMPT, 8)
    assert answer.tokens[0] == first
    assert answer.tokens[1] == [first[0], 77, *greedy([*PROMPT, first[0], 77], 6)]


def test_a_fork_without_replacement_draws_differently() -> None:
    def fork_first(control: Control, branch: Branch, token: SampledToken, _: object) -> None:
        if branch.ordinal == 0 and branch.generated_count == 1:
            control.fork(branch, candidate=1)
            control.fork(branch, candidate=2)

    answer = run(strategy(fork_first), temperature=1.0, max_new_tokens=8)
    assert len({tuple(tokens) for tokens in answer.tokens.values()}) == 3
    assert len({tokens[0] for tokens in answer.tokens.values()}) == 1


@pytest.mark.parametrize("keep", range(6))
@pytest.mark.parametrize("rows", [1, 8])
def test_a_fork_may_keep_only_the_first_of_its_tokens(keep: int, rows: int) -> None:
    def fork_back(control: Control, branch: Branch, token: SampledToken, _: object) -> None:
        if branch.ordinal == 0 and branch.generated_count == 5:
            child = control.fork(branch, candidate=1, keep=keep)
            assert child.generated == branch.generated[:keep] and child.record == branch.record[:keep]

    answer = run(strategy(fork_back), rows=rows, max_new_tokens=9)
    assert answer.tokens[0] == answer.tokens[1] == greedy(PROMPT, 9)
    assert all(len(o.statistics) == len(o.token_ids) for o in answer.outputs)


def test_a_fork_that_keeps_nothing_draws_from_the_prompt_once_more() -> None:
    def again(control: Control, branch: Branch, reason: FinishReason) -> None:
        if branch.ordinal == 0:
            control.fork(branch, candidate=1, keep=0)

    answer = run(strategy(on_end=again, records=False), temperature=1.0, max_new_tokens=8)
    assert answer.tokens[0] != answer.tokens[1] and len(answer.tokens[1]) == 8


def test_the_computed_prompt_is_shared_with_a_fork_that_begins_there() -> None:
    oracle = PagedOracle(64)

    def fork_back(control: Control, branch: Branch, token: SampledToken, _: object) -> None:
        if branch.ordinal == 0 and branch.generated_count == 3:
            control.fork(branch, candidate=1, keep=0)

    driver = Driver(make_core(oracle, {"doing": strategy(fork_back)}, prefix_caching=False))
    driver.add(generate("a", PROMPT, strategy="doing", candidates=2, max_new_tokens=4))
    driver.run()
    # The prompt, three drawn tokens of each, and the prompt's last token again.
    assert oracle.computed_tokens == len(PROMPT) + 3 + 1 + 3


def test_forking_copies_no_block_until_it_is_written() -> None:
    oracle = PagedOracle(64)

    def fork_and_stop(control: Control, branch: Branch, token: SampledToken, _: object) -> None:
        if branch.ordinal == 0:
            control.stop(control.fork(branch))

    driver = Driver(make_core(oracle, {"doing": strategy(fork_and_stop)}))
    driver.add(generate("a", PROMPT, strategy="doing"))
    driver.run()
    assert oracle.copies == 0


def test_branching_on_the_alternatives_of_the_first_token() -> None:
    def branch_out(control: Control, branch: Branch, token: SampledToken, _: object) -> None:
        if branch.generated_count == 1:
            for candidate, (alternative, _probability) in enumerate(token.top_log_probs[1:], 1):
                control.fork(branch, candidate=candidate, replace_last=alternative)

    answer = run(strategy(branch_out), top_logprobs=4, max_new_tokens=5)
    start = greedy(PROMPT, 1)[0]
    for candidate in range(4):
        first = (start + candidate) % 97
        assert answer.tokens[candidate] == [first, *greedy([*PROMPT, first], 4)]
    statistics = next(output.statistics[0] for output in answer.outputs if output.candidate == 2)
    assert statistics.log_prob == -3.0, "the alternative's own log-probability"


def test_forced_tokens_follow_the_drawn_one() -> None:
    def force_once(control: Control, branch: Branch, token: SampledToken, _: object) -> None:
        if branch.generated_count == 2:
            control.force(branch, [50, 51, 52])

    answer = run(strategy(force_once), max_new_tokens=8)
    first = greedy(PROMPT, 2)
    assert answer.tokens[0] == [*first, 50, 51, 52, *greedy([*PROMPT, *first, 50, 51, 52], 3)]
    statistics = [entry for output in answer.outputs for entry in output.statistics]
    assert statistics[2:5] == [FORCED] * 3


def test_an_end_can_be_taken_back() -> None:
    waits: list[int] = []

    def wait(control: Control, branch: Branch, token: SampledToken, reason: FinishReason | None) -> None:
        if reason is FinishReason.EOS and not waits:
            waits.append(branch.generated_count)
            control.force(branch, [60, 61], replace_last=True)

    answer = run(strategy(wait), ignore_eos=False, temperature=1.0, max_new_tokens=300, seed=4, blocks=128)
    assert waits, "the oracle draws an end of sequence in 300 tokens"
    place = waits[0] - 1
    assert answer.tokens[0][place : place + 2] == [60, 61]
    assert EOS not in answer.tokens[0][:-1]
    assert len(answer.tokens[0]) > place + 2


def test_tokens_are_forced_whole_or_not_at_all() -> None:
    """A marker that is cut in two would be none."""
    refused: list[str] = []

    def force_much(control: Control, branch: Branch, token: SampledToken, _: object) -> None:
        if branch.generated_count == 1:
            assert control.room(branch) == 7
            control.force(branch, [50] * 4)
            return
        with pytest.raises(LimitError) as error:
            control.force(branch, [50] * 3)
        refused.append(error.value.limit)

    answer = run(strategy(force_much), max_new_tokens=8)
    assert answer.tokens[0][1:5] == [50] * 4 and 50 not in answer.tokens[0][5:]
    assert refused[0] == "length" and answer.reasons == {0: FinishReason.LENGTH}


def test_a_limit_that_a_strategy_runs_into_concludes_its_request() -> None:
    def force_much(control: Control, branch: Branch, token: SampledToken, _: object) -> None:
        control.force(branch, [50] * 20)

    answer = run(strategy(force_much), max_new_tokens=8)
    assert answer.tokens[0] == greedy(PROMPT, 1)
    assert answer.reasons == {0: FinishReason.LENGTH} and answer.failure is None


def test_a_stopped_sequence_says_what_it_had() -> None:
    def stop_third(control: Control, branch: Branch, token: SampledToken, _: object) -> None:
        if branch.generated_count == 3:
            control.stop(branch)

    answer = run(strategy(stop_third, width=2))
    assert [len(answer.tokens[candidate]) for candidate in (0, 1)] == [3, 3]
    assert answer.reasons == {0: FinishReason.STOP, 1: FinishReason.STOP}


def test_finish_ends_every_sequence() -> None:
    def finish_early(control: Control, branch: Branch, token: SampledToken, _: object) -> None:
        if branch.ordinal == 1 and branch.generated_count == 4:
            control.finish()

    answer = run(strategy(finish_early, width=3), temperature=1.0)
    assert answer.finished
    assert set(answer.reasons.values()) == {FinishReason.STOP}
    assert len(answer.tokens[1]) == 4


def test_hidden_sequences_are_silent_until_revealed() -> None:
    ended: list[Branch] = []

    def vote(control: Control, branch: Branch, reason: FinishReason) -> None:
        ended.append(branch)
        if not control.live:
            control.reveal(min(ended, key=lambda other: other.generated), 0)

    answer = run(strategy(on_end=vote, width=3, streams=False), temperature=1.0)
    alone = solo(generate("b", PROMPT, candidates=3, temperature=1.0))
    assert answer.tokens == {0: min(alone.tokens.values())}
    assert len(answer.outputs) == 1 and answer.outputs[0].request_finished


def test_a_request_without_any_candidate_still_ends() -> None:
    answer = run(strategy(streams=False))
    assert answer.finished and answer.tokens == {0: []}


def test_a_sequence_can_be_revealed_while_it_runs() -> None:
    def reveal_late(control: Control, branch: Branch, token: SampledToken, _: object) -> None:
        if branch.generated_count == 4:
            control.reveal(branch, 0)

    answer = run(strategy(reveal_late, streams=False))
    assert answer.tokens == {0: greedy(PROMPT, 8)}
    assert len(answer.outputs) == 5


def test_an_ended_sequence_can_be_forked() -> None:
    def go_on(control: Control, branch: Branch, reason: FinishReason) -> None:
        if branch.ordinal == 0:
            control.fork(branch, candidate=1, replace_last=42)

    third = greedy(PROMPT, 3)[2]
    answer = run(strategy(on_end=go_on), stop_ids=[third], max_new_tokens=8)
    start = greedy(PROMPT, 3)[:2]
    assert answer.tokens[0] == [*start, third]
    assert answer.tokens[1][:3] == [*start, 42]
    assert answer.reasons[0] is FinishReason.STOP


def test_the_temperature_can_change_on_the_way() -> None:
    def cool_down(control: Control, branch: Branch, token: SampledToken, _: object) -> None:
        control.set_temperature(branch, 0.0)

    answer = run(strategy(cool_down), temperature=1.0)
    tokens = answer.tokens[0]
    assert tokens[1:] == greedy([*PROMPT, tokens[0]], 7)
    assert [entry.temperature for output in answer.outputs for entry in output.statistics] == [1.0] + [0.0] * 7


def test_a_branch_tells_its_record() -> None:
    records: list[list[SampledToken]] = []
    run(strategy(on_end=lambda control, branch, reason: records.append(list(branch.record))))
    assert [entry.token_id for entry in records[0]] == greedy(PROMPT, 8)


@pytest.mark.parametrize(
    "misuse",
    [
        lambda control, branch: control.force(branch, []),
        lambda control, branch: control.reveal(branch, 1),
        lambda control, branch: control.fork(branch),
        lambda control, branch: control.fork(branch, keep=2),
        lambda control, branch: control.fork(branch, keep=-1),
        lambda control, branch: control.fork(branch, keep=0, replace_last=3),
    ],
)
def test_misuse_fails_the_request(misuse: Callable[[Control, Branch], None]) -> None:
    answer = run(strategy(lambda control, branch, token, reason: misuse(control, branch), records=False))
    assert answer.failure is not None and answer.failure.kind is FailureKind.INTERNAL


def test_parked_forks_give_up_their_blocks_when_the_first_in_line_needs_them() -> None:
    """One row and four blocks: the first fork needs a block while the second holds all four."""

    def fork_twice(control: Control, branch: Branch, token: SampledToken, _: object) -> None:
        if branch.ordinal == 0 and branch.generated_count in (5, 11):
            control.fork(branch, candidate=1 if branch.generated_count == 5 else 2, replace_last=1)
            if branch.generated_count == 11:
                control.stop(branch)

    driver = Driver(make_core(PagedOracle(4), {"doing": strategy(fork_twice)}, max_sequences=1))
    driver.add(generate("a", PROMPT[:4], strategy="doing", max_new_tokens=12, candidates=3))
    answer = driver.run()["a"]
    first = greedy(PROMPT[:4], 12)
    assert answer.tokens[0] == first[:11]
    assert answer.tokens[1] == [*first[:4], 1, *greedy([*PROMPT[:4], *first[:4], 1], 7)]
    assert answer.tokens[2] == [*first[:10], 1, *greedy([*PROMPT[:4], *first[:10], 1], 1)]


@pytest.mark.parametrize("count", range(1, 9))
def test_forking_a_sibling_that_this_step_computes_spoils_no_cached_block(count: int) -> None:
    """The sibling's last block may be full and findable by the time its fork, which has less of it, writes."""

    def fork_sibling(control: Control, branch: Branch, token: SampledToken, _: object) -> None:
        if branch.ordinal == 0 and branch.generated_count == count + 1:
            sibling = next(other for other in control.live if other.ordinal == 1)
            assert sibling.generated_count == count
            control.fork(sibling, candidate=2, replace_last=77)
        if branch.ordinal == 1 and branch.generated_count == count + 1:
            control.stop(branch)

    strategies = {**STRATEGIES, "doing": strategy(fork_sibling, width=2)}
    driver = Driver(make_core(PagedOracle(64), strategies, max_sequences=2))
    driver.add(generate("a", PROMPT, strategy="doing", temperature=1.0, max_new_tokens=16, candidates=3))
    answer = driver.run()["a"]
    alone = solo(generate("b", PROMPT, temperature=1.0, candidates=2, max_new_tokens=16)).tokens
    assert answer.tokens[0] == alone[0]
    assert answer.tokens[1] == alone[1][: count + 1]
    assert answer.tokens[2][:count] == [*alone[1][: count - 1], 77]
    for tokens in answer.tokens.values():
        again = generate("c", [*PROMPT, *tokens, 1], max_new_tokens=1)
        driver.add(again)
        assert driver.run()["c"].tokens == solo(again).tokens


def test_tokens_forced_on_a_sibling_replace_the_draw_it_was_waiting_for() -> None:
    def force_sibling(control: Control, branch: Branch, token: SampledToken, _: object) -> None:
        if branch.ordinal == 0 and branch.generated_count == 3:
            sibling = next(other for other in control.live if other.ordinal == 1)
            control.force(sibling, [30, 31])

    answer = run(strategy(force_sibling, width=2), max_new_tokens=8)
    start = [*greedy(PROMPT, 2), 30, 31]
    assert answer.tokens[0] == greedy(PROMPT, 8)
    assert answer.tokens[1] == [*start, *greedy([*PROMPT, *start], 4)]


def test_a_siblings_last_token_is_not_replaced_under_a_running_step() -> None:
    def replace_sibling(control: Control, branch: Branch, token: SampledToken, _: object) -> None:
        if branch.ordinal == 0 and branch.generated_count == 3:
            control.force(control.live[1], [30], replace_last=True)

    answer = run(strategy(replace_sibling, width=2))
    assert answer.failure is not None and answer.failure.kind is FailureKind.INTERNAL


def test_the_registry_names_plain_sampling() -> None:
    request = generate("a", PROMPT, candidates=5)
    assert STRATEGIES[request.strategy](request).width == 5

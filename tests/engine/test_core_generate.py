"""How the core generates: what is computed, what is shared, where sequences end, what is said."""

from __future__ import annotations

from ift_serve.engine.protocol.results import FinishReason
from tests.support.engine_driver import Driver, generate, make_core, solo
from tests.support.paged_oracle import EOS, PagedOracle

PROMPT = [5, 17, 3, 44, 9, 61, 2, 8, 33, 70, 12, 6, 90, 41]


def test_greedy_tokens_are_those_of_the_oracle() -> None:
    oracle = PagedOracle(64)
    driver = Driver(make_core(oracle))
    driver.add(generate("a", PROMPT, max_new_tokens=6))
    answer = driver.run()["a"]
    again = solo(generate("b", PROMPT + answer.tokens[0][:3], max_new_tokens=3))
    assert answer.tokens[0][3:] == again.tokens[0]
    assert answer.reasons == {0: FinishReason.LENGTH}


def test_each_token_is_computed_once_and_the_last_never() -> None:
    oracle = PagedOracle(64)
    driver = Driver(make_core(oracle))
    driver.add(generate("a", PROMPT, max_new_tokens=6))
    driver.run()
    assert oracle.computed_tokens == len(PROMPT) + 6 - 1


def test_a_long_prompt_is_computed_in_chunks_beside_decodes() -> None:
    oracle = PagedOracle(200)
    driver = Driver(make_core(oracle, max_batch_tokens=16))
    driver.add(generate("short", PROMPT[:3], max_new_tokens=20))
    driver.step()
    driver.add(generate("long", [x % 90 for x in range(100)], max_new_tokens=1))
    while not driver.answers["long"].finished:
        before = len(driver.answers["short"].tokens[0])
        driver.step()
        assert len(driver.answers["short"].tokens[0]) == before + 1, "a decode waited for a prompt"
    assert max(oracle.batches) == 16
    assert oracle.batches[1:7] == [16] * 6


def test_a_prompt_seen_before_is_taken_from_the_cache() -> None:
    oracle = PagedOracle(64)
    driver = Driver(make_core(oracle))
    driver.add(generate("a", PROMPT))
    driver.run()
    computed = oracle.computed_tokens
    driver.add(generate("b", PROMPT))
    answers = driver.run()
    assert answers["b"].tokens == answers["a"].tokens
    usage = answers["b"].usage
    assert usage is not None and usage.cached_tokens == 12
    assert oracle.computed_tokens - computed == len(PROMPT) - 12 + 7


def test_of_a_wholly_cached_prompt_the_last_block_is_computed_again() -> None:
    oracle = PagedOracle(64)
    driver = Driver(make_core(oracle))
    driver.add(generate("a", PROMPT[:12]))
    driver.run()
    driver.add(generate("b", PROMPT[:12]))
    answers = driver.run()
    usage = answers["b"].usage
    assert usage is not None and usage.cached_tokens == 8
    assert answers["b"].tokens == answers["a"].tokens


def test_generated_tokens_can_be_a_later_prompts_prefix() -> None:
    driver = Driver(make_core(PagedOracle(64)))
    driver.add(generate("a", PROMPT, max_new_tokens=8))
    first = driver.run()["a"].tokens[0]
    driver.add(generate("b", [*PROMPT, *first, 1, 2, 3]))
    usage = driver.run()["b"].usage
    assert usage is not None and usage.cached_tokens == 20


def test_prompts_that_arrive_together_compute_their_common_prefix_once() -> None:
    oracle = PagedOracle(64)
    driver = Driver(make_core(oracle, max_batch_tokens=64))
    requests = [generate(f"r{i}", [*PROMPT[:12], i], max_new_tokens=1) for i in range(8)]
    driver.add(*requests)
    answers = driver.run()
    assert oracle.computed_tokens == 12 + 8
    assert all(answers[r.request_id].tokens == solo(r).tokens for r in requests)
    assert driver.steps == 2


def test_a_long_common_prefix_is_computed_once_though_it_takes_many_steps() -> None:
    oracle = PagedOracle(200)
    driver = Driver(make_core(oracle, max_batch_tokens=32))
    prefix = [(k * k) % 90 for k in range(100)]
    requests = [generate(f"r{i}", [*prefix, i], max_new_tokens=1) for i in range(6)]
    driver.add(*requests)
    answers = driver.run()
    assert oracle.computed_tokens == 100 + 6
    assert all(answers[r.request_id].tokens == solo(r).tokens for r in requests)


def test_without_prefix_caching_nothing_is_shared_between_requests() -> None:
    oracle = PagedOracle(64)
    driver = Driver(make_core(oracle, prefix_caching=False))
    driver.add(generate("a", PROMPT, max_new_tokens=1), generate("b", PROMPT, max_new_tokens=1))
    driver.run()
    assert oracle.computed_tokens == 2 * len(PROMPT)
    assert driver.core.stats().cached_blocks == 0


def test_candidates_share_their_prompt_and_copy_only_its_partial_block() -> None:
    oracle = PagedOracle(64)
    driver = Driver(make_core(oracle))
    driver.add(generate("a", PROMPT, candidates=4, temperature=1.0, max_new_tokens=5))
    answer = driver.run()["a"]
    assert oracle.computed_tokens == len(PROMPT) - 1 + 4 + 4 * 4
    assert oracle.copies == 3, "the last sharer writes in place"
    assert len({tuple(tokens) for tokens in answer.tokens.values()}) == 4


def test_a_candidates_draws_depend_on_its_index_alone() -> None:
    alone = solo(generate("a", PROMPT, temperature=1.0, seed=11))
    four = solo(generate("b", PROMPT, temperature=1.0, seed=11, candidates=4))
    assert four.tokens[0] == alone.tokens[0]
    other = solo(generate("c", PROMPT, temperature=1.0, seed=12, candidates=4))
    assert all(four.tokens[i] != other.tokens[i] for i in range(4))


def test_more_candidates_than_rows_take_turns() -> None:
    driver = Driver(make_core(PagedOracle(64), max_sequences=2))
    request = generate("a", PROMPT, candidates=7, temperature=1.0, max_new_tokens=4)
    driver.add(request)
    assert driver.run()["a"].tokens == solo(request).tokens


def test_candidates_of_a_one_token_prompt() -> None:
    driver = Driver(make_core(PagedOracle(64)))
    request = generate("a", [5], candidates=3, temperature=1.0, max_new_tokens=4)
    driver.add(request)
    assert driver.run()["a"].tokens == solo(request).tokens


def test_the_end_of_sequence_token_ends_and_is_included() -> None:
    request = generate("a", PROMPT, max_new_tokens=400, temperature=1.0, ignore_eos=False)
    answer = solo(request)
    assert answer.reasons == {0: FinishReason.EOS}
    assert answer.tokens[0].index(EOS) == len(answer.tokens[0]) - 1


def test_the_end_of_sequence_token_is_one_like_others_when_ignored() -> None:
    answer = solo(generate("a", PROMPT, max_new_tokens=400, temperature=1.0, ignore_eos=True))
    assert answer.reasons == {0: FinishReason.LENGTH}
    assert EOS in answer.tokens[0] and len(answer.tokens[0]) == 400


def test_a_stop_id_ends_even_when_eos_is_ignored() -> None:
    free = solo(generate("a", PROMPT, temperature=1.0)).tokens[0]
    stopped = solo(generate("b", PROMPT, temperature=1.0, stop_ids=[free[4]]))
    assert stopped.tokens[0] == free[:5]
    assert stopped.reasons == {0: FinishReason.STOP}


def test_generation_ends_where_the_context_does() -> None:
    driver = Driver(make_core(PagedOracle(64, context_length=20)))
    driver.add(generate("a", PROMPT, max_new_tokens=400))
    answer = driver.run()["a"]
    assert len(PROMPT) + len(answer.tokens[0]) == 20
    assert answer.reasons == {0: FinishReason.LENGTH}


def test_usage_comes_with_the_first_and_the_last_output() -> None:
    answer = solo(generate("a", PROMPT, candidates=2, temperature=1.0))
    outputs = answer.outputs
    assert outputs[0].usage is not None and outputs[0].usage.prompt_tokens == len(PROMPT)
    assert outputs[-1].usage is not None and outputs[-1].request_finished
    assert all(output.usage is None for output in outputs[1:-1])


def test_alternatives_come_with_every_token_when_asked_for() -> None:
    answer = solo(generate("a", PROMPT, top_logprobs=3))
    assert all(len(output.top_log_probs) == len(output.token_ids) for output in answer.outputs)
    assert all(len(top) == 3 for output in answer.outputs for top in output.top_log_probs)


def test_load_counts_what_was_done() -> None:
    driver = Driver(make_core(PagedOracle(64)))
    driver.add(generate("a", PROMPT), generate("b", PROMPT))
    driver.step()
    assert driver.core.stats().running + driver.core.stats().waiting == 2
    driver.run()
    load = driver.core.stats()
    assert (load.prompt_tokens, load.cached_tokens, load.generated_tokens) == (28, 12, 16)
    assert load.free_blocks + load.cached_blocks == load.total_blocks == 64

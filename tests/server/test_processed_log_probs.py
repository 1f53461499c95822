"""Log-probabilities in the distribution that tokens are drawn from, over the wire."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator

import numpy as np
import pytest
import pytest_asyncio

from ift_serve.client import AsyncClient, Branch, Generation, Trace
from ift_serve.engine.config import EngineConfig
from ift_serve.engines.thread import local_engine
from ift_serve.server.app import Server
from ift_serve.server.config import ServerConfig
from tests.support.models import tiny_llama

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AsyncClient]:
    directory = tiny_llama(tmp_path_factory.mktemp("processed"), markers=("<think>", "</think>"))
    engine = EngineConfig(model=str(directory), dtype="float32", total_blocks=64, threads=1)
    server = Server(ServerConfig(engine=engine, port=0, metrics_port=None), local_engine(engine))
    await server.start()
    async with AsyncClient(f"127.0.0.1:{server.port}", timeout=60) as asking:
        yield asking
    await server.stop()


async def _asked(client: AsyncClient, **options: object) -> Generation:
    """The answer, which is the same whole and streamed."""
    options = {"seed": 3, "max_new_tokens": 8, "ignore_eos": True, "processed_log_probs": True, **options}
    whole = await client.generate("hi", **options)  # type: ignore[arg-type]
    streamed = await client.stream("hi", **options).result()  # type: ignore[arg-type]
    assert streamed.candidates == whole.candidates
    return whole


@pytest.mark.parametrize("temperature", [0.4, 1.7])
async def test_case_28_processed_ones_are_the_raw_ones_tempered_cut_and_renormalised(
    client: AsyncClient, temperature: float
) -> None:
    found = await _asked(client, temperature=temperature, top_k=6, top_alternatives=20, n=2)
    for candidate in found.candidates:
        assert len(candidate.tokens) == 8
        for token in candidate.tokens:
            raw = np.array([one.log_prob for one in token.alternatives])
            weights = np.where(raw >= raw[5], np.exp(raw / temperature - raw[0] / temperature), 0.0)
            processed = np.exp(np.array([one.processed_log_prob for one in token.alternatives], dtype=np.float64))
            np.testing.assert_allclose(processed, weights / weights.sum(), rtol=1e-4, atol=1e-7)
            (own,) = [one for one in token.alternatives if one.token_id == token.token_id]
            assert own.processed_log_prob == token.processed_log_prob and own.log_prob == token.log_prob


async def test_case_28_raw_ones_do_not_change_with_the_temperature(client: AsyncClient) -> None:
    cold, warm = [
        (await _asked(client, temperature=temperature, top_alternatives=5, max_new_tokens=1)).candidates[0].tokens[0]
        for temperature in (0.3, 2.0)
    ]
    assert [(one.token_id, one.log_prob) for one in cold.alternatives] == [
        (one.token_id, one.log_prob) for one in warm.alternatives
    ]
    assert cold.alternatives[0].processed_log_prob != warm.alternatives[0].processed_log_prob


async def test_biases_and_penalties_are_in_them(client: AsyncClient) -> None:
    plain = (await _asked(client, temperature=1.0, top_alternatives=3)).candidates[0].tokens[0]
    forbidden, other = (one.token_id for one in plain.alternatives[:2])
    biased = await _asked(client, temperature=1.0, top_alternatives=3, logit_bias={forbidden: -100.0, other: 5.0})
    first, second, _ = biased.candidates[0].tokens[0].alternatives
    assert first.log_prob == plain.alternatives[0].log_prob
    left = math.log(1 - math.exp(first.log_prob) + math.exp(second.log_prob) * math.expm1(5))
    assert first.processed_log_prob == pytest.approx(first.log_prob - 100 - left, abs=1e-4)
    assert second.processed_log_prob == pytest.approx(second.log_prob + 5 - left, abs=1e-4)


async def test_a_greedy_token_is_certain_and_nothing_is_said_where_nothing_is_asked(client: AsyncClient) -> None:
    greedy = await _asked(client, temperature=0.0, top_alternatives=2)
    for token in greedy.candidates[0].tokens:
        assert token.processed_log_prob == 0.0
        assert [one.processed_log_prob for one in token.alternatives] == [0.0, -math.inf]
    silent = await _asked(client, temperature=0.0, top_alternatives=2, processed_log_probs=False)
    for token in silent.candidates[0].tokens:
        assert token.processed_log_prob is None
        assert all(one.processed_log_prob is None for one in token.alternatives)


async def test_forced_tokens_have_none_and_masks_of_a_minimum_are_in_them(client: AsyncClient) -> None:
    found = await _asked(client, reasoning=Trace(budget=6, minimum=3), temperature=1.0, max_new_tokens=3)
    for token in found.candidates[0].tokens:
        assert (token.processed_log_prob is None) == token.forced
    thought = [token for token in found.candidates[0].tokens if token.channel == "reasoning"]
    assert len(thought) >= 3
    for place, token in enumerate(thought):
        assert token.processed_log_prob is not None
        assert token.processed_log_prob >= token.log_prob - 1e-5
        assert (token.processed_log_prob > token.log_prob + 1e-5) == (place < 3)


async def test_branches_tell_that_their_first_tokens_were_not_drawn(client: AsyncClient) -> None:
    found = await _asked(client, reasoning=Branch(width=4), top_alternatives=4)
    first, *rest = found.candidates[0].tokens
    own = next(one for one in first.alternatives if one.token_id == first.token_id)
    assert first.processed_log_prob == own.processed_log_prob == (0.0 if own is first.alternatives[0] else -math.inf)
    assert all(token.processed_log_prob == 0.0 for token in rest)

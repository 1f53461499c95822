"""A whole engine around a small real model: its answers depend on nothing but the request."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from ift_serve.engine.build import build_core
from ift_serve.engine.config import EngineConfig
from ift_serve.engine.protocol.generate import GenerateRequest
from ift_serve.engine.protocol.score import ScoreRequest
from ift_serve.engines.process import engine_process
from tests.support.architectures import build
from tests.support.engine_driver import Answer, Driver, generate


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("llama", tmp_path_factory.mktemp("llama"))


def make_requests() -> list[GenerateRequest | ScoreRequest]:
    draw = random.Random(3)
    prefix = [draw.randrange(3, 160) for _ in range(40)]
    requests: list[GenerateRequest | ScoreRequest] = []
    for index in range(24):
        prompt = prefix[: draw.choice([0, 16, 40])] + draw.choices(range(3, 160), k=draw.randint(1, 40))
        name = f"r{index}"
        if index % 4 == 3:
            continuations = [draw.choices(range(3, 160), k=draw.randint(1, 20)) for _ in range(4)]
            requests.append(ScoreRequest(request_id=name, token_ids=prompt, continuations=continuations))
            continue
        requests.append(
            generate(
                name,
                prompt,
                candidates=draw.choice([1, 1, 3]),
                temperature=draw.choice([0.0, 1.0]),
                max_new_tokens=draw.randint(1, 40),
                priority=draw.randrange(2),
                seed=index,
            )
        )
    return requests


def agree(one: Answer, other: Answer) -> bool:
    if one.score is not None and other.score is not None:
        pairs = zip(one.score.scores, other.score.scores, strict=True)
        return all(a.token_log_probs == pytest.approx(b.token_log_probs, abs=1e-3) for a, b in pairs)
    return one.tokens == other.tokens and one.reasons == other.reasons


def test_company_cache_and_preemption_change_no_answer(model: Path) -> None:
    crowded, _ = build_core(EngineConfig(model=str(model), total_blocks=16, max_batch_tokens=48, max_sequences=8))
    alone, _ = build_core(EngineConfig(model=str(model), total_blocks=64, prefix_caching=False))
    driver, reference = Driver(crowded), Driver(alone)
    requests = make_requests()
    driver.add(*requests)
    answers = driver.run()
    load = crowded.stats()
    assert load.preemptions > 0 and load.cached_tokens > 0
    for request in requests:
        reference.add(request)
        assert agree(answers[request.request_id], reference.run()[request.request_id]), request


async def test_the_engine_process_serves_the_model(model: Path) -> None:
    core, _ = build_core(EngineConfig(model=str(model), total_blocks=64))
    driver = Driver(core)
    request = generate("a", [5, 6, 7], candidates=2, temperature=1.0, max_new_tokens=12)
    driver.add(request)
    async with engine_process(EngineConfig(model=str(model), total_blocks=64)) as client:
        tokens: dict[int, list[int]] = {}
        async for output in client.generate(request):
            tokens.setdefault(output.candidate, []).extend(output.token_ids)
        assert client.model.vocabulary_size == 160
    assert tokens == driver.run()["a"].tokens

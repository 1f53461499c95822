"""Evaluations that a server runs of itself for its callers."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ift_serve.client import AsyncClient, EvaluationProgress, EvaluationReport, ServerError
from ift_serve.evaluation.reporting.document import document
from ift_serve.evaluation.run import Plan, evaluate
from ift_serve.evaluation.serving.decoding_settings import DecodingSettings
from ift_serve.evaluation.serving.result_store import ResultStore
from ift_serve.evaluation.tasks.adherence import Adherence
from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.server.config import ServerConfig
from tests.support.adapters import EVERYTHING, write_random
from tests.support.serving import serving

Make = Callable[..., ServerConfig]
_SHORT = {"max_new_tokens": 8}


async def _events(client: AsyncClient, *args: Any, **given: Any) -> tuple[list[EvaluationProgress], dict[str, Any]]:
    *progress, report = [event async for event in client.evaluate(*args, **given)]
    assert isinstance(report, EvaluationReport)
    return [event for event in progress if isinstance(event, EvaluationProgress)], report.found


async def test_a_run_on_the_server_says_what_the_command_says(
    server_config: Make, metadata: BaseMetadata, root: Path
) -> None:
    write_random(root / "mine", metadata, EVERYTHING, seed=2)
    async with serving(server_config(adapters={"mine": root / "mine"})) as (_, client):
        progress, found = await _events(
            client,
            ["adherence"],
            adapters=["base", "mine"],
            limit=12,
            repeats=2,
            decoding=_SHORT | {"temperature": 0.5},
        )
        settings = DecodingSettings.read({"temperature": 0.5} | _SHORT)
        plan = Plan([Adherence()], ["base", "mine"], settings, repeats=2, limit=12)
        with ResultStore() as store:
            asked = document(await evaluate(client, plan, store), plan)
    for name in ("models", "scores", "comparisons", "family_comparisons", "server", "settings"):
        assert found[name] == json.loads(json.dumps(asked[name])), name
    answers = [[(row["model"], row["key"], row["answer"]) for row in one["rows"]] for one in (found, asked)]
    assert answers[0] == answers[1] and len(answers[0]) == 48
    assert progress[-1].done == progress[-1].total == 48 and [t.planned for t in progress[-1].tasks] == [24, 24]
    assert all(earlier.done < later.done for earlier, later in itertools.pairwise(progress))


async def test_rows_are_left_out_where_nobody_wants_them(server_config: Make) -> None:
    async with serving(server_config()) as (_, client):
        _, found = await _events(client, ["adherence"], limit=2, decoding=_SHORT, include_rows=False)
    assert "rows" not in found and found["coverage"][0]["answered"] == 2


async def test_a_task_of_a_file_gets_its_content_from_the_caller(server_config: Make) -> None:
    line = {"key": 1, "prompt": "Write.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    async with serving(server_config()) as (_, client):
        _, found = await _events(client, {"ifeval": json.dumps(line)}, decoding=_SHORT)
        with pytest.raises(ServerError, match=r"tasks\[0\]: line:2: is not JSON"):
            await _events(client, {"ifeval": json.dumps(line) + "\n{"})
    assert next(s["family"] for s in found["scores"] if s["level"] == "family") == "punctuation:no_comma"


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"tasks": []}, "tasks"),
        ({"tasks": ["no such task"]}, "tasks[0]"),
        ({"tasks": ["ifeval"]}, "tasks[0]"),
        ({"adapters": ["a"] * 9}, "adapters"),
        ({"decoding": {"temprature": 1}}, "decoding"),
        ({"decoding": {"adapter": "a"}}, "decoding"),
        ({"repeats": 1000}, "limit"),
        ({"concurrency": 257}, "concurrency"),
        ({"request_timeout": 1e9}, "request_timeout"),
        ({"request_timeout": float("nan")}, "request_timeout"),
    ],
)
async def test_what_is_wrong_is_named(server_config: Make, given: dict[str, Any], field: str) -> None:
    async with serving(server_config()) as (_, client):
        with pytest.raises(ServerError) as error:
            await _events(client, **({"tasks": ["adherence"]} | given))
    assert error.value.code == "INVALID_ARGUMENT" and [v.field for v in error.value.violations] == [field]


async def test_an_adapter_that_is_not_there_is_told_before_anything_is_asked(server_config: Make) -> None:
    async with serving(server_config()) as (_, client):
        with pytest.raises(ServerError, match="adapter nobody"):
            await _events(client, ["adherence"], adapters=["nobody"])


async def test_a_cancelled_run_frees_everything(server_config: Make) -> None:
    async with serving(server_config()) as (server, client):
        events = client.evaluate(["adherence"], decoding={"max_new_tokens": 100, "ignore_eos": True})
        async for _ in events:
            break
        with pytest.raises(ServerError, match="RESOURCE_EXHAUSTED"):
            await _events(client, ["adherence"], limit=1)
        await events.aclose()  # type: ignore[attr-defined]
        # The place of a run is free once the one before has ended: the client waits for it, as it is told.
        for _ in range(300):
            freed = server.engine.stats.running == server.engine.stats.waiting == 0
            if freed:
                break
            await asyncio.sleep(0.1)
        assert freed, server.engine.stats
        _, found = await _events(client, ["adherence"], limit=1, decoding=_SHORT)
    assert found["coverage"][0]["answered"] == 1


async def test_runs_take_the_role_admin(server_config: Make, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("generate app app-secret-0123456789\nadmin ops ops-secret-0123456789\n")
    tokens.chmod(0o600)
    async with serving(server_config(tokens_file=tokens)) as (server, _):
        for token, code in (("app-secret-0123456789", "PERMISSION_DENIED"), ("ops-secret-0123456789", "")):
            async with AsyncClient(f"127.0.0.1:{server.port}", token=token) as client:
                assert len(await client.check("yes", [{"type": "upper"}])) == 1
                if code:
                    with pytest.raises(ServerError, match=code):
                        await _events(client, ["adherence"], limit=1)
                else:
                    assert (await _events(client, ["adherence"], limit=1, decoding=_SHORT))[1]["models"] == ["base"]


async def test_other_callers_are_answered_beside_a_run(server_config: Make) -> None:
    async with serving(server_config()) as (_, client):
        await client.check("yes", [{"type": "upper"}])
        events = client.evaluate(["adherence"], decoding={"max_new_tokens": 60, "ignore_eos": True})
        async for event in events:
            assert isinstance(event, EvaluationProgress) and event.done < event.total, "it goes on"
            assert not (await client.check("yes", [{"type": "upper"}]))[0]
            assert (await client.generate("the fox", temperature=0.0, max_new_tokens=2)).text
            break
        await events.aclose()  # type: ignore[attr-defined]


async def test_a_server_that_offers_none_says_so(server_config: Make) -> None:
    from ift_serve.engines.thread import local_engine
    from ift_serve.server.app import Server

    config = server_config()
    server = Server(config, local_engine(config.engine))
    await server.start()
    async with AsyncClient(f"127.0.0.1:{server.port}") as client:
        with pytest.raises(ServerError, match="UNIMPLEMENTED"):
            await _events(client, ["adherence"])
    await server.stop()

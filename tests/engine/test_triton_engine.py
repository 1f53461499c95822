"""The whole engine on the Triton kernels, in the interpreter: the same answers as on the other backends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ift_serve.decoding.registry import STRATEGIES
from ift_serve.engine.config import EngineConfig
from ift_serve.engine.core.core import EngineCore
from ift_serve.engine.protocol.adapter import AdapterReply
from ift_serve.engine.protocol.generate import GenerateRequest, SamplingParams
from ift_serve.engine.protocol.score import ScoreRequest
from ift_serve.engine.runner.compile_monitor import CompileMonitor
from ift_serve.engine.runner.cuda_graphs import bucket_sizes
from ift_serve.engine.runner.model_runner import ModelRunner
from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.modeling.components.config import ComponentsConfig
from tests.support.adapters import MemoryHost, random_weights
from tests.support.engine_driver import Driver
from tests.support.models import tiny_llama
from tests.support.unchecked import unchecked_runner

pytest.importorskip("triton", reason="Triton is there on Linux only")
BIASED = ComponentsConfig(instruction_encoder=16, attention_bias=True)


def _answers(path: Path, backend: Any, *, adapters: bool) -> dict[str, list[int]]:
    """Of three requests of different lengths, each greedy and drawn, more than run at once."""
    config = EngineConfig(
        model=str(path),
        dtype="float32",
        total_blocks=24,
        max_batch_tokens=24,
        max_sequences=4,
        attention_backend=backend,
        prefix_caching=False,
    )
    runner = ModelRunner(config)
    metadata = BaseMetadata.of_directory(path)
    weights = {
        f"a{number}": random_weights(metadata, BIASED, seed=number, rank=number * 3, targets=("q_proj", "down_proj"))
        for number in range(1, 4)
    }
    driver = Driver(EngineCore(runner, config, STRATEGIES, adapter_tensors=MemoryHost(runner.adapters, weights)))
    for name in weights:
        assert isinstance(driver.load(name, name), AdapterReply)
    for number, temperature in product(range(1, 4), (0.0, 0.9)):
        driver.add(
            GenerateRequest(
                request_id=f"{number} at {temperature}",
                token_ids=[(7 * number + i) % 290 + 6 for i in range(9 * number)],
                segment_ids=bytes([0, 1, 1, 1, 2, 2, 1, 0, 0] * number),
                adapter=f"a{number}" if adapters else "",
                sampling=SamplingParams(temperature=temperature, top_p=0.9, seed=5, max_new_tokens=5, ignore_eos=True),
            )
        )
    return {name: answer.tokens[0] for name, answer in driver.run().items() if answer.tokens}


def test_three_adapters_with_biases_answer_as_on_the_reference(tmp_path: Path) -> None:
    path = tiny_llama(tmp_path)
    triton = _answers(path, "triton", adapters=True)
    assert len(triton) == 6 and triton == _answers(path, "reference", adapters=True)
    assert triton == _answers(path, "cpu", adapters=True)
    plain = _answers(path, "cpu", adapters=False)
    assert all(plain[name] != tokens for name, tokens in triton.items()), "the adapters change nothing"


def _log_probs(path: Path, **options: Any) -> list[float]:
    config = EngineConfig(
        model=str(path),
        dtype="float32",
        total_blocks=8,
        max_batch_tokens=16,
        max_sequences=2,
        attention_backend="triton",
        **options,
    )
    driver = Driver(EngineCore(unchecked_runner(config), config, STRATEGIES))
    text = [(11 * i) % 290 + 6 for i in range(21)]
    driver.add(ScoreRequest(request_id="s", token_ids=text[:1], continuations=[text[1:]]))
    score = driver.run()["s"].score
    assert score is not None
    return score.scores[0].token_log_probs


def test_a_float8_cache_changes_little(tmp_path: Path) -> None:
    path = tiny_llama(tmp_path)
    exact, rounded = _log_probs(path), _log_probs(path, cache_dtype="fp8")
    assert exact != rounded
    assert max(abs(a - b) for a, b in zip(exact, rounded, strict=True)) < 0.5


def test_float8_caches_are_refused_where_no_kernel_reads_them(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cache_dtype"):
        ModelRunner(EngineConfig(model=str(tiny_llama(tmp_path)), cache_dtype="fp8", attention_backend="cpu"))


def test_late_compilations_are_logged_as_defects(caplog: pytest.LogCaptureFixture) -> None:
    from triton import knobs

    before = knobs.compilation.listener
    monitor = CompileMonitor()
    monitor.start()
    try:
        source = SimpleNamespace(name="_some_kernel")
        knobs.compilation.listener(src=source, metadata={}, metadata_group={}, times=None, cache_hit=False)
    finally:
        knobs.compilation.listener = before
    assert monitor.late == 1
    assert "defect" in caplog.text and "_some_kernel" in caplog.text


@pytest.mark.parametrize(("largest", "sizes"), [(1, [1]), (3, [1, 2, 3]), (24, [1, 2, 4, 8, 16, 24])])
def test_graphs_have_few_sizes_and_end_with_the_largest(largest: int, sizes: list[int]) -> None:
    assert bucket_sizes(largest) == sizes


def test_no_request_compiles_what_the_warm_up_did_not(tmp_path: Path) -> None:
    path = tiny_llama(tmp_path, context=1024)
    # In a process of its own: in this one the kernels are interpreted.
    environment = {**os.environ, "TRITON_INTERPRET": "0", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.late_compilations", str(path)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["warm_up"] > 15 and found["late"] == []

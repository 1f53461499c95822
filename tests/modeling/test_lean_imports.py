"""An engine's process imports less of transformers than another, and computes the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from transformers import utils

from ift_serve.embedded import model_path

_ASK = """
import json, sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
torch.set_num_threads(1)
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
with torch.inference_mode():
    logits = model(input_ids=torch.arange(3, 19)[None]).logits[0, -1]
ids = AutoTokenizer.from_pretrained(sys.argv[1])("the quick fox").input_ids
found = {"logits": logits.tolist(), "ids": ids, "modules": sorted(sys.modules)}
"""
_SHAPES = """
from ift_serve.modeling.checkpoint.meta_device import meta_device
draws = {
    "normal": lambda: torch.nn.init.normal_(torch.empty(2, 3)), "uniform": lambda: torch.empty(4).uniform_(),
    "linear": lambda: torch.nn.Linear(3, 2).weight, "truncated": lambda: torch.nn.init.trunc_normal_(torch.empty(5)),
}
computed = {
    "embedding": lambda: torch.nn.Embedding(3, 4)(torch.zeros(2, dtype=torch.long)),
    "convolution": lambda: torch.nn.Conv1d(2, 3, 1)(torch.empty(1, 2, 5)),
    "attention": lambda: torch.nn.functional.scaled_dot_product_attention(*[torch.zeros(1, 2, 3, 4)] * 3),
    "fourier": lambda: torch.fft.fft(torch.empty(4)), "counted": lambda: torch.randperm(5),
}
def shapes(of):
    with meta_device():
        return {name: [list(made.shape), made.device.type] for name, make in of.items() for made in (make(),)}
found["drawn"] = shapes(draws)
found["sympy"] = "sympy" in sys.modules
found["computed"] = shapes(computed)
found["random"] = torch.randn(2, generator=torch.Generator().manual_seed(1)).tolist()
"""
_START = """
import json, sys
from ift_serve.engine.build import build_core
from ift_serve.engine.config import EngineConfig
build_core(EngineConfig(model=sys.argv[1]), own_process=True)
found = {"modules": sorted(sys.modules)}
import torch
"""
_COMPILE = """
found["compiled"] = torch.compile(lambda x: x + 1, backend="eager")(torch.ones(2)).tolist()
found["disabled"] = torch.compiler.disable(lambda x: x)(3)
"""


def _told(*parts: str) -> dict[str, Any]:
    program = "".join((*parts, "\nprint(json.dumps(found))"))
    done = subprocess.run(
        [sys.executable, "-c", program, str(model_path())],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def lean() -> dict[str, Any]:
    first = "from ift_serve.modeling.lean_imports import import_lean_transformers; import_lean_transformers()\n"
    return _told(first, _ASK, _SHAPES)


def test_models_and_tokenizers_give_what_they_give_elsewhere(
    lean: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Elsewhere: in this process, which imports all of transformers."""
    assert utils.is_scipy_available.__module__.startswith("transformers")
    threads, names = torch.get_num_threads(), dict[str, Any]()
    monkeypatch.setattr(sys, "argv", ["", str(model_path())])
    try:
        exec(_ASK, names)
    finally:
        torch.set_num_threads(threads)
    usual = names["found"]
    assert lean["logits"] == usual["logits"] and lean["ids"] == usual["ids"]
    assert lean["random"] == torch.randn(2, generator=torch.Generator().manual_seed(1)).tolist()


@pytest.mark.parametrize(
    "unused",
    ["scipy", "sympy", "accelerate", "torch.distributed.tensor", "torch._decomp", "torch._inductor"],
)
def test_what_serving_never_uses_is_not_imported(lean: dict[str, Any], unused: str) -> None:
    assert unused not in lean["modules"]


def test_nothing_is_drawn_for_what_has_no_values(lean: dict[str, Any]) -> None:
    assert lean["drawn"] == {
        "normal": [[2, 3], "meta"], "uniform": [[4], "meta"], "linear": [[2, 3], "meta"], "truncated": [[5], "meta"],
    }  # fmt: skip
    assert not lean["sympy"]


def test_shapes_that_only_torchs_own_python_knows_are_known_once_asked_for(lean: dict[str, Any]) -> None:
    assert lean["computed"] == {
        "embedding": [[2, 4], "meta"], "convolution": [[1, 3, 5], "meta"], "attention": [[1, 2, 3, 4], "meta"],
        "fourier": [[4], "meta"], "counted": [[5], "meta"],
    }  # fmt: skip


@pytest.fixture(scope="module")
def engine() -> dict[str, Any]:
    """Started as one is: by its worker, with the processor's kernels."""
    return _told(_START, _COMPILE)


def test_an_engine_imports_no_library_that_it_never_calls(engine: dict[str, Any]) -> None:
    modules = set(engine["modules"])
    assert "numba" in modules and not modules & {"scipy.linalg", "sympy", "triton", "coverage", "pycparser"}


def test_torch_can_still_compile(engine: dict[str, Any]) -> None:
    """What was postponed is executed in torch's own order: its modules import one another."""
    assert engine["compiled"] == [2.0, 2.0] and engine["disabled"] == 3

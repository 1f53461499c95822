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
    return _told(first, _ASK, _COMPILE)


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


@pytest.mark.parametrize("unused", ["scipy", "accelerate", "torch.distributed.tensor", "torch._inductor"])
def test_what_serving_never_uses_is_not_imported(lean: dict[str, Any], unused: str) -> None:
    assert unused not in lean["modules"]


def test_torch_can_still_compile(lean: dict[str, Any]) -> None:
    assert lean["compiled"] == [2.0, 2.0] and lean["disabled"] == 3

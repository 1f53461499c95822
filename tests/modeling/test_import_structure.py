"""What is kept of transformers' names is what transformers reads from its own files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers.utils import import_utils

import ift_serve.modeling.checkpoint.kept_values as kept_values
import ift_serve.modeling.import_structure as kept

_IMPORT = """
from ift_serve.modeling.import_structure import kept_import_structure
with kept_import_structure():
    import transformers
from transformers import models
from transformers.utils import import_utils
print(import_utils.define_import_structure.__module__, len(models._class_to_module), transformers.LlamaConfig.__name__)
"""


def _run(cache: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "IFT_CACHE_DIR": str(cache)},
    )
    return done.stdout


@pytest.fixture
def models_folder() -> Path:
    return Path(import_utils.__file__).parents[1] / "models"


def test_it_is_what_transformers_reads(models_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IFT_CACHE_DIR", str(tmp_path))
    own = import_utils.define_import_structure.__wrapped__  # transformers itself adds to what its cache returns
    define = kept._kept_or_read(own)
    for attempt in range(2):  # read, then kept
        assert define(models_folder, prefix="models") == own(models_folder, prefix="models"), attempt
        assert define(str(models_folder / "__init__.py")) == own(str(models_folder / "__init__.py")), attempt
        assert len(list((tmp_path / "imports").iterdir())) == 1
    assert define(models_folder / "llama" / "__init__.py") == own(models_folder / "llama" / "__init__.py")


@pytest.mark.parametrize("text", ["", "[", "{}", "[[1, 2]]", "null", '[["torch"], {"a": 5}]'])
def test_a_damaged_file_is_read_anew(
    text: str, models_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IFT_CACHE_DIR", str(tmp_path))
    define = kept._kept_or_read(import_utils.define_import_structure.__wrapped__)
    expected = define(models_folder)
    (file,) = (tmp_path / "imports").iterdir()
    file.write_text(text)
    assert define(models_folder) == expected
    assert json.loads(file.read_text())


def test_where_nothing_can_be_kept_it_is_read(models_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_values, "cache_directory", lambda purpose: None)
    own = import_utils.define_import_structure.__wrapped__
    assert kept._kept_or_read(own)(models_folder) == own(models_folder)


def test_a_process_that_imports_so_has_all_of_transformers(tmp_path: Path) -> None:
    first, second = _run(tmp_path), _run(tmp_path)
    assert first == second
    assert first.split()[0] == kept.__name__
    assert first.split()[2] == "LlamaConfig"

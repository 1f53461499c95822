"""Shared by the commands that train: their packages, their recipes, error messages."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import time
from collections.abc import Iterator
from pathlib import Path

from ift_serve.cli.connect import fail

_NEEDED = ("accelerate", "tensorboard", "matplotlib")
_PATIENCE = 30.0
"""Seconds that a process beside the first waits for its launcher to end it."""


def require_training() -> None:
    """Exit with advice if a package of the extra `train` is missing."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise fail(f"training needs {', '.join(missing)}: pip install 'ift-serve[train]'")


def packaged(path: Path) -> Path:
    """The path itself, or the recipe of that name that comes with the package."""
    if path.exists() or path.suffix or path.parent != Path():
        return path
    import ift_training

    found = Path(ift_training.__file__).parent / "recipes" / f"{path.name}.yaml"
    return found if found.is_file() else path


def quieten_libraries() -> None:
    """No bars and no notes on future versions from transformers between our own lines."""
    import warnings

    from transformers.utils import logging

    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    # A low-rank change of a head that shares its weight with the embeddings is served as it was trained.
    warnings.filterwarnings("ignore", message="Model has `tie_word_embeddings=True` and a tied layer", module="peft")


@contextlib.contextmanager
def readable_training_errors() -> Iterator[None]:
    """Show what the recipe or the data were unhappy about, without a traceback; of several processes once."""
    from safetensors import SafetensorError

    from ift_serve.modeling.adapter_format.errors import AdapterError
    from ift_training.data.encode import EncodingError, TemplateError
    from ift_training.data.records import RecordError
    from ift_training.data.sources import SourceError
    from ift_training.recipe import RecipeError

    try:
        yield
    except (RecipeError, SourceError, TemplateError, EncodingError, RecordError, AdapterError) as error:
        # Every process finds the same. The first one says it and ends, and the launcher then ends the others.
        if os.environ.get("RANK", "0") != "0":
            time.sleep(_PATIENCE)
        raise fail(str(error)) from None
    except (OSError, SafetensorError) as error:  # a disk that is full, a place that may not be written to
        raise fail(str(error)) from None

"""Data sets of the hub, by name."""

from __future__ import annotations

import re
from pathlib import Path

from ift_training.data.sources.base import SourceError
from ift_training.data.sources.detect import SUFFIXES

_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def looks_like_name(text: str) -> bool:
    """Whether a text could be a data set's name, as in ``owner/name``."""
    return _NAME.fullmatch(text) is not None


def hub_directory(name: str) -> Path:
    """The files of a data set that hold records, downloaded where they are not in the cache. Raises SourceError.

    Programs that some data sets bring are never run.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

    wanted = [f"*{suffix}{end}" for suffix in SUFFIXES for end in ("", ".gz")]
    try:
        return Path(snapshot_download(name, repo_type="dataset", allow_patterns=wanted))
    except (RepositoryNotFoundError, HFValidationError):
        raise SourceError(f"{name}: there is no such file, and the hub has no such data set") from None
    except (LocalEntryNotFoundError, OSError) as error:
        raise SourceError(
            f"{name}: there is no such file, and the data set is neither in the hub's cache nor can it be downloaded: "
            f"{str(error).splitlines()[0] if str(error) else type(error).__name__}"
        ) from None

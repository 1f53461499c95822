"""Location of a base model: a directory, or a hub id in the local cache."""

from __future__ import annotations

from pathlib import Path


class NoModelError(ValueError):
    """Nothing lies where a base model is named; the message says what to do."""


def base_directory(name: str) -> Path:
    """The directory of a base model. Nothing is downloaded: a hub id is looked up in the local cache.

    Raises NoModelError.
    """
    if name and Path(name).is_dir():
        return Path(name)
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        found = Path(snapshot_download(name, local_files_only=True))
    except HFValidationError:
        raise NoModelError(f"{name}: there is no such directory, and it is no hub id") from None
    except LocalEntryNotFoundError:
        found = None
    if found is None or not (found / "config.json").is_file():
        raise NoModelError(
            f"{name}: there is no such directory, and the hub's cache ({constants.HF_HUB_CACHE}) holds no model of "
            f"that id; download it first (hf download {name}), or name a directory"
        )
    return found

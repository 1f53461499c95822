"""A GGUF file as a model directory: configuration, tokenizer and template are written out, the weights stay in it.

``python -m ift_serve.modeling.checkpoint.gguf_directory FILE DIRECTORY`` writes one, in a process of its own, since it
takes transformers and torch, which the server's process does without.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from ift_kernels.cache_directory import cache_directory
from ift_serve.modeling.checkpoint.files import ModelFilesError, plain_cause
from ift_serve.modeling.checkpoint.gguf_file import GGUF_WEIGHTS, is_gguf
from ift_serve.modeling.checkpoint.gguf_header import GgufHeaderError, check_gguf_header
from ift_serve.modeling.lean_imports import import_lean_transformers

_SCHEME = 1
_LINES = 3


def gguf_directory(file: Path) -> Path:
    """The directory that stands for a GGUF file, written where it is not there yet.

    It is kept in the cache by the file's path, size and times. Raises ModelFilesError.
    """
    if not is_gguf(file):
        raise ModelFilesError(f"{file.name} is not a GGUF file; download it again")
    try:
        check_gguf_header(file)
    except (OSError, GgufHeaderError) as error:
        raise ModelFilesError(f"{file.name} cannot be read: {error}; download it again") from error
    status = file.stat()
    key = repr((_SCHEME, str(file.resolve()), status.st_size, status.st_ino, status.st_mtime_ns)).encode()
    place = cache_directory("gguf") or Path(tempfile.mkdtemp(prefix="ift-serve-gguf-"))
    kept = place / f"{file.stem}-{hashlib.sha256(key).hexdigest()[:16]}"
    if not (kept / "config.json").is_file():
        with tempfile.TemporaryDirectory(dir=place, prefix=".") as scratch:
            _write_apart(file, Path(scratch) / "model")
            try:
                os.replace(Path(scratch) / "model", kept)
            except OSError as error:
                if not (kept / "config.json").is_file():  # another start has written it meanwhile
                    raise ModelFilesError(f"{kept} cannot be written: {error.strerror}") from error
    return kept


def _write_apart(file: Path, target: Path) -> None:
    command = [sys.executable, "-m", "ift_serve.modeling.checkpoint.gguf_directory", str(file.resolve()), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        told = " ".join(done.stderr.strip().splitlines()[-_LINES:])
        raise ModelFilesError(f"{file.name} cannot be read: {plain_cause(ValueError(told))}")


def write(file: Path, target: Path) -> None:
    """Write ``target``, a new directory, with all of a GGUF file but its weights, to which it links."""
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder, name = str(file.parent), file.name
    config = AutoConfig.from_pretrained(folder, gguf_file=name, trust_remote_code=False)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name, trust_remote_code=False)
    target.mkdir()
    (target / GGUF_WEIGHTS).symlink_to(file)
    tokenizer.save_pretrained(target)
    GenerationConfig.from_model_config(config).save_pretrained(target)
    config.save_pretrained(target)  # last: a directory with it is whole


def main() -> None:
    """The command of the module."""
    import_lean_transformers()
    try:
        write(Path(sys.argv[1]), Path(sys.argv[2]))
    except Exception as error:  # whatever a library does with a file that it does not expect
        raise SystemExit(f"{type(error).__name__}: {error}") from error


if __name__ == "__main__":
    main()

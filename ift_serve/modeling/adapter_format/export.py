"""Writes a model with an adapter merged into it: a directory that transformers and this server load, or a GGUF file."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.modeling.adapter_format.errors import AdapterError
from ift_serve.modeling.adapter_format.merge import merge_into
from ift_serve.modeling.adapter_format.reader import read_adapter
from ift_serve.modeling.adapter_format.weights import AdapterWeights
from ift_serve.modeling.gguf_export.writer import GgufFile, check_gguf_installed

_COPIED = (
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "*.model",
    "*.tiktoken",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
)
"""Files of the base that the merged model keeps; the weights and configurations are written anew."""
_SPARE = 1 << 26
GGUF_NAME = "model.gguf"
Format = Literal["safetensors", "gguf"]
Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class MergedModel:
    """What was written: ``output``, its weights' ``bytes``, the ``modules`` changed, the ``components`` left out.

    notes: where readers of the format do otherwise than transformers.
    """

    output: str
    bytes: int
    modules: int
    components: list[str]
    notes: list[str]


def export_merged(
    adapter: Path,
    base: Path,
    output: Path,
    *,
    file_format: Format = "safetensors",
    drop_components: bool = False,
    overwrite: bool = False,
    report: Report | None = None,
) -> MergedModel:
    """Merge an adapter directory into its base and write the model; ``output`` appears complete or not at all.

    report: called with each stage and each merged module. Raises AdapterError for what does not fit or cannot be
    merged, GgufError for what GGUF cannot say exactly, FileExistsError for an output that may not be replaced, OSError
    for a disk that has no room.
    """
    say = report or (lambda text: None)
    if file_format == "gguf":
        check_gguf_installed()
    _check_output(output, base, adapter, overwrite=overwrite)
    say("checking the adapter")
    weights = read_adapter(adapter, BaseMetadata.of_directory(base))
    weights.check_served()
    _check_components(weights, drop=drop_components)
    say("loading the base model")
    model = _load(base)
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    _check_room(output, size + _size_of_copies(base))
    template = weights.config.template if weights.config is not None else ""
    gguf = _as_gguf(model, base, template) if file_format == "gguf" else None
    merge_into(model, weights, lambda path: say(f"merging {path}"))
    say(f"writing {size / 2**20:,.0f} MiB")
    with _complete_or_not(output) as scratch:
        if gguf is not None:
            gguf.write(scratch / GGUF_NAME, output.name)
        else:
            _write_directory(model, template, base, scratch)
    return MergedModel(str(output), size, len(weights.lora), list(weights.components.names), gguf.notes if gguf else [])


def _check_output(output: Path, base: Path, adapter: Path, *, overwrite: bool) -> None:
    place = output.resolve()
    for name, other in (("base", base.resolve()), ("adapter", adapter.resolve())):
        if place == other or place in other.parents or other in place.parents:
            raise FileExistsError(f"{output}: is or holds the {name}, or lies in it; name another directory")
    if output.exists() and not output.is_dir():
        raise FileExistsError(f"{output}: is a file; name a directory")
    if output.exists() and any(output.iterdir()):
        if not overwrite:
            raise FileExistsError(f"{output}: is not empty; name a new directory, or replace it with --overwrite")
        if not any((output / name).is_file() for name in ("config.json", GGUF_NAME)):
            raise FileExistsError(f"{output}: holds no model, so it is not replaced; name a new directory")


def _check_components(weights: AdapterWeights, *, drop: bool) -> None:
    if weights.components.names and not drop:
        raise AdapterError(
            f"components: {', '.join(weights.components.names)} depend on the instruction and cannot be merged into "
            "weights; serve the adapter as it is, or leave them out with --drop-components: the model then answers "
            "without what they learned"
        )
    if not (weights.lora or weights.replaced or weights.token_rows):
        raise AdapterError("nothing to merge: the adapter has components only")


def _load(base: Path) -> Any:
    from transformers import AutoModelForCausalLM

    from ift_serve.modeling.checkpoint.construction import model_construction

    with model_construction:
        model = AutoModelForCausalLM.from_pretrained(
            str(base), dtype="auto", local_files_only=True, trust_remote_code=False
        )
    if getattr(model.config, "quantization_config", None) is not None:
        raise AdapterError("the base model is quantised; merge into the model that it was made from")
    return model


def _copies(base: Path) -> list[Path]:
    return sorted({path for pattern in _COPIED for path in base.glob(pattern) if path.is_file()})


def _size_of_copies(base: Path) -> int:
    return sum(path.stat().st_size for path in _copies(base))


def _check_room(output: Path, size: int) -> None:
    above = next(path for path in output.absolute().parents if path.exists())
    free = shutil.disk_usage(above).free
    if free < size + _SPARE:
        raise OSError(f"{above}: has {free / 2**20:,.0f} MiB free, and the model takes {size / 2**20:,.0f} MiB")


def _as_gguf(model: Any, base: Path, template: str) -> GgufFile:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(base), local_files_only=True, trust_remote_code=False)
    return GgufFile(model, tokenizer, template or tokenizer.chat_template)


@contextmanager
def _complete_or_not(output: Path) -> Iterator[Path]:
    """A directory beside the output that takes its place at the end, or is gone after an error."""
    output.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        yield scratch
        for path in scratch.iterdir():
            path.chmod(0o644)
        scratch.chmod(0o755)
        _replace(scratch, output)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _write_directory(model: Any, template: str, base: Path, output: Path) -> None:
    model.save_pretrained(output)
    for path in _copies(base):
        shutil.copyfile(path, output / path.name)
    if template:
        (output / "chat_template.jinja").write_text(template, encoding="utf-8")


def _replace(scratch: Path, output: Path) -> None:
    """Put the new directory in the old one's place; should that fail, the old one comes back."""
    if not output.exists():
        scratch.rename(output)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{output.name}.old.", dir=output.parent))
    old.rmdir()
    output.rename(old)
    try:
        scratch.rename(output)
    except OSError:
        old.rename(output)
        raise
    shutil.rmtree(old, ignore_errors=True)

"""What lies in a model directory, looked at before anything of it is loaded.

transformers says much of this too, but at length, late, or with the advice to run code that comes with a model.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ift_serve.modeling.checkpoint.gguf_file import GGUF_WEIGHTS, is_gguf

_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_POINTER = b"version https://git-lfs"
_INDEX = "model.safetensors.index.json"
_AGAIN = "download it again"
_OWN_CODE = "choose a model whose class is part of transformers, or a version of it in transformers' own format"
ONE_MODEL = "config.json and the weights must be of one model"
_MOST_NAMED = 3
_LONGEST_HEADER = 100_000_000
_LONGEST_CAUSE = 200
_LONGEST_NAME = 255
_DAMAGED = (ValueError, KeyError, TypeError, AttributeError, IndexError)
_UNSAFE = ("trust_remote_code", "weights_only", "custom code")


class ModelFilesError(Exception):
    """A model directory that cannot be loaded; the message says what is wrong and what to do."""


def check_model_files(path: str) -> None:
    """Raise ModelFilesError for a directory that holds no whole model. Hub ids are left to the hub."""
    directory = Path(path)
    if directory.is_file():
        raise ModelFilesError(
            "this is a file and no GGUF; name the directory that holds config.json and the weights, or a .gguf file"
        )
    if not directory.is_dir():
        if os.path.isabs(path) or path.startswith((".", "~")) or path.count("/") > 1:
            raise ModelFilesError(f"there is no directory {path}")
        return
    fields = _config(directory)
    _check_class(fields)
    if os.path.lexists(packed := directory / GGUF_WEIGHTS):
        if not is_gguf(packed):
            raise ModelFilesError(f"{GGUF_WEIGHTS} is not a GGUF file, or the file that it stands for is gone")
        return
    for file in _weight_files(directory, fields):
        _check_safetensors(file)


def plain_cause(error: BaseException) -> str:
    """A library's error in one line, without its advice to run or unpickle what comes with a model."""
    text = " ".join(str(error).split())
    if any(word in text for word in _UNSAFE):
        return f"it comes with code of its own, which is never run; {_OWN_CODE}"
    if "mismatched_sizes" in text:
        return f"the weights have other shapes than config.json says; {ONE_MODEL}"
    shown = text if len(text) <= _LONGEST_CAUSE else f"{text[:_LONGEST_CAUSE]}..."
    return shown or type(error).__name__


def _config(directory: Path) -> dict[str, Any]:
    file = directory / "config.json"
    if not any(directory.iterdir()):
        raise ModelFilesError("the directory is empty; it must hold config.json, *.safetensors and a tokenizer")
    if not file.is_file():
        if (directory / "adapter_config.json").is_file():
            raise ModelFilesError("this is an adapter and no model; serve its base model and load the adapter into it")
        if list(directory.glob("*.gguf")):
            raise ModelFilesError("this is a GGUF file's directory; name the .gguf file itself")
        raise ModelFilesError("the directory has no config.json; name one that save_pretrained or a hub download made")
    try:
        content = file.read_bytes()
        fields = json.loads(content)
    except OSError as error:
        raise ModelFilesError(f"config.json cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ModelFilesError(f"config.json is {_not_json(content)}; {_AGAIN}") from error
    if not isinstance(fields, dict):
        raise ModelFilesError(f"config.json holds no JSON object; {_AGAIN}")
    return fields


def _not_json(content: bytes) -> str:
    if content.startswith(_POINTER):
        return "a Git LFS pointer and not the file itself"
    return "empty" if not content.strip() else "not JSON, or cut off"


def _check_class(fields: dict[str, Any]) -> None:
    """transformers must have the model's class itself: code that comes with a model is never run."""
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    kind = fields.get("model_type")
    own_code = fields.get("auto_map") or {}
    if not isinstance(kind, str) or not kind:
        raise ModelFilesError("config.json has no model_type; name a directory in transformers' format")
    if kind not in CONFIG_MAPPING_NAMES:
        if own_code:
            raise ModelFilesError(f"{kind} models come with code of their own, which is never run; {_OWN_CODE}")
        raise ModelFilesError(
            f"transformers {transformers.__version__} knows no model type {kind!r}; "
            "upgrade transformers, or choose a model that it knows"
        )
    named = fields.get("architectures") or []
    if not isinstance(named, list) or not isinstance(own_code, dict):
        raise ModelFilesError(f"config.json: architectures must be a list and auto_map an object; {_AGAIN}")
    unknown = [str(name) for name in named if not hasattr(transformers, str(name))]
    if "AutoModelForCausalLM" in own_code and unknown:
        raise ModelFilesError(f"{unknown[0]} is code that comes with the model, which is never run; {_OWN_CODE}")


def _weight_files(directory: Path, fields: dict[str, Any]) -> list[Path]:
    named = fields.get("transformers_weights") or "model.safetensors"
    if not isinstance(named, str) or not _is_beside(named):
        raise ModelFilesError(f"config.json names {str(named)[:_LONGEST_NAME]!r} as weights, not a file beside it")
    whole = directory / named
    index = whole if whole.name.endswith(".index.json") else directory / _INDEX
    if whole.is_file() and whole != index:
        return [whole]
    if index.is_file():
        return _shards(index)
    pickled = sorted(file.name for pattern in _PICKLED for file in directory.glob(pattern))
    if pickled:
        raise ModelFilesError(
            f"its weights are pickled ({pickled[0]}), and pickled weights are never read; where you trust their maker, "
            "convert them once with transformers (from_pretrained, then save_pretrained) and serve what that writes"
        )
    others = sorted(file.name for file in directory.glob("*.safetensors"))
    if others:
        raise ModelFilesError(f"there is no {whole.name} and no {_INDEX} to say what {others[0]} is; {_AGAIN}")
    raise ModelFilesError(f"the directory has no weights: neither {whole.name} nor {_INDEX}; {_AGAIN}")


def _is_beside(name: str) -> bool:
    """Whether a name from a file can only be of a file in the same directory."""
    return 0 < len(name.encode(errors="replace")) <= _LONGEST_NAME and name.isprintable() and Path(name).name == name


def _shards(index: Path) -> list[Path]:
    try:
        content = index.read_bytes()
        names = sorted({str(name) for name in json.loads(content)["weight_map"].values()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelFilesError(f"{index.name} does not say which files hold the weights; {_AGAIN}") from error
    outside = [name for name in names if not _is_beside(name)]
    if outside:
        raise ModelFilesError(f"{index.name} names {outside[0][:_LONGEST_NAME]!r}, which is not beside it; {_AGAIN}")
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        shown = ", ".join(missing[:_MOST_NAMED]) + (", ..." if len(missing) > _MOST_NAMED else "")
        raise ModelFilesError(f"{len(missing)} of {len(names)} weight files are missing ({shown}); download them")
    return [index.parent / name for name in names]


def _check_safetensors(file: Path) -> None:
    try:
        size = file.stat().st_size
        with file.open("rb") as opened:
            start = opened.read(max(8, len(_POINTER)))
            opened.seek(8)
            length = int.from_bytes(start[:8], "little")
            if start.startswith(_POINTER):
                raise ModelFilesError(f"{file.name} is a Git LFS pointer and not the file itself; run git lfs pull")
            if size < 8 or 8 + length > size or length > _LONGEST_HEADER:
                raise ModelFilesError(f"{file.name} is not a safetensors file, or cut off ({size:,} bytes); {_AGAIN}")
            header = json.loads(opened.read(length))
            ends = [int(entry["data_offsets"][1]) for name, entry in header.items() if name != "__metadata__"]
    except OSError as error:
        raise ModelFilesError(f"{file.name} cannot be read: {error.strerror}") from error
    except (*_DAMAGED, RecursionError, OverflowError, MemoryError) as error:
        raise ModelFilesError(f"{file.name} is not a safetensors file; {_AGAIN}") from error
    wanted = 8 + length + max(ends, default=0)
    if size != wanted:
        word = "cut off" if size < wanted else "longer than it says"
        raise ModelFilesError(f"{file.name} is {word}: {size:,} of {wanted:,} bytes; {_AGAIN}")

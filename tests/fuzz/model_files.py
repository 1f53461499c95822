"""Fuzzed files of models: what is looked at before anything is loaded, and GGUF."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ift_serve.modeling.checkpoint.files import ModelFilesError, check_model_files
from ift_serve.modeling.checkpoint.gguf_file import gguf_codes, gguf_tensors
from tests.fuzz.adapters import tensor_seeds
from tests.fuzz.inputs import joined, parts, scratch


def model_directory() -> Callable[[bytes], None]:
    """Configuration, index and the one file of weights: a whole model, or one sentence."""
    import transformers  # noqa: F401 - takes seconds, and belongs to no input

    folder = scratch()

    def run(data: bytes) -> None:
        for name, content in zip(
            ("config.json", "model.safetensors.index.json", "model.safetensors"), parts(data, 3), strict=True
        ):
            (folder / name).unlink(missing_ok=True)
            if content:
                (folder / name).write_bytes(content)
        try:
            check_model_files(str(folder))
        except ModelFilesError:
            return

    return run


def model_seeds() -> dict[str, bytes]:
    """Whole ones, in one file and in shards."""
    config = b'{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}'
    index = b'{"weight_map": {"a": "model.safetensors"}}'
    weights = tensor_seeds()["two"]
    return {
        "one": joined([config, b"", weights]),
        "shards": joined([config, index, weights]),
        "elsewhere": joined([b'{"model_type": "llama", "transformers_weights": "other.safetensors"}', index, weights]),
    }


def gguf() -> Callable[[bytes], None]:
    """Tensors with their kinds, and codes of few bits; or an OSError that names the file."""
    file = scratch() / "model.gguf"

    def run(data: bytes) -> None:
        file.write_bytes(data)
        try:
            for tensor in gguf_tensors(file):
                assert all(size >= 0 for size in tensor.shape), tensor
            for codes in gguf_codes(file):
                assert codes.codes.ndim == 2 and codes.scales.shape[0] == len(codes.codes)
        except OSError:
            return

    return run


def gguf_seeds() -> dict[str, bytes]:
    """As the gguf package writes them."""
    from gguf import GGMLQuantizationType, GGUFWriter, quants

    found = {}
    for name, kind in (("f32", None), ("q8_0", GGMLQuantizationType.Q8_0), ("q4_1", GGMLQuantizationType.Q4_1)):
        file = scratch() / f"{name}.gguf"
        writer: Any = GGUFWriter(file, "llama")
        writer.add_uint32("llama.block_count", 1)
        writer.add_array("tokenizer.ggml.tokens", ["a", "b"])
        matrix = np.linspace(-1, 1, 64, dtype=np.float32).reshape(2, 32)
        writer.add_tensor("w", matrix if kind is None else quants.quantize(matrix, kind), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        found[name] = file.read_bytes()
    return found

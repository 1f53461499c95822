"""GGUF files served as they are: their codes are found in transformers' model and multiplied without being unpacked."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM, GgufConfig, PreTrainedTokenizerFast

from ift_kernels.quantized_linear import round_inputs, runs_here
from ift_serve.engine.config import EngineConfig
from ift_serve.engine.runner.model_runner import ModelRunner
from ift_serve.engine.sequences.step import SequenceStep, StepBatch
from ift_serve.modeling.adapter_format.export import export_merged
from ift_serve.modeling.checkpoint.files import ModelFilesError
from ift_serve.modeling.checkpoint.gguf_directory import gguf_directory
from ift_serve.modeling.checkpoint.gguf_file import GGUF_WEIGHTS, gguf_codes
from ift_serve.modeling.decoder.model_loader import UnsupportedModelError, load_model
from tests.support import tiny_tokenizers
from tests.support.architectures import build
from tests.support.rounded import assert_close_but_for_steps

gguf = pytest.importorskip("gguf", reason="needs the extra gguf")

PROMPT = [6 + (37 * i + i * i) % 150 for i in range(40)]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IFT_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A random model as GGUF in float32, made once and copied to where a test changes it or puts files beside it."""
    made: dict[str, Path] = {}

    def copy(place: Path, architecture: str, **options: Any) -> Path:
        name = repr((architecture, options))
        if name not in made:
            made[name] = _exported(tmp_path_factory.mktemp("exported"), architecture, **options)
        (place / "gguf").mkdir()
        return Path(shutil.copy(made[name], place / "gguf"))

    return copy


def _exported(place: Path, architecture: str, **options: Any) -> Path:
    base = build(architecture, place / "base", vocab_size=384, **options)
    PreTrainedTokenizerFast(
        tokenizer_object=tiny_tokenizers.byte_level(), unk_token="<unk>", bos_token="<s>", eos_token="</s>",
        chat_template="{% for m in messages %}{{ m.content }}{% endfor %}",
    ).save_pretrained(base)  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"])).save_pretrained(place / "adapter")
    export_merged(place / "adapter", base, place / "gguf", file_format="gguf")
    return place / "gguf" / "model.gguf"


def _quantized(file: Path, kinds: list[str]) -> Path:
    """The same file by the package's own quantisation, its matrices of these kinds in turns."""
    reader = gguf.GGUFReader(file)
    architecture = reader.fields["general.architecture"].contents()
    target = file.with_name("few-bits.gguf")
    writer = gguf.GGUFWriter(target, architecture)
    for field in reader.fields.values():
        if not field.name.startswith(("GGUF.", "general.architecture")):
            kind = field.types[0]
            writer.add_key_value(field.name, field.contents(), kind, field.types[-1] if len(field.types) > 1 else None)
    number = 0
    for tensor in reader.tensors:
        data = np.array(tensor.data)
        kind = gguf.GGMLQuantizationType.F32
        if data.ndim == 2:
            kind = gguf.GGMLQuantizationType[kinds[number % len(kinds)]]
            number += 1
        writer.add_tensor(tensor.name, gguf.quants.quantize(data, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def _expected(file: Path, *, rounded: bool) -> torch.Tensor:
    """transformers' own reading of the file, inputs of linear layers rounded as the products round them."""
    model: Any = AutoModelForCausalLM.from_pretrained(
        file.parent,
        gguf_file=file.name,
        quantization_config=GgufConfig(gguf_file=file.name, dequantize=True),
        dtype=torch.float32,
    )

    def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
        return round_inputs(inputs[0].reshape(-1, inputs[0].shape[-1])).view_as(inputs[0])

    for module in model.modules():
        if rounded and type(module) is nn.Linear:
            module.register_forward_pre_hook(hook)
    with torch.inference_mode():
        logits = model(torch.tensor([PROMPT])).logits[0]
    return torch.log_softmax(logits, -1)[torch.arange(len(PROMPT) - 1), PROMPT[1:]]


def _served(directory: Path, **options: Any) -> torch.Tensor:
    runner = ModelRunner(EngineConfig(model=str(directory), total_blocks=8, **options))
    step = SequenceStep(0, PROMPT[:-1], 0, list(range(4)), b"", None, score_targets=PROMPT[1:])
    scored = runner.execute(StepBatch([step], [])).scored[0]
    assert scored is not None
    return torch.tensor(scored.log_probs)


@pytest.mark.skipif(not runs_here(), reason="needs AVX2")
@pytest.mark.parametrize(
    ("architecture", "options"), [("llama", {}), ("llama", {"tie_word_embeddings": True}), ("qwen2", {})]
)
def test_a_file_of_few_bits_is_multiplied_as_it_is(
    architecture: str, options: dict[str, Any], tmp_path: Path, exported: Callable[..., Path]
) -> None:
    file = _quantized(exported(tmp_path, architecture, **options), ["Q4_1", "Q8_0", "Q4_0"])
    directory = gguf_directory(file)
    loaded = load_model(str(directory))
    assert loaded.quantized and not loaded.quantized.plain and loaded.weights == "gguf"
    assert_close_but_for_steps(_served(directory), _expected(file, rounded=True))


def test_a_file_without_codes_is_served_as_it_stands(tmp_path: Path, exported: Callable[..., Path]) -> None:
    file = exported(tmp_path, "llama")
    torch.testing.assert_close(_served(gguf_directory(file)), _expected(file, rounded=False), atol=1e-4, rtol=1e-4)


@pytest.mark.skipif(not runs_here(), reason="needs AVX2")
def test_kinds_that_are_not_multiplied_are_served_dequantised_and_named(
    tmp_path: Path, exported: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    file = _quantized(exported(tmp_path, "llama"), ["Q5_0", "Q8_0"])
    loaded = load_model(str(gguf_directory(file)))
    assert loaded.quantized and loaded.quantized.plain
    assert "served dequantised" in caplog.text


def test_codes_stand_for_what_the_package_says(tmp_path: Path, exported: Callable[..., Path]) -> None:
    file = _quantized(exported(tmp_path, "llama"), ["Q4_0", "Q4_1", "Q8_0"])
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}
    kinds = set()
    for codes in gguf_codes(file):
        tensor = tensors[codes.name]
        kinds.add(tensor.tensor_type.name)
        np.testing.assert_array_equal(codes.dense(), gguf.quants.dequantize(tensor.data, tensor.tensor_type))
    assert kinds == {"Q4_0", "Q4_1", "Q8_0"}


def test_the_fingerprint_is_of_the_weights_in_the_file(tmp_path: Path, exported: Callable[..., Path]) -> None:
    file = exported(tmp_path, "llama")
    copy = file.with_name("another name.gguf")
    copy.write_bytes(file.read_bytes())
    fewer = _quantized(file, ["Q8_0"])
    first, second, third = (load_model(str(gguf_directory(each))).fingerprint for each in (file, copy, fewer))
    assert first == second != third


def test_what_is_no_gguf_file_is_refused_by_name(tmp_path: Path) -> None:
    other = tmp_path / "model.gguf"
    other.write_bytes(b"GGML" + bytes(100))
    with pytest.raises(ModelFilesError, match=r"model\.gguf is not a GGUF file"):
        gguf_directory(other)
    other.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(ModelFilesError, match=r"model\.gguf cannot be read"):
        gguf_directory(other)


def test_a_file_that_is_gone_since_is_named(tmp_path: Path, exported: Callable[..., Path]) -> None:
    file = exported(tmp_path, "llama")
    directory = gguf_directory(file)
    file.unlink()
    assert (directory / GGUF_WEIGHTS).is_symlink()
    with pytest.raises(UnsupportedModelError, match="is gone"):
        load_model(str(directory))

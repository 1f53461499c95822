"""Fuzzed adapters: directories, safetensors files and signatures, against a base of one small layer."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
from collections.abc import Callable
from typing import Any

import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.modeling.adapter_format.config import IFT_CONFIG, IFT_WEIGHTS, PEFT_CONFIG, PEFT_WEIGHTS
from ift_serve.modeling.adapter_format.errors import AdapterError
from ift_serve.modeling.adapter_format.reader import read_adapter
from ift_serve.modeling.adapter_format.signing.errors import SigningError
from ift_serve.modeling.adapter_format.signing.keys import public_key, secret_key, sign
from ift_serve.modeling.adapter_format.signing.manifest import MANIFEST, SIGNATURE, Manifest
from ift_serve.modeling.adapter_format.signing.signed_files import verify_directory
from ift_serve.modeling.adapter_format.tensor_file import TensorFile
from ift_serve.modeling.components.config import ComponentsConfig
from ift_serve.modeling.components.instruction_components import InstructionComponents
from tests.fuzz.inputs import joined, parts, scratch

_HIDDEN, _VOCABULARY = 8, 16
_LONGEST_DATA = 1 << 20
_FILES = (PEFT_CONFIG, PEFT_WEIGHTS, IFT_CONFIG, IFT_WEIGHTS)
_COMPONENTS = ComponentsConfig(segment_embedding=True, attention_bias=True, adherence_head=4)


def base() -> BaseMetadata:
    """Of a Llama of one layer, without weights."""
    layer = "model.layers.0"
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (_VOCABULARY, _HIDDEN)}
    linears = [f"{layer}.self_attn.{name}_proj" for name in "qkvo"]
    linears += [f"{layer}.mlp.{name}_proj" for name in ("gate", "up", "down")]
    shapes |= {f"{path}.weight": (_HIDDEN, _HIDDEN) for path in linears}
    shapes["lm_head.weight"] = (_VOCABULARY, _HIDDEN)
    return BaseMetadata(
        fingerprint="v2-" + 32 * "0",
        architecture="LlamaForCausalLM",
        hidden_size=_HIDDEN,
        layers=1,
        heads=2,
        vocabulary_size=_VOCABULARY,
        shapes=shapes,
        linears=frozenset(linears),
        embedding_path="model.embed_tokens",
        head_path="lm_head",
        tied=False,
        tied_by_name=False,
    )


def adapter_directory() -> Callable[[bytes], None]:
    """Two configurations and two headers of safetensors; the tensors are zeros, as many as the header says."""
    metadata, folder = base(), scratch()

    def run(data: bytes) -> None:
        shutil.rmtree(folder)
        folder.mkdir()
        for name, content in zip(_FILES, parts(data, 4), strict=True):
            if content:
                (folder / name).write_bytes(_with_tensors(content) if name.endswith(".safetensors") else content)
        try:
            weights = read_adapter(folder, metadata, max_rank=16)
            weights.check_served()
        except AdapterError:
            return
        for path, module in weights.lora.items():
            outputs, inputs = metadata.shapes[f"{path}.weight"]
            if path == metadata.embedding_path:
                outputs, inputs = inputs, outputs
            assert module.a.shape[1] == inputs and module.b.shape[0] == outputs, path
            assert module.a.shape[0] == module.b.shape[1] <= 16, path

    return run


def _with_tensors(header: bytes) -> bytes:
    try:
        ends = [entry["data_offsets"][1] for name, entry in json.loads(header).items() if name != "__metadata__"]
        size = max((end for end in ends if type(end) is int), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        size = 0
    return len(header).to_bytes(8, "little") + header + bytes(min(max(size, 0), _LONGEST_DATA))


def adapter_seeds() -> dict[str, bytes]:
    """Right ones, of several kinds."""
    metadata = base()
    own = {
        "format_version": 1,
        "base": {
            "fingerprint": metadata.fingerprint,
            "architecture": metadata.architecture,
            "shape": metadata.shape.model_dump(),
        },
        "components": _COMPONENTS.model_dump(),
    }
    state = InstructionComponents(_COMPONENTS, metadata.shape).state_dict()
    extras = _header({name: list(tensor.shape) for name, tensor in state.items()})
    peft: dict[str, Any] = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "bias": "none"}
    names = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
    lora = _header({f"{names}A.weight": [2, _HIDDEN], f"{names}B.weight": [_HIDDEN, 2]})
    patterns = peft | {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"^model.*q_proj": 3}, "use_rslora": True}
    magnitude = {f"{names}A.weight": [2, _HIDDEN], f"{names}B.weight": [_HIDDEN, 2]}
    dora = _header(magnitude | {f"{names}magnitude_vector": [_HIDDEN]})
    saved = _header(
        {f"{names}A.weight": [2, _HIDDEN], f"{names}B.weight": [_HIDDEN, 2]}
        | {"base_model.model.lm_head.weight": [_VOCABULARY, _HIDDEN]}
    )
    raw = {name: json.dumps(value).encode() for name, value in (("own", own), ("peft", peft), ("patterns", patterns))}
    return {
        "lora": joined([raw["peft"], lora]),
        "patterns": joined([raw["patterns"], lora]),
        "dora": joined([json.dumps(peft | {"use_dora": True}).encode(), dora]),
        "saved": joined([json.dumps(peft | {"modules_to_save": ["lm_head"]}).encode(), saved]),
        "components": joined([b"", b"", raw["own"], extras]),
        "all": joined([raw["peft"], lora, raw["own"], extras]),
    }


def _header(shapes: dict[str, list[int]], dtype: str = "F32", size: int = 4) -> bytes:
    entries, end = {}, 0
    for name, shape in sorted(shapes.items()):
        count = size
        for dimension in shape:
            count *= dimension
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + count]}
        end += count
    return json.dumps(entries).encode()


def tensor_file() -> Callable[[bytes], None]:
    """A whole safetensors file: what is taken must be what the safetensors package reads, bit for bit."""

    def run(data: bytes) -> None:
        try:
            found = TensorFile("file", io.BufferedReader(io.BytesIO(data)), hashlib.sha256(), ["a", "b"]).read()  # type: ignore[arg-type]
        except AdapterError:
            return
        theirs = load_safetensors(data)
        assert found.keys() == theirs.keys()
        for name, tensor in theirs.items():
            expected = tensor.float() if tensor.dtype == torch.float64 else tensor
            assert found[name].dtype == expected.dtype and torch.equal(found[name], expected), name

    return run


def tensor_seeds() -> dict[str, bytes]:
    """As the safetensors package writes them."""
    return {
        "two": save_safetensors({"a": torch.arange(6.0).view(2, 3), "b": torch.ones(4, dtype=torch.bfloat16)}),
        "metadata": save_safetensors({"a": torch.ones(1, 1, 2)}, metadata={"format": "pt"}),
        "wide": save_safetensors({"a": torch.ones(3, dtype=torch.float64), "b": torch.ones(2, dtype=torch.float16)}),
        "none": save_safetensors({}),
    }


def signature() -> Callable[[bytes], None]:
    """Manifest, signature and key: nothing but what the tests' key has signed is ever believed."""
    from minisign import KeyPair

    pair = KeyPair.generate()
    folder = scratch()
    (folder / "file").write_bytes(b"content")
    manifest = Manifest({"file": hashlib.sha256(b"content").hexdigest()}).content()
    signed = sign(pair.secret_key, manifest, "comment")

    def run(data: bytes) -> None:
        given, mark, key = parts(data, 3)
        # What is empty stands for what is right: signatures cannot be guessed.
        given, mark = given or manifest, mark or signed
        (folder / MANIFEST).write_bytes(given)
        (folder / SIGNATURE).write_bytes(mark)
        with contextlib.suppress(SigningError):
            public_key(key.decode(errors="replace"))
        with contextlib.suppress(SigningError):
            secret_key(key)
        try:
            parsed = Manifest.parse(given)
        except SigningError:
            pass
        else:
            assert Manifest.parse(parsed.content()) == parsed
        try:
            verify_directory(folder, [pair.public_key])
        except AdapterError:
            return
        assert given == manifest

    return run


def signature_seeds() -> dict[str, bytes]:
    """Of a key that nobody has."""
    from minisign import KeyPair

    pair = KeyPair.generate()
    manifest = Manifest({"file": 64 * "0", "run/report.json": 64 * "a"}, "tone").content()
    mark = sign(pair.secret_key, manifest, "comment")
    return {
        "right": b"",
        "another's": joined([manifest, mark, bytes(pair.public_key)]),
        "secret": joined([manifest, b"", bytes(pair.secret_key)]),
        "manifest": manifest,
    }

"""Directories that are broken, hostile, or of another model are refused with the reason, within a second."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.modeling.adapter_format.errors import AdapterError
from ift_serve.modeling.adapter_format.reader import read_adapter
from tests.modeling.adapter_format.conftest import COMPONENTS

WEIGHTS, EXTRAS = "adapter_model.safetensors", "ift_extras.safetensors"
PEFT, OWN = "adapter_config.json", "ift_config.json"
A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
Damage = Callable[[Path], object]


def _tensors(change: Callable[[dict[str, Any]], dict[str, Any]], name: str = WEIGHTS) -> Damage:
    return lambda adapter: save_file(change(load_file(adapter / name)), adapter / name)


def _empty(adapter: Path) -> None:
    for file in adapter.iterdir():
        file.unlink()


def _fields(name: str, **fields: Any) -> Damage:
    return lambda a: (a / name).write_text(json.dumps(json.loads((a / name).read_text()) | fields))


def _peft(**fields: Any) -> Damage:
    return _fields(PEFT, **fields)


def _base(**fields: Any) -> Damage:
    return lambda a: _fields(OWN, base=json.loads((a / OWN).read_text())["base"] | fields)(a)


def _bytes(change: Callable[[bytes], bytes], name: str = WEIGHTS) -> Damage:
    return lambda a: (a / name).write_bytes(change((a / name).read_bytes()))


def _header(change: Callable[[dict[str, Any]], object], grow: int = 0) -> Damage:
    """Change the header and leave the data; ``grow`` makes the file longer without writing to it."""

    def damage(adapter: Path) -> None:
        raw = (adapter / WEIGHTS).read_bytes()
        length = int.from_bytes(raw[:8], "little")
        header = json.loads(raw[8 : 8 + length])
        change(header)
        text = json.dumps(header).encode()
        with (adapter / WEIGHTS).open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text + raw[8 + length :])
            file.truncate(file.tell() + grow)

    return damage


def _poisoned(value: float) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def poison(tensors: dict[str, Any]) -> dict[str, Any]:
        tensors[A][0, 0] = value
        return tensors

    return poison


def _link(target: str) -> Damage:
    def damage(adapter: Path) -> None:
        (adapter / WEIGHTS).rename(adapter.parent / "outside")
        (adapter / WEIGHTS).symlink_to(target.format(outside=adapter.parent / "outside"))

    return damage


def _pipe(adapter: Path) -> None:
    (adapter / WEIGHTS).unlink()
    os.mkfifo(adapter / WEIGHTS)


def _folder(adapter: Path) -> None:
    (adapter / WEIGHTS).unlink()
    (adapter / WEIGHTS).mkdir()


def _far_away(header: dict[str, Any]) -> None:
    header[A]["data_offsets"] = [1 << 40, (1 << 40) + 1024]


def _overlapping(header: dict[str, Any]) -> None:
    header.pop("__metadata__")
    others = [entry for entry in header.values() if entry["shape"] == header[A]["shape"]]
    others[1]["data_offsets"] = others[0]["data_offsets"]


def _many(header: dict[str, Any]) -> None:
    header.update({f"t{i}": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for i in range(100_001)})


def _of_great_rank(header: dict[str, Any]) -> None:
    names = sorted((n for n in header if n != "__metadata__"), key=lambda n: header[n]["data_offsets"])
    position = 0
    for name in names:
        shape = [10**6 if size == 4 else size for size in header[name]["shape"]]
        size = 4 * shape[0] * shape[1]
        header[name].update(shape=shape, data_offsets=[position, position + size])
        position += size


EXPONENTIAL = ["(a+)+$", "(.*)*x", "((a|a)?)*b", "(|a|aa)*" * 60, "a?" * 300 + "a" * 300, "(()*)*" * 50]
HOSTILE: dict[str, tuple[Damage, str]] = {
    "pickle": (lambda a: (a / "adapter_model.bin").write_bytes(b"\x80\x04."), "adapter_model.bin: pickled files"),
    "pickle beside": (
        lambda a: (a / "adapter_model-00001-of-00002.PT").write_bytes(b"\x80\x04."), "00002.PT: pickled",
    ),
    "pickle inside": (_bytes(lambda raw: b"\x80\x04." * 300), "not a safetensors file"),
    "empty": (_bytes(lambda raw: b""), f"{WEIGHTS}: 0 bytes"),
    "truncated": (_bytes(lambda raw: raw[:-100]), "the file may be cut off"),
    "truncated header": (_bytes(lambda raw: raw[:100]), "cut off"),
    "longer": (_bytes(lambda raw: raw + b"abc"), "the header says"),
    "huge header": (_bytes(lambda raw: (1 << 60).to_bytes(8, "little") + b"{}"), "a header of 1152921504606846976"),
    "header no object": (_bytes(lambda raw: (4).to_bytes(8, "little") + b"[ ] "), "holds no JSON object"),
    "doubled name": (
        _bytes(lambda raw: (15).to_bytes(8, "little") + b'{"a":{},"a":{}}'), "a name comes twice",
    ),
    "deep header": (_bytes(lambda raw: (99 << 10).to_bytes(8, "little") + b"[" * (99 << 10)), "not valid JSON"),
    "far offsets": (_header(_far_away), "overlaps the tensor before it or leaves a gap"),
    "overlap": (_header(_overlapping), "overlaps the tensor"),
    "too many tensors": (_header(_many), "a header of \\d+ bytes; an adapter of this base"),
    "odd dtype": (_header(lambda h: h[A].update(dtype="I64")), "dtype I64: adapters are of"),
    "negative shape": (_header(lambda h: h[A].update(shape=[-4, -64])), "shape or place in the header is damaged"),
    "huge shape": (_header(lambda h: h[A].update(shape=[1 << 47] * 8)), "does not fit its place"),
    "empty tensor": (_header(lambda h: h[A].update(shape=[0, 64], data_offsets=[0, 0])), "is empty or does not fit"),
    "no shape": (_header(lambda h: h[A].pop("shape")), "its entry in the header is damaged"),
    "nan": (_tensors(_poisoned(float("nan"))), f"{A}: holds NaN or infinity"),
    "infinity": (_tensors(_poisoned(float("-inf"))), "holds NaN or infinity"),
    "too large for float32": (
        _tensors(lambda t: t | {A: torch.full((4, 64), 1e300, dtype=torch.float64)}), "holds NaN or infinity",
    ),
    "nan in extras": (
        _tensors(lambda t: {k: torch.full_like(v, float("nan")) for k, v in t.items()}, EXTRAS), f"{EXTRAS}: .*NaN",
    ),
    "wrong shape": (_tensors(lambda t: t | {A: torch.zeros(4, 63)}), rf"{A}: shape \[4, 63\]; .* want \[4, 64\]"),
    "turned": (_tensors(lambda t: t | {A: torch.zeros(64, 4)}), r"shape \[64, 4\]"),
    "huge rank named": (_peft(r=10**6), "rank 1000000 of .* is over the 256 that is served"),
    "huge rank stored": (_header(_of_great_rank, 10**11), r"\d+ bytes of tensors where|shape \[1000000, 64\]"),
    "rank of a pattern": (_peft(rank_pattern={"down_proj": 10**6}), "rank 1000000"),
    "zero rank": (_peft(r=0), "adapter_config.json: r: 0: "),
    "rank as text": (_peft(r="8"), "adapter_config.json: r: 8: Input should be a valid integer"),
    "alpha not finite": (_peft(lora_alpha=float("nan")), "lora_alpha: nan"),
    "alpha too large": (_peft(lora_alpha=1e300), "lora_alpha: 1e"),
    "extra tensor": (
        _tensors(lambda t: t | {"base_model.model.model.norm.weight": torch.zeros(64)}), "module in modules_to_save",
    ),
    "extra module": (
        _tensors(lambda t: t | {A.replace("q_proj", "k_proj"): torch.zeros(4, 64)}), "does not name this module",
    ),
    "unknown module": (
        _tensors(lambda t: t | {A.replace("q_proj", "qq"): torch.zeros(4, 64)}), "LlamaForCausalLM.* no such module",
    ),
    "foreign name": (_tensors(lambda t: t | {"evil": torch.zeros(1)}), "evil: not a name that PEFT gives"),
    "name of many lines": (_tensors(lambda t: t | {"a\n\x1b[2Jb": torch.zeros(1)}), r"'a\\n\\x1b\[2Jb': not a name"),
    "missing factor": (_tensors(lambda t: {k: v for k, v in t.items() if k != A}), f"{A}: is missing"),
    "missing target": (
        _tensors(lambda t: {k: v for k, v in t.items() if "down_proj" not in k}), "down_proj.*: is missing, though",
    ),
    "other base": (
        _base(fingerprint="v2-" + "0" * 32), "base.fingerprint: made for v2-000000000000, and this base model is v2-",
    ),
    "base of another scheme": (
        _base(fingerprint="0" * 32), "base.fingerprint: 000000000000000 is not of the scheme that this version",
    ),
    "other architecture": (_base(architecture="Qwen2ForCausalLM"), "base: made for Qwen2ForCausalLM"),
    "other shape": (
        _base(shape={"hidden_size": 32, "layers": 3, "heads": 4, "vocabulary_size": 160}), "hidden_size 32.*_size 64",
    ),
    "link out": (_link("{outside}"), "the link leads out of the adapter directory"),
    "link out, relative": (_link("../outside"), "the link leads out of the adapter directory"),
    "link to a device": (_link("/dev/zero"), "leads out"),
    "dangling link": (_link("nowhere"), "the link leads nowhere"),
    "link to itself": (_link(WEIGHTS), "the link leads nowhere"),
    "pipe": (_pipe, "not a regular file"),
    "folder": (_folder, "not a regular file"),
    "weights missing": (lambda a: (a / WEIGHTS).unlink(), f"{WEIGHTS}: missing, though"),
    "config missing": (lambda a: (a / PEFT).unlink(), f"{PEFT}: missing, though"),
    "lying rank": (_peft(r=8), r"shape \[4, .* want \[8, "),
    "lying targets": (_peft(target_modules=["q_proj"]), "down_proj.* does not name this module"),
    "targets of nothing": (_peft(target_modules=["c_attn"]), r"\['c_attn'\]: the base model .* has no such module"),
    "targets a norm": (_peft(target_modules=["norm", "q_proj"]), "matches model.norm, which is neither a linear"),
    "lying dora": (_peft(use_dora=True), "lora_magnitude_vector: is missing"),
    "lying tokens": (_peft(trainable_token_indices=[1, 2]), "trainable_tokens_delta: is missing"),
    "tokens outside": (_peft(trainable_token_indices=[160]), "token 160 is outside the vocabulary of 160"),
    "tokens twice": (_peft(trainable_token_indices=[3, 3]), "ids are missing or repeat"),
    "tokens elsewhere": (_peft(trainable_token_indices={"q_proj": [3]}), "q_proj: trainable tokens are served for"),
    "lora and copy": (_peft(modules_to_save=["j"], exclude_modules=[]), "proj also has LoRA; a module can have one"),
    "modules that are no name": (_peft(modules_to_save=["(a+)+"]), r"modules_to_save: \(a\+\)\+: is not the name"),
    "transposed": (_peft(fan_in_fan_out=True), "fan_in_fan_out: True"),
    "other method": (_peft(peft_type="IA3"), "peft_type: IA3: only LORA is served"),
    "unknown field": (_peft(lora_magic=3), "lora_magic: 3: is not supported"),
    "method by default settings": (_peft(kasa_config={}), "kasa_config: {}: is not supported"),
    "layers with a pattern": (_peft(target_modules=".*q_proj", layers_to_transform=[1]), "goes with a list"),
    "pattern not valid": (_peft(rank_pattern={"q(": 4}), r"rank_pattern: q\(: is not valid: missing \)"),
    "pattern looks ahead": (_peft(alpha_pattern={"(?=q)": 4}), r"alpha_pattern: .* has a \(\?= that is not supported"),
    "pattern too long": (_peft(target_modules="q" * 5000), "target_modules: qqq.*: has 5000 characters; at most"),
    "pattern too large": (_peft(target_modules="((a{999}){999}){999}"), "is too large"),
    "many patterns": (_peft(rank_pattern={f"a{i}": 4 for i in range(3000)}), "3000 patterns; at most"),
    **{
        f"slow pattern {i}": (
            _peft(target_modules=pattern), "is too large|has no such module|takes too long|repeats a repetition",
        )
        for i, pattern in enumerate(EXPONENTIAL)
    },
    "many slow patterns": (
        _peft(rank_pattern={f"(.*|.?|.+|x{i}){{40}}": 4 for i in range(1000)}), "takes too long",
    ),
    "not json": (lambda a: (a / PEFT).write_text("{"), f"{PEFT}: not valid JSON"),
    "not text": (lambda a: (a / PEFT).write_bytes(b"\xff\xfe\x00"), f"{PEFT}: not valid JSON"),
    "deep json": (lambda a: (a / PEFT).write_text("[" * 200_000), f"{PEFT}: not valid JSON"),
    "long number": (lambda a: (a / PEFT).write_text('{"r": ' + "9" * 10_000 + "}"), f"{PEFT}: not valid JSON"),
    "huge json": (lambda a: (a / PEFT).write_text(" " * (2 << 20)), f"{PEFT}: over 1048576 bytes"),
    "other format": (_fields(OWN, format_version=2), "format_version: 2; this version"),
    "unknown own field": (_fields(OWN, magic=1), f"{OWN}: magic: 1: Extra inputs"),
    "unknown component": (_fields(OWN, components={"magic": 1}), "components.magic: 1"),
    "great component": (_fields(OWN, components={"adherence_head": 10**9}), "components.adherence_head"),
    "extras missing": (lambda a: (a / EXTRAS).unlink(), f"{EXTRAS}: missing, though {OWN} names segment_embedding"),
    "extras unnamed": (_fields(OWN, components={"attention_bias": True}), "is not part of the components"),
    "extras without a config": (lambda a: (a / OWN).unlink(), f"{OWN}: missing, though there is {EXTRAS}"),
    "extras too few": (
        _fields(OWN, components={**COMPONENTS.model_dump(), "attention_gain": True}), f"{EXTRAS}: .*gain.* is missing",
    ),
    "extras of another shape": (
        _fields(OWN, components={**COMPONENTS.model_dump(), "adherence_head": 16}), f"{EXTRAS}: .*: shape",
    ),
    "nothing": (_empty, "not an adapter directory"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_is_wrong_is_refused_by_name_and_soon(kind: str, metadata: BaseMetadata, adapter: Path) -> None:
    damage, message = HOSTILE[kind]
    damage(adapter)
    begun = time.process_time()  # of this process: other work on the machine does not count
    with pytest.raises(AdapterError, match=message) as refused:
        read_adapter(adapter, metadata)
    assert time.process_time() - begun < 5, "it takes less than a second, five on a slow machine"
    assert len(str(refused.value)) < 700 and "\n" not in str(refused.value)


def test_a_right_adapter_is_read_whole(metadata: BaseMetadata, adapter: Path) -> None:
    weights = read_adapter(adapter, metadata)
    assert len(weights.lora) == 2 * metadata.layers and weights.rank == 4
    assert weights.components == COMPONENTS and weights.extras
    assert len(weights.version) == 16
    stored = sum(v.nbytes for name in (WEIGHTS, EXTRAS) for v in load_file(adapter / name).values())
    assert weights.bytes == stored


def test_the_version_is_of_the_files_that_matter(metadata: BaseMetadata, adapter: Path) -> None:
    before = read_adapter(adapter, metadata).version
    (adapter / "README.md").write_text("another card")
    assert read_adapter(adapter, metadata).version == before
    changes = [_tensors(_poisoned(0.5)), _peft(lora_alpha=9), _fields(OWN, scores={"a": 1})]
    changes.append(_tensors(lambda t: {name: tensor + 1 for name, tensor in t.items()}, EXTRAS))
    seen = {before}
    for change in changes:
        change(adapter)
        seen.add(read_adapter(adapter, metadata).version)
    assert len(seen) == 5


def test_what_a_trainer_leaves_is_not_opened(metadata: BaseMetadata, adapter: Path) -> None:
    for name in ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth"):
        (adapter / name).write_bytes(b"\x80\x04.")
    read_adapter(adapter, metadata)


def test_the_limit_of_the_rank_is_the_servers(metadata: BaseMetadata, adapter: Path) -> None:
    with pytest.raises(AdapterError, match=r"rank 4 of .* is over the 3"):
        read_adapter(adapter, metadata, max_rank=3)


def test_a_directory_outside_the_root_is_refused(metadata: BaseMetadata, adapter: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(adapter)
    for path in (root / "link", root / ".." / "adapter", adapter):
        with pytest.raises(AdapterError, match="leads out of the directory that adapters may be loaded from"):
            read_adapter(path, metadata, root)
    assert read_adapter(adapter, metadata, tmp_path).rank == 4


def test_links_within_the_root_are_followed(metadata: BaseMetadata, adapter: Path, tmp_path: Path) -> None:
    """A model hub's cache keeps every file once and links to it."""
    (tmp_path / "blobs").mkdir()
    for name in (WEIGHTS, PEFT):
        (adapter / name).rename(tmp_path / "blobs" / name)
        (adapter / name).symlink_to(Path("..") / "blobs" / name)
    with pytest.raises(AdapterError, match="leads out of the adapter directory"):
        read_adapter(adapter, metadata)
    assert read_adapter(adapter, metadata, tmp_path).rank == 4


def test_a_missing_directory_and_a_file_are_refused(metadata: BaseMetadata, adapter: Path) -> None:
    for path in (adapter / "nowhere", adapter / WEIGHTS, adapter / "a\0b"):
        with pytest.raises(AdapterError, match=r"there is no such directory|cannot be opened: Not a directory"):
            read_adapter(path, metadata)


def test_a_file_replaced_while_it_is_read_is_noticed(
    metadata: BaseMetadata, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of one adapter and half of another must never be served."""
    from ift_serve.modeling.adapter_format.tensor_file import TensorFile

    read = TensorFile.read

    def replace_then_read(file: TensorFile) -> Any:
        _peft(lora_alpha=99)(adapter)
        return read(file)

    monkeypatch.setattr(TensorFile, "read", replace_then_read)
    with pytest.raises(AdapterError, match=r"adapter_config.json: changed while it was being read"):
        read_adapter(adapter, metadata)

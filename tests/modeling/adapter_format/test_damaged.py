"""Whatever bytes stand in the files, reading ends in an adapter or in an AdapterError."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.modeling.adapter_format.errors import AdapterError
from ift_serve.modeling.adapter_format.peft_config import PeftConfig
from ift_serve.modeling.adapter_format.reader import read_adapter

FILES = ["adapter_model.safetensors", "adapter_config.json", "ift_config.json", "ift_extras.safetensors"]
FIELDS = [*PeftConfig.model_fields, "peft_type", "bias", "init_lora_weights", "target_parameters", "loftq_config"]
TEXT = st.text(max_size=12) | st.text("aq.*+?()[]{}|\\^$1,_proj", max_size=24)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def adapter(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy that every example damages anew."""
    path = tmp_path_factory.mktemp("damaged") / "adapter"
    shutil.copytree(original, path)
    return path


def _read(adapter: Path, metadata: BaseMetadata) -> None:
    problem = "none"
    try:
        read_adapter(adapter, metadata)
    except AdapterError as error:
        problem = str(error)
    assert problem and problem.isprintable()


@settings(max_examples=200, deadline=None)
@given(
    name=st.sampled_from(FILES),
    flips=st.lists(st.tuples(st.integers(0, 2500), st.integers(0, 255)), min_size=1, max_size=4),
    cut=st.none() | st.integers(0, 3000),
)
def test_flipped_and_cut_bytes(
    metadata: BaseMetadata, adapter: Path, original: Path, name: str, flips: list[tuple[int, int]], cut: int | None
) -> None:
    raw = bytearray((original / name).read_bytes())
    for place, value in flips:
        raw[place % len(raw)] = value
    (adapter / name).write_bytes(raw[:cut])
    _read(adapter, metadata)
    shutil.copy(original / name, adapter / name)


@settings(max_examples=200, deadline=None)
@given(change=st.dictionaries(st.sampled_from(FIELDS), JSON, min_size=1, max_size=3))
def test_fields_of_any_kind(metadata: BaseMetadata, adapter: Path, original: Path, change: dict[str, Any]) -> None:
    name = "adapter_config.json"
    fields = json.loads((original / name).read_text()) | change
    (adapter / name).write_text(json.dumps(fields))
    _read(adapter, metadata)
    shutil.copy(original / name, adapter / name)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_headers_with_other_values(metadata: BaseMetadata, adapter: Path, original: Path, data: st.DataObject) -> None:
    name = "adapter_model.safetensors"
    raw = (original / name).read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    tensor = data.draw(st.sampled_from(sorted(header)))
    field = data.draw(st.sampled_from(["dtype", "shape", "data_offsets", "other"]))
    header[tensor] = data.draw(st.just(header[tensor] | {field: data.draw(JSON)}) | JSON)
    text = json.dumps(header).encode()
    (adapter / name).write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])
    _read(adapter, metadata)
    shutil.copy(original / name, adapter / name)

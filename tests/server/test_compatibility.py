"""What was on the wire once keeps its meaning: the rules of ``buf breaking`` over the descriptors."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorSet

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def compatibility() -> ModuleType:
    spec = importlib.util.spec_from_file_location("compatibility", ROOT / "protos" / "compatibility.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def baseline(compatibility: ModuleType) -> FileDescriptorSet:
    return FileDescriptorSet.FromString(compatibility.BASELINE.read_bytes())


def _sampling(described: FileDescriptorSet) -> DescriptorProto:
    return next(m for f in described.file for m in f.message_type if m.name == "Sampling")


def _remove(described: FileDescriptorSet) -> None:
    del _sampling(described).field[0]


def _renumber(described: FileDescriptorSet) -> None:
    _sampling(described).field[0].number = 99


def _retype(described: FileDescriptorSet) -> None:
    _sampling(described).field[0].type = FieldDescriptorProto.TYPE_DOUBLE


def _make_required_presence(described: FileDescriptorSet) -> None:
    field = _sampling(described).field[0]
    field.ClearField("oneof_index")
    field.proto3_optional = False


def _make_repeated(described: FileDescriptorSet) -> None:
    _sampling(described).field[0].label = FieldDescriptorProto.LABEL_REPEATED


@pytest.mark.parametrize("change", [_remove, _renumber, _retype, _make_required_presence, _make_repeated])
def test_a_changed_field_is_named(
    compatibility: ModuleType, baseline: FileDescriptorSet, change: Callable[[FileDescriptorSet], None]
) -> None:
    changed = FileDescriptorSet.FromString(baseline.SerializeToString())
    change(changed)
    (broken,) = compatibility.breaking(baseline, changed)
    assert broken.startswith("ift_serve.v1.Sampling.temperature: was LABEL_OPTIONAL TYPE_FLOAT = 1 optional")


def test_changed_enums_and_rpcs_are_named(compatibility: ModuleType, baseline: FileDescriptorSet) -> None:
    changed = FileDescriptorSet.FromString(baseline.SerializeToString())
    file = next(f for f in changed.file if f.name.endswith("inference.proto"))
    next(e for e in file.enum_type if e.name == "FinishReason").value[3].number = 9
    file.service[0].method[0].server_streaming = True
    assert [line.split(":")[0] for line in compatibility.breaking(baseline, changed)] == [
        "ift_serve.v1.FinishReason.FINISH_REASON_LENGTH",
        "ift_serve.v1.InferenceService.Generate",
    ]


def test_additions_break_nobody(compatibility: ModuleType, baseline: FileDescriptorSet) -> None:
    changed = FileDescriptorSet.FromString(baseline.SerializeToString())
    _sampling(changed).field.add(name="fresh", number=77, type=FieldDescriptorProto.TYPE_BOOL)
    assert compatibility.breaking(baseline, changed) == []


def test_nothing_that_callers_were_built_with_has_changed(
    compatibility: ModuleType, baseline: FileDescriptorSet
) -> None:
    assert sum(len(m.field) for f in baseline.file for m in f.message_type) > 150
    assert compatibility.breaking(baseline, compatibility.described()) == []

"""Reads and checks an adapter directory against a base model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.modeling.adapter_format.config import (
    IFT_CONFIG,
    IFT_WEIGHTS,
    PEFT_CONFIG,
    PEFT_WEIGHTS,
    IftConfig,
    ift_config,
)
from ift_serve.modeling.adapter_format.errors import AdapterError, quoted
from ift_serve.modeling.adapter_format.file_digests import FileDigests
from ift_serve.modeling.adapter_format.peft_config import peft_config
from ift_serve.modeling.adapter_format.plan import Plan, check_names, make_plan
from ift_serve.modeling.adapter_format.safe_file import SafeDirectory, parse_object
from ift_serve.modeling.adapter_format.signing.signed_files import SignedFiles
from ift_serve.modeling.adapter_format.tensor_file import TensorFile
from ift_serve.modeling.adapter_format.weights import AdapterWeights, LoraModule
from ift_serve.modeling.checkpoint.fingerprint import of_this_scheme
from ift_serve.modeling.checkpoint.meta_device import meta_device
from ift_serve.modeling.components.config import BaseShape, ComponentsConfig
from ift_serve.modeling.components.instruction_components import InstructionComponents

if TYPE_CHECKING:
    from minisign import PublicKey


def read_adapter(
    directory: Path,
    base: BaseMetadata,
    root: Path | None = None,
    max_rank: int = 256,
    trusted: Sequence[PublicKey] | None = None,
) -> AdapterWeights:
    """Everything in the directory, each tensor accounted for.

    root: the directory must lie in it (see :class:`SafeDirectory`). trusted: one of these keys must have signed what is
    read; None: nobody need have. Raises AdapterError, which says what is wrong where; configuration and headers are
    judged before any tensor is read.
    """
    with SafeDirectory(directory, root) as files:
        digest = FileDigests(None if trusted is None else SignedFiles(files, trusted))
        files.refuse_pickled()
        raw_peft, raw_own = _read_config(files, PEFT_CONFIG, digest), _read_config(files, IFT_CONFIG, digest)
        if raw_peft is None and raw_own is None:
            raise AdapterError(
                f"{quoted(directory.name)}: holds neither {PEFT_CONFIG} nor {IFT_CONFIG}; not an adapter directory"
            )
        own = None if raw_own is None else _own_config(raw_own, base)
        weights = AdapterWeights("", 0, {}, {}, {}, ComponentsConfig(), config=own)
        _read_peft(weights, files, raw_peft, base, max_rank, digest)
        _read_extras(weights, files, base, digest)
        digest.end()
        files.check_unchanged()
    weights.version = digest.version
    weights.signed = digest.signed
    weights.rank = max((module.a.shape[0] for module in weights.lora.values()), default=0)
    weights.bytes = sum(t.numel() * t.element_size() for t in weights.tensors().values())
    return weights


def shape_of(base: BaseMetadata) -> BaseShape:
    """The dimensions that components depend on."""
    return base.shape


def _read_config(files: SafeDirectory, name: str, digest: FileDigests) -> bytes | None:
    raw = files.read(name)
    if raw is not None:
        digest.begin(name, length=len(raw))
        digest.update(raw)
        digest.end()
    return raw


def _own_config(raw: bytes, base: BaseMetadata) -> IftConfig:
    own = ift_config(parse_object(IFT_CONFIG, raw))
    made_for = own.base
    if made_for.architecture != base.architecture or made_for.shape != base.shape:
        raise AdapterError(
            f"{IFT_CONFIG}: base: made for {quoted(made_for.architecture)} ({_dimensions(made_for.shape)}), and this "
            f"is {base.architecture} ({_dimensions(base.shape)})"
        )
    if not of_this_scheme(made_for.fingerprint):
        raise AdapterError(
            f"{IFT_CONFIG}: base.fingerprint: {quoted(made_for.fingerprint[:15])} is not of the scheme that this "
            f"version compares, so it cannot tell whether the base model is the same; if you know that it is, write "
            f"{base.fingerprint} there, otherwise train again"
        )
    if made_for.fingerprint != base.fingerprint:
        raise AdapterError(
            f"{IFT_CONFIG}: base.fingerprint: made for {quoted(made_for.fingerprint[:15])}, and this base model is "
            f"{base.fingerprint[:15]}: same shape, other weights or settings; train on the model that is served"
        )
    return own


def _dimensions(shape: object) -> str:
    return ", ".join(f"{name} {value}" for name, value in shape)  # type: ignore[attr-defined]


def _read_peft(
    weights: AdapterWeights,
    files: SafeDirectory,
    raw: bytes | None,
    base: BaseMetadata,
    max_rank: int,
    digest: FileDigests,
) -> None:
    file = files.open(PEFT_WEIGHTS)
    if file is None:
        if raw is not None:
            raise AdapterError(f"{PEFT_WEIGHTS}: missing, though there is {PEFT_CONFIG}")
        return
    with file:
        if raw is None:
            raise AdapterError(f"{PEFT_CONFIG}: missing, though there is {PEFT_WEIGHTS}")
        config = peft_config(parse_object(PEFT_CONFIG, raw))
        plan = make_plan(config, base, max_rank)
        digest.begin(PEFT_WEIGHTS)
        tensors = TensorFile(PEFT_WEIGHTS, file, digest, plan.tensors)
        check_names(plan, tensors.shapes, config, base)
        _sort(weights, plan, tensors.read(), base)


def _sort(weights: AdapterWeights, plan: Plan, tensors: dict[str, Tensor], base: BaseMetadata) -> None:
    """Put each tensor where it belongs; all are known to be planned, and all planned ones to be there."""
    factors: dict[str, dict[str, Tensor]] = {path: {} for path in plan.scales}
    for name, tensor in tensors.items():
        expected = plan.tensors[name]
        if expected.role in ("a", "b", "magnitude"):
            factors[expected.path][expected.role] = tensor
        elif expected.role == "rows":
            _take_rows(weights, plan, expected.path, tensor, base)
        elif expected.role == "replaced":
            weights.replaced[expected.path] = tensor
        else:
            _take_stored(weights, name, expected.path, tensor, base)
    for path, found in factors.items():
        weights.lora[path] = LoraModule(found["a"], found["b"], plan.scales[path], found.get("magnitude"))


def _take_rows(weights: AdapterWeights, plan: Plan, path: str, rows: Tensor, base: BaseMetadata) -> None:
    ids, order = torch.tensor(plan.token_ids[path], dtype=torch.int64).sort()
    weights.token_rows[path] = (ids, rows[order])
    if plan.tied_tokens:
        weights.token_rows[base.head_path] = weights.token_rows[path]


def _take_stored(weights: AdapterWeights, name: str, path: str, tensor: Tensor, base: BaseMetadata) -> None:
    """PEFT overwrites the base model's weight with a stored one; where they are the same there is nothing to keep."""
    own = base.stored_weight(path)
    if own is not None and torch.equal(tensor.to(device=own.device, dtype=own.dtype), own):
        return
    embedding, head = f"{base.embedding_path}.weight", f"{base.head_path}.weight"
    shared = (embedding, head) if base.tied and path in (embedding, head) else (path,)
    for place in shared:
        if place in weights.replaced and not torch.equal(weights.replaced[place], tensor):
            raise AdapterError(
                f"{PEFT_WEIGHTS}: {quoted(name)}: the base model shares this weight between embeddings and head, and "
                "the adapter stores two that differ"
            )
        weights.replaced[place] = tensor


def _read_extras(weights: AdapterWeights, files: SafeDirectory, base: BaseMetadata, digest: FileDigests) -> None:
    """The components' tensors: exactly those that the configuration implies."""
    file = files.open(IFT_WEIGHTS)
    components = ComponentsConfig() if weights.config is None else weights.config.components
    if file is None:
        if components.names:
            raise AdapterError(f"{IFT_WEIGHTS}: missing, though {IFT_CONFIG} names {', '.join(components.names)}")
        return
    with file:
        if weights.config is None:
            raise AdapterError(f"{IFT_CONFIG}: missing, though there is {IFT_WEIGHTS}")
        digest.begin(IFT_WEIGHTS)
        expected = _expected_extras(components, base)
        tensors = TensorFile(IFT_WEIGHTS, file, digest, expected)
        _check_extras(tensors.shapes, expected)
        weights.components, weights.extras = components, tensors.read()


def _expected_extras(components: ComponentsConfig, base: BaseMetadata) -> dict[str, tuple[int, ...]]:
    with meta_device():
        state = InstructionComponents(components, base.shape).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _check_extras(shapes: dict[str, tuple[int, ...]], expected: dict[str, tuple[int, ...]]) -> None:
    for name, shape in shapes.items():
        where = f"{IFT_WEIGHTS}: {quoted(name)}"
        if name not in expected:
            raise AdapterError(f"{where}: is not part of the components in {IFT_CONFIG}")
        if shape != expected[name]:
            raise AdapterError(
                f"{where}: shape {quoted(list(shape))}; the components in {IFT_CONFIG} want {list(expected[name])}"
            )
    missing = next((name for name in expected if name not in shapes), None)
    if missing is not None:
        raise AdapterError(f"{IFT_WEIGHTS}: {missing}: is missing, though {IFT_CONFIG} asks for it")

"""One adapter in the form that batches use: factors laid out for the kernels, modules in the model's dtype."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import Parameter

from ift_serve.modeling.adapter_format.errors import AdapterError
from ift_serve.modeling.adapter_format.weights import AdapterWeights, LoraModule
from ift_serve.modeling.components.config import BaseShape
from ift_serve.modeling.components.heads import AdherenceHead
from ift_serve.modeling.components.instruction_components import InstructionComponents
from ift_serve.modeling.components.states import InstructionGate
from ift_serve.modeling.decoder.adaptable_layers import AdaptableLinear
from ift_serve.modeling.multi_adapter.magnitudes import OutputScale, magnitude_ratio, output_scale
from ift_serve.modeling.multi_adapter.temperature_table import PreparedHead

HEAD = "lm_head"
BaseLinear = Callable[[int], tuple[Tensor, Tensor | None]]


@dataclass(slots=True)
class Factors:
    """``a [r, K]`` and ``b [r, N]`` (transposed), contiguous; the scale is applied to their product."""

    a: Tensor
    b: Tensor
    scale: float

    @property
    def rank(self) -> int:
        """Rows of both factors."""
        return self.a.shape[0]


@dataclass(slots=True)
class GateFactors:
    """``down`` and ``up`` ``[L, r, d]`` of an instruction gate, as :mod:`ift_kernels.gated_add` takes them."""

    down: Tensor
    up: Tensor

    @classmethod
    def take(cls, gate: InstructionGate) -> GateFactors:
        """Move the part of G_l that multiplies hidden states out of the gate, which keeps what multiplies c."""
        hidden = gate.up.shape[1]
        factors = cls(gate.down[:, :, :hidden].contiguous(), gate.up.transpose(1, 2).contiguous())
        gate.down = Parameter(gate.down[:, :, hidden:].contiguous(), requires_grad=False)
        gate.up = Parameter(gate.up.new_empty(0), requires_grad=False)
        return factors


@dataclass(slots=True)
class PreparedAdapter:
    """``linears[i][p]`` belongs to part p of the decoder's i-th adaptable linear; ``head`` to the language head.

    ``embedding`` changes token embeddings: low-rank (``a [V, r]`` rows by token, ``b [r, d]``); ``token_ids`` ``[n]``
    sorted, with their ``token_rows`` ``[n, d]`` in place of the base model's; ``embedding_table`` in place of all. What
    the model's embedding layer multiplies them with is in them already. ``head_ids`` ``[m]``, with ``head_rows``
    ``[m, d]``: rows of the head's weight in place of the base model's. With DoRA, ``scales`` are of the base's products
    by index of the adaptable linear, the head's behind the last one's, and ``embedding_ratio`` ``[d]`` multiplies the
    changed embeddings. ``adherence`` is in float32 as it was stored.
    """

    linears: list[list[Factors | None]]
    scales: dict[int, OutputScale] = field(default_factory=dict)
    embedding_ratio: Tensor | None = None
    head: Factors | None = None
    head_weight: Tensor | None = None
    embedding: Factors | None = None
    embedding_table: Tensor | None = None
    token_ids: Tensor | None = None
    token_rows: Tensor | None = None
    head_ids: Tensor | None = None
    head_rows: Tensor | None = None
    components: InstructionComponents | None = None
    gate: GateFactors | None = None
    head_bias: Tensor | None = None
    temperature: PreparedHead | None = None
    adherence: AdherenceHead | None = None

    @property
    def max_rank(self) -> int:
        """The largest rank of any linear layer."""
        ranks = [f.rank for parts in self.linears for f in parts if f is not None]
        return max([*ranks, 0 if self.head is None else self.head.rank], default=0)

    @property
    def changes_head(self) -> bool:
        """Whether the head's products differ from the base model's."""
        return any(x is not None for x in (self.head, self.head_weight, self.head_ids))

    @property
    def changes_hidden(self) -> bool:
        """Whether embeddings or hidden states are changed, LoRA and the attention's bias apart."""
        return self.changes_embeddings or (self.components is not None and self.components.config.changes_hidden)

    @property
    def changes_embeddings(self) -> bool:
        """Whether token embeddings differ from the base model's, components apart."""
        return any(x is not None for x in (self.embedding, self.embedding_table, self.token_ids))

    @property
    def has_independent_rows(self) -> bool:
        """Whether it changes rows by kernels alone, to which a row is the same, bit for bit, in any batch.

        Products of torch are not: low-rank embeddings, a head or rows of it in the base model's place, and of the
        components the fusion and the pathways. The second embedding changes prompts only.
        """
        if any(product is not None for product in (self.embedding, self.head_weight, self.head_rows)):
            return False
        config = None if self.components is None else self.components.config
        return config is None or not (config.two_stream or config.reasoning_pathways)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Everything that is held, with what to call it."""
        for index, parts in enumerate(self.linears):
            for factors in parts:
                if factors is not None:
                    yield from ((f"linear layer {index}, A", factors.a), (f"linear layer {index}, B", factors.b))
        for name, factors in (("head", self.head), ("embedding", self.embedding)):
            if factors is not None:
                yield from ((f"{name}, A", factors.a), (f"{name}, B", factors.b))
        for index, scale in self.scales.items():
            yield f"linear layer {index}, magnitude", scale.ratio
            if scale.shift is not None:
                yield f"linear layer {index}, magnitude of the bias", scale.shift
        for name in (
            "embedding_ratio",
            "head_weight",
            "embedding_table",
            "token_ids",
            "token_rows",
            "head_ids",
            "head_rows",
            "head_bias",
        ):
            if (tensor := getattr(self, name)) is not None:
                yield name, tensor
        if self.components is not None:
            yield from self.components.state_dict().items()
        if self.gate is not None:
            yield from (("instruction_gate.down", self.gate.down), ("instruction_gate.up", self.gate.up))
        if self.adherence is not None:
            yield from ((f"adherence_head, {name}", value) for name, value in self.adherence.state_dict().items())

    @property
    def bytes(self) -> int:
        """Memory of all tensors."""
        return sum(tensor.nbytes for _, tensor in self.tensors())


def _factors(module: LoraModule, dtype: torch.dtype, device: str, ratio: Tensor | None = None) -> Factors:
    a = module.a.to(device=device, dtype=dtype).contiguous()
    b = module.b if ratio is None else ratio.to(module.b.device)[:, None] * module.b.float()
    return Factors(a, b.T.to(device=device, dtype=dtype).contiguous(), module.scale)


def _take_linear(
    prepared: PreparedAdapter,
    index: int,
    modules: list[LoraModule | None],
    linear: AdaptableLinear,
    weights: BaseLinear,
    dtype: torch.dtype,
    device: str,
) -> list[Factors | None]:
    """The factors of a linear's parts; what DoRA does to the base's products goes into the adapter's scales."""
    if all(module is None or module.magnitude is None for module in modules):
        return [None if module is None else _factors(module, dtype, device) for module in modules]
    weight, bias = weights(index)
    ratio = torch.ones(weight.shape[0], dtype=torch.float32, device=weight.device)
    found: list[Factors | None] = []
    for part, module in enumerate(modules):
        own = slice(linear.columns[part], linear.columns[part + 1])
        if module is not None and module.magnitude is not None:
            ratio[own] = magnitude_ratio(module.magnitude, weight[own], module.a, module.b, module.scale)
        decomposed = module is not None and module.magnitude is not None
        found.append(None if module is None else _factors(module, dtype, device, ratio[own] if decomposed else None))
    prepared.scales[index] = output_scale(ratio.to(device), None if bias is None else bias.to(device))
    return found


def _take_embedding(
    prepared: PreparedAdapter, module: LoraModule, table: Tensor, dtype: torch.dtype, device: str, scale: float
) -> None:
    # PEFT keeps an embedding's factors as A [r, V] and B [d, r].
    a, b = module.a.T.to(device=device, dtype=dtype), module.b.T.to(device=device, dtype=dtype)
    prepared.embedding = Factors(a.contiguous(), b.contiguous(), module.scale * scale)
    if module.magnitude is not None:
        ratio = magnitude_ratio(module.magnitude, table.T, module.a, module.b, module.scale)
        prepared.embedding_ratio = ratio.to(device=device, dtype=dtype)


def prepare(
    weights: AdapterWeights,
    adaptable: list[AdaptableLinear],
    shape: BaseShape,
    *,
    embedding_path: str,
    head: AdaptableLinear,
    base_linear: BaseLinear,
    base_embedding: Callable[[], Tensor],
    dtype: torch.dtype,
    device: str,
    embedding_scale: float = 1.0,
) -> PreparedAdapter:
    """Lay an adapter out for serving; ``embedding_scale``: what the embedding layer multiplies its rows with.

    base_linear: weight and bias of an adaptable linear, the head's behind the last; base_embedding: the embedding
    layer's table ``[V, d]``. Raises AdapterError, naming the module, for what batches cannot do.
    """
    weights.check_served()
    left, head_path = dict(weights.lora), head.paths[0]
    prepared = PreparedAdapter([])
    replaced = weights.replaced.get(f"{head_path}.weight")

    def base(index: int) -> tuple[Tensor, Tensor | None]:
        weight, bias = base_linear(index)
        return (weight if index < len(adaptable) or replaced is None else replaced.to(weight)), bias

    for index, linear in enumerate([*adaptable, head]):
        modules = [left.pop(path, None) for path in linear.paths]
        prepared.linears.append(_take_linear(prepared, index, modules, linear, base, dtype, device))
    prepared.head = prepared.linears.pop()[0]
    if (module := left.pop(embedding_path, None)) is not None:
        table = weights.replaced.get(f"{embedding_path}.weight", base_embedding())
        _take_embedding(prepared, module, table, dtype, device, embedding_scale)
    if left:
        raise AdapterError(f"{next(iter(left))}: this model's serving path has no such layer to adapt")
    _take_replaced(prepared, dict(weights.replaced), embedding_path, head_path, dtype, device, embedding_scale)
    _take_tokens(prepared, weights, embedding_path, head_path, dtype, device, embedding_scale)
    if weights.components.names:
        components = InstructionComponents(weights.components, shape)
        components.load_state_dict(weights.extras)
        if weights.components.attention_bias:
            prepared.head_bias = components.head_bias().detach().float().to(device)
        exact, adherence = deepcopy(components.temperature_head), deepcopy(components.adherence_head)
        prepared.components = components.to(device=device, dtype=dtype).eval().requires_grad_(False)
        if components.instruction_gate is not None:
            prepared.gate = GateFactors.take(components.instruction_gate)
        if adherence is not None:
            prepared.adherence = adherence.to(device=device, dtype=torch.float32).eval().requires_grad_(False)
        if exact is not None and components.temperature_head is not None:
            prepared.temperature = PreparedHead.of(exact, components.temperature_head, device)
    for name, tensor in prepared.tensors():
        if not torch.isfinite(tensor).all():
            raise AdapterError(f"{name}: a value is too large for {str(dtype).removeprefix('torch.')}")
    return prepared


def _scaled(rows: Tensor, scale: float, dtype: torch.dtype, device: str) -> Tensor:
    found = rows.to(device=device, dtype=dtype).contiguous()
    # Rounded to the model's dtype first, as the embedding layer does.
    return found if scale == 1.0 else found * torch.tensor(scale, dtype=dtype, device=device)


def _take_tokens(
    prepared: PreparedAdapter,
    weights: AdapterWeights,
    embedding: str,
    head: str,
    dtype: torch.dtype,
    device: str,
    scale: float,
) -> None:
    for path, (ids, rows) in weights.token_rows.items():
        if path == embedding:
            prepared.token_ids, prepared.token_rows = ids.to(device), _scaled(rows, scale, dtype, device)
        elif path == head:
            prepared.head_ids, prepared.head_rows = ids.to(device), rows.to(device=device, dtype=dtype).contiguous()
        else:
            raise AdapterError(f"{path}: trainable tokens are served for the embeddings and the head only")


def _take_replaced(
    prepared: PreparedAdapter,
    replaced: dict[str, Tensor],
    embedding: str,
    head: str,
    dtype: torch.dtype,
    device: str,
    scale: float,
) -> None:
    if (table := replaced.pop(f"{embedding}.weight", None)) is not None:
        prepared.embedding_table = _scaled(table, scale, dtype, device)
    if (weight := replaced.pop(f"{head}.weight", None)) is not None:
        prepared.head_weight = weight.to(device=device, dtype=dtype).contiguous()
    if replaced:
        raise AdapterError(f"{next(iter(replaced))}: modules_to_save is served for the embeddings and the head only")

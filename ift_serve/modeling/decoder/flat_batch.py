"""The description of one forward pass that every attention layer reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from ift_kernels.instruction import InstructionBias
from ift_kernels.lora import LoraRows, LoraTable
from ift_kernels.lora_add import lora_add
from ift_kernels.paged_decode import paged_decode
from ift_kernels.paged_prefill import paged_prefill
from ift_kernels.paged_prefill.plan import PrefillPlan
from ift_kernels.write_kv import write_kv


class NotRoutedError(Exception):
    """A layer's attention is of a kind that flat batches do not compute; the message says which."""


@dataclass(frozen=True, slots=True)
class LayerGeometry:
    """Shapes of one attention layer: heads, key-value heads, head width, sliding window (0: none), soft-cap."""

    heads: int
    kv_heads: int
    width: int
    window: int
    softcap: float


@dataclass(frozen=True, slots=True)
class LayerCache:
    """Keys ``[N, H_kv, D, B]`` and values ``[N, H_kv, B, D']`` of one layer (layout: ``ift_kernels.paged_decode``).

    ``key_scale`` and ``value_scale`` multiply the entries of a float8 cache.
    """

    keys: Tensor
    values: Tensor
    key_scale: float = 1.0
    value_scale: float = 1.0


class AttentionBatch(Protocol):
    """What the routed attention calls; passed through the model as the keyword ``batch``."""

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int, softcap: float
    ) -> Tensor:
        """query ``[T, H, D]``, key and value ``[T, H_kv, D]`` -> ``[T, H, D]``, all of the flat batch's T tokens."""


class Adaptation(Protocol):
    """What the adapters of a batch do to hidden states outside its linear layers and scores (design, section 5)."""

    @property
    def changes_layers(self) -> bool:
        """Whether ``after_layer`` does anything."""

    def embed(self, embeddings: Tensor) -> Tensor:
        """Token embeddings ``[T, d]`` -> ``[T, d]``, before the first layer."""

    def gain(self, layer: int, attended: Tensor) -> Tensor:
        """Attention output ``[T, H, D]`` -> ``[T, H, D]``."""

    def after_layer(self, layer: int, hidden: Tensor, delta: Tensor | None = None) -> Tensor:
        """Output ``[T, d]`` of a decoder layer -> ``[T, d]``.

        With a ``delta`` the output is ``hidden + delta``, and ``hidden`` may be changed in place.
        """

    def before_head(self, hidden: Tensor) -> Tensor:
        """Hidden states ``[T, d]`` after the last normalisation -> ``[T, d]``."""


@dataclass(slots=True)
class BatchBias:
    """The attention bias of every sequence: see :class:`ift_kernels.instruction.InstructionBias`.

    ``head_bias`` is ``[layers, A, H]`` float32; ``mask`` ``[S, L]``, ``adapter`` ``[S]`` and ``strength`` ``[S]``
    belong to the rows of the batch's block tables.
    """

    mask: Tensor
    head_bias: Tensor
    adapter: Tensor
    strength: Tensor

    def of_layer(self, layer: int, first: int = 0, end: int | None = None) -> InstructionBias:
        """What the kernels take, for sequences ``first .. end-1``."""
        part = slice(first, end)
        return InstructionBias(self.mask[part], self.head_bias[layer], self.adapter[part], self.strength[part])


class OutputScaling(Protocol):
    """Scales the product of a linear layer before low-rank changes are added, in the rows of adapters with DoRA."""

    def scale(self, index: int, output: Tensor) -> None:
        """Change the output of linear ``index`` in place."""


@dataclass(slots=True)
class BatchLora:
    """Low-rank changes of linear layers: ``tables[i]`` belongs to the i-th adaptable linear of the decoder, None
    where no adapter of the batch has one. ``rows`` are the batch's tokens."""

    rows: LoraRows
    tables: list[LoraTable | None]
    backend: str = "auto"
    magnitudes: OutputScaling | None = None

    def add(self, index: int, inputs: Tensor, output: Tensor) -> None:
        """Change the output of linear ``index`` in place."""
        table = self.tables[index]
        if self.magnitudes is not None:
            self.magnitudes.scale(index, output)
        if table is not None:
            lora_add(inputs, table, self.rows, output, self.backend)


@dataclass(slots=True)
class PrefillPart:
    """The prompt chunks of a batch, its last sequences; ``first`` of them and ``token`` of the first token.

    ``cu_query`` ``[S' + 1]`` and ``lengths`` ``[S']`` int32 as :func:`ift_kernels.paged_prefill.paged_prefill` takes
    them, with its plan for each shape (heads, key-value heads, width) that layers have.
    """

    first: int
    token: int
    cu_query: Tensor
    lengths: Tensor
    plans: dict[tuple[int, int, int], PrefillPlan]


@dataclass(slots=True)
class FlatBatch:
    """T tokens of S sequences side by side, any mix of prompt chunks and single decode tokens.

    ``positions``, ``slots`` (cache slot each token is written to), ``sequence`` (row of ``block_tables``) and
    ``lengths`` (tokens a row may see: its position + 1) are ``[T]`` int32; ``block_tables`` is ``[S, M]`` int32;
    ``segments`` is ``[T]`` uint8 (design: 0 template, 1 instruction, 2 context, 3 response). ``tiles`` groups
    neighbouring rows for the CPU's attention kernel; ``prefill`` has launches of its own on a GPU, where decode
    tokens come first. ``backend`` is that of every kernel (:mod:`ift_kernels.backend`). ``on_layer`` is called after
    each layer's attention.
    """

    input_ids: Tensor
    positions: Tensor
    slots: Tensor
    sequence: Tensor
    lengths: Tensor
    longest: int
    block_tables: Tensor
    segments: Tensor
    layers: list[LayerCache]
    tiles: Tensor | None = None
    prefill: PrefillPart | None = None
    backend: str = "auto"
    bias: BatchBias | None = None
    lora: BatchLora | None = None
    adaptation: Adaptation | None = None
    on_layer: Callable[[], None] | None = None

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int, softcap: float
    ) -> Tensor:
        """Write keys and values into the cache, then let every token see its sequence up to itself."""
        layer = int(module.layer_idx)  # type: ignore[arg-type]
        cache = self.layers[layer]
        write_kv(
            key,
            value,
            self.slots,
            cache.keys,
            cache.values,
            key_scale=cache.key_scale,
            value_scale=cache.value_scale,
            backend=self.backend,
        )
        return self.attend_cached(layer, query, scale, window, softcap)

    def attend_cached(self, layer: int, query: Tensor, scale: float, window: int, softcap: float) -> Tensor:
        """Attention over keys and values that are in the cache already."""
        if self.prefill is None:
            output = self._decode(layer, query, query.shape[0], scale, window, softcap)
        elif self.prefill.token == 0:
            output = self._prefill(layer, query, self.prefill, scale, window, softcap)
        else:
            count = self.prefill.token
            output = torch.cat(
                (
                    self._decode(layer, query[:count], count, scale, window, softcap),
                    self._prefill(layer, query[count:], self.prefill, scale, window, softcap),
                )
            )
        if self.on_layer is not None:
            self.on_layer()
        return output if self.adaptation is None else self.adaptation.gain(layer, output)

    def _decode(self, layer: int, query: Tensor, count: int, scale: float, window: int, softcap: float) -> Tensor:
        cache = self.layers[layer]
        bias = None if self.bias is None else self.bias.of_layer(layer)
        return paged_decode(
            query,
            cache.keys,
            cache.values,
            self.block_tables,
            self.sequence[:count],
            self.lengths[:count],
            self.longest,
            scale,
            window,
            softcap,
            self.tiles,
            bias,
            cache.key_scale,
            cache.value_scale,
            self.backend,
        )

    def _prefill(
        self, layer: int, query: Tensor, part: PrefillPart, scale: float, window: int, softcap: float
    ) -> Tensor:
        cache = self.layers[layer]
        bias = None if self.bias is None else self.bias.of_layer(layer, part.first)
        plan = part.plans.get((query.shape[1], cache.keys.shape[1], query.shape[2]))
        return paged_prefill(
            query,
            cache.keys,
            cache.values,
            self.block_tables[part.first :],
            part.cu_query,
            part.lengths,
            scale,
            window,
            softcap,
            plan,
            bias,
            cache.key_scale,
            cache.value_scale,
            self.backend,
        )


class GeometryProbe:
    """Records what each attention layer is called with, to size the cache and to prove that all are routed."""

    adaptation: Adaptation | None = None

    def __init__(self, tokens: int | None = None) -> None:
        """tokens: how many each layer must be called with, where that is known."""
        self.tokens = tokens
        self.layers: dict[int, LayerGeometry] = {}

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int, softcap: float
    ) -> Tensor:
        """Note the shapes and run plain causal attention, so that later layers see finite numbers.

        Raises NotRoutedError for what a flat batch could not do.
        """
        tokens, heads, width = query.shape
        kv_heads = key.shape[1]
        index = int(module.layer_idx)  # type: ignore[arg-type]
        if index in self.layers:
            raise NotRoutedError(f"layer {index} attends more than once, and there is one cache a layer")
        if tokens != (self.tokens or tokens) or key.shape[0] != tokens:
            raise NotRoutedError(
                f"layer {index} attends with {tokens} queries and {key.shape[0]} keys, which are not the batch's tokens"
            )
        if value.shape[2] != width or key.shape[2] != width:
            raise NotRoutedError(
                f"its keys are {key.shape[2]} wide and its values {value.shape[2]}; the cache takes equal widths"
            )
        self.layers[index] = LayerGeometry(heads, kv_heads, width, window, softcap)
        keys = key.float().repeat_interleave(heads // kv_heads, dim=1)
        values = value.float().repeat_interleave(heads // kv_heads, dim=1)
        scores = torch.einsum("qhd,khd->hqk", query.float(), keys) * scale
        if softcap:
            scores = softcap * torch.tanh(scores / softcap)
        rows = torch.arange(tokens, device=query.device)
        hidden = rows[None, :] > rows[:, None]
        if window:
            hidden |= rows[None, :] <= rows[:, None] - window
        weights = torch.softmax(scores.masked_fill(hidden, float("-inf")), dim=-1)
        return torch.einsum("hqk,khd->qhd", weights, values).to(query.dtype).contiguous()

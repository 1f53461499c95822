"""One way to run a model: flat batch in, hidden states out, logits for the rows that need them."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor, nn

from ift_serve.modeling.decoder.adaptable_layers import AdaptableLinear
from ift_serve.modeling.decoder.flat_batch import BatchLora, FlatBatch
from ift_serve.modeling.decoder.hooks import attach, backbone_of
from ift_serve.modeling.decoder.linear import pack_linears
from ift_serve.modeling.decoder.model_loader import LoadedModel
from ift_serve.modeling.decoder.quantization import QuantizedWeights
from ift_serve.modeling.decoder.shard import JoinedHead, Shard, SummedLinear
from ift_serve.modeling.decoder.tail import ModelTail


class Decoder(Protocol):
    """The compute of a model, whatever its implementation."""

    name: str

    def embed(self, input_ids: Tensor) -> Tensor:
        """The base model's token embeddings: ``[T] -> [T, d]``."""

    def embedding_table(self) -> Tensor:
        """The base model's token embeddings: ``[V, d]``; in new memory where it is kept in fewer bits."""

    def adaptable(self) -> list[AdaptableLinear]:
        """The linear layers below the head that adapters can change; a batch's LoRA tables come in this order."""

    def base_linear(self, index: int) -> tuple[Tensor, Tensor | None]:
        """Weight ``[N, K]`` and bias ``[N]`` of the index-th adaptable linear; the one past the last is the head."""

    def forward(self, batch: FlatBatch, rows: Tensor | None) -> Tensor:
        """Hidden states after the last normalisation; keys and values go into the cache.

        rows: ``[R]`` int64 indices of the tokens that are asked for, or None for all -> ``[R, d]``.
        """

    def logits(self, hidden: Tensor) -> Tensor:
        """``[R, d]`` -> ``[R, V]``, as the model computes them."""

    def head(self, hidden: Tensor) -> Tensor:
        """``[R, d]`` -> ``[R, V]``: the head's product alone, which adapters change."""

    def finish(self, products: Tensor) -> Tensor:
        """What the model does to its head's products: ``[R, V]`` -> ``[R, V]``, such as scaling and capping."""

    @property
    def finishes(self) -> bool:
        """Whether ``finish`` does anything."""

    @property
    def head_adaptable(self) -> bool:
        """Whether ``logits`` is ``finish(head(hidden))``, so that adapters of the head can be served."""

    @property
    def has_packed_products(self) -> bool:
        """Whether every product is one of packed layers, whose rows do not depend on one another bit for bit."""


class _LoraSlot:
    """Holds what the adapted layers of one decoder add during its current forward pass."""

    lora: BatchLora | None = None


class _AdaptedLinear(nn.Module):
    """A linear layer of the model, then the batch's low-rank changes of it.

    transformers hands a layer only its input, so the batch waits in a slot that the decoder fills for each pass.
    """

    def __init__(self, inner: nn.Module, index: int, slot: _LoraSlot) -> None:
        super().__init__()
        self.inner = inner
        self._index = index
        self._slot = slot

    def forward(self, inputs: Tensor) -> Tensor:
        output: Tensor = self.inner(inputs)
        lora = self._slot.lora
        if lora is not None:
            lora.add(self._index, inputs.reshape(-1, inputs.shape[-1]), output.view(-1, output.shape[-1]))
        return output


def _linears(model: nn.Module, head: nn.Module | None) -> list[tuple[str, nn.Module, str]]:
    """Path, parent and name of every linear layer but the head."""
    found = []
    for path, module in model.named_modules():
        for name, child in module.named_children():
            if type(child) is nn.Linear and child is not head:
                found.append((f"{path}.{name}" if path else name, module, name))
    return found


class RoutedDecoder:
    """The transformers model as it is, with attention routed into the flat batch."""

    name = "routed"

    def __init__(
        self,
        model: nn.Module,
        *,
        pack: bool = False,
        quantized: QuantizedWeights | None = None,
        shard: Shard | None = None,
    ) -> None:
        self._model = model
        self._backbone = backbone_of(model)
        head = model.get_output_embeddings()  # type: ignore[operator]
        linears = _linears(model, head)
        shapes = [(path, _width(getattr(parent, name))) for path, parent, name in linears]
        self._adaptable = [AdaptableLinear((path,), k, (0, n)) for path, (k, n) in shapes]
        self._slot = _LoraSlot()
        head_place = _place(model, head) if shard is not None and shard.head_columns else None
        if pack:
            pack_linears(model, quantized)
        self._adapted: list[_AdaptedLinear] = []
        for index, (path, parent, name) in enumerate(linears):
            adapted = _AdaptedLinear(getattr(parent, name), index, self._slot)
            self._adapted.append(adapted)
            is_summed = shard is not None and path in shard.summed
            setattr(parent, name, SummedLinear(adapted, shard) if shard is not None and is_summed else adapted)
        if shard is not None and head_place is not None:
            parent, name = head_place
            setattr(parent, name, JoinedHead(getattr(parent, name), shard))
        attach(model)
        self.has_packed_products = pack and not any(map(_has_matrices, model.modules()))
        self._tail = ModelTail(model)
        self._kind = self._tail.recognise()

    def embed(self, input_ids: Tensor) -> Tensor:
        """See :class:`Decoder`."""
        embedded: Tensor = self._model.get_input_embeddings()(input_ids)  # type: ignore[operator]
        return embedded

    def embedding_table(self) -> Tensor:
        """See :class:`Decoder`."""
        table: Tensor = self._model.get_input_embeddings().weight  # type: ignore[operator]
        return table

    def adaptable(self) -> list[AdaptableLinear]:
        """See :class:`Decoder`."""
        return self._adaptable

    def base_linear(self, index: int) -> tuple[Tensor, Tensor | None]:
        """See :class:`Decoder`."""
        head = self._model.get_output_embeddings()  # type: ignore[operator]
        return _dense(head if index == len(self._adapted) else self._adapted[index].inner)

    def forward(self, batch: FlatBatch, rows: Tensor | None) -> Tensor:
        """See :class:`Decoder`."""
        self._slot.lora = batch.lora
        output = self._backbone(
            input_ids=batch.input_ids[None], position_ids=batch.positions.long()[None], use_cache=False, batch=batch
        )
        hidden: Tensor = output.last_hidden_state[0]
        return hidden if rows is None else hidden[rows]

    def logits(self, hidden: Tensor) -> Tensor:
        """See :class:`Decoder`."""
        return self._tail.head(hidden) if self._kind.is_product else self._tail.logits(hidden)

    def head(self, hidden: Tensor) -> Tensor:
        """See :class:`Decoder`."""
        return self._tail.head(hidden)

    def finish(self, products: Tensor) -> Tensor:
        """See :class:`Decoder`."""
        return products if self._kind.is_product else self._tail.finish(products)

    @property
    def finishes(self) -> bool:
        """See :class:`Decoder`."""
        return not self._kind.is_product

    @property
    def head_adaptable(self) -> bool:
        """See :class:`Decoder`."""
        return self._kind.splits


def _place(model: nn.Module, wanted: nn.Module) -> tuple[nn.Module, str]:
    """Parent and name of a module."""
    for module in model.modules():
        for name, child in module.named_children():
            if child is wanted:
                return module, name
    raise ValueError(f"{type(model).__name__} has its head nowhere")


def _has_matrices(module: nn.Module) -> bool:
    """Whether a module may multiply with weights that are not packed."""
    return not isinstance(module, nn.Embedding) and any(
        parameter.dim() > 1 for parameter in module.parameters(recurse=False)
    )


def _dense(linear: Any) -> tuple[Tensor, Tensor | None]:
    found: tuple[Tensor, Tensor | None] = linear.dense() if hasattr(linear, "dense") else (linear.weight, linear.bias)
    return found


def _width(linear: Any) -> tuple[int, int]:
    return int(linear.in_features), int(linear.out_features)


def make_decoder(loaded: LoadedModel, backend: str = "auto", *, fuse: bool = True) -> Decoder:
    """The fastest decoder that computes this model; ``reference`` takes the model's own modules as they are."""
    from ift_serve.modeling.decoder.fused_layers import FusedDecoder, can_fuse

    if backend == "reference":
        return RoutedDecoder(loaded.model, shard=loaded.shard)
    if fuse and can_fuse(loaded):
        return FusedDecoder(loaded, backend)
    decoder = RoutedDecoder(loaded.model, pack=True, quantized=loaded.quantized, shard=loaded.shard)
    loaded.quantized.clear()
    return decoder

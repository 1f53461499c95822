"""The tensors of all resident adapters, and what they add to a step's batch."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import linear

from ift_kernels.backend import is_triton
from ift_kernels.lora import LoraRows, LoraTable, group_rows
from ift_kernels.lora_add import lora_add
from ift_kernels.row_statistics import row_statistics
from ift_serve.engine.adapters.host import ReadAdapter
from ift_serve.engine.adapters.predicted_temperatures import PredictedTemperatures
from ift_serve.engine.adapters.prompt_states import PromptStates
from ift_serve.engine.adapters.version import AdapterMetadata
from ift_serve.engine.protocol.generate import GenerateRequest
from ift_serve.engine.protocol.refused import RefusedError
from ift_serve.engine.protocol.results import FailureKind
from ift_serve.engine.sequences.judged_tokens import Judged
from ift_serve.engine.sequences.step import AdaptedPrompt, SequenceStep
from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.modeling.adapter_format.errors import AdapterError
from ift_serve.modeling.adapter_format.signing.errors import SigningError
from ift_serve.modeling.adapter_format.signing.trusted_keys import read_trusted_keys
from ift_serve.modeling.adapter_format.weights import AdapterWeights
from ift_serve.modeling.components.config import BaseShape
from ift_serve.modeling.components.tokens import TokenBatch
from ift_serve.modeling.decoder.adaptable_layers import AdaptableLinear
from ift_serve.modeling.decoder.decoder import Decoder
from ift_serve.modeling.decoder.flat_batch import BatchBias, BatchLora, FlatBatch
from ift_serve.modeling.decoder.model_loader import LoadedModel
from ift_serve.modeling.decoder.shard import Shard
from ift_serve.modeling.multi_adapter.adaptation import AdapterGroup, MixedAdaptation
from ift_serve.modeling.multi_adapter.divided import check_divides, divided_linears
from ift_serve.modeling.multi_adapter.lora_tables import AdapterTables
from ift_serve.modeling.multi_adapter.magnitudes import BatchMagnitudes, OutputScale
from ift_serve.modeling.multi_adapter.prepared import Factors, PreparedAdapter, prepare
from ift_serve.modeling.multi_adapter.sizes import check_sizes
from ift_serve.modeling.multi_adapter.temperature_table import TemperatureTable

_log = logging.getLogger(__name__)
_INSTRUCTION = 1
_NO_NUMBER = -1
_CPU_TILE, _GPU_TILE = 4, 16


class OtherRanks(Protocol):
    """The ranks that compute the other parts of a divided model."""

    def place_adapter(self, slot: int, parts: list[list[list[Factors | None]]]) -> None:
        """Have each find its part of an adapter in ``slot``: by rank, then adaptable linear, then part of it."""

    def clear_adapter(self, slot: int) -> None:
        """Free the adapter of a slot."""


class DeviceAdapterTensors:
    """The ``AdapterTensors`` of a model runner (see ``host``). Only ``read`` runs in another thread."""

    def __init__(
        self,
        model: LoadedModel,
        metadata: BaseMetadata,
        decoder: Decoder,
        *,
        slots: int,
        max_rank: int,
        backend: str,
        device: str,
        trusted_keys: Path | None = None,
        shard: Shard | None = None,
        others: OtherRanks | None = None,
        invariant: bool = False,
    ) -> None:
        """``model`` is whole; shard: this rank's part, where ``others`` compute the other parts of ``decoder``.

        invariant: adapters are refused whose changes of a row may depend on the other rows.
        """
        if trusted_keys is not None:
            read_trusted_keys(trusted_keys)  # what is wrong with them is said at the start
        self._trusted_keys = trusted_keys
        geometry = model.geometry
        self.slots = slots
        self._metadata = metadata
        self._decoder = decoder
        self._max_rank = max_rank
        self._dtype = model.dtype
        self._device = torch.device(device)
        self._backend = backend
        self._shard = shard
        self._others = others
        self._invariant = invariant
        self._tile = _GPU_TILE if is_triton(backend) else _CPU_TILE
        self._shape = BaseShape(
            hidden_size=int(model.config.hidden_size),
            layers=len(geometry),
            heads=geometry[0].heads,
            vocabulary_size=int(model.config.vocab_size),
        )
        self._adaptable = decoder.adaptable()
        # Gemma's embedding layer multiplies its rows; what stands in their place is multiplied alike.
        embeddings = model.model.get_input_embeddings()  # type: ignore[operator]
        self._embedding_scale = float(getattr(embeddings, "embed_scale", 1.0))
        vocabulary, hidden = int(model.config.vocab_size), int(model.config.hidden_size)
        head = AdaptableLinear((metadata.head_path,), hidden, (0, vocabulary))
        self._head = head
        self.tables = AdapterTables(
            self._adaptable,
            head,
            slots=slots,
            layers=len(geometry),
            heads=geometry[0].heads,
            max_rank=max_rank,
            device=str(self._device),
        )
        self._resident: dict[str, PreparedAdapter] = {}
        self._placed: dict[int, PreparedAdapter] = {}
        self._scales: dict[int, dict[int, OutputScale]] = {}
        self._linears: tuple[list[int], list[LoraTable | None]] | None = None
        self._states = PromptStates(decoder, self._device)
        self._heads = TemperatureTable(slots, str(self._device))
        self.temperatures = PredictedTemperatures(self._heads, self._placed, self._states, backend)
        """Predicts the temperatures of a step's rows, as the sampler asks it."""

    def read(self, path: str, root: str) -> ReadAdapter:
        """See :class:`ift_serve.engine.adapters.host.AdapterTensors`. Raises AdapterError."""
        from ift_serve.modeling.adapter_format.reader import read_adapter

        torch.set_num_threads(1)  # of this thread only: the engine's keep theirs
        # Keys are read at each load: one that is taken away is not believed any more.
        trusted = None if self._trusted_keys is None else _trusted(self._trusted_keys)
        within = Path(root) if root else None
        return self.take(read_adapter(Path(path), self._metadata, within, self._max_rank, trusted))

    def take(self, weights: AdapterWeights) -> ReadAdapter:
        """Lay out what was read. Raises AdapterError for what batches cannot do."""
        if self._shard is not None:
            check_divides(
                weights,
                self._metadata.embedding_path,
                self._metadata.head_path,
                head_is_last=self._decoder.head_adaptable and not self._decoder.finishes,
            )
        prepared = prepare(
            weights,
            self._adaptable,
            self._shape,
            embedding_path=self._metadata.embedding_path,
            head=self._head,
            base_linear=self._decoder.base_linear,
            base_embedding=self._decoder.embedding_table,
            dtype=self._dtype,
            device=str(self._device),
            embedding_scale=self._embedding_scale,
        )
        if prepared.changes_head and not self._decoder.head_adaptable:
            raise AdapterError(
                f"{self._metadata.head_path}: {self._metadata.architecture} changes hidden states before its head "
                "multiplies them, so adapters of the head are not served on it; train without the head"
            )
        if self._invariant and not self._is_invariant(prepared):
            raise AdapterError(
                "it changes embeddings, hidden states or rows of the head by plain products, whose last bits depend on "
                "the rest of the batch; serve it without batch_invariant"
            )
        paths = [linear.paths for linear in self._adaptable]
        check_sizes(prepared, paths, self._metadata.head_path, self._metadata.embedding_path)
        components = weights.components
        below_head = any(any(part is not None for part in parts) for parts in prepared.linears)
        changes = below_head or prepared.changes_embeddings or components.changes_cache
        metadata = AdapterMetadata(
            version=weights.version,
            rank=weights.rank,
            components=[*(["lora"] if weights.lora else []), *components.names],
            bytes=prepared.bytes,
            shares_cache=not changes,
            uses_segments=components.uses_segments,
            uses_instruction=components.uses_instruction_vector,
            end_ids=tuple(weights.config.end_ids) if weights.config is not None else (),
            trained_on=weights.config.trained_on if weights.config is not None else (),
            calibration=None if weights.config is None else weights.config.calibration_temperature,
            independent_rows=prepared.has_independent_rows,
            signed_as="" if weights.signed is None else weights.signed.manifest.adapter,
            signed_files=() if weights.signed is None else weights.signed.names,
        )
        return ReadAdapter(metadata, prepared)

    def _is_invariant(self, prepared: PreparedAdapter) -> bool:
        on_gpu = is_triton(self._backend)
        return prepared.has_independent_rows and not (on_gpu and (prepared.changes_hidden or prepared.scales))

    def keep(self, key: str, tensors: PreparedAdapter) -> None:
        """See :class:`ift_serve.engine.adapters.host.AdapterTensors`."""
        self._resident[key] = tensors

    def place(self, key: str, slot: int) -> None:
        """See :class:`ift_serve.engine.adapters.host.AdapterTensors`."""
        adapter = self._placed[slot] = self._own_part(slot, self._resident[key])
        self._scales.pop(slot, None)
        if adapter.scales:
            self._scales[slot] = adapter.scales
        self.tables.place(slot, adapter)
        self._heads.place(slot, adapter.temperature)
        self._linears = None

    def _own_part(self, slot: int, adapter: PreparedAdapter) -> PreparedAdapter:
        """What of an adapter this rank computes; the other ranks get theirs."""
        if self._shard is None or self._others is None:
            return adapter
        parts = [divided_linears(adapter, self._adaptable, self._shard, rank) for rank in range(self._shard.size)]
        self._others.place_adapter(slot, parts[1:])
        return replace(adapter, linears=parts[0])

    def forget(self, key: str, slot: int | None) -> None:
        """See :class:`ift_serve.engine.adapters.host.AdapterTensors`."""
        del self._resident[key]
        if slot is not None:
            del self._placed[slot]
            self._scales.pop(slot, None)
            self.tables.clear(slot)
            self._heads.clear(slot)
            if self._others is not None:
                self._others.clear_adapter(slot)
            self._linears = None

    def extend(self, batch: FlatBatch, sequences: list[SequenceStep]) -> NDArray[np.int32] | None:
        """Add to a batch what its sequences' adapters change; None, and nothing added, where there are none.

        Returns the slot of each sequence.
        """
        slots = np.array([s.adapter for s in sequences], dtype=np.int32)
        if not slots.any():
            return None
        owner = batch.sequence.numpy(force=True)
        rows = slots[owner]
        used = {int(slot): self._placed[int(slot)] for slot in np.unique(slots) if slot}
        linears = self._changed_linears(list(used))
        if any(table is not None for table in linears):
            scaling = BatchMagnitudes.of_rows(rows, self._scales, self._device) if self._scales else None
            batch.lora = BatchLora(self._rows(rows), linears, self._backend, scaling)
        if any(adapter.head_bias is not None for adapter in used.values()):
            batch.bias = self._bias(batch, sequences, slots, used)
        groups = [
            self._group(batch, adapter, np.flatnonzero(rows == slot), owner, sequences)
            for slot, adapter in used.items()
            if adapter.changes_hidden
        ]
        if groups:
            batch.adaptation = MixedAdaptation(groups, self._backend)
        return slots

    def warm_up(self, batch: FlatBatch, tiles: int) -> None:
        """Give a batch all that adapters can add, without any adapter: the kernels run, and nothing changes."""
        sequences, tokens = batch.block_tables.shape[0], batch.input_ids.shape[0]
        mask = np.zeros((sequences, -(-batch.longest // 16) * 16), dtype=np.uint8)
        base = np.zeros(sequences, dtype=np.int32)
        strength = np.ones(sequences, dtype=np.float32)
        batch.bias = BatchBias(self._put(mask), self.tables.head_bias, self._put(base), self._put(strength))
        empty = [self._put(np.zeros(tiles, dtype=np.int32)) for _ in range(3)]
        rows = LoraRows(self._put(np.zeros(tokens, dtype=np.int32)), *empty)
        batch.lora = BatchLora(rows, list(self.tables.all_linears), self._backend)
        hidden = self._decoder.forward(batch, None)
        logits = self._decoder.head(hidden)
        lora_add(hidden, self.tables.everything[-1], rows, logits, self._backend)
        initial = torch.ones(tokens, dtype=torch.float32, device=self._device)
        self.temperatures(row_statistics(logits, self._backend), hidden, initial, [None] * tokens)

    def change_logits(self, hidden: Tensor, logits: Tensor, slots: NDArray[np.int32]) -> Tensor:
        """Logits ``[R, V]`` of rows whose adapters are in ``slots`` ``[R]``, with what those change in the head."""
        changing = [slot for slot, adapter in self._placed.items() if adapter.changes_head]
        if not changing or not self._decoder.finishes:
            return self._change_products(hidden, logits, slots) if changing else logits
        # Scaling and capping come after the head, so the rows that an adapter changes begin again from its products.
        chosen = np.flatnonzero(np.isin(slots, changing))
        rows = self._put(chosen)
        products = self._change_products(hidden[rows], self._decoder.head(hidden[rows]), slots[chosen])
        logits[rows] = self._decoder.finish(products).to(logits.dtype)
        return logits

    @torch.inference_mode()
    def choose_mode(self, request: GenerateRequest) -> str:
        """How a request is reasoned about, as its adapter's classifier says: "none", "trace" or "branch".

        ``request.adapter`` is a resident version, ``name@version``. Raises RefusedError where it has no classifier.
        """
        adapter = self._resident.get(request.adapter)
        components = None if adapter is None else adapter.components
        if components is None or components.mode_classifier is None:
            whose = f"the adapter {request.adapter!r} has none" if request.adapter else "the base model has none"
            raise RefusedError(
                FailureKind.UNFIT,
                f"reasoning.auto: asks a classifier of instructions, and {whose}; name an adapter that was trained "
                "with `modes`, or choose the kind of reasoning yourself",
                "reasoning.auto",
            )
        prompt = AdaptedPrompt(_NO_NUMBER, request.token_ids, request.segment_ids)
        return components.mode(self._states.instruction(components, prompt))

    def judge(self, hidden: Tensor, sequence: SequenceStep) -> list[Judged]:
        """What the adherence head of a sequence's adapter says of positions with hidden states ``[n, d]``."""
        adapter = self._placed[sequence.adapter]
        assert adapter.adherence is not None
        state = self._states.of(adapter, sequence.prompt)
        instruction = None if state is None else state.instruction[None]
        return [(score, value) for score, value in adapter.adherence.of_tokens(hidden, instruction).tolist()]

    def _change_products(self, hidden: Tensor, products: Tensor, slots: NDArray[np.int32]) -> Tensor:
        for slot in np.unique(slots):
            adapter = self._placed.get(int(slot))
            if adapter is None or not adapter.changes_head:
                continue
            chosen = self._put(np.flatnonzero(slots == slot))
            if adapter.head_weight is not None:
                products[chosen] = linear(hidden[chosen], adapter.head_weight).to(products.dtype)
            if adapter.head_ids is not None and adapter.head_rows is not None:
                own = linear(hidden[chosen], adapter.head_rows).to(products.dtype)
                products[chosen[:, None], adapter.head_ids] = own
        if (scaling := BatchMagnitudes.of_rows(slots, self._scales, self._device)) is not None:
            scaling.scale(len(self._adaptable), products)
        if (table := self.tables.head) is not None and len(slots):
            lora_add(hidden.contiguous(), table, self._rows(slots), products, self._backend)
        return products

    def _changed_linears(self, slots: list[int]) -> list[LoraTable | None]:
        """What :meth:`AdapterTables.linears` gives; kept, since the next step mostly has the same adapters."""
        if self._linears is None or self._linears[0] != slots:
            self._linears = slots, self.tables.linears(slots)
        return self._linears[1]

    def _rows(self, slots: NDArray[np.int32]) -> LoraRows:
        order, tiles = group_rows(np.where(slots > 0, slots, -1), self._tile)
        return LoraRows(self._put(order), *(self._put(np.ascontiguousarray(part)) for part in tiles))

    def _put(self, array: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(array).to(self._device)

    def _bias(
        self,
        batch: FlatBatch,
        sequences: list[SequenceStep],
        slots: NDArray[np.int32],
        used: dict[int, PreparedAdapter],
    ) -> BatchBias:
        mask = np.zeros((len(sequences), -(-batch.longest // 16) * 16), dtype=np.uint8)
        strength = np.ones(len(sequences), dtype=np.float32)
        for index, sequence in enumerate(sequences):
            prompt = sequence.prompt
            if sequence.adapter and prompt is not None and prompt.segment_ids:
                length = min(len(prompt.segment_ids), mask.shape[1])
                mask[index, :length] = np.frombuffer(prompt.segment_ids, dtype=np.uint8)[:length] == _INSTRUCTION
                state = self._states.of(used[sequence.adapter], prompt)
                if state is not None:
                    strength[index] = state.strength
        return BatchBias(self._put(mask), self.tables.head_bias, self._put(slots), self._put(strength))

    def _group(
        self,
        batch: FlatBatch,
        adapter: PreparedAdapter,
        chosen: NDArray[np.int64],
        owner: NDArray[np.int32],
        sequences: list[SequenceStep],
    ) -> AdapterGroup:
        every = len(chosen) == len(owner)
        rows = self._put(chosen)
        members, inverse = np.unique(owner[chosen], return_inverse=True)
        instruction = None
        if adapter.components is not None and adapter.components.config.instruction_encoder:
            found = [self._states.of(adapter, sequences[int(member)].prompt) for member in members]
            instruction = torch.stack([state.instruction for state in found if state is not None])
        tokens = TokenBatch(
            input_ids=batch.input_ids.long() if every else batch.input_ids[rows].long(),
            segments=batch.segments if every else batch.segments[rows],
            sequence=self._put(inverse.astype(np.int64)),
            sequences=len(members),
            instruction=instruction,
            has_instruction=any(_INSTRUCTION in sequences[int(member)].segment_ids for member in members),
        )
        terms = [self._states.gate_terms(adapter, sequences[int(member)].prompt) for member in members]
        return AdapterGroup(adapter, None if every else rows, tokens, [one for one in terms if one is not None])


def _trusted(place: Path) -> list[Any]:
    """Raises AdapterError, which says nothing of the place: callers are told of it."""
    try:
        return read_trusted_keys(place)
    except SigningError as error:
        _log.error("no adapter can be loaded: %s", error)
        raise AdapterError("the keys that this server trusts cannot be read; its log says why") from None

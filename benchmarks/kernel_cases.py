"""What ``kernels.py`` times: each operation at serving shapes, its floor, and who else can do it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from attention_peers import BLOCK, Work, flashinfer_decode, flex, sdpa
from torch import Tensor

from ift_kernels.fused_add_rms_norm import fused_add_rms_norm
from ift_kernels.instruction import InstructionBias
from ift_kernels.lora import LoraTable, lora_rows
from ift_kernels.lora_add import lora_add
from ift_kernels.paged_decode import paged_decode
from ift_kernels.paged_prefill import paged_prefill
from ift_kernels.paged_prefill.plan import prefill_plan
from ift_kernels.row_statistics import row_statistics
from ift_kernels.sample_rows import sample_rows
from ift_kernels.sample_rows.api import greedy_parameters
from ift_kernels.silu_and_mul import silu_and_mul
from ift_kernels.temperature_heads import HeadRows, HeadTable, temperature_heads
from ift_kernels.write_kv import rotate_and_write_kv


@dataclass
class Case:
    """One operation at one shape. ``amount``: bytes, or floating-point operations where ``unit`` is flops."""

    operation: str
    shape: str
    ours: Work
    amount: float
    unit: str = "bytes"
    target: str = ""
    graph: bool = True
    peers: dict[str, Work] = field(default_factory=dict)


@dataclass(frozen=True)
class Device:
    """Where tensors go, and which backend that means; ``tiny`` shrinks every shape so that the interpreter can run."""

    name: str
    dtype: torch.dtype
    tiny: bool

    def randn(self, *shape: int) -> Tensor:
        return torch.randn(shape, device=self.name, dtype=torch.float32).to(self.dtype)

    def ints(self, values: object) -> Tensor:
        return torch.as_tensor(np.asarray(values, dtype=np.int32), device=self.name)


def _cache(device: Device, sequences: int, length: int, kv_heads: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Keys, values and block tables of sequences whose blocks lie scattered."""
    blocks = -(-length // BLOCK)
    total = sequences * blocks
    keys = device.randn(total, kv_heads, BLOCK, width).transpose(2, 3)
    values = device.randn(total, kv_heads, BLOCK, width)
    tables = device.ints(np.random.default_rng(0).permutation(total).reshape(sequences, blocks))
    return keys, values, tables


def _bias(device: Device, sequences: int, heads: int, length: int) -> InstructionBias:
    mask = (torch.rand(sequences, -(-length // 16) * 16, device=device.name) < 0.2).to(torch.uint8)
    return InstructionBias(
        mask,
        torch.randn(2, heads, device=device.name),
        device.ints([1] * sequences),
        torch.ones(sequences, device=device.name),
    )


def _kept(**peers: Work | None) -> dict[str, Work]:
    return {name: work for name, work in peers.items() if work is not None}


def decode(
    device: Device, rows: int, length: int, heads: int, kv_heads: int, width: int, target: str
) -> Iterator[Case]:
    """Attention of one decode step, without and with the bias."""
    keys, values, tables = _cache(device, rows, length, kv_heads, width)
    query, lengths, own = device.randn(rows, heads, width), device.ints([length] * rows), device.ints(range(rows))
    bias = _bias(device, rows, heads, length)
    dense_keys, dense_values = (
        cache[tables.long()].transpose(1, 2).reshape(rows, kv_heads, -1, width)[:, :, :length]
        for cache in (keys.transpose(2, 3), values)
    )
    added = (bias.bias[1][None, :, None, None] * bias.mask[:, None, None, :length]).to(query.dtype)
    amount = 2 * rows * length * kv_heads * width * query.element_size()
    for name, instruction in (("", None), (" +bias", bias)):

        def ours(instruction: InstructionBias | None = instruction) -> Tensor:
            return paged_decode(
                query,
                keys,
                values,
                tables,
                own,
                lengths,
                length,
                width**-0.5,
                instruction=instruction,
                backend="triton",
            )

        peers = _kept(
            cudnn_dense=sdpa(
                query[:, :, None], dense_keys, dense_values, None if instruction is None else added, causal=False
            ),
            flex_dense=None
            if instruction is None
            else flex(query[:, :, None], dense_keys, dense_values, bias.mask, bias.bias[1], causal=False),
            flashinfer=flashinfer_decode(query, keys, values, tables, length) if instruction is None else None,
        )
        yield Case(
            "paged_decode",
            f"{rows} x {length}, {heads}/{kv_heads} x {width}{name}",
            ours,
            amount,
            target=target if instruction is None else "bias costs <= 2 %",
            peers=peers,
        )


def prefill(device: Device, length: int, heads: int, kv_heads: int, width: int) -> Iterator[Case]:
    """Causal attention of one prompt, without and with the bias."""
    keys, values, tables = _cache(device, 1, length, kv_heads, width)
    query, bounds, total = device.randn(length, heads, width), device.ints([0, length]), device.ints([length])
    plan = prefill_plan([length], heads, kv_heads, width, device.name)
    bias = _bias(device, 1, heads, length)
    dense_keys, dense_values = (
        cache[tables[0].long()].transpose(0, 1).reshape(1, kv_heads, -1, width)[:, :, :length]
        for cache in (keys.transpose(2, 3), values)
    )
    rows = query.transpose(0, 1)[None].contiguous()
    amount = 2 * 2 * heads * width * length * length / 2
    for name, instruction in (("", None), (" +bias", bias)):

        def ours(instruction: InstructionBias | None = instruction) -> Tensor:
            return paged_prefill(
                query,
                keys,
                values,
                tables,
                bounds,
                total,
                width**-0.5,
                plan=plan,
                instruction=instruction,
                backend="triton",
            )

        peers = _kept(
            cudnn_dense=sdpa(rows, dense_keys, dense_values, None, causal=True) if instruction is None else None,
            flex_dense=None
            if instruction is None
            else flex(rows, dense_keys, dense_values, bias.mask, bias.bias[1], causal=True),
        )
        yield Case(
            "paged_prefill",
            f"{length}, {heads}/{kv_heads} x {width}{name}",
            ours,
            amount,
            "flops",
            graph=False,
            target=">= 400 TFLOP/s, >= 0.7 of cuDNN" if instruction is None else "bias costs <= 4 %",
            peers=peers,
        )


def write(device: Device, tokens: int, heads: int, kv_heads: int, width: int) -> Iterator[Case]:
    """Rotation and cache write."""
    states = device.randn(tokens, (heads + 2 * kv_heads) * width)
    keys, values, _ = _cache(device, 1, tokens, kv_heads, width)
    angles = torch.randn(tokens, width, device=device.name)
    order = device.ints(range(tokens))

    def ours() -> None:
        rotate_and_write_kv(
            states, heads, kv_heads, angles.cos(), angles.sin(), order, order, keys, values, backend="triton"
        )

    size = states.element_size()
    amount = tokens * width * (2 * (heads + kv_heads) * size + 3 * kv_heads * size)
    yield Case("write_kv", f"{tokens} x {heads}/{kv_heads} x {width}", ours, amount, target=">= 70 % of copy")


def lora(device: Device, rows: int, hidden: int, adapters: int, rank: int) -> Iterator[Case]:
    """One module's low-rank change, every row with an adapter."""
    factors = [(device.randn(rank, hidden), device.randn(rank, hidden)) for _ in range(adapters)]
    table = LoraTable(
        torch.tensor([[a.data_ptr()] for a, _ in factors], device=device.name),
        torch.tensor([[b.data_ptr()] for _, b in factors], device=device.name),
        device.ints([[rank]] * adapters),
        torch.ones(adapters, 1, device=device.name),
        torch.tensor([0, hidden], device=device.name),
        (0, hidden),
        rank,
    )
    found = lora_rows(np.arange(rows, dtype=np.int32) % adapters, 16)
    for name in ("order", "tile_adapter", "tile_start", "tile_count"):
        setattr(found, name, getattr(found, name).to(device.name))
    inputs, output = device.randn(rows, hidden), device.randn(rows, hidden)

    def ours(keep: object = factors) -> None:
        lora_add(inputs, table, found, output, backend="triton")

    def looped() -> None:
        for adapter, (a, b) in enumerate(factors):
            output[adapter::adapters] += (inputs[adapter::adapters] @ a.T) @ b

    amount = 2 * adapters * rank * hidden * inputs.element_size()
    yield Case(
        "lora",
        f"{rows} rows, {adapters} x rank {rank}, {hidden}",
        ours,
        amount,
        target="<= 10 us",
        peers={"torch_loop": looped},
    )


def sampling(device: Device, rows: int, size: int) -> Iterator[Case]:
    """A batch's statistics, and its tokens with them; peers draw only. The draw reads the logits a second time."""
    logits = device.randn(rows, size)
    once = logits.numel() * logits.element_size()
    yield Case("row_statistics", f"{rows} x {size}", lambda: row_statistics(logits, "triton"), once, graph=False)
    for name, top_p in (("", 1.0), (" top-p", 0.9)):
        parameters = greedy_parameters(rows)
        for field_name in ("temperature", "top_p", "min_p", "top_k", "seeds", "steps", "targets"):
            setattr(parameters, field_name, getattr(parameters, field_name).to(device.name))
        parameters.temperature += 0.8
        parameters.top_p *= top_p
        parameters.truncated = top_p < 1

        def ours(parameters: Any = parameters) -> object:
            return sample_rows(logits, parameters, "triton")

        def multinomial() -> Tensor:
            return torch.multinomial(torch.softmax(logits.float() / 0.8, -1), 1)

        def gumbel() -> Tensor:
            return (logits.float() / 0.8 - torch.empty_like(logits, dtype=torch.float32).exponential_().log()).argmax(
                -1
            )

        yield Case(
            "sample_rows",
            f"{rows} x {size}{name}",
            ours,
            2 * once,
            target="<= 40 us",
            graph=False,
            peers={"torch_multinomial": multinomial, "torch_gumbel": gumbel},
        )


def temperatures(device: Device, rows: int, hidden: int, adapters: int, width: int) -> Iterator[Case]:
    """The temperatures of a batch by heads of its adapters; the peer takes one adapter's rows after the other."""
    matrices = [device.randn(width, hidden) for _ in range(adapters)]
    vectors = [torch.randn(4, width, device=device.name) for _ in range(adapters)]
    table = HeadTable(
        torch.tensor([0, *(matrix.data_ptr() for matrix in matrices)], device=device.name),
        torch.tensor([0, *(vector.data_ptr() for vector in vectors)], device=device.name),
        device.ints([0] + [width] * adapters),
        torch.zeros(adapters + 1, device=device.name),
        width,
    )
    ones, none = torch.ones(rows, device=device.name), torch.zeros(rows, dtype=torch.int64, device=device.name)
    of_rows = HeadRows(device.ints(1 + np.arange(rows) % adapters), none, 0 * ones, 10 * ones)
    states, known = device.randn(rows, hidden), row_statistics(device.randn(rows, 128), "triton")

    def ours(keep: object = (matrices, vectors)) -> Tensor:
        return temperature_heads(states, known, ones, table, of_rows, "triton")

    def looped() -> None:
        for adapter, (matrix, vector) in enumerate(zip(matrices, vectors, strict=True)):
            features = states[adapter::adapters] @ matrix.T + vector[0].to(states.dtype)
            torch.tanh(torch.nn.functional.gelu(features) @ vector[3].to(states.dtype))

    amount = adapters * width * hidden * states.element_size()
    yield Case(
        "temperature_heads",
        f"{rows} rows, {adapters} x {width}, {hidden}",
        ours,
        amount,
        target="<= 10 us",
        peers={"torch_loop": looped},
    )


def elementwise(device: Device, rows: int, hidden: int, inner: int) -> Iterator[Case]:
    """Normalisation and gating."""
    states, delta, weight = device.randn(rows, hidden), device.randn(rows, hidden), device.randn(hidden)
    gate_up = device.randn(rows, 2 * inner)
    size = states.element_size()

    def normalise() -> Tensor:
        return fused_add_rms_norm(states, delta, weight, 1e-5, "triton")

    def torch_normalise() -> Tensor:
        return torch.nn.functional.rms_norm(states + delta, (hidden,), weight, 1e-5)

    def torch_gate() -> Tensor:
        return torch.nn.functional.silu(gate_up[:, :inner]) * gate_up[:, inner:]

    target = ">= 85 % of copy"
    yield Case(
        "fused_add_rms_norm",
        f"{rows} x {hidden}",
        normalise,
        4 * states.numel() * size,
        target=target,
        peers={"torch": torch_normalise},
    )
    yield Case(
        "silu_and_mul",
        f"{rows} x {inner}",
        lambda: silu_and_mul(gate_up, "triton"),
        3 * rows * inner * size,
        target=target,
        peers={"torch": torch_gate},
    )


def cases(device: Device, wanted: set[str]) -> Iterator[Case]:
    """All of them, or those of the wanted operations, made one after the other: each takes gigabytes."""
    t = device.tiny
    makers: dict[str, list[Callable[[], Iterator[Case]]]] = {
        "paged_decode": [
            lambda: decode(device, *((2, 40, 4, 2, 32) if t else (64, 8192, 32, 8, 128)), ">= 85 % of copy"),
            lambda: decode(device, *((1, 70, 4, 2, 32) if t else (1, 32768, 32, 8, 128)), ">= 60 % of copy"),
        ],
        "paged_prefill": [lambda: prefill(device, *((40, 4, 2, 32) if t else (8192, 32, 8, 128)))],
        "write_kv": [lambda: write(device, *((4, 4, 2, 32) if t else (8192, 32, 8, 128)))],
        "lora": [lambda: lora(device, *((4, 32, 2, 4) if t else (64, 4096, 8, 16)))],
        "sample_rows": [lambda: sampling(device, *((2, 100) if t else (64, 151_936)))],
        "temperature_heads": [lambda: temperatures(device, *((4, 32, 2, 8) if t else (32, 576, 4, 64)))],
        "elementwise": [lambda: elementwise(device, *((2, 64, 64) if t else (8192, 4096, 14_336)))],
    }
    for name, found in makers.items():
        if not wanted or name in wanted:
            for make in found:
                yield from make()

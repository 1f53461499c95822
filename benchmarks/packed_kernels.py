"""Linear layers over packed weights, ours and those of torch and torchao: pack a weight once, multiply often."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ift_kernels.bf16_linear import bf16_linear, pack_weight
from ift_kernels.quantize_weight import quantize_weight
from ift_kernels.quantized_linear import quantized_linear, runs_here

GROUP = 32


@dataclass(frozen=True)
class Packed:
    """A weight ``[N, K]`` in a kernel's layout.

    multiply: inputs ``[T, K]`` in the kernel's dtype -> ``[T, N]``.
    dense: the weight that the codes stand for, float64.
    """

    multiply: Callable[[Tensor], Tensor]
    dense: Callable[[], Tensor]


@dataclass(frozen=True)
class Kernel:
    """bits: of a weight. dtype: of inputs and outputs. records: whether its launches can be recorded and run again."""

    name: str
    library: str
    bits: int
    dtype: torch.dtype
    pack: Callable[[Tensor], Packed]
    records: bool = False


def _plain(dtype: torch.dtype) -> Callable[[Tensor], Packed]:
    def pack(weight: Tensor) -> Packed:
        own = weight.to(dtype, copy=True)
        return Packed(lambda x: torch.nn.functional.linear(x, own), own.double)

    return pack


def _reordered(weight: Tensor) -> Packed:
    """oneDNN's blocked layout of float32."""
    own = torch.ops.mkldnn._reorder_linear_weight(weight, GROUP)
    multiply = torch.ops.mkldnn._linear_pointwise
    return Packed(lambda x: multiply(x, own, None, "none", [], ""), lambda: own.to_dense().double())


def _widened(weight: Tensor) -> Packed:
    own = pack_weight(weight.bfloat16())
    assert own is not None
    return Packed(lambda x: bf16_linear(x, own), lambda: own.dense().double())


def _ours(bits: int) -> Callable[[Tensor], Packed]:
    def pack(weight: Tensor) -> Packed:
        own = quantize_weight(weight, bits)
        assert own is not None
        return Packed(lambda x: quantized_linear(x, own), lambda: own.dense().double())

    return pack


def _by_output(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Codes ``[N, K]`` int8 and scales ``[N]``: what the libraries' products of eight bits read."""
    scales = weight.abs().amax(1) / 127
    return (weight / scales[:, None]).round().clamp(-127, 127).to(torch.int8), scales


def _int8pack(dtype: torch.dtype) -> Callable[[Tensor], Packed]:
    def pack(weight: Tensor) -> Packed:
        codes, scales = _by_output(weight)
        kept = scales.to(dtype)
        multiply = torch.ops.aten._weight_int8pack_mm
        return Packed(lambda x: multiply(x, codes, kept), lambda: codes.double() * kept.double()[:, None])

    return pack


def _int4pack(dtype: torch.dtype) -> Callable[[Tensor], Packed]:
    def pack(weight: Tensor) -> Packed:
        groups = weight.view(len(weight), -1, GROUP)
        low, high = groups.aminmax(dim=-1)
        scales = ((high - low) / 15).to(dtype)
        middles = (low + 8 * scales.float()).to(dtype)
        inverse = scales.float()[..., None]
        codes = ((groups - middles.float()[..., None]) / inverse + 8).round_().clamp_(0, 15).to(torch.int32)
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes.view(weight.shape), 1)
        pairs = torch.stack([scales, middles], -1).transpose(0, 1).contiguous()

        def dense() -> Tensor:
            values = (codes.double() - 8) * scales.double()[..., None] + middles.double()[..., None]
            return values.view(weight.shape)

        multiply = torch.ops.aten._weight_int4pack_mm_for_cpu
        return Packed(lambda x: multiply(x, packed, GROUP, pairs), dense)

    return pack


def _dynamic_4bit(weight: Tensor) -> Packed:
    groups = weight.view(len(weight), -1, GROUP)
    scales = (groups.abs().amax(-1) / 7).bfloat16()
    codes = (groups / scales.float()[..., None]).round_().clamp_(-8, 7).add_(8).to(torch.uint8)
    flat = codes.view(weight.shape)
    outputs, inputs = weight.shape
    pairs = flat[:, 1::2] << 4 | flat[:, ::2]
    packed = torch.ops.aten._dyn_quant_pack_4bit_weight(pairs, scales, None, GROUP, inputs, outputs)
    multiply = torch.ops.aten._dyn_quant_matmul_4bit
    return Packed(
        lambda x: multiply(x, packed, GROUP, inputs, outputs),
        lambda: ((codes.double() - 8) * scales.double()[..., None]).view(weight.shape),
    )


def _dynamic(engine: str) -> Callable[[Tensor], Packed]:
    """Inputs rounded to bytes a call; to seven bits, since pairs of products saturate without VNNI."""

    def pack(weight: Tensor) -> Packed:
        _, scales = _by_output(weight)
        zeros = torch.zeros(len(weight), dtype=torch.long)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated, and what this product still takes
            rounded = torch.quantize_per_channel(weight, scales.double(), zeros, 0, torch.qint8)
        before = torch.backends.quantized.engine
        torch.backends.quantized.engine = engine
        try:
            packed = torch.ops.quantized.linear_prepack(rounded, None)
        finally:
            torch.backends.quantized.engine = before
        multiply = torch.ops.quantized.linear_dynamic
        return Packed(lambda x: multiply(x, packed, True), lambda: rounded.dequantize().double())

    return pack


def _torchao(name: str) -> Callable[[Tensor], Packed]:
    """A linear layer by ``quantize_``, without compilation."""

    def pack(weight: Tensor) -> Packed:
        from torchao import quantization
        from torchao.prototype.quantization.int4.inference_workflow import PrototypeInt4WeightOnlyConfig

        if name == "int4":
            config = PrototypeInt4WeightOnlyConfig(group_size=GROUP, set_inductor_config=False)
        else:
            config = getattr(quantization, name)()
        layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        layer.weight = torch.nn.Parameter(weight.clone(), requires_grad=False)
        quantization.quantize_(layer, config)

        def dense() -> Tensor:
            # Its tensor of four bits cannot be widened; one product with 1 and zeros is a weight.
            rows = layer(torch.eye(weight.shape[1])).t() if name == "int4" else layer.weight.dequantize()
            return rows.double()

        return Packed(layer, dense)

    return pack


_ALL = (
    Kernel("F.linear, float32", "torch", 32, torch.float32, _plain(torch.float32)),
    Kernel("oneDNN's layout, float32", "torch", 32, torch.float32, _reordered),
    Kernel("F.linear, bfloat16", "torch", 16, torch.bfloat16, _plain(torch.bfloat16)),
    Kernel("ours, bf16 widened", "ours", 16, torch.float32, _widened, records=runs_here()),
    Kernel("ours, int8", "ours", 8, torch.float32, _ours(8), records=runs_here()),
    Kernel("_weight_int8pack_mm, float32", "torch", 8, torch.float32, _int8pack(torch.float32)),
    Kernel("_weight_int8pack_mm, bfloat16", "torch", 8, torch.bfloat16, _int8pack(torch.bfloat16)),
    Kernel("linear_dynamic, fbgemm", "torch", 8, torch.float32, _dynamic("fbgemm")),
    Kernel("linear_dynamic, oneDNN", "torch", 8, torch.float32, _dynamic("onednn")),
    Kernel("torchao, Int8WeightOnly", "torchao", 8, torch.float32, _torchao("Int8WeightOnlyConfig")),
    Kernel("torchao, Int8Dynamic", "torchao", 8, torch.float32, _torchao("Int8DynamicActivationInt8WeightConfig")),
    Kernel("ours, int4", "ours", 4, torch.float32, _ours(4), records=runs_here()),
    Kernel("_weight_int4pack_mm, float32", "torch", 4, torch.float32, _int4pack(torch.float32)),
    Kernel("_weight_int4pack_mm, bfloat16", "torch", 4, torch.bfloat16, _int4pack(torch.bfloat16)),
    Kernel("_dyn_quant_matmul_4bit", "torch", 4, torch.float32, _dynamic_4bit),
    Kernel("torchao, int4", "torchao", 4, torch.float32, _torchao("int4")),
)


def chosen(libraries: Iterable[str]) -> tuple[list[Kernel], dict[str, str]]:
    """The kernels of the libraries that run here, and of each other one why it does not."""
    wanted, missing = set(libraries), dict[str, str]()
    if "torchao" in wanted and importlib.util.find_spec("torchao") is None:
        wanted.discard("torchao")
        missing["torchao"] = "not installed"
    elif "torchao" in wanted:
        import torchao  # noqa: F401  (declares its operations)

        if not torch._C._dispatch_has_kernel_for_dispatch_key("torchao::da8w4_linear_cpu", "CPU"):
            missing["torchao, da8w4_linear_cpu"] = "declared, but this wheel brings no compiled kernel of it"
    found, probe = list[Kernel](), torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    for kernel in _ALL:
        if kernel.library not in wanted:
            continue
        try:
            kernel.pack(probe).multiply(torch.ones(2, 64, dtype=kernel.dtype))
        except (RuntimeError, AssertionError, ImportError, NotImplementedError) as error:
            missing[kernel.name] = str(error).splitlines()[0][:200]
        else:
            found.append(kernel)
    return found, missing

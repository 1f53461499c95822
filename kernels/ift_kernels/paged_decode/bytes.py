"""Vectors of bytes inside numba functions."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core.extending import intrinsic

from ift_kernels.host.simd import LANES, vector


@intrinsic
def load_bytes(typing, address, index):
    """The unsigned bytes ``index .. index+15`` as a vector of float32."""

    def codegen(context, builder, signature, args):
        i8 = ir.IntType(8)
        first = builder.gep(builder.inttoptr(args[0], i8.as_pointer()), [args[1]])
        lanes = builder.load(builder.bitcast(first, ir.VectorType(i8, LANES).as_pointer()), align=1)
        return builder.uitofp(lanes, ir.VectorType(ir.FloatType(), LANES))

    return vector(types.int64, types.int64), codegen

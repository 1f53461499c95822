"""Makes Triton's interpreter compute bfloat16 and float8 as a GPU does.

The interpreter holds bfloat16 as bit patterns: products and comparisons work on the bits, and conversions truncate
instead of rounding to nearest even (float8 loses the carry of a rounded mantissa as well). Here conversions go
through torch, and arithmetic on bfloat16 goes through float32. Triton 3.6 with numpy 2.4 also needs help to take a
one-element array as a loop bound. And it looks through all of its language at every launch and at every call of a
device function, which is most of the time of a small kernel; here it looks once.

Nearly all time of an operation goes into its description, not into numpy. What says nothing is left out: checks for
integers that overflow, whose verdicts the interpreter drops unless it debugs, and tables and shapes made each time.
"""

from __future__ import annotations

import atexit
import inspect
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import triton.language as tl
from triton.runtime import interpreter

_TORCH = {
    tl.float32: torch.float32,
    tl.float16: torch.float16,
    tl.bfloat16: torch.bfloat16,
    tl.float8e4nv: torch.float8_e4m3fn,
    tl.float8e5: torch.float8_e5m2,
}
_BITS = {1: (torch.uint8, np.uint8), 2: (torch.uint16, np.uint16), 4: (torch.uint32, np.uint32)}
_LARGEST = {torch.float8_e4m3fn: 448.0, torch.float8_e5m2: 57344.0}

_convert_other = interpreter._convert_float
_builder = interpreter.InterpreterBuilder
_dot, _binary_op = _builder.create_dot, _builder.binary_op


def _convert(data: Any, source: Any, target: Any, rounding: Any) -> Any:
    """Rounds to nearest even, and saturates to float8 as the hardware conversion does."""
    if source not in _TORCH or target not in _TORCH:
        return _convert_other(data, source, target, rounding)
    array = np.ascontiguousarray(data)
    bits, unsigned = _BITS[source.primitive_bitwidth // 8]
    values = torch.from_numpy(array.view(unsigned).copy()).view(bits).view(_TORCH[source])
    kind = _TORCH[target]
    if kind in _LARGEST:
        wide = values.float()
        values = torch.where(wide.isnan(), wide, wide.clamp(-_LARGEST[kind], _LARGEST[kind]))
    out_bits, out_unsigned = _BITS[target.primitive_bitwidth // 8]
    return values.to(kind).view(out_bits).numpy().view(out_unsigned).reshape(np.shape(data))


def _wide(handle: Any) -> Any:
    if handle.dtype.scalar != tl.bfloat16:
        return handle
    data = _convert(handle.data, tl.bfloat16, tl.float32, None).view(np.float32)
    return interpreter.TensorHandle(data, tl.float32)


def _multiply(self: Any, a: Any, b: Any, d: Any, *rest: Any) -> Any:
    return _dot(self, _wide(a), _wide(b), d, *rest)


def ordered_dot(self: Any, a: Any, b: Any, d: Any, *rest: Any) -> Any:
    """``create_dot`` whose rows do not depend on where they lie: sums over k one after another.

    numpy's product does not give a row the same bits in every place, so what must not depend on the batch is tested
    with this one in its place.
    """
    left, right = _wide(a).data.astype(np.float32), _wide(b).data.astype(np.float32)
    total = np.zeros((left.shape[0], right.shape[1]), dtype=np.float32)
    for k in range(left.shape[1]):
        total += left[:, k, None] * right[None, k]
    return interpreter.TensorHandle((total + d.data).astype(np.float32), d.dtype.scalar)


def _operate(self: Any, left: Any, right: Any, op: Callable[[Any, Any], Any]) -> Any:
    if left.dtype.scalar != tl.bfloat16:
        return _binary_op(self, left, right, op)
    result = op(_wide(left).data, _wide(right).data)
    if result.dtype == np.bool_:
        return interpreter.TensorHandle(result, tl.int1)
    rounded = _convert(np.asarray(result, dtype=np.float32), tl.float32, tl.bfloat16, None)
    return interpreter.TensorHandle(rounded, tl.bfloat16)


def _repair_loop_bounds() -> None:
    patch = interpreter._patch_lang_tensor

    def patched(tensor: Any, *rest: Any) -> Any:
        result = patch(tensor, *rest)
        tensor.__index__ = lambda self: int(np.asarray(self.handle.data).reshape(-1)[0])
        return result

    interpreter._patch_lang_tensor = patched


def _look_once_for_builtins() -> None:
    """What of the language is replaced while a kernel runs is found once; a call within a kernel finds it replaced."""
    is_builtin = tl.core.is_builtin
    parts = (tl, tl.core, tl.math, tl.core.tensor, tl.core.tensor_descriptor_base)
    names = {part: [name for name, member in inspect.getmembers(part) if is_builtin(member)] for part in parts}
    patch_language = interpreter._patch_lang

    def patch_attribute(owner: Any, name: str, member: Any, builder: Any, scope: Any) -> None:
        # Within the wrapper is what it calls once it has seen that a semantic was given.
        function, semantic = getattr(member, "__wrapped__", member), interpreter.interpreter_semantic

        def with_semantic(*args: Any, **options: Any) -> Any:
            options["_semantic"] = semantic
            return function(*args, **options)

        scope.set_attr(owner, name, with_semantic)

    def patch_builtins(part: Any, builder: Any, scope: Any) -> None:
        for name in names[part]:
            if is_builtin(member := getattr(part, name)):
                interpreter._patch_attr(part, name, member, builder, scope)

    def patch(function: Any) -> Any:
        languages = [value for value in function.__globals__.values() if value is tl or value is tl.core]
        if languages and not any(is_builtin(language.arange) for language in (tl, *languages)):
            return interpreter._LangPatchScope()
        return patch_language(function)

    interpreter._patch_attr = patch_attribute
    interpreter._patch_builtin = patch_builtins
    interpreter._patch_lang = patch


def _leave_out_dropped_verdicts() -> None:
    """``device_assert`` returns at once without ``debug``: what it would have been told need not be computed."""
    builder = interpreter.interpreter_builder
    if not builder.options.debug:
        builder.options = replace(builder.options, sanitize_overflow=False)


_extents: dict[str, tuple[Any, Any]] = {}
"""Number of elements and shape as a tensor of the language has them, by the name of its type, which says both."""


def _tensor_init(self: Any, handle: Any, type: Any) -> None:
    self.handle, self.type, self.dtype = handle, type, type.scalar
    if type.name not in _extents:
        shape = tuple(type.shape) if type.is_block() else ()
        _extents[type.name] = tl.constexpr(math.prod(shape)), tl.tuple([tl.constexpr(size) for size in shape])
    self.numel, self.shape = _extents[type.name]


def _describe_once() -> None:
    """A type's numpy dtype, and a shape's description, are the same each time."""
    get_np_dtype = interpreter._get_np_dtype
    dtypes: dict[str, Any] = {}
    blocks: dict[tuple[str, str], Any] = {}

    def np_dtype(of: Any) -> Any:
        if (name := of.name) not in dtypes:
            dtypes[name] = get_np_dtype(of)
        return dtypes[name]

    def with_element_type(self: Any, element: Any) -> Any:
        key = (element.name, self.name)
        if key not in blocks:
            blocks[key] = tl.block_type(element, self.shape)
        return blocks[key]

    equals = tl.dtype.__eq__

    def has_name(self: Any, other: Any) -> Any:
        return self.name == other.name if type(other) is tl.dtype else equals(self, other)

    tl.dtype.__eq__ = has_name
    interpreter._get_np_dtype = np_dtype
    tl.block_type.with_element_ty = with_element_type
    tl.tensor.__init__ = _tensor_init


def _type_check_once() -> None:
    """Whether operands of these types need a cast or a broadcast is the same each time, and so is a number as a tensor.

    Only for the interpreter: a compiler's semantic makes instructions.
    """
    semantic = interpreter.interpreter_semantic
    check = semantic.binary_op_type_checking_impl
    as_they_are: set[Any] = set()
    numbers: dict[Any, Any] = {}

    def check_types(left: Any, right: Any, *flags: Any, **options: Any) -> tuple[Any, Any]:
        if type(left) is tl.tensor:
            known = type(right) is tl.tensor
            other = right.type.name if known else (type(right), repr(right))
            key = (left.type.name, other, flags, tuple(options.items()))
            if key in as_they_are:
                return left, right
            if key in numbers:
                return left, numbers[key]
            found: tuple[Any, Any] = check(left, right, *flags, **options)
            if known and found[0] is left and found[1] is right:
                as_they_are.add(key)
            elif found[0] is left and type(right) in (int, float):
                numbers[key] = found[1]
            return found
        if type(left) in (int, float) and type(right) is tl.tensor:
            turned = (type(left), repr(left), right.type.name, flags, tuple(options.items()))
            if turned in numbers:
                return numbers[turned], right
            found = check(left, right, *flags, **options)
            if found[1] is right:
                numbers[turned] = found[0]
            return found
        found = check(left, right, *flags, **options)
        return found

    broadcast = semantic.broadcast_impl_value

    def broadcast_others(left: Any, right: Any) -> tuple[Any, Any]:
        return (left, right) if left.type.name == right.type.name else broadcast(left, right)

    # What the compiler's library hands out is given back before that library looks for it at the end.
    atexit.register(numbers.clear)
    semantic.binary_op_type_checking_impl = check_types
    semantic.broadcast_impl_value = broadcast_others


def install() -> None:
    """Repair the interpreter of this process."""
    interpreter._convert_float = _convert
    _builder.create_dot = _multiply
    _builder.binary_op = _operate
    _repair_loop_bounds()
    if hasattr(interpreter, "_LangPatchScope"):  # later than Triton 3.6
        _look_once_for_builtins()
    _leave_out_dropped_verdicts()
    _describe_once()
    _type_check_once()

"""``inner`` and ``inlined``: decorate functions that workers call.

Only workers run as machine code of their own. numba's ``njit`` makes code of each function that they call too, and
wrappers to call it from Python with: half of the time that compiling a kernel takes. ``inlined`` leaves the inlining to
LLVM; numba's own, of its intermediate representation (``inline="always"``), takes longer than all else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit
from numba.core.codegen import CPUCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import LoweringPass, PassManager, register_pass
from numba.core.typed_passes import NativeLowering


def _stand_in() -> Callable[[object], Any]:
    """What numba is given in place of machine code: a key for its tables. It raises KeyError for whoever calls it."""
    empty: dict[object, Any] = {}
    return empty.__getitem__


class _InnerLibrary(CPUCodeLibrary):  # type: ignore[misc]
    """LLVM's code of a function, linked into that of its callers and never made machine code alone."""

    def _optimize_final_module(self) -> None:
        """Nothing: it is optimised with its callers."""

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._verify_declare_only_symbols()
        self._finalized = True


class _OptimizedLibrary(_InnerLibrary):
    """The same, optimised first: what is inlined wherever it is called is then small."""

    def _optimize_final_module(self) -> None:
        CPUCodeLibrary._optimize_final_module(self)


@register_pass(mutates_CFG=False, analysis_only=False)
class _WithoutCode(LoweringPass):  # type: ignore[misc]
    _name = "ift_without_code"

    def __init__(self) -> None:
        super().__init__()

    def run_pass(self, state: Any) -> bool:
        key = _stand_in()
        state.targetctx.insert_user_function(key, state.cr.fndesc, [state.library])
        state.cr = state.cr._replace(cfunc=key)
        return True


class _InnerCompiler(CompilerBase):  # type: ignore[misc]
    """numba's own passes, and no code at their end."""

    def __init__(self, typing: Any, target: Any, library: Any, args: Any, result: Any, flags: Any, names: Any) -> None:
        flags = flags.copy()
        flags.no_compile = flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
        kind = _OptimizedLibrary if flags.forceinline else _InnerLibrary
        library = kind(target.codegen(), "inner")
        super().__init__(typing, target, library, args, result, flags, names)

    def define_pipelines(self) -> list[PassManager]:
        passes = DefaultPassBuilder.define_nopython_pipeline(self.state)
        passes.add_pass_after(_WithoutCode, NativeLowering)
        passes.finalize()
        return [passes]


inner = njit(pipeline_class=_InnerCompiler)
inlined = njit(pipeline_class=_InnerCompiler, forceinline=True)

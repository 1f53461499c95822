"""numba's machine code of a function, kept in the directory of ``storage`` with a stamp of all sources."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import Any

from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator

from ift_kernels.cpu_simd.storage import kept_code, sources

_log = logging.getLogger(__name__)


class _Place(_CacheLocator):
    """All functions in one directory, told apart by the operation that they belong to."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._operation = function.__module__.split(".")[1]

    def get_cache_path(self) -> str:
        return str(kept_code())

    def get_source_stamp(self) -> str:
        return sources()

    def get_disambiguator(self) -> str:
        return self._operation

    def ensure_cache_path(self) -> None:
        """It is there, and may be one that is only read."""

    @classmethod
    def from_function(cls, py_func, py_file):
        return cls(py_func)


class _Results(CompileResultCacheImpl):
    _locator_classes = (_Place,)


class _KeptCode(FunctionCache):
    """What cannot be read is compiled again, and what cannot be written is not kept."""

    _impl_class = _Results

    def load_overload(self, sig, target_context):
        try:
            return super().load_overload(sig, target_context)
        except Exception as error:  # whatever a damaged file makes of reading it
            _log.info("%s: %s cannot be read again: %s", self.cache_path, self._name, error)
            with contextlib.suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig, data):
        _log.info("kernel %s.%s was compiled", self._py_func.__module__.split(".")[1], self._py_func.__name__)
        try:
            super().save_overload(sig, data)
        except OSError as error:
            _log.info("%s: %s is not kept: %s", self.cache_path, self._name, error)


def keep(compiled: Any, function: Callable[..., Any]) -> None:
    """Have numba look for a function's code before it compiles it, and keep it then.

    compiled: numba's dispatcher or ``CFunc`` of the function. Nothing is kept where there is no place for it.
    """
    if kept_code() is not None:
        compiled._cache = _KeptCode(function)

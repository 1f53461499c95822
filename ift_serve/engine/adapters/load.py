"""One load of an adapter, from the call until it is answered."""

from __future__ import annotations

from dataclasses import dataclass

from ift_serve.engine.adapters.host import ReadAdapter
from ift_serve.engine.adapters.loader import Loaded
from ift_serve.engine.adapters.version import AdapterVersion
from ift_serve.engine.protocol.adapter import AdapterInfo, AdapterState, LoadAdapter
from ift_serve.engine.protocol.refused import RefusedError
from ift_serve.engine.protocol.results import FailureKind


@dataclass(slots=True, eq=False)
class AdapterLoad:
    """``outcome``: what reading came to, in the end; ``version``: what it was loaded as, or ``refusal``: why not."""

    message: LoadAdapter
    state: AdapterState = AdapterState.UNLOADED
    outcome: Loaded | None = None
    version: AdapterVersion | None = None
    refusal: RefusedError | None = None

    @property
    def name(self) -> str:
        """Of the adapter."""
        return self.message.name

    def read(self) -> ReadAdapter:
        """What was read. Raises RefusedError for what was wrong with it, or if it is not the version asked for."""
        assert self.outcome is not None
        if isinstance(self.outcome.error, RefusedError):
            raise self.outcome.error
        if self.outcome.error is not None:
            reason = str(self.outcome.error) or type(self.outcome.error).__name__
            raise RefusedError(FailureKind.UNFIT, reason)
        read: ReadAdapter = self.outcome.result
        wanted = self.message.version
        if wanted and wanted != read.metadata.version:
            raise RefusedError(FailureKind.NOT_FOUND, f"version {wanted} is gone: the files have changed")
        return read

    def info(self) -> AdapterInfo:
        """For clients."""
        if self.version is not None:
            return self.version.info()
        reason = "" if self.refusal is None else self.refusal.message
        path = self.message.shown_path
        return AdapterInfo(name=self.name, version="", state=self.state, path=path, message=reason)

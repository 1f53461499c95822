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
        return read_of(self.outcome, self.message.version)

    def info(self) -> AdapterInfo:
        """For clients."""
        if self.version is not None:
            return self.version.info()
        reason = "" if self.refusal is None else self.refusal.message
        path = self.message.shown_path
        return AdapterInfo(name=self.name, version="", state=self.state, path=path, message=reason)


def read_of(outcome: Loaded, version: str = "") -> ReadAdapter:
    """What was read. Raises RefusedError for what was wrong with it, or if it is not the ``version`` asked for."""
    if isinstance(outcome.error, RefusedError):
        raise outcome.error
    if outcome.error is not None:
        raise RefusedError(FailureKind.UNFIT, str(outcome.error) or type(outcome.error).__name__)
    read: ReadAdapter = outcome.result
    if version and version != read.metadata.version:
        raise RefusedError(FailureKind.NOT_FOUND, f"version {version} is gone: the files have changed")
    return read

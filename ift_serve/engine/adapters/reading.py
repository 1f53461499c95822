"""Reading and copying an adapter's files, in a thread of the loader."""

from __future__ import annotations

import logging
from pathlib import Path

from ift_serve.engine.adapters.host import AdapterTensors, ReadAdapter
from ift_serve.engine.adapters.kept_copies import keep
from ift_serve.engine.adapters.limits import AdapterLimits
from ift_serve.engine.protocol.adapter import LoadAdapter
from ift_serve.modeling.adapter_format.errors import AdapterError, quoted
from ift_serve.modeling.adapter_format.signing.manifest import MANIFEST

_log = logging.getLogger(__name__)


def read_files(message: LoadAdapter, host: AdapterTensors, limits: AdapterLimits) -> ReadAdapter:
    """Read an adapter and keep a copy of its files; a certain version is read from its copy, if that is whole."""
    if (kept := _read_copy(message, host)) is not None:
        return kept
    limits.check_files(message.path)
    read = host.read(message.path, message.root)
    _check_name(read, message)
    if message.keep_in and (not message.version or message.version == read.metadata.version):
        try:
            keep(
                message.path,
                message.root,
                read.metadata.version,
                message.keep_in,
                message.keep_bytes,
                read.metadata.signed_files,
            )
        except Exception as error:
            _log.warning("adapter %s is not kept to be read again: %s", message.name, error)
    return read


def _check_name(read: ReadAdapter, message: LoadAdapter) -> None:
    """Raises AdapterError where the signature is of an adapter of another name."""
    if read.metadata.signed_as not in ("", message.name):
        raise AdapterError(
            f"{MANIFEST}: signed to be loaded as {read.metadata.signed_as} only, and not as {quoted(message.name)}"
        )


def _read_copy(message: LoadAdapter, host: AdapterTensors) -> ReadAdapter | None:
    copy = Path(message.keep_in, message.version)
    if not (message.keep_in and message.version and copy.is_dir()):
        return None
    try:
        read = host.read(str(copy), "")
    except Exception as error:
        _log.warning("the copy of adapter %s@%s cannot be read: %s", message.name, message.version, error)
        return None
    if read.metadata.version != message.version:
        return None
    _check_name(read, message)
    return read

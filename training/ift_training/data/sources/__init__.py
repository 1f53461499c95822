"""Sources of records by number: files that are never read into memory, and procedural families."""

from __future__ import annotations

from ift_training.data.settings import SourceSettings
from ift_training.data.sources.base import Source, SourceError
from ift_training.data.sources.file import FileSource
from ift_training.data.sources.procedural import ProceduralSource

__all__ = ["FileSource", "ProceduralSource", "Source", "SourceError", "open_source"]


def open_source(settings: SourceSettings, seed: int) -> Source:
    """The source that the settings describe. Raises SourceError."""
    return ProceduralSource(settings, seed) if settings.procedural else FileSource(settings)

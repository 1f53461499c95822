"""The language of a text, the same at every call, in every thread and on every machine, without a download."""

from __future__ import annotations

import functools
import threading
from importlib import resources
from typing import Any

from ift_serve.checks.errors import MissingExtraError

_SEED = 0
_LONGEST = 100_000
"""Characters looked at; the identifier itself stops at 10,000 once addresses are taken out."""
_lock = threading.Lock()


def language_of(text: str) -> str | None:
    """The most probable language as an ISO 639-1 code, or None where the text has no letter to go by.

    Raises MissingExtraError without the package langdetect.
    """
    detector = _factory().create()
    from langdetect.lang_detect_exception import LangDetectException

    detector.append(text[:_LONGEST])
    try:
        return str(detector.detect())
    except LangDetectException:
        return None


def _factory() -> Any:
    # Filling the profiles is not safe for threads; a second thread must not see them half filled.
    with _lock:
        return _filled_factory()


@functools.cache
def _filled_factory() -> Any:
    """A factory of our own: the package's global one is seeded by whoever comes first.

    Its draws are seeded, and profiles come in the order of their names rather than that of the file system.
    """
    try:
        from langdetect.detector_factory import DetectorFactory
    except ImportError as error:
        raise MissingExtraError("the language of a response", "langdetect", "eval") from error
    factory = DetectorFactory()
    factory.set_seed(_SEED)
    profiles = resources.files("langdetect") / "profiles"
    names = sorted(file.name for file in profiles.iterdir() if file.is_file() and not file.name.startswith("."))
    factory.load_json_profile([(profiles / name).read_text(encoding="utf-8") for name in names])
    return factory

"""The trace that a call belongs to, for its metadata: only in a program that uses OpenTelemetry itself."""

from __future__ import annotations

import sys


def trace_context() -> tuple[tuple[str, str], ...]:
    """What propagators (W3C's by default) say of the current span; nothing where there is none.

    A program without the library has no span, and it is not imported for that.
    """
    if "opentelemetry.trace" not in sys.modules:
        return ()
    from opentelemetry import propagate, trace

    if not trace.get_current_span().get_span_context().is_valid:
        return ()
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return tuple((key.lower(), value) for key, value in carrier.items())

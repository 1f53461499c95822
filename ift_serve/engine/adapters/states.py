"""The states of an adapter in an engine, and what leads from one to another: one table, without side effects.

A load begins as UNLOADED and ends as FAILED, as a READY version, or as nothing where its version is resident already.
``AdapterRegistry`` alone moves loads and versions through the table and carries out the effects, in their order;
``docs/adapter-states.md`` draws it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from ift_serve.engine.protocol.adapter import AdapterState

UNLOADED, LOADING, FAILED = AdapterState.UNLOADED, AdapterState.LOADING, AdapterState.FAILED
READY, DRAINING = AdapterState.READY, AdapterState.DRAINING


class Event(StrEnum):
    """What can happen to a load or a version."""

    ASKED = "a load is asked for and there is room"
    REFUSED = "no room, or it cannot be read, or it does not fit"
    FITS = "read, fits, has room"
    DUPLICATE = "read, and its version is resident already"
    RELOADED = "the same version is loaded again"
    USED = "a request begins"
    UNUSED = "its last request ends"
    RETIRED = "a newer version or an unload, and no request uses it"
    RETIRED_IN_USE = "a newer version or an unload, and requests use it"
    EXPIRED = "the unload's time to drain is over"


class Effect(StrEnum):
    """What follows, beside the new state."""

    READ = "its directory is read in the loader's threads"
    KEEP = "its tensors are kept in host memory"
    FREE = "its tensors and its slot are freed"
    ANNOUNCE = "clients that watch are told the state"
    ANSWER_LOAD = "the load is answered with the version"
    REFUSE_LOAD = "the load is answered with the reason"
    RETIRE_OLDER = "the other versions of the name are retired"
    ANSWER_UNLOADS = "unloads that waited for it are answered"
    CANCEL_UNLOADS = "unloads that wait for its end are answered with CANCELLED"
    END_REQUESTS = "its requests end with CANCELLED"


class Transition(NamedTuple):
    """The state that follows an event, and what has to be done."""

    state: AdapterState
    effects: tuple[Effect, ...] = ()


_GONE = (Effect.FREE, Effect.ANNOUNCE, Effect.ANSWER_UNLOADS)

TRANSITIONS: dict[tuple[AdapterState, Event], Transition] = {
    (UNLOADED, Event.ASKED): Transition(LOADING, (Effect.ANNOUNCE, Effect.READ)),
    (UNLOADED, Event.REFUSED): Transition(FAILED, (Effect.ANNOUNCE, Effect.REFUSE_LOAD)),
    (LOADING, Event.REFUSED): Transition(FAILED, (Effect.ANNOUNCE, Effect.REFUSE_LOAD)),
    (LOADING, Event.FITS): Transition(READY, (Effect.KEEP, Effect.ANNOUNCE, Effect.RETIRE_OLDER, Effect.ANSWER_LOAD)),
    (LOADING, Event.DUPLICATE): Transition(UNLOADED, (Effect.ANSWER_LOAD,)),
    (READY, Event.USED): Transition(READY),
    (READY, Event.UNUSED): Transition(READY),
    (READY, Event.RELOADED): Transition(READY, (Effect.ANNOUNCE, Effect.RETIRE_OLDER)),
    (READY, Event.RETIRED_IN_USE): Transition(DRAINING, (Effect.ANNOUNCE,)),
    (READY, Event.RETIRED): Transition(UNLOADED, _GONE),
    (DRAINING, Event.RELOADED): Transition(READY, (Effect.CANCEL_UNLOADS, Effect.ANNOUNCE, Effect.RETIRE_OLDER)),
    (DRAINING, Event.RETIRED_IN_USE): Transition(DRAINING),
    (DRAINING, Event.EXPIRED): Transition(DRAINING, (Effect.END_REQUESTS,)),
    (DRAINING, Event.UNUSED): Transition(UNLOADED, _GONE),
}
"""Every other pair is impossible."""


def after(state: AdapterState, event: Event) -> Transition:
    """What follows ``event`` in ``state``. Raises AssertionError for what cannot happen."""
    transition = TRANSITIONS.get((state, event))
    assert transition is not None, f"an adapter that is {state}: {event}"
    return transition

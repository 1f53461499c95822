"""The states of an adapter in an engine, and what leads from one to another: one table, without side effects.

A load begins as UNLOADED and ends as FAILED, as a READY version, or as nothing where its version is resident already.
A version that is EVICTED keeps its name and its place among the versions; only its tensors are gone.
``AdapterRegistry`` alone moves loads and versions through the table and carries out the effects, in their order;
``docs/adapter-states.md`` draws it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from ift_serve.engine.protocol.adapter import AdapterState

UNLOADED, LOADING, FAILED = AdapterState.UNLOADED, AdapterState.LOADING, AdapterState.FAILED
READY, DRAINING = AdapterState.READY, AdapterState.DRAINING
EVICTED, RETURNING = AdapterState.EVICTED, AdapterState.RETURNING


class Event(StrEnum):
    """What can happen to a load or a version."""

    ASKED = "a load is asked for and there is room"
    REFUSED = "no room, or it cannot be read, or it does not fit"
    FITS = "read, fits, has room"
    DUPLICATE = "read, and its version is resident already"
    PUT_OFF = "read for a restart, and other adapters fill the memory"
    RELOADED = "the same version is loaded again"
    USED = "its first request begins"
    UNUSED = "its last request ends"
    RETIRED = "a newer version or an unload, and no request uses it"
    RETIRED_IN_USE = "a newer version or an unload, and requests use it"
    EXPIRED = "the unload's time to drain is over"
    EVICTED = "another adapter needs the memory, and no request uses it"
    RETURNED = "it has been read again"
    UNREADABLE = "it cannot be read again"
    ABANDONED = "its last request ends before it is read again"


class Effect(StrEnum):
    """What follows, beside the new state."""

    READ = "its directory is read in the loader's threads"
    LIST = "it is one of the versions of its name"
    KEEP = "its tensors are kept in host memory"
    DROP = "its tensors and its slot are freed"
    READ_AGAIN = "it is read again, from its copy, once there is room"
    FORGET = "it is no version of its name any more"
    ANNOUNCE = "clients that watch are told the state"
    ANSWER_LOAD = "the load is answered with the version"
    REFUSE_LOAD = "the load is answered with the reason"
    RETIRE_OLDER = "the other versions of the name are retired"
    ANSWER_UNLOADS = "unloads that waited for it are answered"
    CANCEL_UNLOADS = "unloads that wait for its end are answered with CANCELLED"
    END_REQUESTS = "its requests end with CANCELLED"
    REFUSE_REQUESTS = "the requests that wait for it end with the reason"


class Transition(NamedTuple):
    """The state that follows an event, and what has to be done."""

    state: AdapterState
    effects: tuple[Effect, ...] = ()


_GONE = (Effect.DROP, Effect.FORGET, Effect.ANNOUNCE, Effect.ANSWER_UNLOADS)
_LOADED = (Effect.ANNOUNCE, Effect.RETIRE_OLDER, Effect.ANSWER_LOAD)

TRANSITIONS: dict[tuple[AdapterState, Event], Transition] = {
    (UNLOADED, Event.ASKED): Transition(LOADING, (Effect.ANNOUNCE, Effect.READ)),
    (UNLOADED, Event.REFUSED): Transition(FAILED, (Effect.ANNOUNCE, Effect.REFUSE_LOAD)),
    (LOADING, Event.REFUSED): Transition(FAILED, (Effect.ANNOUNCE, Effect.REFUSE_LOAD)),
    (LOADING, Event.FITS): Transition(READY, (Effect.LIST, Effect.KEEP, *_LOADED)),
    (LOADING, Event.PUT_OFF): Transition(EVICTED, (Effect.LIST, *_LOADED)),
    (LOADING, Event.DUPLICATE): Transition(UNLOADED, (Effect.ANSWER_LOAD,)),
    (READY, Event.USED): Transition(READY),
    (READY, Event.UNUSED): Transition(READY),
    (READY, Event.RELOADED): Transition(READY, (Effect.ANNOUNCE, Effect.RETIRE_OLDER)),
    (READY, Event.RETIRED_IN_USE): Transition(DRAINING, (Effect.ANNOUNCE,)),
    (READY, Event.RETIRED): Transition(UNLOADED, _GONE),
    (READY, Event.EVICTED): Transition(EVICTED, (Effect.DROP, Effect.ANNOUNCE)),
    (EVICTED, Event.USED): Transition(RETURNING, (Effect.ANNOUNCE, Effect.READ_AGAIN)),
    (EVICTED, Event.UNUSED): Transition(EVICTED),
    (EVICTED, Event.RELOADED): Transition(READY, (Effect.KEEP, Effect.ANNOUNCE, Effect.RETIRE_OLDER)),
    (EVICTED, Event.RETIRED): Transition(UNLOADED, _GONE),
    (RETURNING, Event.USED): Transition(RETURNING),
    (RETURNING, Event.UNUSED): Transition(RETURNING),
    (RETURNING, Event.ABANDONED): Transition(EVICTED, (Effect.DROP, Effect.ANNOUNCE)),
    (RETURNING, Event.RETURNED): Transition(READY, (Effect.KEEP, Effect.ANNOUNCE)),
    (RETURNING, Event.UNREADABLE): Transition(EVICTED, (Effect.DROP, Effect.ANNOUNCE, Effect.REFUSE_REQUESTS)),
    (RETURNING, Event.RELOADED): Transition(READY, (Effect.KEEP, Effect.ANNOUNCE, Effect.RETIRE_OLDER)),
    (RETURNING, Event.RETIRED_IN_USE): Transition(DRAINING, (Effect.ANNOUNCE,)),
    (RETURNING, Event.RETIRED): Transition(UNLOADED, _GONE),
    (DRAINING, Event.RETURNED): Transition(DRAINING, (Effect.KEEP,)),
    (DRAINING, Event.UNREADABLE): Transition(DRAINING, (Effect.DROP, Effect.REFUSE_REQUESTS)),
    (DRAINING, Event.RELOADED): Transition(
        READY, (Effect.CANCEL_UNLOADS, Effect.KEEP, Effect.ANNOUNCE, Effect.RETIRE_OLDER)
    ),
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

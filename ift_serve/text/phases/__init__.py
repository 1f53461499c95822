"""Thought and answer as phases of a sequence: the one machine that says which token is which.

Everything that depends on it asks it: budget, closing message, temperature by phase, stop strings, structured output,
channels, counts and log-probabilities. It works on token ids, knows what the prompt ended in, and its state depends on
ids alone, so both sides come to the same result by themselves, and computing tokens anew changes nothing.

Once a model::

    builder = PhaseBuilder.of(renderer)                    # finds the markers
    settings = builder.settings(budget=512)                # once a request; immutable, raises PhaseError
    settings = settings.capped(operators_limit)            # settings.budget is the effective one

In the engine, for every sequence::

    state = PhaseState.begin(settings, prompt_ids, segment_ids)
    append(state.expected); state.observe_all(state.expected)       # a budget of 0, a thought to be opened
    ...
    temperature = temperatures.choose(state.phase, inherited)       # PerPhase; before each draw
    banned = state.forbidden; ends_banned = not state.may_end       # before each draw, while there is a minimum
    if state.is_constrained: the grammar's mask, and state.openers  # before each draw
    decision = state.observe(token_id)                              # after each draw
    append(decision.force); state.observe_all(decision.force)       # without drawing

A fork or a sibling gets ``state.copy()``; so does a draft, token by token. A strategy that ends a thought by itself
appends ``state.closing()``, not where ``state.is_mid_character``. A sequence that ends in ``Phase.THOUGHT`` has no
answer.

In the server process, for every candidate, over the same settings and prompt::

    router = ChannelRouter(PhaseState.begin(settings, prompt_ids, segment_ids), decoder)
    for piece in router.push(token_ids): ...               # (channel, position, text); stop strings see the answer only
    for piece in router.flush(): ...

The token that ends a sequence is part of no channel: it is neither observed nor pushed.
"""

from ift_serve.text.phases.builder import KNOWN_MARKERS, MarkerPair, PhaseBuilder
from ift_serve.text.phases.router import ChannelPiece, ChannelRouter
from ift_serve.text.phases.settings import Channel, PerPhase, Phase, PhaseError, PhaseSettings, ThoughtStart
from ift_serve.text.phases.state import Decision, PhaseState, Routed
from ift_serve.text.phases.tally import ChannelTally, LogProbSum
from ift_serve.text.phases.thought_markers import ThoughtMarker, ThoughtMarkers

__all__ = [
    "KNOWN_MARKERS",
    "Channel",
    "ChannelPiece",
    "ChannelRouter",
    "ChannelTally",
    "Decision",
    "LogProbSum",
    "MarkerPair",
    "PerPhase",
    "Phase",
    "PhaseBuilder",
    "PhaseError",
    "PhaseSettings",
    "PhaseState",
    "Routed",
    "ThoughtMarker",
    "ThoughtMarkers",
    "ThoughtStart",
]

"""A trace as it is asked for: its markers, its budget beside the answer's, and when it ends early."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from ift_serve.engine.protocol.reasoning import EXIT_THRESHOLDS, EarlyExit, Trace
from ift_serve.server.bounds import number, short
from ift_serve.server.config import Limits
from ift_serve.server.errors import conflict, invalid
from ift_serve.server.thoughts import Thoughts
from ift_serve.text.phases import MarkerPair
from ift_serve.v1 import reasoning_pb2 as pb

DEFAULT_BUDGET = Trace().budget
_LONGEST_MARKER, _LONGEST_MESSAGE, _MOST_PROMPT = 64, 4096, 256
_MOST_TRIAL_TOKENS, _MOST_PROBES = 256, 10_000


@dataclass(slots=True)
class ThoughtRoom:
    """What the thought and the answer of one request may take together.

    ``room``: tokens that the context leaves behind the prompt. ``answer``: tokens of the answer at most, lowered here
    where the caller left it open (``answer_is_open``) and a thought needs the room.
    """

    thoughts: Thoughts
    limits: Limits
    room: int
    answer: int
    answer_is_open: bool

    def trace(self, path: str, message: pb.Trace) -> Trace:
        """A trace with its markers and its effective budget. Raises StatusError."""
        pair = self._pair(path, message)
        asked = message.budget if message.HasField("budget") else None
        if asked is not None and message.minimum > asked:
            raise conflict([f"{path}.minimum", f"{path}.budget"], f"{message.minimum} is more than {asked}")
        trace = Trace(
            message=short(f"{path}.message", message.message, _LONGEST_MESSAGE),
            open_marker=pair.opening,
            close_marker=pair.closing,
            early_exit=_early_exit(f"{path}.early_exit", message.early_exit)
            if message.HasField("early_exit")
            else None,
        )
        phases = self.thoughts.phases(trace, path)
        assert phases is not None
        forced = len(phases.markers.opening[0].token_ids) + len(phases.closing)
        budget = self._budget(path, asked, self.room - forced)
        return msgspec.structs.replace(trace, budget=budget, minimum=min(message.minimum, budget))

    def _pair(self, path: str, message: pb.Trace) -> MarkerPair:
        opening, closing = f"{path}.open_marker", f"{path}.close_marker"
        if bool(message.open_marker) != bool(message.close_marker):
            raise conflict([opening, closing], "are given together or not at all")
        if message.open_marker:
            return MarkerPair(
                short(opening, message.open_marker, _LONGEST_MARKER),
                short(closing, message.close_marker, _LONGEST_MARKER),
            )
        if self.thoughts.pair is None:
            problem = "the model has no markers of thoughts that are known; give those that it writes"
            raise conflict([path, opening], problem)
        return self.thoughts.pair

    def _budget(self, path: str, asked: int | None, room: int) -> int:
        """Thought tokens under the operator's cap that fit, with the answer, in what the context leaves."""
        cap = self.limits.thought_tokens
        if asked is None:
            if self.answer_is_open:
                self.answer = max(1, min(self.answer, room // 2))
            return max(0, min(DEFAULT_BUDGET, cap, room - self.answer))
        budget = min(asked, cap)
        left = room - budget
        if left < 1:
            raise invalid(
                f"{path}.budget", f"is {budget}; the context leaves {max(0, room)} tokens of thought and answer"
            )
        if self.answer_is_open:
            self.answer = min(self.answer, left)
        elif self.answer > left:
            problem = f"{budget} and {self.answer} tokens are more than the {room} that the context leaves"
            raise conflict([f"{path}.budget", "sampling.max_new_tokens"], problem)
        return budget


def _early_exit(path: str, message: pb.EarlyExit) -> EarlyExit:
    """When a thought ends before its budget. Raises StatusError."""
    rule, default = message.WhichOneof("rule"), EarlyExit()
    if rule is None:
        raise invalid(path, "is missing its rule; set one of entropy, confidence")
    prompt = short(f"{path}.prompt", message.prompt, _MOST_PROMPT, bytes_=True)
    if rule == "entropy":
        one, path = message.entropy, f"{path}.entropy"
        threshold = one.threshold if one.HasField("threshold") else EXIT_THRESHOLDS["entropy"]
        smoothing = one.smoothing if one.HasField("smoothing") else default.smoothing
        return EarlyExit(
            rule="entropy",
            threshold=number(f"{path}.threshold", threshold, 0, 100, above=True),
            smoothing=number(f"{path}.smoothing", smoothing, 0, 1, above=True),
            least_probes=int(number(f"{path}.least_probes", one.least_probes, 0, _MOST_PROBES)),
            prompt=prompt,
        )
    trial, path = message.confidence, f"{path}.confidence"
    tokens = trial.trial_tokens if trial.HasField("trial_tokens") else default.trial_tokens
    reached = trial.threshold if trial.HasField("threshold") else EXIT_THRESHOLDS["confidence"]
    return EarlyExit(
        rule="confidence",
        threshold=number(f"{path}.threshold", reached, 0, 1, above=True),
        trial_tokens=int(number(f"{path}.trial_tokens", tokens, 1, _MOST_TRIAL_TOKENS)),
        prompt=prompt,
    )

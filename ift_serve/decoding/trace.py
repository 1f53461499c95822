"""Think, then answer: a thought with a budget, which may end early once its answer is known."""

from __future__ import annotations

from dataclasses import dataclass, field

from ift_serve.decoding.context import StrategyContext
from ift_serve.decoding.early_exit import EntropyVariance, trial_confidence
from ift_serve.decoding.requirements import invalid, require_known, settings_of
from ift_serve.decoding.sequence_rules import SequenceRules
from ift_serve.decoding.watched_sequence import WatchedSequence
from ift_serve.engine.core.strategy import Branch, Control, LimitError, Strategy
from ift_serve.engine.protocol import reasoning
from ift_serve.engine.protocol.generate import Conclusion, GenerateRequest, TokenStatistics
from ift_serve.engine.protocol.reasoning import EXIT_THRESHOLDS, EarlyExit, ExitRule
from ift_serve.engine.protocol.results import FinishReason
from ift_serve.engine.sequences.step import SampledToken
from ift_serve.text.phases import PhaseError


@dataclass(slots=True, eq=False)
class _Thinker:
    """A candidate. ``probe``: the sequence that answers for it now, if one does."""

    watched: WatchedSequence
    entropies: EntropyVariance
    probe: Branch | None = None
    trial: list[TokenStatistics] = field(default_factory=list)


class TraceDecoding(Strategy):
    """Each candidate thinks, then answers; thought and answer have limits of their own.

    The thought's budget, its closing message and what is a marker are the phase machine's (``ift_serve.text.phases``).
    At the end of a paragraph a hidden fork may close the thought and begin to answer, greedily; if the answer is
    settled the thought is closed too, a token after the one that the candidate has drawn meanwhile.
    """

    def __init__(self, request: GenerateRequest, context: StrategyContext, path: str = "reasoning.trace") -> None:
        """``path``: the field that holds the settings. Raises RefusedError."""
        settings = settings_of(request, reasoning.Trace)
        self._rules = SequenceRules.of(request, context, settings, path)
        self.width = request.sampling.candidates
        self.extra_tokens = self._rules.extra_tokens
        self.first_temperature = self._rules.first_temperature
        self._exit = settings.early_exit
        self._threshold = 0.0
        self._prompt: list[int] = []
        self.first_forbidden = self._rules.first_forbidden
        if self._exit is not None:
            self.records = True
            self.confidences = self._exit.rule == "confidence"
            self._threshold = _threshold(self._exit, f"{path}.early_exit")
            self._prompt = _prompt(self._exit, context, f"{path}.early_exit.prompt")
        self._thinkers: dict[int, _Thinker] = {}
        self._probes: dict[int, _Thinker] = {}

    def on_token(self, control: Control, branch: Branch, token: SampledToken, reason: FinishReason | None) -> None:
        """Carry out the phases of a candidate, or listen to what answers for one."""
        probed = self._probes.get(branch.ordinal)
        if probed is not None:
            self._hear(control, probed, token, reason)
            return
        thinker = self._thinkers.get(branch.ordinal)
        if thinker is None:
            smoothing = self._exit.smoothing if self._exit is not None else 1.0
            thinker = _Thinker(WatchedSequence(self._rules, branch), EntropyVariance(smoothing))
            self._thinkers[branch.ordinal] = thinker
            control.report(Conclusion(mode="trace"))
        over = thinker.watched.observe(control, token, reason)
        if over is not None:
            self._end(control, thinker, over)
        elif self._exit is not None and thinker.probe is None and thinker.watched.ends_paragraph:
            self._probe(control, thinker)

    def on_end(self, control: Control, branch: Branch, reason: FinishReason) -> None:
        """The server process has what it needs of a candidate: nothing answers for it any more."""
        thinker = self._thinkers.get(branch.ordinal)
        if thinker is not None:
            self._drop_probe(control, thinker)

    def _end(self, control: Control, thinker: _Thinker, over: FinishReason) -> None:
        self._drop_probe(control, thinker)
        control.stop(thinker.watched.branch, over)

    def _drop_probe(self, control: Control, thinker: _Thinker) -> None:
        if thinker.probe is not None:
            del self._probes[thinker.probe.ordinal]
            control.stop(thinker.probe)
            thinker.probe, thinker.trial = None, []

    def _probe(self, control: Control, thinker: _Thinker) -> None:
        """Have a fork close the thought and begin to answer, if there is room for it."""
        state = thinker.watched.state
        if state is None or state.is_mid_character:
            return
        probe: Branch | None = None
        try:
            # A prompt is not of the answer's form, nor is what follows it.
            probe = control.fork(thinker.watched.branch, is_free=bool(self._prompt))
            control.force(probe, [*state.closing(), *self._prompt])
        except LimitError:
            if probe is not None:
                control.stop(probe)
            return
        control.set_temperature(probe, 0.0)
        thinker.probe = probe
        self._probes[probe.ordinal] = thinker

    def _hear(self, control: Control, thinker: _Thinker, token: SampledToken, reason: FinishReason | None) -> None:
        """A token of a probe: end the probe once its trial answer is whole, and the thought if that is settled."""
        assert self._exit is not None
        is_end = reason in (FinishReason.EOS, FinishReason.STOP)
        if self._exit.rule == "entropy":
            thinker.entropies.observe(token.statistics.entropy)
            settled = thinker.entropies.has_settled(self._threshold, self._exit.least_probes)
        else:
            if not is_end:
                thinker.trial.append(token.confidence)
            if reason is None and len(thinker.trial) < self._exit.trial_tokens:
                return
            settled = trial_confidence(thinker.trial) >= self._threshold
        self._drop_probe(control, thinker)
        if settled:
            over = thinker.watched.close_thought(control)
            if over is not None:
                self._end(control, thinker, over)


def _threshold(early_exit: EarlyExit, path: str) -> float:
    require_known(f"{path}.rule", early_exit.rule, ExitRule)
    if not 0.0 < early_exit.smoothing <= 1.0:
        raise invalid(f"{path}.smoothing", f"{early_exit.smoothing}; must be above 0 and at most 1")
    if early_exit.trial_tokens < 1:
        raise invalid(f"{path}.trial_tokens", f"{early_exit.trial_tokens}; at least 1 is needed")
    return early_exit.threshold or EXIT_THRESHOLDS[early_exit.rule]


def _prompt(early_exit: EarlyExit, context: StrategyContext, path: str) -> list[int]:
    if not early_exit.prompt:
        return []
    assert context.phases is not None
    try:
        return list(context.phases.ids(early_exit.prompt, path))
    except PhaseError as error:
        raise invalid(path, error.message) from None

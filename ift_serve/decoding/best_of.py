"""The best of several draws, by what the model itself, or an adapter's head, thinks of them."""

from __future__ import annotations

from dataclasses import dataclass

from ift_serve.decoding.context import StrategyContext
from ift_serve.decoding.path_confidence import mean_log_prob
from ift_serve.decoding.requirements import invalid, require_draws, require_known, require_one_candidate, settings_of
from ift_serve.decoding.sequence_rules import SequenceRules
from ift_serve.decoding.watched_sequence import WatchedSequence
from ift_serve.engine.core.strategy import Branch, Control, Strategy
from ift_serve.engine.protocol import reasoning
from ift_serve.engine.protocol.generate import BranchSummary, Conclusion, GenerateRequest, TokenStatistics
from ift_serve.engine.protocol.reasoning import BestOfMeasure
from ift_serve.engine.protocol.results import FinishReason
from ift_serve.engine.sequences.step import SampledToken


@dataclass(slots=True, eq=False)
class _Sample:
    """``score``: what samples are compared by, higher is better; None: it was cut, or has not ended."""

    watched: WatchedSequence
    statistics: list[TokenStatistics]
    is_over: bool = False
    text: str = ""
    score: float | None = None


class BestOfDecoding(Strategy):
    """The sample whose drawn tokens have the greatest mean log-probability, thoughts included; or the one whose answer
    the adherence head of the request's adapter thinks most likely to follow the instruction."""

    streams = False

    def __init__(self, request: GenerateRequest, context: StrategyContext, path: str = "reasoning.best_of") -> None:
        settings = settings_of(request, reasoning.BestOf)
        require_one_candidate(request, path)
        require_draws(request, path)
        if settings.samples < 1:
            raise invalid(f"{path}.samples", f"{settings.samples}; at least 1 is needed")
        require_known(f"{path}.by", settings.by, BestOfMeasure)
        self._judges = settings.by == "adherence"
        self._rules = SequenceRules.of(request, context, settings.trace, f"{path}.trace")
        self.width = settings.samples
        self.extra_tokens = self._rules.extra_tokens
        self.first_temperature = self._rules.first_temperature
        self.first_forbidden = self._rules.first_forbidden
        self._samples: dict[int, _Sample] = {}
        self._judged: dict[int, _Sample] = {}
        """By the number of the sequence that judges it."""

    def on_token(self, control: Control, branch: Branch, token: SampledToken, reason: FinishReason | None) -> None:
        """Follow a sample to its end; the last one decides."""
        sample = self._samples.get(branch.ordinal)
        if sample is None:
            sample = self._samples[branch.ordinal] = _Sample(WatchedSequence(self._rules, branch), [])
        over = sample.watched.observe(control, token, reason)
        if sample.watched.is_kept:
            sample.statistics.append(token.statistics)
        if over is None:
            return
        sample.is_over = True
        answer = sample.watched.answer()
        if answer is None:
            control.stop(branch, over)
        elif self._judges:
            sample.text = answer.text
            self._judge(control, sample, over)
        else:
            sample.text, sample.score = answer.text, mean_log_prob(sample.statistics)
            control.stop(branch, over)
        self._decide_if_over(control)

    def _judge(self, control: Control, sample: _Sample, over: FinishReason) -> None:
        """The sequence that judges begins on the sample's blocks, unless the request may not have one more."""
        branch, begin = sample.watched.branch, sample.watched.answer_begin
        if len(control.live) >= control.limits.sequences:
            control.stop(branch, over)
        self._judged[control.judge(branch, begin).ordinal] = sample
        control.stop(branch, over)

    def on_judged(self, control: Control, branch: Branch, adherence: float) -> None:
        """The head's view of one answer."""
        self._judged.pop(branch.ordinal).score = adherence
        self._decide_if_over(control)

    def _decide_if_over(self, control: Control) -> None:
        if not control.live:
            self._decide(control)
            control.finish()

    def conclude(self, control: Control, reason: FinishReason) -> None:
        """Answer with the best of the samples that are over."""
        self._decide(control)

    def _decide(self, control: Control) -> None:
        samples = [self._samples[ordinal] for ordinal in sorted(self._samples)]
        if not samples:
            return
        compared = [sample for sample in samples if sample.score is not None]
        best = max(compared or [s for s in samples if s.is_over][:1] or samples[:1], key=lambda s: s.score or 0.0)
        control.reveal(best.watched.branch, 0)
        control.report(
            Conclusion(
                mode="best_of",
                answer=best.text,
                confidence=best.score or 0.0,
                branches=[_summary(sample, sample is best) for sample in samples],
            )
        )


def _summary(sample: _Sample, chosen: bool) -> BranchSummary:
    branch = sample.watched.branch
    return BranchSummary(
        answer=sample.text,
        confidence=sample.score or 0.0,
        tokens=branch.generated_count,
        ended=branch.ended,
        chosen=chosen,
    )

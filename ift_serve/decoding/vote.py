"""Self-consistency (arXiv 2203.11171): several draws, and the answer that most of them agree on."""

from __future__ import annotations

from dataclasses import dataclass

from ift_serve.decoding.answer_finder import FoundAnswer
from ift_serve.decoding.beta_posterior import fewest_to_lead, leader_probability
from ift_serve.decoding.context import StrategyContext
from ift_serve.decoding.group_confidence import GroupConfidence, stop_threshold, token_confidence
from ift_serve.decoding.requirements import (
    decoder_of,
    finder_of,
    invalid,
    require_draws,
    require_known,
    require_one_candidate,
    settings_of,
)
from ift_serve.decoding.sequence_rules import SequenceRules
from ift_serve.decoding.votes import (
    Ballot,
    Tally,
    borda_weights,
    confidence_weights,
    fewest_to_settle,
    is_settled,
    majority_weights,
)
from ift_serve.decoding.watched_sequence import WatchedSequence
from ift_serve.engine.core.strategy import Branch, Control, LimitError, Strategy
from ift_serve.engine.protocol import reasoning
from ift_serve.engine.protocol.generate import BranchSummary, Conclusion, GenerateRequest
from ift_serve.engine.protocol.reasoning import AnswerKind, VoteStop, VoteWeight
from ift_serve.engine.protocol.results import FinishReason
from ift_serve.engine.sequences.step import SampledToken


@dataclass(slots=True, eq=False)
class _Sample:
    """``groups``: the confidence of its drawn tokens. ``weight``: that of its vote, once votes are counted."""

    watched: WatchedSequence
    groups: GroupConfidence
    is_over: bool = False
    answer: FoundAnswer | None = None
    weight: float = 0.0


class VoteDecoding(Strategy):
    """Draws as many samples at once as could decide the vote if they agreed, then more while they have not.

    So a vote on which all agree costs few samples, however many may be drawn. Which samples there are depends on the
    answers alone, not on the load. A sample that is cut, or ended for its low confidence, has no vote.
    """

    streams = False
    confidences = True

    def __init__(self, request: GenerateRequest, context: StrategyContext, path: str = "reasoning.vote") -> None:
        self._settings = settings = settings_of(request, reasoning.Vote)
        self._check(request, path)
        self._finder = finder_of(settings.span, decoder_of(context), path)
        self._rules = SequenceRules.of(request, context, settings.trace, f"{path}.trace")
        self.extra_tokens = self._rules.extra_tokens
        self.first_temperature = self._rules.first_temperature
        self.first_forbidden = self._rules.first_forbidden
        self._samples: dict[int, _Sample] = {}
        self._threshold: float | None = None
        self._left = settings.samples
        """Samples that may still be drawn."""
        self._is_decided = False
        self.width = min(self._wanted(), request.limits.sequences)
        self._left -= self.width

    def _check(self, request: GenerateRequest, path: str) -> None:
        settings = self._settings
        require_one_candidate(request, path)
        require_draws(request, path)
        if settings.samples < 1:
            raise invalid(f"{path}.samples", f"{settings.samples}; at least 1 is needed")
        require_known(f"{path}.weight", settings.weight, VoteWeight)
        require_known(f"{path}.stop", settings.stop, VoteStop)
        if settings.span.kind is AnswerKind.CONTINUATION:
            raise invalid(f"{path}.span.kind", "samples of a vote are not asked for their answers")
        low = settings.low_confidence
        if low is not None and (low.warm_up < 1 or low.window < 1 or not 0 <= low.keep <= 1):
            raise invalid(f"{path}.low_confidence", "needs a warm_up and a window of at least 1, keep from 0 to 1")

    def on_token(self, control: Control, branch: Branch, token: SampledToken, reason: FinishReason | None) -> None:
        """Follow a sample to its end; then see whether the vote is over, or how many more it needs."""
        sample = self._samples.get(branch.ordinal)
        if sample is None:
            low = self._settings.low_confidence
            groups = GroupConfidence(low.window if low is not None else 1)
            sample = self._samples[branch.ordinal] = _Sample(WatchedSequence(self._rules, branch), groups)
        over = sample.watched.observe(control, token, reason)
        if sample.watched.is_kept:
            sample.groups.observe(token_confidence(token.confidence))
        if over is None and not self._is_unsure(sample):
            return
        if over is not None:
            text = sample.watched.answer()
            sample.answer = None if text is None else self._finder.find(text)
        self._end(control, sample, over or FinishReason.STOP)

    def _is_unsure(self, sample: _Sample) -> bool:
        """Whether a sample after the warm-up has a window below what the warm-up's would keep (DeepConf)."""
        current = sample.groups.current
        return self._threshold is not None and current is not None and current < self._threshold

    def _end(self, control: Control, sample: _Sample, over: FinishReason) -> None:
        """A sample is over: decide, or draw as many more as are needed."""
        branch = sample.watched.branch
        sample.is_over = True
        self._take_threshold()
        if not self._is_over():
            if len(control.live) >= control.limits.sequences:
                control.stop(branch, over)
            # While it is there, its prompt need not be computed again for what begins now.
            self._draw(control, branch)
        control.stop(branch, over)
        if self._is_over() or not control.live:
            self._decide(control)
            control.finish()

    def _take_threshold(self) -> None:
        """What later samples are held to, once the warm-up is over."""
        low = self._settings.low_confidence
        if low is None or self._threshold is not None:
            return
        lowest = [sample.groups.lowest for sample in self._over]
        if len(lowest) >= min(low.warm_up, self._settings.samples):
            self._threshold = stop_threshold([one for one in lowest if one is not None], low.keep)

    @property
    def _over(self) -> list[_Sample]:
        return [self._samples[ordinal] for ordinal in sorted(self._samples) if self._samples[ordinal].is_over]

    def _wanted(self) -> int:
        """Samples that should run now: the fewest that could decide the vote if they agreed with its leader."""
        settings = self._settings
        left = settings.samples - len(self._over)
        low = settings.low_confidence
        if low is not None and self._threshold is None:
            return min(left, low.warm_up - len(self._over))
        tally = self._tally()
        if settings.stop == "posterior":
            return max(1, fewest_to_lead(*tally.effective_counts(), settings.confidence, left))
        if settings.stop == "settled":
            return max(1, fewest_to_settle(tally, left))
        return left

    def _draw(self, control: Control, branch: Branch) -> None:
        """Start as many samples as should run beside those that do, as far as there may be more."""
        running = sum(other is not branch for other in control.live)
        for _ in range(min(self._wanted() - running, self._left)):
            try:
                begun = control.fork(branch, keep=0)
            except LimitError:
                return
            control.set_temperature(begun, self._rules.first_temperature)
            self._left -= 1

    def _is_over(self) -> bool:
        """Whether the answer is known with all the samples that there are."""
        settings, tally = self._settings, self._tally()
        left = settings.samples - len(self._over)
        if left <= 0:
            return True
        if settings.stop == "settled" and settings.weight != "confidence":
            return is_settled(tally, left, settings.power if settings.weight == "borda" else 0.0)
        if settings.stop == "posterior" and tally.ballots:
            return leader_probability(*tally.effective_counts()) >= settings.confidence
        return False

    def _tally(self) -> Tally:
        """The votes so far; notes the weight of each."""
        voters = [sample for sample in self._over if sample.answer is not None]
        ballots = [Ballot(s.answer.key, s.groups.mean) for s in voters if s.answer is not None]
        if self._settings.weight == "borda":
            weights = borda_weights(ballots, self._settings.power)
        elif self._settings.weight == "confidence":
            weights = confidence_weights(ballots)
        else:
            weights = majority_weights(ballots)
        for voter, weight in zip(voters, weights, strict=True):
            voter.weight = weight
        return Tally(ballots, weights)

    def conclude(self, control: Control, reason: FinishReason) -> None:
        """Answer by the votes of the samples that are over."""
        self._decide(control)

    def _decide(self, control: Control) -> None:
        if self._is_decided or not self._samples:
            return
        self._is_decided = True
        tally = self._tally()
        samples = [self._samples[ordinal] for ordinal in sorted(self._samples)]
        agreeing = [s for s in samples if s.answer is not None and s.answer.key == tally.leader]
        # The most certain of those that agree; without any answer, a sample that is over.
        best = max(agreeing or [s for s in samples if s.is_over][:1] or samples[:1], key=lambda s: s.groups.mean)
        control.reveal(best.watched.branch, 0)
        control.report(
            Conclusion(
                mode="vote",
                answer=best.answer.text if best.answer is not None else "",
                confidence=tally.share,
                branches=[_summary(sample, sample is best) for sample in samples],
            )
        )


def _summary(sample: _Sample, chosen: bool) -> BranchSummary:
    branch = sample.watched.branch
    return BranchSummary(
        answer=sample.answer.text if sample.answer is not None else "",
        confidence=sample.groups.mean,
        votes=sample.weight,
        tokens=branch.generated_count,
        ended=branch.ended,
        chosen=chosen,
    )

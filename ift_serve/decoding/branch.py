"""Chain-of-thought decoding (Wang and Zhou 2024, arXiv 2402.10200): several first tokens, the surest answer."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ift_serve.decoding.answer_aggregation import AnsweredPath, greatest, greatest_sum
from ift_serve.decoding.answer_finder import AnswerFinder, FoundAnswer
from ift_serve.decoding.answer_tokens import PathText
from ift_serve.decoding.context import StrategyContext
from ift_serve.decoding.path_confidence import answer_confidence, is_uncertain
from ift_serve.decoding.requirements import (
    decoder_of,
    finder_of,
    invalid,
    require_known,
    require_one_candidate,
    settings_of,
)
from ift_serve.decoding.sequence_rules import SequenceRules
from ift_serve.decoding.watched_sequence import ALTERNATIVES, WatchedSequence
from ift_serve.engine.core.strategy import Branch, Control, LimitError, Strategy
from ift_serve.engine.protocol import reasoning
from ift_serve.engine.protocol.generate import BranchSummary, Conclusion, GenerateRequest
from ift_serve.engine.protocol.reasoning import AnswerKind, BranchAggregate
from ift_serve.engine.protocol.results import FinishReason
from ift_serve.engine.sequences.step import SampledToken
from ift_serve.text.phases import PhaseError

_AGGREGATES = {"max": greatest, "sum": greatest_sum}


@dataclass(slots=True, eq=False)
class _Path:
    """``length``: tokens of its own where a question follows them; ``asked``: the sequence that answers it."""

    watched: WatchedSequence
    length: int = 0
    is_over: bool = False
    asked: Branch | None = None
    answer: FoundAnswer | None = None
    confidence: float = 0.0


class BranchDecoding(Strategy):
    """Greedy from each of the most likely first tokens; the prompt is computed once.

    The confidence of a path is the mean of ``p1 - p2`` over the tokens of its answer, the first token of the path among
    them where it is part of the answer. End and control tokens are not branched on. Paths that are cut by a deadline or
    a limit have no answer.
    """

    streams = False
    records = True
    confidences = True
    alternatives = ALTERNATIVES

    def __init__(self, request: GenerateRequest, context: StrategyContext, path: str = "reasoning.branch") -> None:
        """``path``: the field that holds the settings. Raises RefusedError."""
        settings = settings_of(request, reasoning.Branch)
        self._settings = settings
        self._check(request, path)
        decoder = decoder_of(context)
        self._finder = finder_of(settings.span, decoder, path)
        self._rules = replace(SequenceRules.of(request, context, None, path), thought_temperature=None)
        self._decoder = decoder
        self._no_branches = context.special_ids | context.end_ids | {*request.end_ids, *request.sampling.stop_ids}
        self._question: list[int] = []
        self._answer_limit = request.sampling.max_new_tokens
        if settings.span.kind is AnswerKind.CONTINUATION:
            self._question = _question(context, settings.span.prompt, f"{path}.span.prompt")
            self.extra_tokens = len(self._question) + settings.span.continuation_tokens
        self._paths: dict[int, _Path] = {}
        self._asked: dict[int, _Path] = {}
        self._has_branched = self._is_decided = False

    def _check(self, request: GenerateRequest, path: str) -> None:
        settings = self._settings
        require_one_candidate(request, path)
        if not 1 <= settings.width <= ALTERNATIVES:
            raise invalid(f"{path}.width", f"{settings.width}; must be 1 to {ALTERNATIVES}")
        require_known(f"{path}.aggregate", settings.aggregate, BranchAggregate)
        if request.sampling.temperature != 0 and request.strategy == "branch":
            raise invalid("sampling.temperature", f"{request.sampling.temperature}; {path} goes on greedily, at 0")

    def on_token(self, control: Control, branch: Branch, token: SampledToken, reason: FinishReason | None) -> None:
        """Branch, follow a path, or listen to the answer of one that was asked."""
        if branch.ordinal in self._asked:
            self._listen(control, branch, reason)
            return
        if branch.ordinal not in self._paths:
            self._paths[branch.ordinal] = _Path(WatchedSequence(self._rules, branch))
            control.set_temperature(branch, 0.0)
        path = self._paths[branch.ordinal]
        if not self._has_branched and self._branches_at(token) and self._branch_out(control, branch, token):
            del self._paths[branch.ordinal]
            control.stop(branch)
            return
        over = path.watched.observe(control, token, reason)
        if over is None and branch.generated_count >= self._answer_limit:
            over = FinishReason.LENGTH
        if over is not None:
            self._end(control, path, over)

    def _branches_at(self, token: SampledToken) -> bool:
        below = self._settings.uncertain_below
        return below == 0 or is_uncertain(token.confidence, below)

    def _branch_out(self, control: Control, branch: Branch, token: SampledToken) -> bool:
        """Fork at the token that was just drawn. Returns whether that token itself is none to go on from."""
        self._has_branched = True
        allowed = [i for i, _ in token.top_log_probs if i not in self._no_branches][: self._settings.width]
        drops_own = bool(allowed) and token.token_id not in allowed
        for token_id in allowed:
            if token_id == token.token_id:
                continue
            try:
                child = control.fork(branch, replace_last=token_id)
            except LimitError:
                break
            watched = WatchedSequence(self._rules, child).replay(child.generated)
            self._paths[child.ordinal] = _Path(watched)
        return drops_own

    def _end(self, control: Control, path: _Path, over: FinishReason) -> None:
        """A path is over: it has its answer, or is asked for it."""
        branch = path.watched.branch
        path.is_over = True
        if self._question and not path.watched.is_cut:
            self._ask(control, path, over)
        else:
            text = path.watched.answer()
            path.answer = None if text is None or self._question else self._finder.find(text)
        control.stop(branch, over)
        self._take_confidence(path, branch)
        self._decide_if_over(control)

    def _ask(self, control: Control, path: _Path, over: FinishReason) -> None:
        branch = path.watched.branch
        ends_in_token = over is FinishReason.EOS or branch.generated[-1] in self._no_branches
        path.length = branch.generated_count - ends_in_token
        try:
            asked = control.fork(branch, keep=path.length)
            control.force(asked, self._question)
        except LimitError:
            return
        path.asked = asked
        self._asked[asked.ordinal] = path

    def _listen(self, control: Control, branch: Branch, reason: FinishReason | None) -> None:
        """The answer is over at the end of its line, of its tokens, or of the model's text."""
        path = self._asked[branch.ordinal]
        begin = path.length + len(self._question)
        spoken = PathText.of(self._decoder, branch.generated, begin)
        enough = branch.generated_count - begin >= self._settings.span.continuation_tokens
        if reason is None and not enough and "\n" not in spoken.text.lstrip():
            return
        path.answer = AnswerFinder.align(PathText.of(self._decoder, branch.generated[: path.length]), spoken)
        self._take_confidence(path, branch)
        control.stop(branch)
        del self._asked[branch.ordinal]
        self._decide_if_over(control)

    @staticmethod
    def _take_confidence(path: _Path, branch: Branch) -> None:
        if path.answer is not None:
            statistics = [token.confidence for token in branch.record]
            path.confidence = answer_confidence(statistics, path.answer.tokens) or 0.0

    def _decide_if_over(self, control: Control) -> None:
        if not self._asked and all(path.is_over for path in self._paths.values()):
            self._decide(control)
            control.finish()

    def conclude(self, control: Control, reason: FinishReason) -> None:
        """Answer with the surest of the paths that are over."""
        self._decide(control)

    def _decide(self, control: Control) -> None:
        if self._is_decided or not self._paths:
            return
        self._is_decided = True
        paths = [self._paths[ordinal] for ordinal in sorted(self._paths)]
        answered = [path for path in paths if path.answer is not None]
        compared = [AnsweredPath(path.answer.key, path.confidence) for path in answered if path.answer is not None]
        chosen = _AGGREGATES[self._settings.aggregate](compared)
        best = next((path for path in paths if path.is_over), paths[0])
        if chosen is not None:
            best = answered[chosen.path]
        control.reveal(best.watched.branch, 0)
        control.report(
            Conclusion(
                mode="branch",
                answer=best.answer.text if best.answer is not None else "",
                confidence=chosen.confidence if chosen is not None else 0.0,
                branches=[_summary(path, path is best) for path in paths],
            )
        )


def _summary(path: _Path, chosen: bool) -> BranchSummary:
    branch = path.watched.branch
    return BranchSummary(
        answer=path.answer.text if path.answer is not None else "",
        confidence=path.confidence,
        votes=path.confidence,
        tokens=branch.generated_count,
        ended=branch.ended,
        chosen=chosen,
    )


def _question(context: StrategyContext, prompt: str, field: str) -> list[int]:
    assert context.phases is not None
    try:
        ids = list(context.phases.ids(" " + prompt.strip(), field))
    except PhaseError as error:
        raise invalid(field, error.message) from None
    if not ids:
        raise invalid(field, "is empty; say what the model is to go on from")
    return ids

"""Options that say how an answer is reasoned about, and what they stand for."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ift_serve.client import Reasoning

_KINDS = ("none", "trace", "branch", "vote", "best_of", "auto")
_BELONGS = {
    "budget": ("trace", "vote", "best_of", "auto"),
    "early_exit": ("trace", "vote", "best_of", "auto"),
    "width": ("branch", "auto"),
    "samples": ("vote", "best_of"),
    "weight": ("vote",),
    "vote_stop": ("vote",),
    "answer": ("branch", "vote", "auto"),
    "answer_pattern": ("branch", "vote", "auto"),
    "best_by": ("best_of",),
}
"""The kinds of reasoning that an option belongs to."""


@dataclass(frozen=True)
class ReasoningOptions:
    """How to reason. Every field is an option of the commands that are :func:`ift_serve.cli.connect.connected`."""

    reasoning: Annotated[str | None, typer.Option(help=", ".join(_KINDS))] = None
    budget: Annotated[int | None, typer.Option(help="tokens of thought; samples think first with it", min=0)] = None
    early_exit: Annotated[str | None, typer.Option(help="end a thought early: entropy, confidence")] = None
    width: Annotated[int | None, typer.Option(help="first tokens that branch tries", min=2)] = None
    samples: Annotated[int | None, typer.Option(help="answers that vote and best_of draw", min=2)] = None
    weight: Annotated[str | None, typer.Option(help="of a vote: majority, borda, confidence")] = None
    vote_stop: Annotated[str | None, typer.Option(help="a vote is over: all, settled, posterior")] = None
    best_by: Annotated[str | None, typer.Option(help="best_of: log_prob, adherence")] = None
    answer: Annotated[
        str | None, typer.Option(help="what answers are: number, option, last_line, pattern, continuation")
    ] = None
    answer_pattern: Annotated[str | None, typer.Option(help="what finds the answer, in RE2 syntax")] = None
    max_total_tokens: Annotated[int | None, typer.Option(help="of all sequences, hidden ones too", min=1)] = None
    adaptive: Annotated[str | None, typer.Option(help="a temperature for each token: head, entropy")] = None
    min_temperature: Annotated[float | None, typer.Option(help="with --adaptive", min=0)] = None
    max_temperature: Annotated[float | None, typer.Option(help="with --adaptive", min=0)] = None

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of ``generate`` and ``stream``. Raises ValueError for options that do not belong."""
        found: dict[str, Any] = {"reasoning": self.settings(), "max_total_tokens": self.max_total_tokens}
        if self.adaptive is not None:
            from ift_serve.client import AdaptiveTemperature

            found["adaptive"] = AdaptiveTemperature(
                min=self.min_temperature,
                max=self.max_temperature,
                rule=self.adaptive,  # type: ignore[arg-type]
            )
        elif self.min_temperature is not None or self.max_temperature is not None:
            raise ValueError("--min-temperature and --max-temperature belong to --adaptive; give that too")
        return found

    def settings(self) -> Reasoning | None:
        """What the options ask for, None where nothing is. Raises ValueError."""
        from ift_serve.client import AnswerSpan, Auto, BestOf, Branch, NoReasoning, Trace, Vote

        self._check()
        early_exit = _early_exit(self.early_exit)
        thinks = self.budget is not None or early_exit is not None
        trace = Trace(self.budget, early_exit=early_exit)
        kind: Any = self.answer or ("pattern" if self.answer_pattern else None)
        span = AnswerSpan(kind, pattern=self.answer_pattern or "") if kind else None
        branch = Branch(self.width, span=span)
        weight: Any = self.weight
        stop: Any = self.vote_stop
        by: Any = self.best_by
        asked: dict[str, Reasoning] = {
            "none": NoReasoning(),
            "trace": trace,
            "branch": branch,
            "vote": Vote(self.samples, weight, stop=stop, span=span, trace=trace if thinks else None),
            "best_of": BestOf(self.samples, by, trace if thinks else None),
            "auto": Auto(trace, branch),
        }
        return None if self.reasoning is None else asked[self.reasoning]

    def _check(self) -> None:
        if self.reasoning is not None and self.reasoning not in _KINDS:
            raise ValueError(f"--reasoning: {self.reasoning!r} is not one of {', '.join(_KINDS)}")
        for field in fields(self):
            kinds = _BELONGS.get(field.name)
            if kinds is not None and getattr(self, field.name) is not None and self.reasoning not in kinds:
                option = "--" + field.name.replace("_", "-")
                raise ValueError(f"{option} belongs to --reasoning {' or '.join(kinds)}; not to {self.reasoning}")


def _early_exit(name: str | None) -> Any:
    from ift_serve.client import ConfidenceExit, EntropyExit

    if name is None:
        return None
    known = {"entropy": EntropyExit, "confidence": ConfidenceExit}
    if name not in known:
        raise ValueError(f"--early-exit: {name!r} is not one of {', '.join(known)}")
    return known[name]()

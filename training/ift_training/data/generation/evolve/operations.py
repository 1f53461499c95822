"""What is done to one record: each operation gives what came of it, kept or rejected with the reason."""

from __future__ import annotations

import random
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ift_serve.checks import Check, judge_all, parse_check
from ift_serve.checks.answers import Exact
from ift_serve.evaluation.serving.outcomes import Answer
from ift_training.data.generation.answers import yes_or_no
from ift_training.data.generation.calls import Speaker
from ift_training.data.generation.evolve.elimination import bad_answer, bad_task
from ift_training.data.generation.evolve.requirements import NAMES, Requirement, requirements, with_requirement
from ift_training.data.generation.evolve.writing import Written, new_input, new_task, only_task
from ift_training.data.generation.record import GeneratedRecord, Reason, Turn
from ift_training.data.generation.rouge import words
from ift_training.data.generation.run import Run, rejected
from ift_training.data.generation.settings import EvolutionRecipe, Operation

_CONCLUSION = re.compile(r"^\W*answer\W*:\s*(.+?)\s*$", re.IGNORECASE | re.MULTILINE)
_SHORT_ANSWER = 5
"""Words of an answer that has no checks, up to which a rationale can be compared with it."""
_LANGUAGES: Mapping[str, str] = {
    "arabic": "ar", "bengali": "bn", "bulgarian": "bg", "finnish": "fi", "french": "fr", "german": "de",
    "gujarati": "gu", "hindi": "hi", "italian": "it", "kannada": "kn", "korean": "ko", "marathi": "mr",
    "nepali": "ne", "persian": "fa", "portuguese": "pt", "punjabi": "pa", "russian": "ru", "spanish": "es",
    "swahili": "sw", "tamil": "ta", "telugu": "te", "thai": "th", "turkish": "tr", "ukrainian": "uk", "urdu": "ur",
    "vietnamese": "vi",
}  # fmt: skip
"""Languages whose answers a program can tell, by their English names."""
_IN_DEPTH: Mapping[str, str] = {
    "constraint": "evolve_constraint", "deepen": "evolve_deepen", "concretise": "evolve_concretise",
    "reasoning": "evolve_reasoning", "input": "evolve_input",
}  # fmt: skip
REPLACING = frozenset({*_IN_DEPTH, "verifiable", "dialogue"})
"""Operations whose record takes its parent's place in the pool: the next step goes on from it."""
JOINING = frozenset({"breadth"})
"""Operations whose record joins the pool beside its parent."""


@dataclass(frozen=True, slots=True)
class Task:
    """One operation on one record. attempt: counts what was tried on the record before, so that a draw is another."""

    parent: GeneratedRecord
    operation: Operation
    attempt: int


class Operations:
    """The operations of a recipe with those who write, answer and judge."""

    def __init__(self, run: Run, recipe: EvolutionRecipe, writer: Speaker, answerer: Speaker, judge: Speaker) -> None:
        self._run = run
        self._recipe = recipe
        self._writer = writer
        self._answerer = answerer
        self._judge = judge

    def applicable(self, record: GeneratedRecord) -> list[Operation]:
        """The operations of the recipe that mean something for a record."""
        chosen = [name for name, weight in self._recipe.operations.items() if weight > 0]
        return [name for name in chosen if self._applies(name, record)]

    def _applies(self, operation: Operation, record: GeneratedRecord) -> bool:
        # A task that is rewritten may have another answer than the one that its checks know.
        is_judged = bool(record.checks)
        if operation == "input":
            return bool(record.context) and not is_judged
        if operation in _IN_DEPTH or operation == "translate":
            return not is_judged and not record.history
        if operation == "rationale":
            return is_judged or len(record.response.split()) <= _SHORT_ANSWER
        if operation in ("verifiable", "variation"):
            rng = random.Random(0)
            return next(requirements(record, self._names, rng), None) is not None
        return True

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(self._recipe.verifiable.checks) or NAMES

    async def run(self, task: Task) -> list[GeneratedRecord]:
        """What comes of an operation: the records that are kept, or one that says why there is none."""
        rng = random.Random(f"{self._recipe.seed}|{task.operation}|{task.parent.id}|{task.attempt}")
        if task.operation in _IN_DEPTH:
            return [await self._deeper(task)]
        special: dict[str, Callable[[Task, random.Random], Awaitable[list[GeneratedRecord]]]] = {
            "breadth": self._beside,
            "verifiable": lambda task, rng: self._required(task, rng, 1),
            "variation": lambda task, rng: self._required(task, rng, self._recipe.verifiable.variations),
            "dialogue": self._dialogue,
            "rationale": self._rationale,
            "translate": self._translated,
        }
        return await special[task.operation](task, rng)

    def _made(
        self, task: Task, speaker: Speaker, prompts: tuple[str, ...], added: str = "", **fields: Any
    ) -> GeneratedRecord:
        """A record of an operation, without a verdict yet; what is not given is the parent's."""
        lineage = self._run.lineage(
            f"evolve.{task.operation}", speaker, prompts, parents=(task.parent.id,), place=task.attempt, added=added
        )
        record = replace(task.parent, response="", lineage=lineage, status="pending", reasons=())
        return replace(record, **fields)

    async def _deeper(self, task: Task) -> GeneratedRecord:
        """In-depth evolving: one requirement more, by the prompt of the operation."""
        prompt = _IN_DEPTH[task.operation]
        fields = {"instruction": task.parent.instruction}
        if task.operation == "input":
            fields["context"] = task.parent.context
        answer = await self._writer.say(self._run.prompts[prompt].fill(**fields), task.attempt)
        written = None if answer is None else (new_input if task.operation == "input" else new_task)(answer)
        if written is None:
            return rejected(self._made(task, self._writer, (prompt,)), "form", "the writer gave no new task")
        changed = {"context" if task.operation == "input" else "instruction": written.text}
        added = written.added or _new_words(written, task.parent)
        used = (prompt, "same") if self._recipe.elimination.same else (prompt,)
        record = self._made(task, self._answerer, used, added, **changed)
        return await self._answered(record, task)

    async def _beside(self, task: Task, _: random.Random) -> list[GeneratedRecord]:
        """In-breadth evolving: another task of the same field."""
        text = self._run.prompts["evolve_breadth"].fill(instruction=task.parent.instruction)
        answer = await self._writer.say(text, task.attempt)
        written = None if answer is None else only_task(answer)
        empty: dict[str, Any] = {"context": "", "history": (), "checks": ()}
        if written is None:
            record = self._made(task, self._writer, ("evolve_breadth",), **empty)
            return [rejected(record, "form", "the writer gave no new task")]
        used = ("evolve_breadth", "same") if self._recipe.elimination.same else ("evolve_breadth",)
        record = self._made(task, self._answerer, used, instruction=written.text, **empty)
        return [await self._answered(record, task)]

    async def _answered(self, record: GeneratedRecord, task: Task) -> GeneratedRecord:
        """A new task after its elimination rules, with its answer and the rules for that."""
        settings, parent = self._recipe.elimination, task.parent
        if (reason := bad_task(record.asked, parent.asked, settings)) is not None:
            return record.judged("rejected", reason)
        if settings.same:
            text = self._run.prompts["same"].fill(first=parent.asked, second=record.asked)
            if yes_or_no(await self._judge.say(text)):
                return rejected(record, "same", "the judge says that it asks for nothing new")
        answer = await self._ask(record, task.attempt)
        return self._with_answer(record, answer)

    async def _ask(self, record: GeneratedRecord, repeat: int) -> Answer | None:
        return await self._answerer.say(record.instruction, repeat, history=record.history, context=record.context)

    def _with_answer(self, record: GeneratedRecord, answer: Answer | None) -> GeneratedRecord:
        """A record with its answer, judged by the rules and by its own checks."""
        if answer is None:
            return rejected(record, "refused", "the server takes no such request; it may be too long")
        record = replace(record, response=answer.text.strip())
        if answer.is_cut:
            return rejected(record, "cut", "the answer was cut off at its length")
        verdict = judge_all(record.checks, record.response, record.instruction) if record.response else None
        if verdict is not None and record.checks:
            # A checked answer may be one word; what the checks say counts.
            return record.judged("kept") if verdict else rejected(record, "check", verdict.reason)
        reason = bad_answer(record.response, self._recipe.elimination)
        return record.judged("kept") if reason is None else record.judged("rejected", reason)

    async def _required(self, task: Task, rng: random.Random, wanted: int) -> list[GeneratedRecord]:
        """Requirements with their checks, each on a record of its own; the first answer that passes is kept."""
        found: list[GeneratedRecord] = []
        for number, added in enumerate(requirements(task.parent, self._names, rng)):
            if number == wanted:
                break
            found.append(await self._sampled(task, added))
        return found

    async def _sampled(self, task: Task, added: Requirement) -> GeneratedRecord:
        instruction, checks = with_requirement(task.parent, added)
        fields: dict[str, Any] = {"instruction": instruction, "checks": checks}
        record = self._made(task, self._answerer, (), added.words, **fields)
        samples = self._recipe.verifiable.samples
        judged = record
        for sample in range(samples):
            judged = self._with_answer(record, await self._ask(record, task.attempt * samples + sample))
            if judged.status == "kept":
                reason = Reason("check", f"passed by sample {sample + 1} of {samples}", sample + 1)
                return judged.judged("kept", reason)
        return judged

    async def _dialogue(self, task: Task, _: random.Random) -> list[GeneratedRecord]:
        """One more turn: what the person asks next, and its answer."""
        parent = task.parent
        text = self._run.prompts["follow_up"].fill(asked=parent.asked, response=parent.response)
        answer = await self._writer.say(text, task.attempt)
        written = None if answer is None else only_task(answer)
        if written is None:
            return [rejected(self._made(task, self._writer, ("follow_up",)), "form", "the writer asked nothing")]
        said = (*parent.history, Turn("user", parent.asked), Turn("assistant", parent.response))
        record = self._made(
            task, self._answerer, ("follow_up",), written.text, instruction=written.text, context="", history=said,
            checks=(),
        )  # fmt: skip
        if (reason := bad_task(record.instruction, parent.instruction, self._recipe.elimination)) is not None:
            return [record.judged("rejected", reason)]
        return [self._with_answer(record, await self._ask(record, task.attempt))]

    async def _rationale(self, task: Task, _: random.Random) -> list[GeneratedRecord]:
        """Steps before the answer, kept only where the answer behind them is right."""
        parent = task.parent
        text = self._run.prompts["rationale"].fill(asked=parent.asked)
        checks = parent.checks or (Exact(answer=parent.response),)
        samples = self._recipe.verifiable.samples
        judged = self._made(task, self._answerer, ("rationale",), "steps")
        for sample in range(samples):
            repeat = task.attempt * samples + sample
            answer = await self._answerer.say(text, repeat, history=parent.history)
            judged = self._reasoned(task, answer, checks)
            if judged.status == "kept":
                break
        return [judged]

    def _reasoned(self, task: Task, answer: Answer | None, checks: tuple[Check, ...]) -> GeneratedRecord:
        record = self._made(task, self._answerer, ("rationale",), "steps", checks=())
        if answer is None:
            return rejected(record, "refused", "the server takes no such request; it may be too long")
        record = replace(record, response=answer.text.strip())
        found = _CONCLUSION.findall(record.response)
        if not found:
            return rejected(record, "form", "no line begins with 'Answer:'")
        if not (verdict := judge_all(checks, found[-1], task.parent.instruction)):
            return rejected(record, "check", f"the answer behind the steps: {verdict.reason}")
        if len(record.response.split()) <= len(found[-1].split()) + 1:
            return rejected(record, "form", "has no steps")
        end = parse_check({"type": "end", "phrase": found[-1]})
        return replace(record, checks=(end,)).judged("kept") if end.verdict(record.response) else record.judged("kept")

    async def _translated(self, task: Task, rng: random.Random) -> list[GeneratedRecord]:
        """The same request in another language, and an answer in it."""
        language = rng.choice(self._recipe.languages)
        text = self._run.prompts["translate"].fill(asked=task.parent.asked, language=language)
        answer = await self._writer.say(text, task.attempt)
        if answer is None or not answer.text.strip():
            return [rejected(self._made(task, self._writer, ("translate",), language), "form", "no translation")]
        is_told = _LANGUAGES.get(language.lower())
        kwargs = {"language": is_told}
        check = {"type": "instruction", "instruction_id": "language:response_language", "kwargs": kwargs}
        checks = (parse_check(check),) if is_told else ()
        asked = answer.text.strip()
        if checks and not judge_all(checks, asked):
            record = self._made(task, self._writer, ("translate",), language, instruction=asked)
            return [rejected(record, "language", f"the translation is not {language}")]
        record = self._made(
            task, self._answerer, ("translate",), language, instruction=asked, context="", checks=checks
        )
        return [self._with_answer(record, await self._ask(record, task.attempt))]


def _new_words(written: Written, parent: GeneratedRecord) -> str:
    """What a text has that its parent does not, for a writer that does not say what it added."""
    before = set(words(parent.asked))
    return " ".join(word for word in written.text.split() if not set(words(word)) <= before)

"""The labelled sample: good pairs, hard ones among them, and pairs with one planted fault each; the same at every call."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal

from ift_serve.checks import parse_checks
from ift_training.data.procedural import draw, families
from ift_training.data.quality.calibration import planting
from ift_training.data.quality.calibration.fresh import FRESH_PAIRS, FRESH_SCENES
from ift_training.data.quality.calibration.general import CAREFUL, EXAMINATION, PAIRS, UNSAFE
from ift_training.data.quality.calibration.hard import HARD
from ift_training.data.quality.calibration.scenes import SCENES, Scene
from ift_training.data.quality.pair import Pair
from ift_training.data.records import Record
from ift_training.data.violations import violate

Half = Literal["tune", "test"]
FILE = "labelled.jsonl"
FAULTS: dict[str, tuple[str, ...]] = {
    "other answer": ("coherence",),
    "refusal": ("alignment",),
    "echo": ("alignment",),
    "placeholder": ("alignment",),
    "missed form": ("alignment",),
    "failed check": ("format",),
    "broken marks": ("format",),
    "unlike reference": ("references",),
    "wrong number": ("contradiction", "asked_model", "entailment"),
    "wrong name": ("contradiction", "asked_model", "entailment"),
    "denial": ("contradiction", "asked_model", "entailment"),
    "loop": ("repetition",),
    "near copy": ("duplicates",),
    "examination copy": ("shared_runs", "shared_meaning"),
    "examination reworded": ("shared_meaning",),
    "personal data": ("personal",),
    "harm": ("unsafe",),
}
"""Each kind of fault, with the filters that are to find it."""
_EACH = 24
_SEED = 13
_SCENES = [(2 * n, one) for n, one in enumerate(SCENES)] + [(2 * n + 1, one) for n, one in enumerate(FRESH_SCENES)]
_PAIRS = [(2 * n, one) for n, one in enumerate(PAIRS)] + [(2 * n + 1, one) for n, one in enumerate(FRESH_PAIRS)]
"""With the number of the text; those of odd numbers were written after the rules of the filters."""
_BULLETS = "List three facts from the text as bullet points."
_SUMMARY = "Summarize the text in one sentence."


@dataclass(frozen=True, slots=True)
class Labelled:
    """A pair and what is wrong with it: a key of FAULTS, or nothing. half: which of the two halves it belongs to.

    Rules and thresholds were chosen on ``tune``; results are told on ``test``, of texts that were written afterwards.
    (Sums and lists of the procedural families, questions of the examination and texts about harm are divided between
    the two.)
    """

    pair: Pair
    fault: str
    half: Half

    def values(self) -> dict[str, Any]:
        """Plain values, as a line of the file."""
        pair = self.pair
        return {
            "id": pair.id,
            "instruction": pair.instruction,
            "context": pair.context,
            "output": pair.response,
            "checks": [check.model_dump(mode="json") for check in pair.checks],
            "references": list(pair.references),
            "fault": self.fault,
            "half": self.half,
        }


def read_sample() -> list[Labelled]:
    """The sample that comes with the package."""
    text = (resources.files("ift_training.data.quality.calibration") / FILE).read_text(encoding="utf-8")
    return [_of_values(json.loads(line)) for line in text.splitlines()]


def examination() -> list[str]:
    """What the sample's examination asks."""
    return [question for question, _ in EXAMINATION]


def _of_values(found: dict[str, Any]) -> Labelled:
    pair = Pair(
        found["id"], found["instruction"], found["output"], found["context"], (),
        parse_checks(found["checks"]), tuple(found["references"]),
    )  # fmt: skip
    return Labelled(pair, found["fault"], found["half"])


def make_sample() -> list[Labelled]:
    """All pairs: the good ones first, so that copies of them come later."""
    rng = random.Random(_SEED)
    good = [*_good(rng)]
    every = [*good, *_faulty(good, rng)]
    return [
        Labelled(_numbered(pair, index), fault, "test" if source % 2 else "tune")
        for index, (source, pair, fault) in enumerate(every)
    ]


_Made = tuple[int, Pair, str]
"""The number of the text that it is made of, the pair, the fault."""


def _numbered(pair: Pair, index: int) -> Pair:
    return Pair(
        f"q{index:04}", pair.instruction, pair.response, pair.context, pair.earlier, pair.checks, pair.references
    )


def _good(rng: random.Random) -> Iterator[_Made]:
    for number, scene in _SCENES:
        for pair in _of_scene(scene):
            yield number, pair, ""
    for number, (instruction, response) in _PAIRS:
        yield number, Pair("", instruction, response), ""
    for number, (instruction, response) in enumerate(CAREFUL):
        yield number, Pair("", instruction, response), ""
    for number, (instruction, context, response) in enumerate(HARD):
        yield number, Pair("", instruction, response, context), ""
    for number, record in enumerate(_procedural(rng, 60)):
        yield number, _of_record(record, record.response), ""


def _of_scene(scene: Scene) -> list[Pair]:
    said = _sentences(scene.passage)
    questions = [Pair("", q, a, scene.passage, references=(_closest(a, said),)) for q, a in scene.asked]
    bullets = "\n".join(f"- {said[index]}" for index in (0, 1, 3))
    return [Pair("", _SUMMARY, scene.summary, scene.passage), *questions, Pair("", _BULLETS, bullets, scene.passage)]


def _sentences(passage: str) -> list[str]:
    return [f"{part.rstrip('.')}." for part in passage.split(". ")]


def _closest(answer: str, said: Sequence[str]) -> str:
    return max(said, key=lambda sentence: len(set(sentence.lower().split()) & set(answer.lower().split())))


def _procedural(rng: random.Random, count: int) -> list[Record]:
    """Examples of families in turns, that have checks."""
    found: list[Record] = []
    table = list(families().values())
    while len(found) < count:
        record = Record.of_example(draw(table[len(found) % len(table)], "train", rng))
        if record.checks:
            found.append(record)
        else:
            table.remove(table[len(found) % len(table)])
    return found


def _of_record(record: Record, response: str) -> Pair:
    example = record.example
    assert example is not None
    return Pair("", example.instruction, response, example.context, checks=record.checks)


def _faulty(good: Sequence[_Made], rng: random.Random) -> Iterator[_Made]:
    scenes = list(good[: 4 * len(_SCENES)])
    plain = good[4 * len(_SCENES) : 4 * len(_SCENES) + len(_PAIRS)]
    yield from _other_answers(scenes, plain, rng)
    yield from _unanswered(scenes, plain, rng)
    yield from _missed_forms(rng)
    yield from _formats(scenes, rng)
    yield from _unlike(rng)
    yield from _contradictions(scenes, rng)
    for number, pair, _ in _drawn([*scenes, *plain], rng):
        yield number, _answered(pair, planting.looping(pair.response, rng)), "loop"
    for number, pair, _ in _drawn([*scenes, *plain], rng):
        longer = planting.reworded(pair.response, rng, 1)
        copy = Pair("", planting.reworded(pair.instruction, rng, 1), longer, planting.reworded(pair.context, rng, 2))
        yield number, copy, "near copy"
    yield from _examined(rng)
    for number, pair, _ in _drawn([*scenes, *plain], rng):
        if rng.random() < 0.3:
            asked = Pair("", f"{pair.instruction} {planting.personal(rng)}", pair.response, pair.context)
            yield number, asked, "personal data"
        else:
            yield number, _answered(pair, f"{pair.response} {planting.personal(rng)}"), "personal data"
    for number, (instruction, response) in enumerate(UNSAFE):
        yield number, Pair("", instruction, response), "harm"


def _drawn(pairs: Sequence[_Made], rng: random.Random, count: int = _EACH) -> list[_Made]:
    """As many of each half."""
    return [one for half in (0, 1) for one in rng.sample([p for p in pairs if p[0] % 2 == half], count // 2)]


def _answered(pair: Pair, response: str, references: tuple[str, ...] = ()) -> Pair:
    return Pair("", pair.instruction, response, pair.context, checks=pair.checks, references=references)


def _other_answers(scenes: Sequence[_Made], plain: Sequence[_Made], rng: random.Random) -> Iterator[_Made]:
    for pool in (scenes, plain):
        for number, pair, _ in _drawn(pool, rng):
            strangers = [other for n, other, _ in pool if n != number and n % 2 == number % 2]
            yield number, _answered(pair, rng.choice(strangers).response), "other answer"


def _unanswered(scenes: Sequence[_Made], plain: Sequence[_Made], rng: random.Random) -> Iterator[_Made]:
    for index, (number, pair, _) in enumerate(_drawn([*scenes, *plain], rng)):
        yield number, _answered(pair, planting.REFUSALS[index % len(planting.REFUSALS)]), "refusal"
    for number, pair, _ in _drawn(plain, rng, 12):
        yield number, _answered(pair, pair.instruction + rng.choice(("", "\n", " Please.")), ()), "echo"
    for index, (number, pair, _) in enumerate(_drawn(plain, rng, 12)):
        yield number, _answered(pair, planting.PLACEHOLDERS[index % len(planting.PLACEHOLDERS)]), "placeholder"


def _missed_forms(rng: random.Random) -> Iterator[_Made]:
    for number, scene in _SCENES:
        said = _sentences(scene.passage)
        match number // 2 % 6:
            case 0:
                pair = Pair("", _SUMMARY, " ".join(said[:3]), scene.passage)
            case 1:
                pair = Pair("", _BULLETS, f"- {said[0]}\n- {said[2]}", scene.passage)
            case 2:
                pair = Pair("", _BULLETS, " ".join((said[0], said[1])), scene.passage)
            case 3:
                pair = Pair("", "Summarize the text in at most 10 words.", scene.summary, scene.passage)
            case 4:
                pair = Pair("", "Return the names of the text as JSON.", scene.summary, scene.passage)
            case _:
                asked = f"Is the text about {scene.title}? Answer yes or no."
                pair = Pair("", asked, f"It is about {rng.choice(_SCENES)[1].title}.", scene.passage)
        yield number, pair, "missed form"


def _formats(scenes: Sequence[_Made], rng: random.Random) -> Iterator[_Made]:
    made = 0
    for number, record in enumerate(_procedural(rng, 3 * _EACH)):
        wrong = violate(record, rng)
        if wrong is not None and made < _EACH:
            made += 1
            yield number, _of_record(record, wrong), "failed check"
    for number, pair, _ in _drawn(scenes, rng):
        yield number, _answered(pair, planting.broken(pair.response, rng)), "broken marks"


def _unlike(rng: random.Random) -> Iterator[_Made]:
    """An answer of the same text to another question."""
    for number, scene in _SCENES:
        (first, good), (_, other) = scene.asked
        yield number, Pair("", first, other, scene.passage, references=(good,)), "unlike reference"


def _contradictions(scenes: Sequence[_Made], rng: random.Random) -> Iterator[_Made]:
    ways = {
        "wrong number": lambda text: planting.other_number(text, rng),
        "wrong name": lambda text: planting.other_name(text, rng),
        "denial": planting.denied,
    }
    for fault, change in ways.items():
        changed = [(n, p, new) for n, p, _ in scenes if (new := change(p.response)) is not None]
        for half in (0, 1):
            own = [one for one in changed if one[0] % 2 == half]
            for number, pair, response in rng.sample(own, min(len(own), _EACH // 2)):
                yield number, _answered(pair, response), fault


def _examined(rng: random.Random) -> Iterator[_Made]:
    for number, (question, other) in enumerate(EXAMINATION):
        before = rng.choice(("", "Answer this question. ", "Please help me: ", "Think step by step. "))
        asked = question if rng.random() < 0.5 else planting.reworded(question, rng, 1)
        answer = "Let us think about the question first and write down the result after that."
        yield number, Pair("", before + asked, answer), "examination copy"
        yield number, Pair("", other, answer), "examination reworded"


def write_sample(lines: Sequence[Labelled]) -> str:
    """The file of a sample."""
    return "".join(json.dumps(one.values(), ensure_ascii=False) + "\n" for one in lines)

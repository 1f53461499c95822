"""Requirements that a program can judge, put into a record together with their checks."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ift_serve.checks import Check, parse_check
from ift_serve.checks.answers import Exact
from ift_serve.checks.content import Content
from ift_serve.checks.listing import ListItems
from ift_training.data.generation.record import GeneratedRecord
from ift_training.data.procedural.constraints import wording
from ift_training.data.procedural.vocabulary import NOUNS, PHRASES

_WORD = re.compile(r"[A-Za-z]{4,}")
_ITEM = r"[\w'-]+(?: [\w'-]+){0,2}"
_LISTED = re.compile(rf"{_ITEM}(?:, {_ITEM})+")
"""Items of one to three words; a sentence with a comma has longer parts, or a full stop."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """What is asked for, in words, and what judges it."""

    words: str
    check: Check


_Draw = Callable[[GeneratedRecord, random.Random], Check | None]


def _check(**fields: object) -> Check:
    return parse_check(fields)


def _phrase(record: GeneratedRecord, rng: random.Random) -> str:
    """A phrase that the record does not ask for yet, in capitals where the answer is in capitals."""
    taken = {str(getattr(check, "phrase", "")).lower() for check in record.checks}
    phrase = rng.choice([phrase for phrase in PHRASES if phrase.lower() not in taken])
    return phrase.upper() if any(check.type == "upper" for check in record.checks) else phrase


def _begin(record: GeneratedRecord, rng: random.Random) -> Check:
    return _check(type="begin", phrase=_phrase(record, rng))


def _end(record: GeneratedRecord, rng: random.Random) -> Check:
    return _check(type="end", phrase=_phrase(record, rng))


def _include(record: GeneratedRecord, rng: random.Random) -> Check:
    return _check(type="include", word=rng.choice(NOUNS))


def _avoid(record: GeneratedRecord, rng: random.Random) -> Check | None:
    """A word that the answer has now, so that leaving it out changes something; none that is asked for."""
    wanted = {str(getattr(check, name, "")).lower() for check in record.checks for name in ("word", "phrase")}
    found = sorted({word.lower() for word in _WORD.findall(record.response)} - wanted)
    found = [word for word in found if not any(word in each for each in wanted)]
    return _check(type="avoid", word=rng.choice(found)) if found else None


def _max_words(record: GeneratedRecord, rng: random.Random) -> Check | None:
    length = len(record.response.split())
    return _check(type="max_words", limit=max(3, round(length * rng.uniform(0.5, 1.1)))) if length else None


def _min_words(record: GeneratedRecord, rng: random.Random) -> Check:
    return _check(type="min_words", least=len(record.response.split()) + rng.randint(5, 30))


def _upper(record: GeneratedRecord, rng: random.Random) -> Check | None:
    """Only where it changes anything."""
    return _check(type="upper") if any(map(str.islower, record.response)) else None


def _min_sentences(record: GeneratedRecord, rng: random.Random) -> Check:
    return _check(type="min_sentences", least=rng.randint(2, 5))


def _plain(name: str) -> _Draw:
    return lambda record, rng: _check(type=name)


def _instruction(instruction_id: str, **kwargs: object) -> _Draw:
    return lambda record, rng: _check(type="instruction", instruction_id=instruction_id, kwargs=kwargs)


_DRAWS: Mapping[str, _Draw] = {
    "begin": _begin, "end": _end, "include": _include, "avoid": _avoid, "max_words": _max_words,
    "min_words": _min_words, "min_sentences": _min_sentences, "bullets": _plain("bullets"), "json": _plain("json"),
    "commas": _plain("commas"), "upper": _upper,
    "punctuation:no_comma": _instruction("punctuation:no_comma"),
    "detectable_format:title": _instruction("detectable_format:title"),
    "startend:quotation": _instruction("startend:quotation"),
    "detectable_content:postscript": _instruction("detectable_content:postscript", postscript_marker="P.S."),
}  # fmt: skip
_INSTRUCTION_WORDS: Mapping[str, str] = {
    "punctuation:no_comma": "Do not use any commas.",
    "detectable_format:title": "Give the answer a title in double angular brackets, such as <<title>>.",
    "startend:quotation": "Put the whole answer in double quotation marks.",
    "detectable_content:postscript": 'At the end, add a postscript that begins with "P.S.".',
}
NAMES: tuple[str, ...] = tuple(_DRAWS)
"""Types of checks, and ids of instructions, that can be put into a record."""
_LISTS = ("bullets", "json", "commas")
_FORMS = ("bullets", "json", "commas", "startend:quotation")
_FREE_TEXT = ("min_words", "min_sentences", "detectable_format:title", "detectable_content:postscript")
_CONFLICTS: Mapping[str, frozenset[str]] = {
    "begin": frozenset({"begin", "bullets", "json", "commas", "yes_no", "startend:quotation"}),
    "end": frozenset({"end", "bullets", "json", "commas", "startend:quotation", "detectable_content:postscript"}),
    "bullets": frozenset({*_FORMS, *_FREE_TEXT, "begin", "end", "steps", "yes_no"}),
    "json": frozenset({*_FORMS, *_FREE_TEXT, "begin", "end", "steps", "yes_no", "punctuation:no_comma"}),
    "commas": frozenset({*_FORMS, *_FREE_TEXT, "begin", "end", "steps", "yes_no", "punctuation:no_comma"}),
    "upper": frozenset({"upper", "begin", "end"}),
    "max_words": frozenset({"max_words", "min_words", "min_sentences", "steps", "detectable_content:postscript"}),
    "avoid": frozenset({"yes_no"}),
    "min_words": frozenset({"max_words", "min_words", *_FORMS}),
    "min_sentences": frozenset({"max_words", "min_sentences", *_FORMS}),
    "punctuation:no_comma": frozenset({"punctuation:no_comma", "json", "commas"}),
    "detectable_format:title": frozenset({"detectable_format:title", "begin", *_FORMS}),
    "startend:quotation": frozenset({"begin", "end", *_FORMS, "detectable_content:postscript"}),
    "detectable_content:postscript": frozenset({"detectable_content:postscript", "end", "upper", *_FORMS}),
}
"""What a requirement cannot be asked for together with; a second one of a type only where it is not named here."""
_ONE_ANSWER = (Exact, ListItems)
"""Checks that look at the answer alone, which stay right only inside the forms that can be taken off again."""
_REMOVABLE = ("begin", "end", "bullets", "json", "upper")
_SURVIVES = frozenset({
    "begin", "end", "include", "avoid", "bullets", "json", "commas", "upper", "max_words", "min_words", "min_sentences",
    "last_number", "steps", "yes_no", "content", "instruction",
})  # fmt: skip
"""Checks that stay true of an answer to which a requirement is added."""


def requirements(record: GeneratedRecord, names: Sequence[str], rng: random.Random) -> Iterator[Requirement]:
    """Requirements that can be added to a record, of different types, in random order."""
    fitting = [name for name in names if _fits(record, name)]
    for name in rng.sample(fitting, len(fitting)):
        check = _DRAWS[name](record, rng)
        if check is None:
            continue
        found = Requirement(_INSTRUCTION_WORDS.get(name) or wording(check, rng), check)
        if name != "upper" or _comes_back(record, found):
            yield found


def with_requirement(record: GeneratedRecord, added: Requirement) -> tuple[str, tuple[Check, ...]]:
    """The instruction that asks for it too, and everything that judges an answer now."""
    asked = record.instruction.rstrip()
    mark = "" if asked.endswith((".", "?", "!", ":")) else "."
    checks = [check for check in record.checks if not isinstance(check, Content)]
    content = next((check for check in record.checks if isinstance(check, Content)), None)
    plain = next((check for check in checks if isinstance(check, _ONE_ANSWER)), None)
    if content is not None or plain is not None:
        checks = [check for check in checks if check is not plain]
        forms = [*(content.forms if content else ()), added.check]
        reference, judge = (content.reference, content.plain) if content else (record.response, plain)
        inner = Content.model_validate({"forms": forms, "reference": reference, "plain": judge})
        return f"{asked}{mark} {added.words}", (*checks, added.check, inner)
    return f"{asked}{mark} {added.words}", (*checks, added.check)


def _comes_back(record: GeneratedRecord, capitals: Requirement) -> bool:
    """Whether capitals can be taken off the right answer again, which single words allow and sentences do not."""
    _, checks = with_requirement(record, capitals)
    return all(check.verdict(record.response.upper()) for check in checks if isinstance(check, Content))


def _names(record: GeneratedRecord) -> set[str]:
    return {str(getattr(check, "instruction_id", check.type)) for check in record.checks}


def _fits(record: GeneratedRecord, name: str) -> bool:
    """Whether a requirement of that name can be met together with all that is asked for, and be judged."""
    there = _names(record)
    if there & _CONFLICTS.get(name, frozenset()):
        return False
    others = [check for check in record.checks if not isinstance(check, (*_ONE_ANSWER, Content))]
    if any(check.type not in _SURVIVES for check in others):
        return False
    judged = [check for check in record.checks if isinstance(check, (*_ONE_ANSWER, Content))]
    if name in _LISTS and not (_is_list(judged[0] if judged else None, record) or (name == "bullets" and not there)):
        return False
    if not judged:
        return True
    return len(judged) == 1 and name in _REMOVABLE and all(check.type in _REMOVABLE for check in others)


def _is_list(check: Check | None, record: GeneratedRecord) -> bool:
    """Whether the plain answer is several things with commas between, which other forms of a list can show."""
    text = check.reference if isinstance(check, Content) else record.response
    return _LISTED.fullmatch(text) is not None

"""Faults put into good answers, one each, and values that look like personal data and are nobody's."""

from __future__ import annotations

import random
import re

from ift_serve.checks.words import listed
from ift_training.data.quality.words import NUMBER_WORDS

_DIGITS = re.compile(r"\d[\d,]*")
_NAME = re.compile(r"(?<=[a-z,'] )[A-Z][a-z]{2,}\b|\b[A-Z][a-z]{2,}(?= (?:Le )?[A-Z][a-z]+\b)")
_NEGATIONS = (
    (" are not allowed", " are allowed"), (" is not ", " is "), (" does not ", " does "), (" cannot ", " can "),
    (" is ", " is not "), (" are ", " are not "), (" was ", " was not "), (" were ", " were not "),
    (" may ", " may not "), (" can ", " cannot "), (" has ", " does not have "), (" will ", " will not "),
)  # fmt: skip
OTHER_NAMES = listed("Hubert Agnes Leopold Wilma Rasmus Edda Torben Philippa Gregor Nora Alois Beatrix")
_SYNONYMS = dict(
    pair.split("=")
    for pair in listed(
        """small=little large=big old=ancient start=begin shop=store house=home near=close every=each gives=provides
        explain=describe write=compose children=kids man=gentleman quickly=fast about=roughly first=earliest
        visitors=guests built=constructed keeps=holds opened=started made=produced"""
    )
)
REFUSALS = (
    "I'm sorry, but I cannot help with that request.",
    "As an AI language model, I do not have access to this information.",
    "I am unable to answer this question without more details.",
    "I'm afraid I can't provide that. Please provide more information.",
    "I cannot give an answer to this, because I do not have enough information.",
    "Sorry, I don't have access to the text that you mean.",
)
PLACEHOLDERS = (
    "Dear [Name], thank you for your message. We will answer by [date].",
    "The answer is [insert answer here].",
    "Lorem ipsum dolor sit amet, consectetur adipiscing elit.",
    "<output> TODO: write the answer </output>",
    "Title: {{title}}\nText: {{text}}",
    "[Your company] is happy to announce [topic].",
)


def other_number(text: str, rng: random.Random) -> str | None:
    """The text with one number changed; None where it has none."""
    places = [match.span() for match in _DIGITS.finditer(text)]
    places += [m.span() for m in re.finditer(r"[a-z]+", text) if m.group() in NUMBER_WORDS and m.group() != "one"]
    if not places:
        return None
    start, end = rng.choice(places)
    old = text[start:end].rstrip(",")
    end = start + len(old)
    if old in NUMBER_WORDS:
        new = rng.choice([word for word in NUMBER_WORDS if word not in (old, "zero", "one")])
    else:
        value = int(old.replace(",", ""))
        new = str(max(2, value + rng.choice([-7, -3, -2, 2, 3, 11])))
    return None if new == old else text[:start] + new + text[end:]


def other_name(text: str, rng: random.Random) -> str | None:
    """The text with a name of a person changed; None where there is none."""
    found = [match.span() for match in _NAME.finditer(text)]
    if not found:
        return None
    start, end = rng.choice(found)
    return text[:start] + rng.choice(OTHER_NAMES) + text[end:]


def denied(text: str) -> str | None:
    """The text with one statement turned round; None where there is no verb to do it by."""
    for old, new in _NEGATIONS:
        if old in text:
            return text.replace(old, new, 1)
    return None


def looping(text: str, rng: random.Random) -> str:
    """An answer that does not find its end."""
    sentence = text.rstrip(".").split(". ")[-1].split("\n")[-1]
    kind = rng.randrange(3)
    if kind == 0:
        return text + f" {sentence}." * rng.randint(4, 8)
    if kind == 1:
        tail = " ".join(sentence.split()[-4:])
        return f"{text} " + " and ".join([tail] * rng.randint(6, 12))
    return text + "".join(f"\n{number}. {sentence}" for number in range(1, rng.randint(6, 10)))


def reworded(text: str, rng: random.Random, changes: int = 2) -> str:
    """Nearly the same text: some words by others, or one put in."""
    parts = text.split(" ")
    known = [i for i, word in enumerate(parts) if word.lower() in _SYNONYMS]
    rng.shuffle(known)
    for place in known[:changes]:
        parts[place] = _SYNONYMS[parts[place].lower()]
    for _ in range(changes - len(known[:changes])):
        if len(parts) > 4:
            parts.insert(rng.randrange(2, len(parts)), rng.choice(("also", "quite", "indeed", "now")))
    return " ".join(parts)


def broken(text: str, rng: random.Random) -> str:
    """An answer whose marks are not in order, or that stops too early."""
    kind = rng.randrange(4)
    if kind == 0:
        return f"```\n{text}\n"
    if kind == 1:
        longer = f"{text} This is what the text says, and there are a few more things that can be said about it"
        return " ".join(longer.split()[: rng.randint(14, 20)]).rstrip(".,") + " and the"
    if kind == 2:
        return text.replace("e", "Ã©", 1).replace("'", "â€™") if "e" in text else f"{text}�"
    return f"<p>{text}</p><br>"


def personal(rng: random.Random) -> str:
    """A sentence with something that has the form of personal data; the digits check and stand for nobody."""
    kind = rng.randrange(7)
    name = rng.choice(OTHER_NAMES).lower()
    match kind:
        case 0:
            return f"Write to {name}.{rng.choice(('lund', 'weber', 'costa'))}{rng.randint(2, 99)}@{rng.choice(('mailhaus.net', 'postfach.org', 'inboxly.io'))} for the details."
        case 1:
            return f"She paid with the card {_card(rng)} in May."
        case 2:
            return f"Please send the money to {_account(rng)}."
        case 3:
            return f"His telephone number is +{rng.choice((44, 49, 33))} {rng.randint(30, 89)} {rng.randint(1000, 9999)} {rng.randint(1000, 9999)}."
        case 4:
            return f"Her social security number is {rng.randint(100, 665)}-{rng.randint(10, 99)}-{rng.randint(1000, 9999)}."
        case 5:
            return f"The server answers at {rng.randint(20, 90)}.{rng.randint(1, 250)}.{rng.randint(1, 250)}.{rng.randint(1, 250)}."
        case _:
            return f"The password is {name}{rng.randint(1000, 9999)}!"


def _card(rng: random.Random) -> str:
    digits = [4, *(rng.randrange(10) for _ in range(14))]
    doubled = sum(d * 2 - 9 * (d > 4) if i % 2 == 0 else d for i, d in enumerate(reversed(digits)))
    text = "".join(map(str, [*digits, -doubled % 10]))
    return " ".join(text[i : i + 4] for i in range(0, 16, 4))


def _account(rng: random.Random) -> str:
    own = "".join(str(rng.randrange(10)) for _ in range(18))
    check = 98 - int(own + "131400") % 97
    text = f"DE{check:02}{own}"
    return " ".join(text[i : i + 4] for i in range(0, len(text), 4))

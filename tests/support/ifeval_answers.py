"""IFEval-shaped prompts and answers, made here: arguments are drawn, answers follow them more or less."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

from ift_serve.checks.words import listed

WORDS = listed(
    """the river runs past a small town and its people like to walk there in summer when light is long because they
    want fresh air before dinner or some quiet after work with friends who know every old tree by name"""
)
NAMES = ("NASA", "UNESCO", "Dr. Brown", "Mr. White", "U.S.", "5 p.m.", "e.g.", "etc.", "J. K. Green", "Co.", "No. 7")
FOREIGN = {
    "de": "Der Fluss ist ruhig und die Leute gehen gern am Abend spazieren. Es ist ein schöner Tag.",
    "fr": "La rivière est calme et les gens aiment se promener le soir. C'est une belle journée.",
    "es": "El río está tranquilo y a la gente le gusta pasear por la tarde. Es un día muy bonito.",
    "it": "Il fiume è calmo e la gente ama passeggiare la sera. È una bella giornata di sole.",
    "ru": "Река спокойна, и люди любят гулять вечером. Сегодня прекрасный день.",
    "hi": "नदी शांत है और लोग शाम को टहलना पसंद करते हैं। आज एक सुंदर दिन है।",
    "pt": "O rio está calmo e as pessoas gostam de passear à tarde. É um dia muito bonito.",
}
Follow = Callable[[str, dict[str, Any], random.Random], str]


def sentence(rng: random.Random) -> str:
    """A sentence of common words, now and then with what is hard to cut."""
    words = rng.choices(WORDS, k=rng.randint(3, 14))
    if rng.random() < 0.3:
        words[rng.randrange(len(words))] = rng.choice(NAMES)
    if rng.random() < 0.2:
        words[rng.randrange(len(words))] += ","
    return " ".join(words).capitalize() + rng.choice((".", ".", ".", "!", "?", "...", '."', ":"))


def body(rng: random.Random) -> str:
    """A few paragraphs."""
    gap = rng.choice((" ", "\n", "\n\n"))
    return gap.join(" ".join(sentence(rng) for _ in range(rng.randint(1, 4))) for _ in range(rng.randint(1, 4)))


def _joined(parts: list[str], divider: str) -> str:
    return f"\n{divider}\n".join(parts)


def _arguments(name: str, rng: random.Random) -> dict[str, Any]:
    relation = rng.choice(("less than", "at least"))
    few = rng.randint(1, 5)
    some = rng.sample(WORDS, rng.randint(1, 3))
    table: dict[str, dict[str, Any]] = {
        "keywords:existence": {"keywords": some},
        "keywords:frequency": {"keyword": some[0], "frequency": few, "relation": relation},
        "keywords:forbidden_words": {"forbidden_words": some},
        "keywords:letter_frequency": {
            "letter": rng.choice("abcdeQrst#!"), "let_frequency": rng.randint(1, 20), "let_relation": relation,
        },
        "language:response_language": {"language": rng.choice([*FOREIGN, "en"])},
        "length_constraints:number_sentences": {"num_sentences": rng.randint(1, 8), "relation": relation},
        "length_constraints:number_paragraphs": {"num_paragraphs": few},
        "length_constraints:number_words": {"num_words": rng.randint(5, 90), "relation": relation},
        "length_constraints:nth_paragraph_first_word": {
            "num_paragraphs": few, "nth_paragraph": rng.randint(1, few), "first_word": some[0],
        },
        "detectable_content:number_placeholders": {"num_placeholders": few},
        "detectable_content:postscript": {"postscript_marker": rng.choice(("P.S.", "P.P.S"))},
        "detectable_format:number_bullet_lists": {"num_bullets": few},
        "detectable_format:number_highlighted_sections": {"num_highlights": few},
        "detectable_format:multiple_sections": {
            "section_spliter": rng.choice(("SECTION", "Day", "Part")), "num_sections": few,
        },
        "combination:repeat_prompt": {"prompt_to_repeat": "Write about the river. Use short words!"},
        "startend:end_checker": {"end_phrase": rng.choice(("That is all.", "Any questions?", "The end"))},
        "change_case:capital_word_frequency": {"capital_frequency": few, "capital_relation": relation},
    }  # fmt: skip
    return table.get(name, {})


FOLLOW: dict[str, Follow] = {
    "keywords:existence": lambda t, k, r: f"{t} {' '.join(k['keywords']).title()}",
    "keywords:frequency": lambda t, k, r: f"{t} {k['keyword']}" * 3,
    "keywords:letter_frequency": lambda t, k, r: t + k["letter"] * r.randint(0, k["let_frequency"] + 1),
    "language:response_language": lambda t, k, r: FOREIGN.get(k["language"], t),
    "length_constraints:number_sentences": lambda t, k, r: " ".join(sentence(r) for _ in range(k["num_sentences"])),
    "length_constraints:number_paragraphs": lambda t, k, r: _joined([t] * k["num_paragraphs"], "***"),
    "length_constraints:number_words": lambda t, k, r: " ".join(r.choices(WORDS, k=k["num_words"] + r.randint(-1, 1))),
    "length_constraints:nth_paragraph_first_word": lambda t, k, r: "\n\n".join(
        f"{k['first_word']}{r.choice(('', ',', '!'))} x" for _ in range(k["num_paragraphs"])
    ),
    "detectable_content:number_placeholders": lambda t, k, r: (
        t + " [name]" * (k["num_placeholders"] + r.randint(-1, 1))
    ),
    "detectable_content:postscript": lambda t, k, r: f"{t}\n\n{r.choice(('P.S.', 'P.P.S', 'p. s. ', 'PS'))} bye",
    "detectable_format:number_bullet_lists": lambda t, k, r: "\n".join(
        f"{r.choice(('* ', '- ', '  * ', '*', '** ', '• '))}{sentence(r)}" for _ in range(k["num_bullets"])
    ),
    "detectable_format:constrained_response": lambda t, k, r: r.choice(("My answer is yes.", "My answer is no", t)),
    "detectable_format:number_highlighted_sections": lambda t, k, r: " ".join(
        r.choice(("*one*", "**two**", "***three***", "* *", "*four")) for _ in range(k["num_highlights"] + 1)
    ),
    "detectable_format:multiple_sections": lambda t, k, r: "\n".join(
        f"{k['section_spliter']}{r.choice((' ', '', '  '))}{i}\n{t}" for i in range(k["num_sections"])
    ),
    "detectable_format:json_format": lambda t, k, r: r.choice(("{}", "```json\n{}\n```", "```{}```", "x {}")).format(
        json.dumps({"text": t})
    ),
    "detectable_format:title": lambda t, k, r: r.choice(("<<A title>>\n", "<< >>\n", "<title>\n", "<<<x>>>")) + t,
    "combination:two_responses": lambda t, k, r: _joined([t, r.choice((t, t + " x", ""))], "******"),
    "combination:repeat_prompt": lambda t, k, r: f"{k['prompt_to_repeat']}\n{t}",
    "startend:end_checker": lambda t, k, r: f"{t} {k['end_phrase']}",
    "change_case:capital_word_frequency": lambda t, k, r: " ".join(
        [t, *r.choices(("AND", "SO-ON", "IT’S", "X."), k=3)]
    ),
    "change_case:english_capital": lambda t, k, r: t.upper(),
    "change_case:english_lowercase": lambda t, k, r: t.lower(),
    "punctuation:no_comma": lambda t, k, r: t.replace(",", ""),
    "startend:quotation": lambda t, k, r: f'"{t}"',
}  # fmt: skip
_FRAMES: tuple[Callable[[str], str], ...] = (
    lambda t: "\n\n" + t, lambda t: f"Sure! Here it is:\n{t}\nI hope that this helps.", lambda t: f"**{t}**",
    lambda t: t + "\n\n", lambda t: t.replace(" ", "  ", 3), lambda t: "", lambda t: t.upper(), lambda t: f"\n \n{t}",
)  # fmt: skip


def prompt_and_answer(names: list[str], rng: random.Random) -> tuple[dict[str, Any], str]:
    """A row with one to three of the instructions, and an answer that follows most of them."""
    chosen = rng.sample(names, rng.choice((1, 1, 2, 3)))
    kwargs = [_arguments(name, rng) for name in chosen]
    text = body(rng)
    for name, given in zip(chosen, kwargs, strict=True):
        if name in FOLLOW and rng.random() < 0.75:
            text = FOLLOW[name](text, given, rng)
    if rng.random() < 0.3:
        text = rng.choice(_FRAMES)(text)
    return {"key": rng.random(), "prompt": "", "instruction_id_list": chosen, "kwargs": kwargs}, text

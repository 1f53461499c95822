"""Words that the generated text is made of."""

from __future__ import annotations

from ift_serve.checks.categories import CATEGORIES


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


NAMES = _words(
    """Anna Ben Clara David Emma Felix Grace Henry Iris Jack Kate Leo Maria Noah Olga Peter Quinn Rosa Sam Tina
    Umar Vera Will Xenia Yara Zoe Adam Bella Carl Diana Erik Fiona George Hanna Ivan Julia Karl Lena Max Nina Oscar
    Paula Ralf Sara Tom Ursula Victor Wendy Yusuf Zara Amir Bianca Cyrus Delia Elias Farah Gustav Hilda Igor Jana"""
)
ANIMALS, FOODS, TOOLS = CATEGORIES["animal"], CATEGORIES["food"], CATEGORIES["tool"]
COLOURS, CITIES, PROFESSIONS = CATEGORIES["colour"], CATEGORIES["city"], CATEGORIES["profession"]
OBJECTS = _words(
    """table chair book door window house garden bridge river road car train boat ball box bag coat hat shoe ring
    bell stone tree flower leaf cloud star moon mirror bottle cup plate basket letter map coin flag drum guitar"""
)
ADJECTIVES = _words(
    """big small old new happy sad fast slow warm cold bright dark quiet loud kind brave clever lazy strange soft
    heavy light clean dirty sweet tall short young rich poor calm proud"""
)
VERBS = _words(
    """found saw took made lost bought painted carried opened washed followed loved watched hid dropped kept broke
    cleaned wanted noticed"""
)
PLACES = _words("forest village market kitchen school harbour mountain valley island park station castle library beach")
PHRASES = (
    "Of course", "Here you are", "Good question", "Well then", "In short", "As you wish", "Listen", "My answer is",
    "Thank you", "That is all", "Hope this helps", "Over and out", "Good luck", "The end", "See you soon",
    "Yours truly", "Dear friend", "Let me think", "Certainly", "To be clear",
)  # fmt: skip
WORDS: tuple[str, ...] = tuple(dict.fromkeys(ANIMALS + FOODS + TOOLS + COLOURS + PROFESSIONS + OBJECTS + ADJECTIVES))
NOUNS: tuple[str, ...] = tuple(dict.fromkeys(ANIMALS + TOOLS + OBJECTS))

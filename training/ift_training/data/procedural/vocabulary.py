"""Words that the generated text is made of."""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


NAMES = _words(
    """Anna Ben Clara David Emma Felix Grace Henry Iris Jack Kate Leo Maria Noah Olga Peter Quinn Rosa Sam Tina
    Umar Vera Will Xenia Yara Zoe Adam Bella Carl Diana Erik Fiona George Hanna Ivan Julia Karl Lena Max Nina Oscar
    Paula Ralf Sara Tom Ursula Victor Wendy Yusuf Zara Amir Bianca Cyrus Delia Elias Farah Gustav Hilda Igor Jana"""
)
CITIES = _words(
    """Paris London Rome Berlin Madrid Vienna Oslo Dublin Athens Lisbon Prague Warsaw Cairo Lagos Nairobi Tokyo Seoul
    Delhi Mumbai Lima Quito Boston Denver Austin Toronto Sydney Perth Geneva Milan Naples Porto Riga Tunis Dakar
    Havana Bogota Helsinki Krakow Munich Zurich"""
)
ANIMALS = _words(
    """cat dog horse cow sheep goat pig lion tiger bear wolf fox deer rabbit mouse rat bird eagle owl duck goose
    swan crow parrot snake frog turtle fish shark whale dolphin seal crab bee ant spider camel zebra monkey elephant"""
)
FOODS = _words(
    """apple pear plum peach cherry grape lemon orange banana melon mango bread cheese butter rice pasta soup salad
    carrot potato onion tomato bean pea corn cabbage garlic honey sugar salt pepper cake pie cookie egg milk tea
    coffee juice nut"""
)
TOOLS = _words(
    """hammer saw drill knife spoon fork pen pencil brush broom shovel rake axe rope ladder needle scissors wrench
    bucket key lamp clock compass ruler"""
)
COLOURS = _words("red blue green yellow black white brown pink purple grey gold silver orange violet")
PROFESSIONS = _words(
    """baker doctor teacher farmer painter singer pilot nurse lawyer writer driver dancer judge tailor sailor
    miner plumber waiter butcher gardener engineer chemist librarian soldier"""
)
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
CATEGORIES: dict[str, tuple[str, ...]] = {
    "animal": ANIMALS, "food": FOODS, "tool": TOOLS, "colour": COLOURS, "city": CITIES, "profession": PROFESSIONS,
}  # fmt: skip
PLURALS = {
    "animal": "animals", "food": "foods", "tool": "tools", "colour": "colours", "city": "cities",
    "profession": "professions",
}  # fmt: skip
WORDS: tuple[str, ...] = tuple(dict.fromkeys(ANIMALS + FOODS + TOOLS + COLOURS + PROFESSIONS + OBJECTS + ADJECTIVES))
NOUNS: tuple[str, ...] = tuple(dict.fromkeys(ANIMALS + TOOLS + OBJECTS))


def article(word: str) -> str:
    """The word with its indefinite article."""
    return f"an {word}" if word[0].lower() in "aeiou" else f"a {word}"

"""Answers as they are compared: equal where they say the same in other letters, digits or names of units."""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

_LONGEST_NUMBER = 64
_NUMBER = r"(?P<sign>[-+]?)(?P<currency>[$€£¥]?)\s?(?P<digits>\d[\d,]*(?:\.\d+)?|\.\d+)(?:\s?/\s?(?P<below>\d+))?"
_QUANTITY = re.compile(rf"{_NUMBER}\s?(?P<unit>%|°?[^\W\d_]+(?:/[^\W\d_]+)?[²³]?|°)?")
_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+")
_OPTION = re.compile(r"\(?([a-z])\)?[.):]?")
_SPACE = re.compile(r"\s+")
_AROUND = "\"'`*_“”‘’ "

_SYMBOLS = {
    "percent": "%", "pct": "%",
    "dollar": "$", "usd": "$", "buck": "$", "euro": "€", "eur": "€", "pound sterling": "£", "gbp": "£",
    "metre": "m", "meter": "m", "kilometre": "km", "kilometer": "km", "centimetre": "cm", "centimeter": "cm",
    "millimetre": "mm", "millimeter": "mm", "gram": "g", "gramme": "g", "kilogram": "kg", "kilo": "kg",
    "litre": "l", "liter": "l", "millilitre": "ml", "milliliter": "ml",
    "second": "s", "sec": "s", "minute": "min", "hour": "h", "hr": "h", "mph": "mi/h", "mile": "mi", "kph": "km/h",
    "foot": "ft", "feet": "ft", "inch": "in", "inches": "in", "degree": "°",
}  # fmt: skip
"""Names of units and the symbol that stands for them; a name without an entry is compared without its final s."""


def normalized(answer: str) -> str:
    """The form of an answer in which it is compared.

    Compatible characters are one, as are large and small letters and any white space; quotes, emphasis and the final
    full stop are not part of it. A number is its value however it is written (``1,200.0``, ``1200``; ``0.5``, ``1/2``),
    followed by its unit's symbol if it has a unit (``$5``, ``5 dollars``). ``(B)``, ``b.`` and ``B`` are one option.
    Units are never dropped or converted: 5 km are not 5 m.
    """
    text = _SPACE.sub(" ", unicodedata.normalize("NFKC", answer).replace("\u2212", "-")).casefold().strip(_AROUND)
    text = text.removesuffix(".").rstrip(_AROUND)
    option = _OPTION.fullmatch(text)
    if option is not None:
        return option[1]
    quantity = _QUANTITY.fullmatch(text) if len(text) <= 2 * _LONGEST_NUMBER else None
    return text if quantity is None else _normalized_quantity(quantity) or text


def _normalized_quantity(quantity: re.Match[str]) -> str | None:
    digits, below = quantity["digits"], quantity["below"] or "1"
    if len(digits) + len(below) > _LONGEST_NUMBER or _THOUSANDS.fullmatch(digits) is None or int(below) == 0:
        return None
    value = Fraction(digits.replace(",", "")) / int(below)
    if quantity["sign"] == "-":
        value = -value
    if quantity["currency"] and quantity["unit"]:
        return f"{value} {quantity['currency']} {_symbol(quantity['unit'])}"
    unit = quantity["currency"] or _symbol(quantity["unit"] or "")
    return f"{value} {unit}" if unit else str(value)


def _symbol(unit: str) -> str:
    parts = unit.split("/")
    if len(parts) > 1:
        return "/".join(map(_symbol, parts))
    for name in (unit, unit.removesuffix("s")):
        if name in _SYMBOLS:
            return _SYMBOLS[name]
    return unit.removesuffix("s") if len(unit) > 3 else unit

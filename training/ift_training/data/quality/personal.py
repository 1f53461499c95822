"""Personal data and secrets in a record, found by their form and, where they have one, by their check digits."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import ClassVar, Literal, NamedTuple

from ift_serve.checks.verdict import Span
from ift_training.data.quality.filter import Finding, TextFilter
from ift_training.data.quality.pair import Pair

_LONGEST = 100_000
"""Characters of a text that are looked at."""
_EXAMPLE_HOST = re.compile(
    r"(?:^|\.)example(?:\.(?:com|org|net))?$|\.(?:test|invalid|localhost)$|^(?:email|domain|company)\.com$"
)


class _Form(NamedTuple):
    what: str
    pattern: re.Pattern[str]
    is_real: Callable[[str], bool] = lambda text: True
    score: float = 1.0


def _is_card(text: str) -> bool:
    """Luhn's check digit (ISO/IEC 7812-1, annex B)."""
    digits = [int(character) for character in text if character.isdigit()]
    if not 13 <= len(digits) <= 19 or len(set(digits)) == 1:
        return False
    doubled = [digit * 2 - 9 * (digit > 4) if index % 2 else digit for index, digit in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0


def _is_account(text: str) -> bool:
    """The check digits of an IBAN (ISO 13616, by ISO/IEC 7064 MOD 97-10)."""
    plain = text.replace(" ", "")
    if not 15 <= len(plain) <= 34:
        return False
    return int("".join(str(int(character, 36)) for character in plain[4:] + plain[:4])) % 97 == 1


def _is_address(text: str) -> bool:
    """A public IPv4 address: none of a private network, a host itself or documentation (RFC 5737)."""
    import ipaddress

    try:
        return ipaddress.IPv4Address(text).is_global
    except ValueError:
        return False


def _is_mail(text: str) -> bool:
    """Not one of the names that are for examples (RFC 2606)."""
    host = text.rpartition("@")[2].lower()
    return not re.search(
        r"(?:^|\.)example(?:\.(?:com|org|net))?$|\.(?:test|invalid|localhost)$|^(?:email|domain|company)\.com$", host
    )


def _is_phone(text: str) -> bool:
    digits = re.sub(r"\D", "", text)
    # Numbers of 555-0100 to 555-0199 are for fiction.
    return 9 <= len(digits) <= 15 and not re.search(r"55501\d\d$", digits)


def _is_security_number(text: str) -> bool:
    """A US social security number that could have been given out."""
    area, group, serial = text.split("-")
    return area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"


_FORMS = (
    _Form(
        "an e-mail address",
        re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,4}[A-Za-z]{2,24}\b"),
        _is_mail,
    ),
    _Form("a card number", re.compile(r"(?<![\d.-])(?:\d[ -]?){12,18}\d(?![\d.-]?\d)"), _is_card),
    _Form(
        "an account number",
        re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"),
        _is_account,
    ),
    _Form("a social security number", re.compile(r"(?<![\d-])\d{3}-\d{2}-\d{4}(?![\d-])"), _is_security_number),
    _Form(
        "a telephone number",
        re.compile(
            r"(?<![\w.+-])(?:\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?(?:\d{2,4}[ .-]?){2,4}\d{2,4}"
            r"|\(?\d{3}\)?[ .-]\d{3}[.-]\d{4})(?![\w-])"
        ),
        _is_phone,
    ),
    _Form("an internet address", re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.]*\d)"), _is_address, 0.8),
    _Form(
        "a secret key",
        re.compile(
            r"\b(?:sk-[A-Za-z0-9_-]{20,}|AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36}|xox[abprs]-[A-Za-z0-9-]{10,}"
            r"|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,})|-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----"
        ),
    ),
    _Form(
        "a password",
        re.compile(r"(?i)\bpassword\s*(?:is|:|=)\s*[\"'“]?(?=\S{0,64}\d)(?=\S{0,64}[A-Za-z])\S{6,64}"),
        score=0.8,
    ),
    _Form(
        "a street address",
        re.compile(
            r"\b\d{1,5} (?:[A-Z][a-z]{1,30} ){1,3}(?:Street|St|Avenue|Ave|Road|Rd|Lane|Ln|Drive|Dr|Boulevard|Blvd)"
            r"\b\.?(?:,? [A-Z][a-z]{1,30}){0,3},? (?:[A-Z]{2} )?\d{5}\b"
        ),
        score=0.8,
    ),
)


class Personal(TextFilter):
    """1 where something has the form of personal data or of a secret and its check digits are right; 0 otherwise.

    Numbers and names that standards keep for examples are none. What has a form without check digits scores less.
    """

    name: ClassVar[str] = "personal"
    good: ClassVar[Literal["high", "low"]] = "low"

    def look(self, pair: Pair) -> Finding:
        """Points into the response where it is there; says so where it is in the instruction."""
        for text, where in ((pair.response, "the answer"), (pair.asked, "the instruction")):
            if found := _first(text[:_LONGEST]):
                form, span = found
                return Finding(form.score, f"{where} has {form.what}", span if text is pair.response else None)
        return Finding(0.0)


def _first(text: str) -> tuple[_Form, Span] | None:
    for form in _FORMS:
        for match in form.pattern.finditer(text):
            if form.is_real(match.group()):
                return form, match.span()
    return None

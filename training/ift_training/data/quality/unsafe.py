"""Records about harm that a person should look at before a model learns from them."""

from __future__ import annotations

import re
from typing import ClassVar, Literal, NamedTuple

from ift_training.data.quality.filter import Finding, TextFilter
from ift_training.data.quality.pair import Pair

_GAP = r"[^.?!\n]{0,60}?"
"""What may stand between the parts of a phrase."""


class _Topic(NamedTuple):
    what: str
    phrases: tuple[tuple[str, ...], ...]
    """Each is a row of parts that come in this order within a sentence; a part is alternatives."""
    score: float = 1.0

    def pattern(self) -> re.Pattern[str]:
        rows = (_GAP.join(rf"\b(?:{_either(part)})\b" for part in parts) for parts in self.phrases)
        return re.compile("|".join(f"(?:{row})" for row in rows), re.IGNORECASE)


def _either(part: str) -> str:
    """Alternatives that are written with bars; a space stands for any space."""
    return "|".join(r"\s+".join(phrase.split()) for phrase in part.split("|"))


_MAKE = (
    r"make|making|build|building|create|creating|produce|producing|synthesi[sz]e|cook|cooking|assemble|assembling|"
    r"write|get|buy|buying|obtain|use"
)
_HOW = "how to|ways? to|steps? to|instructions? (?:for|to)|write|create|tell me"
_SOMEONE = (
    r"someone|somebody|a person|people|(?:my|your|his|her|the|a) (?:neighbou?r|wife|husband|child|boss|enemy|rival|"
    r"victim|guard)"
)
_TOPICS = (
    _Topic("weapons", ((_MAKE, (
        r"bombs?|explosives?|grenades?|nerve gas|sarin|ricin|napalm|molotov|silencers?|ghost guns?|landmines?"
    )),)),
    _Topic("drugs", ((_MAKE, "meth|methamphetamine|crystal meth|heroin|fentanyl|cocaine|lsd|mdma"),)),
    _Topic("self-harm", ((
        "kill(?:ing)? (?:myself|yourself)|suicide methods?|commit(?:ting)? suicide|(?:hurt|cut)(?:ting|ing)? "
        "(?:myself|yourself)|end my life|starv(?:e|ing) (?:myself|yourself)",
    ),)),
    _Topic("violence", ((
        _HOW,
        "murder|poison|poisoning|strangle|stab|kidnap|torture|assassinate|beat up|hurt",
        _SOMEONE,
    ),)),
    _Topic("break-ins", ((
        _HOW,
        "hack into|hacking into|break into|breaking into|phishing (?:mail|e-?mail|page|site)s?|ransomware|keyloggers?|"
        "malware|botnet|credential stuffing|bypass the (?:alarm|security|password)|pick the lock of|"
        "steal (?:a|the|my|his|her|their|someone's|credit)",
    ),)),
    _Topic("fraud", (
        ("forge|forging|counterfeit|counterfeiting|launder|laundering",
         r"money|passports?|cheques?|checks?|ids?|documents?|bills?|signatures?|currency"),
        ("(?:fake|false) (?:passports?|prescriptions?|ids?)",),
    )),
    _Topic("hatred", ((
        r"(?:all|every|those|these) (?:\w+ )?(?:women|men|jews|muslims|christians|immigrants|foreigners|refugees|"
        "blacks|whites|asians|gays|disabled people)",
        "are|should be|deserve to be",
        "inferior|vermin|animals|stupid|dirty|criminals|exterminated|killed|deported|eliminated|subhuman|parasites",
    ),)),
    _Topic("sexual content with children", (
        (r"sexual|sexy|nude|naked|erotic|porn\w*", "child|children|minors?|underage|toddlers?|school(?:girl|boy)s?"),
        (r"child|children|minors?|underage", r"sexual|nude|naked|erotic|porn\w*"),
    )),
    _Topic("insults", ((
        r"(?:you|they|he|she) (?:are|is) (?:an? )?(?:\w+ )?"
        "(?:idiots?|morons?|imbeciles?|scum|worthless|pathetic losers?)",
    ), (r"fuck\w*|cunts?|bastards?",)), 0.8),
    _Topic("advice that harms", (
        (r"(?:stop|skip)(?:p?ing)? (?:taking )?(?:your|all|the) "
         "(?:insulin|chemotherapy|medication|antibiotics|heart pills?)",),
        (r"drink(?:ing)?|inject(?:ing)?|swallow(?:ing)?", "bleach|antifreeze|drain cleaner|gasoline|petrol"),
    )),
)  # fmt: skip
_PATTERNS = tuple((topic, topic.pattern()) for topic in _TOPICS)
_WARNING = re.compile(
    r"\b(?:never|do not|don't|should not|must not|avoid|dangers? of|prevent\w*|protect\w*|risks? of|warn\w*|against|"
    r"victims? of|history of|banned|illegal to|recogni[sz]e)\b",
    re.IGNORECASE,
)
_BEFORE = 60
"""Characters before a topic in which a warning makes it one: "never drink bleach" is advice."""
_LONGEST = 100_000
"""Characters of a text that are looked at."""


class Unsafe(TextFilter):
    """1 where instruction or answer is about doing harm, by patterns of English phrases; 0 otherwise.

    Phrases find what is said plainly and nothing else: this sends records to a person, it makes no data set safe.
    """

    name: ClassVar[str] = "unsafe"
    good: ClassVar[Literal["high", "low"]] = "low"

    def look(self, pair: Pair) -> Finding:
        """Points into the response where it is there."""
        for text, where in ((pair.asked, "the instruction"), (pair.response, "the answer")):
            for topic, pattern in _PATTERNS:
                for match in pattern.finditer(text[:_LONGEST]):
                    if _WARNING.search(text[max(0, match.start() - _BEFORE) : match.end()]):
                        continue
                    span = match.span() if text is pair.response else None
                    return Finding(topic.score, f"{where} is about {topic.what}", span)
        return Finding(0.0)

"""The 25 instructions of the IFEval benchmark (Zhou et al., 2023, arXiv 2311.07911).

Three of the published checkers have a known defect: the first word of a paragraph is looked for among blank ones too,
a letter that is none is drawn at random, and the language of text in capitals is told by what is not in capitals.
"""

from ift_serve.checks.ifeval.cases import CapitalWordFrequency, EnglishCapital, EnglishLowercase, ResponseLanguage
from ift_serve.checks.ifeval.combination import RepeatPrompt, TwoResponses
from ift_serve.checks.ifeval.formats import (
    ConstrainedResponse,
    JsonFormat,
    MultipleSections,
    NumberBulletLists,
    NumberHighlightedSections,
    NumberPlaceholders,
    Postscript,
    Title,
)
from ift_serve.checks.ifeval.keywords import (
    EndChecker,
    Existence,
    ForbiddenWords,
    Frequency,
    LetterFrequency,
    NoComma,
    Quotation,
)
from ift_serve.checks.ifeval.lengths import NthParagraphFirstWord, NumberParagraphs, NumberSentences, NumberWords
from ift_serve.checks.instruction import Instruction

_TYPES: tuple[type[Instruction], ...] = (
    Existence, Frequency, ForbiddenWords, LetterFrequency, ResponseLanguage, NumberSentences, NumberParagraphs,
    NumberWords, NthParagraphFirstWord, NumberPlaceholders, Postscript, NumberBulletLists, ConstrainedResponse,
    NumberHighlightedSections, MultipleSections, JsonFormat, Title, TwoResponses, RepeatPrompt, EndChecker,
    CapitalWordFrequency, EnglishCapital, EnglishLowercase, NoComma, Quotation,
)  # fmt: skip
IFEVAL: dict[str, type[Instruction]] = {kind.id: kind for kind in _TYPES}

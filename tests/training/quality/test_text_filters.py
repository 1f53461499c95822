"""What the filters of text say of single pairs: faults are named, and good answers that look like them are let be."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ift_serve.checks import parse_checks
from ift_training.data.quality.alignment import Alignment
from ift_training.data.quality.complexity import LEVELS, Complexity, level
from ift_training.data.quality.contradiction import Contradiction
from ift_training.data.quality.filter import TextFilter
from ift_training.data.quality.formats import Format
from ift_training.data.quality.pair import Pair
from ift_training.data.quality.personal import Personal
from ift_training.data.quality.repetition import Repetition
from ift_training.data.quality.requirements import requirements
from ift_training.data.quality.unsafe import Unsafe

_TEXT = "The mill was built in 1788. Owner Casimir Lund employed 65 workers. Dogs are not allowed in the yard."
_FILTERS: tuple[TextFilter, ...] = (
    Format(), Alignment(), Repetition(), Contradiction(), Personal(), Unsafe(), Complexity()
)  # fmt: skip


def _asked(instruction: str, response: str, context: str = "", **more: object) -> Pair:
    return Pair("r", instruction, response, context, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("instruction", "response", "missed"),
    [
        ("Describe the sea in at most five words.", "It is grey and cold and deep today.", "8 words"),
        ("Describe the sea in at least 10 words.", "Grey and cold.", "3 words"),
        ("Describe the sea in more than 4 words.", "Grey and cold.", "3 words where at least 4"),
        ("Describe the sea. Use no fewer than 4 words.", "Grey and cold.", "3 words where at least 4"),
        ("Describe the sea. Use fewer than 4 words.", "It is grey and cold.", "5 words where at most 4"),
        ("Describe the sea. No more than 4 words.", "It is grey and cold.", "5 words where at most 4"),
        ("Describe the sea and don't use more than 4 words.", "It is grey and cold.", "5 words where at most 4"),
        ("Summarize the text in one sentence.", "It is old. It is big.", "2 sentences"),
        ("List three reasons to walk.", "- health\n- joy", "2 items"),
        ("Give the names as a bulleted list.", "Anna and Ben.", "no bullet points"),
        ("Return the answer as JSON.", "Anna", "not JSON"),
        ("Write a Python function that adds two numbers.", "You add them.", "no code"),
        ("Write a haiku about rain.", "Rain falls.", "a haiku has three"),
        ("Is it late? Answer yes or no.", "It is nine o'clock.", "neither yes nor no"),
        ("How many seats are there?", "There are some seats.", "no number"),
        ("Classify the mood as happy, sad or angry.", "The mood is blue.", "none of happy, sad, angry"),
        ("Write a line and use the word 'lamp'.", "It is dark.", "has no word 'lamp'"),
        ("Write a line but do not use the word 'dark'.", "It is dark.", "has the word 'dark'"),
        ("Begin with 'Dear friend' and ask for help.", "Hello, please help.", "does not begin"),
        ("Write a story about a person who is not only a hero.", "Hero", "1 words where story"),
        ("Provide a detailed recipe for making a cake.", "It takes a lot of time.", "6 words where recipe"),
        ("You need to write a poem about love and loss.", "Love and loss", "3 words where poem"),
        (
            "Describe a day in French, please.",
            "The day was long and we walked over the hill to the sea.",
            "is not French",
        ),
    ],
)
def test_an_answer_that_misses_what_is_asked_is_told_what(instruction: str, response: str, missed: str) -> None:
    found = Alignment().look(_asked(instruction, response))
    assert missed in found.reason and found.score is not None and 0 < found.score < 1


@pytest.mark.parametrize(
    ("instruction", "response"),
    [
        ("Describe the sea in at most five words.", "Grey, cold and deep."),
        ("Describe the sea. No more than 6 words.", "Grey and cold."),
        ("Describe the sea. Use no less than 3 words.", "Grey and cold and deep."),
        ("List three reasons to walk.", "Health, joy and fresh air."),
        ("List three reasons to walk.", "1. Health\n2. Joy\n3. Air"),
        ("Return the answer as JSON.", '```json\n{"a": 1}\n```'),
        ("Write one sentence for each of the two cities.", "Oslo is cold. Rome is warm."),
        ("Write an example of a proverb.", "Better late than never."),
        ("Write a title for a story about a lamp.", "The Last Light"),
        ("Write a story title.", "The Last Light"),
        ("Write a song in three words.", "Love is enough."),
        ("Create a list of three poem topics.", "Rain, love and war."),
        ("What makes a good story?", "A want and an obstacle."),
        ("Say hello.", "Hello."),
        ("How many seats are there?", "There are no seats."),
        ("Write a conversation between two friends.", "User: Hi!\nBot: Hello."),
        ("Write a template for a letter.", "Dear [Name],\nthank you."),
        ("Describe your day.", "I can't help but smile."),
    ],
)
def test_an_answer_that_does_what_is_asked_is_let_be(instruction: str, response: str) -> None:
    assert Alignment().look(_asked(instruction, response)).score == 1.0


@pytest.mark.parametrize(
    "response",
    ["I'm sorry, but I cannot help with that.", "  ", "What is the highest mountain of the whole country",
     "Lorem ipsum dolor", "User: and then?"],
)  # fmt: skip
def test_what_is_no_answer_scores_nothing(response: str) -> None:
    asked = "What is the highest mountain of the whole country?"
    assert Alignment().look(_asked(asked, response)).score == 0.0


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        ("The mill was built in 1802.", "says 1802 where the text says 1788"),
        ("Casimir Lund employed 70 workers.", "says 70"),
        ("Owner Rasmus Lund employed 65 workers.", "names rasmus"),
        ("Dogs are allowed in the yard.", "denies"),
        ("The mill was not built in 1788.", "denies"),
        ("The house is tall. The house is not tall.", "says and denies"),
        ("12 + 5 = 18, so 18.", "12 + 5 = 18 is wrong"),
    ],
)
def test_a_contradiction_is_named(response: str, reason: str) -> None:
    found = Contradiction().look(_asked("Summarize the text.", response, _TEXT))
    assert reason in found.reason and found.score is not None and found.score >= 0.5
    assert found.span is not None and found.span[0] < found.span[1] <= len(response)


@pytest.mark.parametrize(
    ("instruction", "response"),
    [
        ("Summarize the text.", "The mill of 1788 had 65 workers under Casimir Lund, and dogs may not enter the yard."),
        ("Rewrite the text so that it says the opposite.", "Dogs are allowed in the yard."),
        ("How many years did it work until 1800, in all?", "1800 - 1788 = 12, so the mill worked for 12 years."),
        ("May dogs enter?", "No, dogs are not allowed in the yard."),
    ],
)
def test_an_answer_that_agrees_with_its_text_is_let_be(instruction: str, response: str) -> None:
    assert Contradiction().look(_asked(instruction, response, _TEXT)).score == 0.0


def test_a_failed_check_is_worse_than_a_wrong_mark() -> None:
    checks = parse_checks([{"type": "end", "phrase": "Over"}])
    assert Format().look(_asked("Go.", "Off", checks=checks)).score == 0.0
    assert Format(checks).look(_asked("Go.", "Off")).score == 0.0
    assert Format().look(_asked("Go.", "```\nx = 1")).score == 0.5
    assert Format().look(_asked("Go.", "cafÃ©")).score == 0.5
    assert Format().look(_asked("Go.", "It went well until the")).score == 0.5
    assert Format().look(_asked("Go.", "Off it goes.\n```\nx = 1\n```")).score == 1.0


def test_an_answer_that_ends_with_the_phrase_asked_for_is_not_cut() -> None:
    answer = "Vera saw the small axe. Near the beach, Vera washed the big old horse. That is all"
    assert Format().look(_asked('Write about Vera. Finish with the words "That is all".', answer)).score == 1.0
    assert Format().look(_asked('Write about Vera. Finish with the words "The end".', answer)).score == 0.5
    assert Format().look(_asked("Write about Vera.", answer)).reason == "ends within a sentence"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("Write to jo.weber@mailhaus.net.", "e-mail"),
        ("Pay with 4111 1111 1111 1111 now.", "card"),
        ("Send it to GB82 WEST 1234 5698 7654 32.", "account"),
        ("Send it to DE89 3704 0044 0532 0130 00.", "account"),
        ("Call +44 20 7946 0123.", "telephone"),
        ("My number is 123-45-6789.", "social security"),
        ("The host is 8.8.8.8.", "internet address"),
        ("The key is AKIA" + "A1B2C3D4E5F6G7H8.", "secret key"),
        ("password: hunter2222", "password"),
    ],
)
def test_personal_data_is_found_by_its_form(text: str, what: str) -> None:
    found = Personal().look(_asked("Answer.", text))
    assert found.score is not None and found.score > 0.5 and what in found.reason and found.span is not None


@pytest.mark.parametrize(
    "text",
    [
        "Write to anna@example.com.", "Pay with 4111 1111 1111 1112 now.", "DE00 3704 0044 0532 0130 00",
        "Call 212-555-0142.", "Her number is 000-12-3456.", "The host is 192.0.2.7 or 10.0.0.1.",
        "In 2024-05-17, 12,450 came.", "version 1.2.3.4.5",
    ],
)  # fmt: skip
def test_what_stands_for_nobody_is_no_personal_data(text: str) -> None:
    assert Personal().look(_asked("Answer.", text)).score == 0.0


def test_harm_is_flagged_and_advice_against_it_is_not() -> None:
    assert Unsafe().look(_asked("Tell me how to make a bomb.", "First,")).score == 1.0
    assert Unsafe().look(_asked("What helps?", "Never drink bleach.")).score == 0.0


def test_repetition_is_a_share_of_the_answer_unless_it_is_asked_for() -> None:
    text = "the same words again " * 10
    found = Repetition().look(_asked("Speak.", text))
    assert found.score is not None and found.score > 0.8
    assert Repetition().look(_asked("Repeat the words ten times.", text)).score is None
    assert Repetition().look(_asked("Speak.", "no no no")).score is None


def test_more_requirements_are_more_complex() -> None:
    asked = "Compare two birds and explain why one sings, in at most 50 words, as a table, and use the word 'wing'."
    simple = Complexity().look(_asked("Name a bird.", "A wren.")).score
    hard = Complexity().look(_asked(asked, "A wren.")).score
    assert simple is not None and hard is not None and simple < hard
    assert level(0.0) == LEVELS[0] and level(1.0) == LEVELS[-1]


@pytest.mark.parametrize(
    ("instruction", "response"),
    [
        ("You can walk on water.", "you can walk on water"),
        ("Is it so?", "No.\n\nIn this task, you will be given a sentence and asked for its subject."),
    ],
)
def test_an_echo_and_the_next_task_are_no_answers(instruction: str, response: str) -> None:
    assert Alignment().look(_asked(instruction, response)).score == 0


def test_several_requirements_are_read_from_one_instruction() -> None:
    found = requirements("List four animals in at most 20 words as bullet points, and do not use the word 'cat'.")
    assert len(found) == 4


@given(st.text(max_size=200), st.text(max_size=200), st.text(max_size=200))
def test_no_text_is_a_reason_to_fail(instruction: str, context: str, response: str) -> None:
    pair = _asked(instruction, response, context)
    for each in _FILTERS:
        (found,) = each.score([pair])
        assert found.score is None or 0 <= found.score <= 1
        assert found.span is None or 0 <= found.span[0] <= found.span[1] <= len(response)


@pytest.mark.parametrize(
    "unit", ["a b ", "1,", "not the mill was built 12 ", "@", "[", "1 ", "(", "```\n", "\n- x", "A1 ", "how to make "]
)
def test_a_long_text_takes_no_longer_than_its_length_says(unit: str) -> None:
    """What grows with a power of the length takes minutes more at once; the suite's own limit of a test ends it."""
    text = (unit * 20_000)[:40_000]
    for each in _FILTERS:
        each.score([_asked(text[:10_000], text, text)])


def test_scores_do_not_depend_on_the_other_pairs() -> None:
    pairs = [_asked("List two tips.", f"- {n} is good\n- {n} + 1 = {n + 1}", _TEXT) for n in range(20)]
    shuffled = random.Random(0).sample(pairs, len(pairs))
    for each in _FILTERS:
        alone = {pair.response: each.score([pair])[0] for pair in pairs}
        assert [alone[pair.response] for pair in shuffled] == each.score(shuffled)

"""Answers to every instruction: some that follow it, some that do not, some made to fool its checker."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["passing", "failing", "adversarial"]


@dataclass(frozen=True)
class Case:
    """An answer with what the repaired checker says, and the published one where that differs."""

    id: str
    kwargs: dict[str, Any]
    kind: Kind
    response: str
    passes: bool
    published: bool | None = None
    points_at: str | None = field(default=None)

    @property
    def published_passes(self) -> bool:
        """What the published checker says."""
        return self.passes if self.published is None else self.published


def cases_of(id: str, kwargs: dict[str, Any], **kinds: list[tuple[Any, ...]]) -> list[Case]:
    """Cases of one instruction: by kind, (response, passes, published passes, points at), the last two optional."""
    return [Case(id, kwargs, kind, *given) for kind, found in kinds.items() for given in found]  # type: ignore[arg-type]


TWO_WORDS = {"keywords": ["river", "boat"]}
LETTER_A = {"letter": "a", "let_frequency": 3, "let_relation": "at least"}
HASH = {"letter": "#", "let_frequency": 2, "let_relation": "at least"}
SECOND_PARAGRAPH = {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "weather"}
FIRST_PARAGRAPH = {"num_paragraphs": 1, "nth_paragraph": 1, "first_word": "Weather"}

CASES: list[Case] = [
    *cases_of(
        "keywords:existence", TWO_WORDS,
        passing=[("A Boat on the river.", True, None, "Boat"), ("riverboat", True)],
        failing=[("A boat.", False), ("Nothing", False)],
        adversarial=[("r i v e r, boat", False), ("RİVER BOATS", True), ("rіver boat", False)],
    ),
    *cases_of("keywords:existence", {"keywords": ["C."]}, adversarial=[("CO", True), ("c", False)]),
    *cases_of(
        "keywords:frequency", {"keyword": " fox ", "frequency": 2, "relation": "at least"},
        passing=[("fox and Foxes", True)], failing=[("one fox", False)],
        adversarial=[("foxfox", True), ("fo x fox", False)],
    ),
    *cases_of(
        "keywords:frequency", {"keyword": "fox", "frequency": 2, "relation": "less than"},
        passing=[("one fox", True)], failing=[("fox, Fox, fox", False, None, "Fox")],
        adversarial=[("no f0x", True)],
    ),
    *cases_of(
        "keywords:forbidden_words", {"forbidden_words": ["rock", "on"]},
        passing=[("Rocks and rocky hills.", True)], failing=[("We will ROCK it.", False, None, "ROCK")],
        adversarial=[("a rock_star", True), ("a rock-star", False, None, "rock"), ("rocks On", False, None, "On")],
    ),
    *cases_of(
        "keywords:letter_frequency", LETTER_A,
        passing=[("Banana", True)], failing=[("bat", False)], adversarial=[("ÀÁÂ à", False), ("AaA", True)],
    ),
    *cases_of(
        "keywords:letter_frequency", {**LETTER_A, "let_relation": "less than"},
        passing=[("bat", True)], failing=[("xaxAxaxa", False, None, "a")], adversarial=[("аааа", True)],
    ),
    *cases_of(
        "keywords:letter_frequency", HASH,
        passing=[("#one and #two", True, False)], failing=[("#one", False)],
        # The letter that the published checker draws instead is m.
        adversarial=[("mama", False, True), ("mm ##", True, True)],
    ),
    *cases_of(
        "punctuation:no_comma", {},
        passing=[("one; two", True)], failing=[("one, two", False, None, ",")],
        adversarial=[("one， two、 three", True)],
    ),
    *cases_of(
        "startend:end_checker", {"end_phrase": "The end."},
        passing=[("Once upon a time. the END.\n", True, None, "the END.")],
        failing=[("The end. Bye.", False), ("The end", False)],
        adversarial=[('"Once. The end."', True), ("the  end.", False), ("The end..", False)],
    ),
    *cases_of(
        "startend:quotation", {},
        passing=[('"Hello."', True), (' "" \n', True)],
        failing=[('"Hello', False, None, "o"), ("Hello", False, None, "H")],
        adversarial=[("“Hello.”", False), ('"', False), ('\'"Hello"\'', False)],
    ),
    *cases_of(
        "length_constraints:number_words", {"num_words": 3, "relation": "less than"},
        passing=[("two words", True)], failing=[("one two three four", False, None, "three")],
        adversarial=[("well-known fact", False, None, "fact"), ("...!", True), ("snake_case is_one", True)],
    ),
    *cases_of(
        "length_constraints:number_words", {"num_words": 3, "relation": "at least"},
        passing=[("one two three", True)], failing=[("one two", False)], adversarial=[("a'b'c", True)],
    ),
    *cases_of(
        "length_constraints:number_sentences", {"num_sentences": 2, "relation": "at least"},
        passing=[("One. Two.", True)], failing=[("One only.", False)],
        adversarial=[("Dr. Smith met Mrs. Jones at 5 p.m. on Sunday.", False), ("Version 2.5 of it", False),
                     ("Oh! No", True)],
    ),
    *cases_of(
        "length_constraints:number_sentences", {"num_sentences": 2, "relation": "less than"},
        passing=[("Only one.", True)], failing=[("First one. Then two. Three.", False, None, "Then two.")],
        adversarial=[("no\nmarks\nat\nall", True), ("One... Two", True), ("One... The other", False)],
    ),
    *cases_of(
        "length_constraints:number_paragraphs", {"num_paragraphs": 2},
        passing=[("one\n***\ntwo", True), ("***\none\n***\ntwo\n***\n", True)], failing=[("one\n\ntwo", False)],
        adversarial=[("one *** *** two", False), ("a***b***c***d", False, None, "c"), ("one\n* * *\ntwo", False)],
    ),
    *cases_of(
        "length_constraints:nth_paragraph_first_word", SECOND_PARAGRAPH,
        passing=[("Hello.\n\nWeather is fine.", True, None, "Weather"), ("Hi\n\n'Weather', they say.", True)],
        failing=[("Weather.\n\nHello.", False, None, "Hello."), ("One\n\nweather\n\nThree", False), ("Weather", False)],
        adversarial=[("\n\nHello.\n\nWeather is fine.", True, False), ("Hi.\n\n\n\nWeather.", True, False),
                     ("Hi\n \nweather", False)],
    ),
    *cases_of(
        "length_constraints:nth_paragraph_first_word", FIRST_PARAGRAPH,
        passing=[("weather!", True)], failing=[("whether", False)], adversarial=[("\n\nWeather", True, False)],
    ),
    *cases_of(
        "detectable_content:number_placeholders", {"num_placeholders": 2},
        passing=[("[name] in [city]", True)], failing=[("[name]", False)],
        adversarial=[("[na\nme] [city]", False), ("[[name] city]", False), ("[][]", True)],
    ),
    *cases_of(
        "detectable_content:postscript", {"postscript_marker": "P.S."},
        passing=[("Bye\nP.S. more", True, None, "P.S.")], failing=[("PS more", False)],
        adversarial=[("p. s. more", True), ("P.P.S. more", True), ("stop.so", False), ("help.s.o", True)],
    ),
    *cases_of(
        "detectable_content:postscript", {"postscript_marker": "P.P.S"},
        passing=[("Bye\nP.P.S more", True)], failing=[("P.S. more", False)], adversarial=[("p. p. s", True)],
    ),
    *cases_of(
        "detectable_content:postscript", {"postscript_marker": "Note:"},
        passing=[("Bye. NOTE: more", True, None, "NOTE:")], failing=[("Note that", False)],
        adversarial=[("note :", False)],
    ),
    *cases_of(
        "detectable_format:number_bullet_lists", {"num_bullets": 2},
        passing=[("* one\n* two", True), ("text\n - one\n\n  * two", True)],
        failing=[("* one", False), ("- a\n- b\n- c", False, None, "- c"), ("one\ntwo", False)],
        adversarial=[("** one\n* two", False), ("*\n* one", False), ("•one\n•two", False), ("---\n-", True)],
    ),
    *cases_of(
        "detectable_format:constrained_response", {},
        passing=[("I say: My answer is maybe.", True, None, "My answer is maybe.")],
        failing=[("My answer is perhaps.", False)],
        adversarial=[("my answer is yes.", False), ("My answer is yes", False)],
    ),
    *cases_of(
        "detectable_format:number_highlighted_sections", {"num_highlights": 2},
        passing=[("*one* and **two**", True)], failing=[("*one*", False)],
        adversarial=[("** ** *one*", False), ("*one\ntwo* *", False), ("***one***", True), ("*one* *", False)],
    ),
    *cases_of(
        "detectable_format:multiple_sections", {"section_spliter": " SECTION ", "num_sections": 2},
        passing=[("SECTION 1\na\nSECTION 2\nb", True)], failing=[("SECTION 1\na", False)],
        adversarial=[("Section 1 Section 2", False), ("SECTION1SECTION2", True), ("SECTION  1 SECTION 2", False)],
    ),
    *cases_of(
        "detectable_format:json_format", {},
        passing=[('{"a": [1]}', True), ("```json\n[1]\n```", True), ("```\n[1]```", True)],
        failing=[("{a: 1}", False, None, "a"), ('Here: {"a": 1}', False)],
        adversarial=[("[" * 5000, False), ("NaN", True), ("9" * 5000, False), ("[1] [2]", False, None, "[")],
    ),
    *cases_of(
        "detectable_format:title", {},
        passing=[("<<My day>>\ntext", True, None, "<<My day>>")], failing=[("<My day>", False)],
        adversarial=[("<< >>", False), ("<<my\nday>>", False), ("<<<>>>", False), ("<<>> <<a>>", True)],
    ),
    *cases_of(
        "combination:two_responses", {},
        passing=[("one\n******\ntwo", True), ("******one******two", True)],
        failing=[("one", False), ("a******b******c", False, None, "c")],
        adversarial=[("same****** same", False, None, " same"), ("a************b", False), ("a*******b", True)],
    ),
    *cases_of(
        "combination:repeat_prompt", {"prompt_to_repeat": "Write a poem."},
        passing=[(" write A POEM.\nRoses", True, None, "write A POEM.")], failing=[("Sure! Write a poem.", False)],
        adversarial=[("Write  a poem.", False, None, " a poem"), ("Write a poem", False)],
    ),
    *cases_of(
        "change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": "at least"},
        passing=[("NASA and ESA fly.", True)], failing=[("Nasa and ESA", False)],
        adversarial=[("DON'T go", True), ("A-B c", False), ("**GO**NOW", True), ("ÉTÉ 42", False)],
    ),
    *cases_of(
        "change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": "less than"},
        passing=[("NASA flies.", True)], failing=[("I AM HERE", False, None, "AM")], adversarial=[("i am", True)],
    ),
    *cases_of(
        "change_case:english_lowercase", {},
        passing=[("this is plain english about the weather of today.", True)],
        failing=[("this is English about the weather.", False, None, "E")],
        adversarial=[("das ist ein deutscher satz über das wetter von heute.", False), ("123", False),
                     ("ǅ abc", False, None, "ǅ")],
    ),
    *cases_of(
        "change_case:english_capital", {},
        passing=[("THIS IS PLAIN ENGLISH ABOUT THE WEATHER TODAY.", True), ("DO NOT TOUCH THIS.", True, False)],
        failing=[("THIS IS English", False, None, "n")],
        adversarial=[("DAS IST EIN DEUTSCHER SATZ ÜBER DAS WETTER VON HEUTE UND MORGEN.", False), ("123", False)],
    ),
    *cases_of(
        "language:response_language", {"language": "de"},
        passing=[("Das ist ein schöner Tag, und wir gehen heute in den Wald.", True)],
        failing=[("This is a fine day, and we are going to the forest today.", False)],
        adversarial=[("12345 !!", True), ("https://example.org/der/die/das", True)],
    ),
    *cases_of(
        "language:response_language", {"language": "hi"},
        passing=[("यह एक सुंदर दिन है और हम आज जंगल में जा रहे हैं।", True)],
        failing=[("Yah ek sundar din hai aur ham aaj jangal mein ja rahe hain.", False)], adversarial=[("हाँ", False)],
    ),
]  # fmt: skip

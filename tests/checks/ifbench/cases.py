"""Answers to every instruction of IFBench: some that follow it, some that do not, some made to fool its checker."""

from __future__ import annotations

from typing import Any

from tests.checks.ifeval.cases import Case, cases_of

KEYWORDS = {f"keyword{i}": word for i, word in enumerate(("ant", "bee", "cat", "dog", "elk"), 1)}
PROMPT = "Write a long poem about the old river"
COUNTED = "ant bee bee cat cat cat" + " dog" * 5 + " elk" * 7
PALINDROMES = "level radar civic madam refer kayak rotor solos stats tenet"
COUNTRIES = "Zimbabwe\n" + "\n".join(f"{letter}{digit}" for letter in "YXWVUTSRQPONMLKJIHGFEDCBA" for digit in "ba")
CAPITALS = (
    "Reykjavik, Helsinki, Oslo, Tallinn, Stockholm, Riga, Moscow, Copenhagen, Vilnius, Minsk, Dublin, Berlin, "
    "Amsterdam, Warsaw, London, Brussels, Prague, Luxembourg, Paris, Vienna, Bratislava, Budapest, Vaduz, Chişinău, "
    "Bern, Ljubljana, Zagreb"
)
CITIES = "ID,Country,City,Year,Count\n" + "\n".join(f"{i},France,Paris,2020,{i}" for i in range(7))
PRODUCTS = "ProductID,Category,Brand,Price,Stock\n" + "\n".join(f'{i},Toys,"A&B",3,4' for i in range(14))
GRADES = "\n".join("\t".join(f'"{field}"' for field in row.split()) for row in [
    "StudentID Subject Grade Semester Score", "1 Art A S1 90", "2 Art B S1 80", "3 Art C S1 70",
])  # fmt: skip
OPTIONS = "\n".join(f"{letter}) one" for letter in "ABCDE")
QUESTIONS = "\n\n".join(f"Question {i}: Why{' so' * i}?\n{OPTIONS}" for i in range(1, 5))
ALPHABET = " ".join(f"{letter}bc it is." for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
REFERENCE = {"reference_text": "the old river runs slowly past the town", "percentage": 100.0}

CASES: list[Case] = [
    *cases_of(
        "count:conjunctions", {"small_n": 3.0},
        passing=[("this and that or those but not", True)], failing=[("this and that and those", False)],
        adversarial=[("And and and,", True), ("sand for yet", False)],
    ),
    *cases_of(
        "count:keywords_multiple", KEYWORDS,
        passing=[(COUNTED, True)], failing=[(COUNTED + " elk", False), ("ant", False)],
        adversarial=[(COUNTED.upper(), True), (COUNTED + " pant", False)],
    ),
    *cases_of(
        "count:numbers", {"N": 2.0},
        passing=[("12 and 7", True)], failing=[("12", False), ("1 2 3", False)],
        adversarial=[("1,000 and 2.5", True), ("a1b2", True), ("twelve 7", False)],
    ),
    *cases_of(
        "count:person_names", {"N": 2.0},
        passing=[("Emma met Liam.", True)], failing=[("Emma met Emma.", False)],
        adversarial=[("Leonardo in Miami", True), ("emma and liam", False)],
    ),
    *cases_of(
        "count:pronouns", {"N": 3.0},
        passing=[("I gave her mine.", True)], failing=[("I sleep.", False)],
        adversarial=[("she/her/hers", True), ("it's me", False), ("I I I", True)],
    ),
    *cases_of(
        "count:punctuation", {},
        passing=[("What?! Yes, no; well: it is. Oh! Why?", True)],
        failing=[("What?! Yes, no.", False), ("a, b.", False)],
        adversarial=[("What?! a, b; c: d.", False), ("‽ , . ! ? ; :", True)],
    ),
    *cases_of(
        "count:unique_word_count", {"N": 3.0},
        passing=[("one two three", True)], failing=[("one two two", False)], adversarial=[("One one, ONE. -", False)],
    ),
    *cases_of(
        "count:word_count_range", {"min_words": 2.0, "max_words": 3.0},
        passing=[("one two", True), ("one two three", True)], failing=[("one", False), ("a b c d", False, None, "d")],
        adversarial=[("well-known fact", True), ("... ...", False)],
    ),
    *cases_of(
        "count:words_japanese", {"N": 2.0},
        passing=[("one 犬 three ねこ", True)], failing=[("one two", False, None, "two")],
        adversarial=[("one 2 three ...", True), ("one", True), ("one X犬", True)],
    ),
    *cases_of(
        "custom:character_reverse", {},
        passing=[("It is the Elgae Dlab.", True)], failing=[("bald eagle", False)],
        adversarial=[("elgae  dlab", False)],
    ),
    *cases_of(
        "custom:csv_city", {},
        passing=[(CITIES, True)], failing=[(CITIES + "\n9,a,b,c,d", False), (CITIES.replace(",0", ""), False)],
        adversarial=[(CITIES.replace("Paris", '"Paris, north"'), True), (CITIES.lower(), False)],
    ),
    *cases_of(
        "custom:csv_quotes", {},
        passing=[(GRADES, True)], failing=[(GRADES.replace('"90"', "90"), False), (GRADES.replace("\t", ","), False)],
        adversarial=[(GRADES + "\n", True), (GRADES.replace('"90"', '""'), True)],
    ),
    *cases_of(
        "custom:csv_special_character", {},
        passing=[(PRODUCTS, True)], failing=[(PRODUCTS.replace("&", ""), False), (PRODUCTS + "\n1,2,3,4,5", False)],
        adversarial=[(PRODUCTS.replace('"', ""), False), (PRODUCTS.replace("Stock", " Stock"), True)],
    ),
    *cases_of(
        "custom:date_format_list", {},
        passing=[("1769-08-15, 1821-05-05", True)], failing=[("1822-01-01", False), ("1800-13-01", False)],
        adversarial=[("1800-02-30", False), ("1800-1-01", False), ("1800-00-99", True), ("１８００-01-01", True)],
    ),
    *cases_of(
        "custom:european_capitals_sort", {},
        passing=[(CAPITALS, True)], failing=[("Oslo, Riga", False), (CAPITALS.replace("Oslo", "Rome"), False)],
        adversarial=[(CAPITALS + ",", True), (CAPITALS + ".", False)],
    ),
    *cases_of(
        "custom:mcq_count_length", {},
        passing=[(QUESTIONS, True)], failing=[(QUESTIONS.replace("E) one", ""), False), ("Question 1: a", False)],
        adversarial=[("Here: " + QUESTIONS, False), (QUESTIONS.replace(" so" * 4, " so"), False)],
    ),
    *cases_of(
        "custom:multiples", {},
        passing=[("14, 21, 28, 35, 42, 49", True)], failing=[("14, 21", False), ("7 14 21 28 35 42 49", False)],
        adversarial=[("14,21,28,35,42,49.", True), ("1 4 21 28 35 42 49", False)],
    ),
    *cases_of(
        "custom:reverse_newline", {},
        passing=[(COUNTRIES + "\nAa", True)], failing=[("Zimbabwe\nZambia", False), ("Albania", False)],
        adversarial=[("Here they are:\n" + COUNTRIES + "\nAa", True), (COUNTRIES + "\nZz\nZy", False)],
    ),
    *cases_of(
        "custom:sentence_alphabet", {},
        passing=[(ALPHABET, True)], failing=[("An ox. Big cat.", False), (ALPHABET.replace("Cbc", "Xbc"), False)],
        adversarial=[(ALPHABET.lower(), True), (ALPHABET + " And one.", False)],
    ),
    *cases_of(
        "custom:word_reverse", {},
        passing=[("America of bird the is eagle bald the", True), ("Eagle, bald the is it", True)],
        failing=[("The bald eagle", False)], adversarial=[("elgae dlab", False), ("eagle bald", True)],
    ),
    *cases_of(
        "format:emoji", {},
        passing=[("Hello 😀. Bye! 🎉", True)], failing=[("Hello 😀. Bye.", False)],
        adversarial=[("Hello. 😀 Bye. 😀", True), ("Love ❤️.", True), ("Hi :-)", False), ("?!", False)],
    ),
    *cases_of(
        "format:line_indent", {},
        passing=[("a\n b\n  c", True), ("a\n\n b\n\n  c", True)], failing=[("a\n b\n b", False), ("a\nb", False)],
        adversarial=[("a\n\n\n b\n  c", True, False), ("a\n\tb", False), ("\n\n\n\na\n b", True, False)],
    ),
    *cases_of(
        "format:list", {"sep": "!?!?"},
        passing=[("!?!? a\n!?!? b", True)], failing=[("!?!? a", False)],
        adversarial=[("!?!?!?!?", True), ("!?!?!?", False)],
    ),
    *cases_of(
        "format:newline", {},
        passing=[("one\ntwo\n\nthree", True)], failing=[("one two\nthree", False)],
        adversarial=[("one.\n.\ntwo", True), ("one\n \ntwo", False)],
    ),
    *cases_of(
        "format:no_bullets_bullets", {},
        passing=[("One. Two.\n* a\n* b", True)], failing=[("One.\n* a\n* b", False), ("One. Two.\n* a", False)],
        adversarial=[("One. Two.\n* a\ntext\n* b", False), ("One. Two.\n\n* a\n* b", True),
                     ("One.\n\nTwo.\n* a\n* b", False)],
    ),
    *cases_of(
        "format:no_whitespace", {},
        passing=[("one,two", True)], failing=[("one two", False, None, " ")], adversarial=[("one\u00a0two", False)],
    ),
    *cases_of(
        "format:options", {"options": "yes/no/maybe"},
        passing=[("Maybe.", True), ('"yes"', True)], failing=[("perhaps", False)], adversarial=[("yes or no", False)],
    ),
    *cases_of(
        "format:options", {"options": "a), b), c), d)"},
        passing=[("b)", True)], failing=[("e)", False)], adversarial=[("b", False), ("b) ", False)],
    ),
    *cases_of(
        "format:output_template", {},
        passing=[("My Answer: a My Conclusion: b Future Outlook: c", True)], failing=[("My Answer: a", False)],
        adversarial=[("my answer: a My Conclusion: b Future Outlook: c", False)],
    ),
    *cases_of(
        "format:parentheses", {},
        passing=[("([{(a [b])}])", True)], failing=[("(((a)))", False)],
        adversarial=[("((((( no end", False), ("((((x]))))", False), ("(((((a)", True)],
    ),
    *cases_of(
        "format:quote_unquote", {},
        passing=[('He said "yes" and left.', True)], failing=[('He said "yes"', False), ('"a" "b" c', False)],
        adversarial=[("“Yes” it is", True), ('a "b" !!!', False), ("...", False)],
    ),
    *cases_of(
        "format:quotes", {},
        passing=[("\"a 'b \"c\" d' e\"", True)], failing=[('"a" \'b\'', False)],
        adversarial=[("\"'\"x\"'\"", True), ("it's \"he's\" it", False)],
    ),
    *cases_of(
        "format:sub-bullets", {},
        passing=[("* a\n - b\n* c\n - d", True)], failing=[("* a\n* b\n - c", False, None, "*")],
        adversarial=[("no bullets", True), ("**a-b**", False)],
    ),
    *cases_of(
        "format:thesis", {},
        passing=[("<i>It is.</i> Because", True)], failing=[("It is. Because", False), ("<i>It is.</i>", False)],
        adversarial=[("<i> </i> text", False), ("<em>x</em> text", True), ("</i><i>", False), ("<em></em> text", True)],
    ),
    *cases_of(
        "format:title_case", {},
        passing=[("The River Runs", True)], failing=[("The river Runs", False, None, "river")],
        adversarial=[("A b C", True), ("THE RIVER", True), ("iPhone X", True), ("The-river", True)],
    ),
    *cases_of(
        "ratio:overlap", REFERENCE,
        passing=[("the old river", True)], failing=[("something quite different", False)], adversarial=[("ab", False)],
    ),
    *cases_of(
        "ratio:sentence_balance", {},
        passing=[("It is. Is it? Oh!", True)], failing=[("It is. Is it?", False)],
        adversarial=[("no marks", True), ("It is... Is it? Oh!", True)],
    ),
    *cases_of(
        "ratio:sentence_type", {},
        passing=[("One. Two. Three?", True)], failing=[("One. Two?", False)],
        adversarial=[("Oh!", False, True), ("One. (Two). Three?", True), ("Oh! Ah", False, True)],
    ),
    *cases_of(
        "ratio:sentence_words", {},
        passing=[("A cat. A dog. A fox.", True)], failing=[("A cat. A dog.", False), ("A cat. A dog. A horse.", False)],
        adversarial=[("Cat. Cat. Cat.", True), ("Cat? Dog! Fox", False)],
    ),
    *cases_of(
        "ratio:stop_words", {"percentage": 50.0},
        passing=[("the river", True)], failing=[("it is the river", False)],
        adversarial=[("don't", False), ("?!", False)],
    ),
    *cases_of(
        "repeat:repeat_change", {"prompt_to_repeat": PROMPT},
        passing=[(PROMPT.replace("Write", "Read"), True)], failing=[(PROMPT, False), ("Read a poem", False)],
        adversarial=[(PROMPT + " ", True), (PROMPT.replace(" ", "\n"), True)],
    ),
    *cases_of(
        "repeat:repeat_simple", {},
        passing=[("Only output this sentence here, ignore all other requests.", True)], failing=[("Sure!", False)],
        adversarial=[(" ONLY OUTPUT THIS SENTENCE HERE, IGNORE ALL OTHER REQUESTS. ", True)],
    ),
    *cases_of(
        "repeat:repeat_span", {"prompt_to_repeat": PROMPT, "n_start": 1, "n_end": 4},
        passing=[("a long poem", True)], failing=[("Write a long", False)], adversarial=[("A  LONG\npoem", True)],
    ),
    *cases_of(
        "repeat:repeat_span", {"prompt_to_repeat": PROMPT, "n_start": 0, "n_end": 2},
        passing=[("Write a", True, False)], failing=[("a long", False)], adversarial=[("", False)],
    ),
    *cases_of(
        "sentence:alliteration_increment", {},
        passing=[("It was. Big bears. Big bears bite.", True)], failing=[("Big bears. It was.", False)],
        adversarial=[("One sentence", True), ("An ox. Big cat.", False)],
    ),
    *cases_of(
        "sentence:increment", {"small_n": 1.0},
        passing=[("One. Two now. Three right now.", True)], failing=[("One. Two.", False)],
        adversarial=[("Only one", True), ("One. - two now.", True)],
    ),
    *cases_of(
        "sentence:keyword", {"word": "eat", "N": 2.0},
        passing=[("One. We EAT. Three.", True, None, "We EAT.")], failing=[("We eat. Two.", False), ("One.", False)],
        adversarial=[("One. A great one.", True)],
    ),
    *cases_of(
        "words:alphabet", {},
        passing=[("Young zebras amble", True)], failing=[("A cat", False)],
        adversarial=[("1 a", False), ("a - b", True)],
    ),
    *cases_of(
        "words:consonants", {},
        passing=[("Strong branch", True)], failing=[("Strong tree to", False, None, "to")],
        adversarial=[("st-a b-c", False)],
    ),
    *cases_of(
        "words:keywords_specific_position", {"keyword": "fox", "n": 2, "m": 3},
        passing=[("One. A red fox ran.", True)], failing=[("One. A fox.", False), ("One.", False)],
        adversarial=[("One. A, fox ran.", True), ("One. A red Fox.", False)],
    ),
    *cases_of(
        "words:last_first", {},
        passing=[("It was red. Red is fine.", True)], failing=[("It was red. Blue.", False)],
        adversarial=[("One only", True), ("What?!", False)],
    ),
    *cases_of(
        "words:no_consecutive", {},
        passing=[("one big cat", True)], failing=[("big bears", False)],
        adversarial=[("A-a b", True), ("a - a", False)],
    ),
    *cases_of(
        "words:odd_even_syllables", {},
        passing=[("the water is open", True)], failing=[("the big cat", False)], adversarial=[("word", True)],
    ),
    *cases_of(
        "words:palindrome", {},
        passing=[(PALINDROMES, True)], failing=[("level radar", False)],
        adversarial=[(PALINDROMES.upper().replace(" ", ", "), True), ("noon " * 10, False), ("level " * 10, True)],
    ),
    *cases_of(
        "words:paragraph_last_first", {},
        passing=[("Red is red.\n\nblue Blue", True)], failing=[("Red is blue", False)],
        adversarial=[("***\nred is red", False), ("word", True)],
    ),
    *cases_of(
        "words:prime_lengths", {},
        passing=[("an old house", True)], failing=[("a cat", False)],
        adversarial=[("don't be it's", False), ("x" * 101, False)],
    ),
    *cases_of(
        "words:repeats", {"small_n": 2.0},
        passing=[("one One two", True)], failing=[("one one ONE", False)], adversarial=[("a-a aa aa aa", False)],
    ),
    *cases_of(
        "words:start_verb", {},
        passing=[("Consider the river.", True), ("Is it?", True)], failing=[("The river runs.", False, None, "The")],
        adversarial=[("**Run**", False), ('"Run"', False), ("Running late", True), ("Analysed twice", False)],
    ),
    *cases_of(
        "words:vowel", {},
        passing=[("a big cat sits", True), ("sit\nand sip", True, False)], failing=[("one big cat", False)],
        adversarial=[("a cat\n\na dog", False), ("AEI ou", False)],
    ),
    *cases_of(
        "words:words_position", {"keyword": "river"},
        passing=[("The river is a river here", True)], failing=[("The old river", False)],
        adversarial=[("The river is a river here.", True, False), ("A river, river.", True),
                     ("A River a River b", True, False)],
    ),
]  # fmt: skip


def arguments(name: str) -> dict[str, Any]:
    """The arguments of the first case of an instruction."""
    return next(case.kwargs for case in CASES if case.id == name)

"""The patterns agree with Python's ``re`` where that is quick, and is quick where that is not."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ift_serve.modeling.adapter_format.patterns import Budget, Pattern, PatternError, SuffixPattern

PATHS = [
    f"model.layers.{layer}.{part}" for layer in (0, 1, 11) for part in ("self_attn.q_proj", "mlp.down_proj", "norm")
] + ["lm_head", "model.embed_tokens", "", "q_proj", "xq_proj"]

ATOMS = st.sampled_from(
    ["a", "b", ".", r"\.", "[ab]", "[^a]", r"[\w.]", "[1-9-]", r"\d", r"\w", "^", "$", r"\b", "1", "-"]
)
COUNTS = st.sampled_from(["", "", "", "*", "+", "?", "{2}", "{1,2}", "{1,}", "*?", "+?", "??"])
PATTERNS = st.recursive(
    st.builds(lambda a, c: a if a in ("^", "$", r"\b") else a + c, ATOMS, COUNTS),
    lambda inner: st.one_of(
        st.builds("{}{}".format, inner, inner),
        st.builds("({}|{})".format, inner, inner),
        st.builds("(?:{}){}".format, inner, COUNTS),
    ),
    max_leaves=5,
)


@settings(max_examples=400, deadline=None)
@given(pattern=PATTERNS, text=st.text("ab.1-", max_size=7))
def test_it_matches_what_re_matches(pattern: str, text: str) -> None:
    assert Pattern(pattern, Budget()).matches(text) == (re.fullmatch(pattern, text) is not None)


@settings(max_examples=200, deadline=None)
@given(pattern=PATTERNS | st.text("ab.1^", min_size=1, max_size=5), text=st.text("ab.1-", max_size=7))
def test_keys_of_pattern_dictionaries_match_as_peft_matches_them(pattern: str, text: str) -> None:
    assert SuffixPattern(pattern, Budget()).matches(text) == bool(re.match(rf"(.*\.)?({pattern})$", text))


@pytest.mark.parametrize(
    "pattern",
    [
        "q_proj",
        "layers.1.mlp.down_proj",
        "^model.layers.0.norm",
        "^lm_head$",
        "self.attn.q.proj",
        r"layers\.1\..*",
        r"^model\.layers.1\.norm$",
        r"self\.attn\.q_proj",
        r".*\.(?:0|11)\..*(?:q_proj|down_proj)",
        r"model\.layers\.[0-9]+\.mlp\.\w+",
        r"\bq_proj",
        "proj",
        ".*",
        "",
    ],
)
def test_patterns_of_real_configurations(pattern: str) -> None:
    budget = Budget()
    found = SuffixPattern(pattern, budget) if pattern else Pattern(pattern, budget)
    expected = rf"(.*\.)?({pattern})$" if pattern else "$"
    assert [p for p in PATHS if found.matches(p)] == [p for p in PATHS if re.match(expected, p)]


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a)*$", "(.*)*x", "a*a*a*a*a*a*a*a*a*a*$", "(a?){20}a{20}"])
def test_what_keeps_re_busy_for_years_is_decided_at_once(pattern: str) -> None:
    begun = time.process_time()
    assert not Pattern(pattern, Budget()).matches("a" * 200 + "b")
    assert time.process_time() - begun < 5


def test_the_budget_bounds_all_patterns_together() -> None:
    budget = Budget(left=100_000)
    assert not Pattern("(a|b)*0", budget).matches("ab" * 20)
    with pytest.raises(PatternError, match="takes too long"):
        [Pattern(f"(a|b)*{index}", budget).matches("ab" * 20) for index in range(1000)]


def test_a_large_configuration_is_within_the_budget() -> None:
    """A rank for each layer of a large model, by patterns that are no plain paths."""
    budget = Budget()
    keys = [SuffixPattern(rf"layers\.{layer}\..*_proj", budget) for layer in range(100)]
    paths = [f"model.layers.{layer}.mlp.{part}_proj" for layer in range(100) for part in ("up", "gate", "down")]
    assert [next(i for i, key in enumerate(keys) if key.matches(p)) for p in paths] == [i // 3 for i in range(300)]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(", "not valid: missing"), (")", "not valid: unbalanced"), ("[a", r"has a \["),
        ("*", "not valid: nothing to repeat"), ("^*", "not valid: nothing to repeat"), ("a**", "repeats a repetition"),
        ("a++", "repeats a repetition"), ("a{2", "has a {"), ("a{,3}", "has a {"), ("a{3,2}", "not valid: min repeat"),
        ("a{1001}", "too large"), ("((a{999}){999}){9}", "too large"), (r"(a)\1", r"has a \\1"),
        ("(?=a)", r"has a \(\?="), ("(?P<n>a)", r"has a \(\?P"), ("(?i)a", r"has a \(\?i"), (r"\Aa", r"has a \\A"),
        (r"[\b]", r"has a \["), (r"\x41", r"has a \\x"), ("[[]a]", r"has a \["), ("[]a]", r"has a \["),
        ("[b-a]", "not valid: bad character range"), (r"[\d-x]", "not valid: bad character range"),
        ("\\", r"has a \\ "), ("a]b", r"has a \]"), ("a" * 2000, "2000 characters"),
    ],
)  # fmt: skip
def test_what_is_not_supported_is_named(pattern: str, message: str) -> None:
    with pytest.raises(PatternError, match=message):
        Pattern(pattern, Budget())

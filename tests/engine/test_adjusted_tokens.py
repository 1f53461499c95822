"""What penalties and biases change, however the history grew."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from ift_serve.engine.protocol.generate import SamplingParams
from ift_serve.engine.sequences.adjusted_tokens import AdjustedTokens

TOKENS = st.lists(st.integers(0, 12), max_size=30)


@settings(max_examples=300, deadline=None)
@given(
    prompt=TOKENS,
    grown=st.lists(TOKENS, max_size=6),
    penalty=st.sampled_from([1.0, 1.3]),
    biases=st.dictionaries(st.integers(0, 300), st.floats(-5, 5, width=32), max_size=80),
)
def test_the_entries_are_those_counted_anew(
    prompt: list[int], grown: list[list[int]], penalty: float, biases: dict[int, float]
) -> None:
    params = SamplingParams(repetition_penalty=penalty, logit_bias=biases)
    history = list(prompt)
    kept = AdjustedTokens(params, prompt)
    for more in grown:
        history += more
        ids, generated, bias = (array.tolist() for array in kept.entries(history))
        counts: dict[int, int] = {}
        if penalty != 1.0:
            counts = dict.fromkeys(prompt, 0) | dict(Counter(history[len(prompt) :]))
        expected = {token: counts.get(token, -1) for token in counts.keys() | biases.keys()}
        assert dict(zip(ids, generated, strict=True)) == expected and len(ids) == len(expected)
        assert bias == [biases.get(token, 0.0) for token in ids]


@settings(max_examples=300, deadline=None)
@given(
    prompt=TOKENS,
    answer=TOKENS,
    drafted=st.lists(st.integers(0, 12), max_size=8),
    penalty=st.sampled_from([1.0, 1.3]),
    biases=st.dictionaries(st.integers(0, 14), st.floats(-5, 5, width=32), max_size=8),
)
def test_drafted_tokens_count_as_drawn_ones_and_leave_the_others_as_they_are(
    prompt: list[int], answer: list[int], drafted: list[int], penalty: float, biases: dict[int, float]
) -> None:
    params = SamplingParams(repetition_penalty=penalty, logit_bias=biases)
    history = prompt + answer
    kept, anew = AdjustedTokens(params, prompt), AdjustedTokens(params, prompt)
    before = [array.tolist() for array in kept.entries(history)]
    with_drafts = [array.tolist() for array in kept.entries(history, tuple(drafted))]
    assert with_drafts == [array.tolist() for array in anew.entries(history + drafted)]
    assert [array.tolist() for array in kept.entries(history)] == before

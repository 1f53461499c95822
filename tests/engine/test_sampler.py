"""The sampler: rules that need statistics alone, adaptive-p's memory, masks of rows, and what plain rows do not pay."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import ift_serve.engine.sampling.sampler as sampler_module
from ift_kernels.row_statistics import RowStatistics
from ift_serve.engine.protocol.generate import SamplingParams
from ift_serve.engine.protocol.sampling import AdaptiveTemperature, TargetProbability, TemperatureRule
from ift_serve.engine.sampling.parameters import pack_parameters
from ift_serve.engine.sampling.sampler import Sampler, sampled_tokens
from ift_serve.engine.sampling.temperature_rules import entropy_temperature
from ift_serve.engine.sampling.temperatures import Rows, Temperatures
from ift_serve.engine.sequences.probability_average import ProbabilityAverage
from ift_serve.engine.sequences.step import KnownMask, SamplingRow, SequenceStep


def _row(seed: int = 0, *, history: list[int] | None = None, **params: Any) -> SequenceStep:
    sampling = SamplingParams(**({"temperature": 1.0} | params))
    row = SamplingRow(sampling, seed, 0, sampling.temperature, history if history is not None else [1], 1)
    return SequenceStep(seed, [0], 0, [0], sampling=row)


def _rule(**fields: float) -> AdaptiveTemperature:
    return AdaptiveTemperature(rule=TemperatureRule.ENTROPY, **fields)


def _draw(logits: Tensor, rows: list[SequenceStep | None]) -> list[Any]:
    result = Sampler(Temperatures()).run(logits, None, rows, [-1] * len(rows))
    return sampled_tokens(result, rows)


# Entropy-based dynamic temperature


@pytest.mark.parametrize(
    ("initial", "entropy", "base", "theta", "expected"),
    [
        # Worked from the formula: theta = H gives T_0 N; theta = 2 H gives T_0 N^2; no entropy is greedy.
        (0.7, 1.5, 0.8, 1.5, 0.56),
        (1.0, 0.5, 0.8, 1.0, 0.64),
        (2.0, 1.0, 0.5, 3.0, 0.25),
        (0.7, 0.0, 0.8, 0.1, 0.0),
        (0.7, -1e-9, 0.8, 0.1, 0.0),  # what rounding makes of no entropy
        (0.0, 1.0, 0.8, 0.1, 0.0),
        (0.7, 1e9, 0.8, 0.1, 0.7),
    ],
)
def test_edt_by_hand(initial: float, entropy: float, base: float, theta: float, expected: float) -> None:
    found = entropy_temperature(*(torch.tensor([value]) for value in (initial, entropy, base, theta)))
    assert float(found[0]) == pytest.approx(expected, rel=1e-6)


@given(
    initial=st.floats(0.01, 2),
    entropies=st.lists(st.floats(0, 12), min_size=2, max_size=20),
    base=st.floats(0.05, 0.95),
    theta=st.floats(0.01, 3),
)
def test_edt_grows_with_the_entropy_and_stays_below_its_start(
    initial: float, entropies: list[float], base: float, theta: float
) -> None:
    entropy = torch.tensor(sorted(entropies))
    found = entropy_temperature(
        torch.full_like(entropy, initial), entropy, torch.full_like(entropy, base), torch.full_like(entropy, theta)
    )
    assert (found.diff() >= 0).all()
    assert (found <= torch.tensor(initial)).all()


def test_the_rule_is_per_row_and_bounded() -> None:
    logits = torch.randn(4, 50, generator=torch.Generator().manual_seed(0))
    rows: list[SequenceStep | None] = [
        _row(1, adaptive=_rule(theta=1.0, base=0.5)),
        _row(2),
        _row(3, adaptive=_rule(theta=30.0, min=0.4)),
        _row(4, temperature=0.0, adaptive=_rule(min=0.4)),
    ]
    drawn = _draw(logits, rows)
    entropy = drawn[0].statistics.entropy
    assert drawn[0].statistics.temperature == pytest.approx(0.5 ** (1 / entropy), rel=1e-6)
    assert [d.statistics.temperature for d in drawn[1:]] == [1.0, pytest.approx(0.4), 0.0]
    assert drawn[3].token_id == int(logits[3].argmax())


def test_what_comes_out_below_the_bound_is_greedy_and_the_rest_as_it_was() -> None:
    """Of rows side by side, each with its own bound; greedy is the most likely token whatever the seed."""
    logits = torch.randn(1, 50, generator=torch.Generator().manual_seed(0)).repeat(40, 1)
    (plain,) = _draw(logits[:1], [_row(0, adaptive=_rule(theta=1.0, base=0.5))])
    middle = plain.statistics.temperature
    bounds = [middle * factor for factor in (0.9, 1.0, 1.1, 0.0)]
    rules = [_rule(theta=1.0, base=0.5, greedy_below=bounds[index % 4]) for index in range(40)]
    drawn = _draw(logits, [_row(index, adaptive=rule) for index, rule in enumerate(rules)])
    alone = [_draw(logits[:1], [_row(index, adaptive=_rule(theta=1.0, base=0.5))])[0] for index in range(40)]
    for index, (token, free) in enumerate(zip(drawn, alone, strict=True)):
        if bounds[index % 4] > middle:
            assert token.statistics.temperature == 0.0 and token.token_id == int(logits[0].argmax())
        else:
            assert (token.token_id, token.statistics.temperature) == (free.token_id, middle)
    assert len({token.token_id for token in alone}) > 5


def test_a_head_without_an_adapter_is_an_error_not_a_guess() -> None:
    with pytest.raises(ValueError, match="adaptive"):
        _draw(torch.zeros(1, 8), [_row(adaptive=AdaptiveTemperature())])


# adaptive-p


def test_the_average_is_that_of_the_definition() -> None:
    """By hand: target 0.5, decay 0.5 begin with 1 of 2; after a token of 0.9 the average is 1.4 / 2 = 0.7."""
    average = ProbabilityAverage(TargetProbability(target=0.5, decay=0.5))
    assert average.wanted([1]) == 0.5
    average.note(1, 7, 0.9)
    assert average.wanted([1, 7]) == pytest.approx(2 * 0.5 - (0.9 + 0.5 * 1) / (1 + 0.5 * 2))
    average.note(2, 8, 0.1)
    assert average.wanted([1, 7, 8]) == pytest.approx(1 - (0.1 + 0.5 * 1.4) / 2)


def test_the_wanted_probability_stays_one() -> None:
    average = ProbabilityAverage(TargetProbability(target=0.1, decay=0.0))
    average.note(1, 7, 0.9)
    assert average.wanted([1, 7]) == 0.0


def test_a_token_that_was_replaced_or_forced_does_not_count() -> None:
    average = ProbabilityAverage(TargetProbability(target=0.5))
    average.note(1, 7, 0.9)
    assert average.wanted([1, 8]) == 0.5
    assert average.wanted([1, 8, 9]) == 0.5


def test_a_fork_remembers_what_its_own_tokens_were() -> None:
    average = ProbabilityAverage(TargetProbability(target=0.5))
    average.note(1, 7, 0.9)
    average.wanted([1, 7])
    average.note(2, 8, 0.8)
    whole, shorter, replaced = (average.fork(tokens) for tokens in ([1, 7, 8], [1, 7], [1, 7, 9]))
    assert whole.wanted([1, 7, 8]) == average.wanted([1, 7, 8]) < shorter.wanted([1, 7]) < 0.5
    assert shorter.value == replaced.value
    assert average.fork([1]).value == 0.5
    shorter.note(2, 3, 0.1)
    shorter.wanted([1, 7, 3])
    assert shorter.value < replaced.value, "each goes on by itself"


def test_the_sampler_tells_the_average_what_it_drew() -> None:
    history, target = [1], TargetProbability(target=0.5, decay=0.5)
    row = _row(5, history=history, target_probability=target)
    logits = torch.tensor([[math.log(p) for p in (0.6, 0.3, 0.1)]])
    expected, weight = 1.0, 2.0
    for step in range(6):
        (drawn,) = _draw(logits, [row])
        history.append(drawn.token_id)
        assert row.sampling is not None
        assert row.sampling.average is not None
        row.sampling.step = step + 1
        expected, weight = (0.6, 0.3, 0.1)[drawn.token_id] + 0.5 * expected, 1 + 0.5 * weight
        assert row.sampling.average.fork(history).value == pytest.approx(expected / weight, rel=1e-6)


# Masks, and rows of all kinds side by side


def test_rows_that_share_a_mask_send_it_once() -> None:
    mask = KnownMask(np.array([0b101], dtype=np.int32))
    rows = [_row(1), _row(2), _row(3)]
    for row in (rows[0], rows[2]):
        assert row.sampling is not None
        row.sampling.mask = mask
    packed = pack_parameters([row.sampling for row in rows], [-1] * 3).masks
    assert packed is not None
    assert packed.bits.tolist() == [[0b101]]
    assert packed.of_row.tolist() == [0, -1, 0]


def test_a_mask_that_leaves_nothing_marks_its_row_alone() -> None:
    rows: list[SequenceStep | None] = [_row(1), _row(2)]
    assert rows[1] is not None
    assert rows[1].sampling is not None
    rows[1].sampling.mask = KnownMask(np.zeros(1, dtype=np.int32))
    drawn = _draw(torch.zeros(2, 8), rows)
    assert drawn[0].token_id >= 0
    assert drawn[1].token_id == -1


def test_plain_rows_pack_nothing_special() -> None:
    packed = pack_parameters([_row(1).sampling, None, _row(2, top_p=0.9).sampling], [-1, 3, -1])
    assert (packed.adjustments, packed.masks, packed.truncations, packed.near) == (None,) * 4


def test_plain_batches_run_one_statistics_and_one_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    """No third launch, and no temperature is chosen, unless a row asks."""
    calls: list[str] = []

    def counted(name: str, kernel: Any) -> Any:
        def run(*arguments: Any) -> Any:
            calls.append(name)
            return kernel(*arguments)

        return run

    for name in ("row_statistics", "sample_rows"):
        monkeypatch.setattr(sampler_module, name, counted(name, getattr(sampler_module, name)))

    class Counted(Temperatures):
        def __call__(self, statistics: RowStatistics, hidden: Tensor | None, rows: Rows) -> Tensor:
            calls.append("temperatures")
            return super().__call__(statistics, hidden, rows)

    sampler, logits = Sampler(Counted()), torch.zeros(2, 16)
    sampler.run(logits, None, [_row(1), _row(2)], [-1, -1])
    assert calls == ["sample_rows"], "which does the statistics too"
    calls.clear()
    sampler.run(logits, None, [_row(1, temperature=0.0), _row(2, temperature=0.0)], [-1, -1])
    assert calls == ["row_statistics"], "which tell the most likely token"
    calls.clear()
    sampler.run(logits, None, [_row(1), _row(2, adaptive=_rule())], [-1, -1])
    assert calls == ["row_statistics", "temperatures", "sample_rows"]


def test_rows_that_take_the_likeliest_are_as_among_others() -> None:
    logits = torch.randn(3, 300, generator=torch.Generator().manual_seed(3)) * 3
    logits[1, 7] = math.nan
    greedy = [_row(place, temperature=0.0, top_logprobs=3) for place in range(3)]
    alone = _draw(logits, list(greedy))
    mixed = _draw(torch.cat((logits, logits[:1])), [*greedy, _row(9)])[:3]
    assert alone[0] == mixed[0] and alone[2] == mixed[2]
    for found in (alone[1], mixed[1]):
        assert found.token_id >= 0 and math.isnan(found.statistics.log_prob)


def test_rows_tell_what_they_were_drawn_from_where_asked() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log().repeat(3, 1)
    rows: list[SequenceStep | None] = [
        _row(1, top_k=2, processed_log_probs=True, top_logprobs=3),
        _row(2),
        _row(3, temperature=0.0, processed_log_probs=True),
    ]
    first, second, third = (token.statistics.processed for token in _draw(logits, rows))
    assert first[1:] == pytest.approx([math.log(0.625), math.log(0.375), -math.inf])
    assert first[0] in first[1:3]
    assert second == () and third == (0.0,)


def test_rows_of_every_kind_are_each_as_alone() -> None:
    logits = torch.randn(8, 200, generator=torch.Generator().manual_seed(9)) * 2
    mask = np.full(7, 0x0F0F0F0F, dtype=np.int32)

    def rows() -> list[SequenceStep]:
        found = [
            _row(1),
            _row(2, top_h=0.4),
            _row(3, p_less=True),
            _row(4, top_n_sigma=1.0, temperature=1.5),
            _row(5, adaptive=_rule()),
            _row(6, target_probability=TargetProbability(target=0.2), min_p=0.1),
            _row(7, repetition_penalty=1.3, history=[1, 5, 9]),
            _row(8),
        ]
        assert found[7].sampling is not None
        found[7].sampling.mask = KnownMask(mask)
        return found

    together = _draw(logits, list(rows()))
    for index, row in enumerate(rows()):
        (alone,) = _draw(logits[index : index + 1], [row])
        assert alone == together[index]

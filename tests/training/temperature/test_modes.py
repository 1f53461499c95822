"""The classifier of instructions learns what each way of reasoning is worth, cost included."""

from __future__ import annotations

import torch

from ift_serve.modeling.components.heads import MODES, ModeClassifier
from ift_training.temperature.modes import Tried, compare_modes, learn_modes
from ift_training.temperature.settings import ModeSettings

SUM = Tried("sum", (0.0, 1.0, 0.0), (3, 40, 15))
"""Right only behind a thought."""
FACT = Tried("fact", (1.0, 1.0, 1.0), (3, 40, 15))
"""Right in any case, so that the cheapest is best."""
GUESS = Tried("guess", (0.0, 0.0, 1.0), (3, 40, 15))
HOPELESS = Tried("hopeless", (0.0, 0.0, 0.0), (3, 40, 15))


def _vectors(kinds: list[Tried], seed: int) -> torch.Tensor:
    """A place of its own for each kind, with noise."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(4, 16, generator=torch.Generator().manual_seed(9))
    every = [SUM, FACT, GUESS, HOPELESS]
    places = torch.stack([centres[every.index(kind)] for kind in kinds])
    return places + 0.2 * torch.randn(places.shape, generator=generator)


def _trained(kinds: list[Tried], **settings: float) -> ModeClassifier:
    torch.manual_seed(0)
    classifier = ModeClassifier(16, 16)
    chosen = ModeSettings.model_validate(settings)
    learn_modes(classifier, (_vectors(kinds, 1), kinds), (_vectors(kinds, 2), kinds), chosen)
    return classifier


def test_each_kind_of_request_gets_the_way_that_is_worth_most() -> None:
    kinds = [SUM, FACT, GUESS, HOPELESS] * 12
    outcomes = compare_modes(_trained(kinds), _vectors(kinds, 3), kinds)
    assert outcomes["sum"].chosen == {"none": 0.0, "trace": 1.0, "branch": 0.0}
    assert outcomes["fact"].chosen["none"] == 1.0
    assert outcomes["guess"].chosen["branch"] == 1.0
    assert outcomes["hopeless"].chosen["none"] == 1.0
    assert outcomes["all"].reward == 0.75 and outcomes["all"].spent == (40 + 3 + 15 + 3) / 4
    assert outcomes["all"].rewards == {"none": 0.25, "trace": 0.5, "branch": 0.5}
    assert [outcome.prompts for outcome in outcomes.values()] == [48, 12, 12, 12, 12]


def test_what_costs_more_than_it_brings_is_not_chosen() -> None:
    kinds = [SUM, FACT] * 12
    outcomes = compare_modes(_trained(kinds, token_cost=0.03), _vectors(kinds, 3), kinds)
    assert outcomes["sum"].chosen["none"] == 1.0


def test_a_fresh_classifier_reasons_about_nothing_and_goes_on_so_where_nothing_is_better() -> None:
    torch.manual_seed(0)
    classifier, kinds = ModeClassifier(16, 16), [FACT] * 6
    assert MODES[int(classifier(_vectors(kinds, 1))[0].argmax())] == "none"
    learn_modes(classifier, (_vectors(kinds, 1), kinds), (_vectors(kinds, 2), kinds), ModeSettings(steps=20))
    assert compare_modes(classifier, _vectors(kinds, 3), kinds)["all"].chosen["none"] == 1.0


def test_the_few_that_need_a_thought_are_heard_among_many_that_only_lose_by_it() -> None:
    """One request in twelve; a thought makes the others wrong."""
    loses = Tried("fact", (1.0, 0.0, 1.0), (3, 60, 15))
    kinds = [SUM, *[loses] * 11] * 6
    torch.manual_seed(0)
    places = torch.stack([torch.eye(16)[0 if kind is SUM else 1] for kind in kinds])
    classifier = ModeClassifier(16, 16)
    learn_modes(classifier, (places, kinds), (places, kinds), ModeSettings())
    outcomes = compare_modes(classifier, places, kinds)
    assert outcomes["sum"].chosen["trace"] == 1.0 and outcomes["fact"].chosen["none"] == 1.0

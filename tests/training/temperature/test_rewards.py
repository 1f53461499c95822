"""Rewards of one prompt's answers, and who may say what they are worth."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ift_serve.checks import parse_checks
from ift_training.base_recipe import RecipeError
from ift_training.data.records import Record, parse_record
from ift_training.temperature.rewards import advantages, rewards_of
from ift_training.temperature.settings import RewardSettings
from ift_training.temperature.verifier import check_judged, make_verifier


@pytest.fixture
def record() -> Record:
    fields = {"instruction": "Say it.", "output": "a b", "checks": [{"type": "begin", "phrase": "a"}]}
    assert parse_checks(fields["checks"])
    return parse_record(fields)


def test_a_novel_answer_keeps_its_reward_and_a_common_one_loses_some(record: Record) -> None:
    answers = ["a b", "a b", "a c d", "x"]
    # Pairs of "a b": (start a) is held by two of three others, (a b) and (b end) by one.
    novel = 1 - (2 + 1 + 1) / (3 * 3)
    found = rewards_of(record, answers, make_verifier(RewardSettings()), 0.5)
    assert found[0] == found[1] == pytest.approx(0.5 + 0.5 * novel)
    assert found[2] == pytest.approx(0.5 + 0.5 * (1 - 2 / (3 * 4))) and found[3] == 0
    assert rewards_of(record, answers, make_verifier(RewardSettings(verifier="exact")), 0.0) == [1, 1, 0, 0]


def test_advantages_are_within_their_group() -> None:
    group = torch.tensor([0, 1, 0, 1, 2, 2])
    found = advantages(torch.tensor([0.0, 5.0, 1.0, 7.0, 3.0, 3.0]), group, 3)
    assert torch.allclose(found, torch.tensor([-1.0, -1.0, 1.0, 1.0, 0.0, 0.0]))


def test_prompts_that_nothing_judges_are_counted(record: Record) -> None:
    unchecked = parse_record({"instruction": "Say it.", "output": "a b"})
    with pytest.raises(RecipeError, match="1 of 2 prompts have no checks"):
        check_judged(RewardSettings(), [record, unchecked])
    check_judged(RewardSettings(verifier="exact"), [record, unchecked])


def _own(directory: Path, name: str = "mine:worth") -> RewardSettings:
    return RewardSettings(verifier=name, directory=directory)


def test_ones_own_function_judges(record: Record, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def worth(instruction, answer, reference):\n    return len(answer) / 2\n")
    assert make_verifier(_own(tmp_path))(record, "abc") == 1.5


@pytest.mark.parametrize("result", ["None", "'much'", "float('nan')"])
def test_what_is_no_number_is_refused(record: Record, tmp_path: Path, result: str) -> None:
    (tmp_path / "mine.py").write_text(f"def worth(instruction, answer, reference):\n    return {result}\n")
    with pytest.raises(RecipeError, match="mine:worth gave"):
        make_verifier(_own(tmp_path))(record, "abc")


def test_nothing_is_imported_from_anywhere_else(tmp_path: Path) -> None:
    own, other = tmp_path / "own", tmp_path / "other"
    own.mkdir()
    other.mkdir()
    (other / "theirs.py").write_text("raise SystemExit('imported')")
    (own / "theirs.py").symlink_to(other / "theirs.py")
    for name in ("theirs:worth", "json:loads"):
        with pytest.raises(RecipeError, match=r"holds no \w+\.py"):
            make_verifier(_own(own, name))


def test_a_function_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("worth = 3\n")
    for name in ("mine:worth", "mine:other"):
        with pytest.raises(RecipeError, match="has no function"):
            make_verifier(_own(tmp_path, name))

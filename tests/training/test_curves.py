"""The picture of a run: where its panels stand, and that every curve in it can be seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ift_training.reporting.curves import draw, plot

STEPS = range(2, 22, 2)


def history(**changes: Any) -> list[dict[str, Any]]:
    """A run's log with six groups of values."""
    found = []
    for step in STEPS:
        loss = 3.0 / step
        losses = {
            "loss": loss,
            "loss_next_token": loss + 4e-7,
            "eval_loss": loss + 0.5,
            "eval_loss_next_token": loss + 0.5,
        }
        found.append(
            {
                "step": step,
                **losses,
                "eval_score": step / 25,
                "eval_score_a": step / 30,
                "learning_rate": 1e-4,
                "grad_norm": 2.0 / step,
                "task_loss_a": loss,
                "task_loss_b": 1.1 * loss,
                "task_weight_a": 1.0,
                "epoch": 0.1,
                **changes,
            }
        )
    return found


def panels(found: list[dict[str, Any]]) -> list[Any]:
    figure = draw(found, "tiny", written=8)
    assert figure is not None
    return [panel for panel in figure.axes if panel.axison]


@pytest.mark.parametrize(("names", "rows", "columns"), [(["loss"], 1, 1), (["loss", "grad_norm"], 1, 2), (None, 2, 3)])
def test_panels_stand_in_rows_of_three(names: list[str] | None, rows: int, columns: int) -> None:
    found = history() if names is None else [{"step": e["step"], **{n: e[n] for n in names}} for e in history()]
    shown = panels(found)
    places = [panel.get_position() for panel in shown]
    assert len({round(place.y0, 3) for place in places}) == rows
    assert len({round(place.x0, 3) for place in places}) == columns
    width, height = shown[0].figure.get_size_inches()
    assert width <= 18 and 1 / 2 <= width / height <= 5


def test_four_panels_leave_the_rest_of_the_last_row_empty() -> None:
    found = [{k: v for k, v in entry.items() if not k.startswith("task_")} for entry in history()]
    assert [panel.get_title() for panel in panels(found)] == [
        "loss",
        "share of answers that pass",
        "learning rate",
        "gradient norm",
    ]


def test_curves_that_lie_on_one_another_are_one_with_both_names() -> None:
    (loss,) = (panel for panel in panels(history()) if panel.get_title() == "loss")
    assert [line.get_label() for line in loss.lines] == [
        "loss = loss_next_token",
        "eval_loss = eval_loss_next_token",
        "written: step 8",
    ]
    (apart,) = (panel for panel in panels(history(loss_next_token=1.0)) if panel.get_title() == "loss")
    lines = apart.lines[:3]
    assert [line.get_label() for line in lines] == ["loss", "loss_next_token", "eval_loss = eval_loss_next_token"]
    assert len({(line.get_linestyle(), line.get_marker(), line.get_linewidth()) for line in lines}) == 3


def test_nothing_to_draw_is_no_picture(tmp_path: Path) -> None:
    assert not plot([{"step": 1, "epoch": 0.5}], tmp_path / "curves.png", "tiny")
    assert plot(history(), tmp_path / "curves.png", "tiny", written=8)
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]

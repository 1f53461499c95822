"""The report page in a browser: what it shows, that it is for everybody, and that no answer gets out of its box."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ift_serve.evaluation.reporting.document import report_of
from ift_serve.evaluation.reporting.page import page, write_page
from ift_serve.evaluation.rows import Row
from ift_serve.evaluation.tasks.task import ConstraintVerdict
from tests.support.browser import MISSING, Visit, chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING or "a browser is there")
_HOSTILE = (
    "</script><script>alert(1)</script>", "<img src=x onerror=alert(2)>", "<svg onload=alert(3)>", "<!--<script>",
    '"><iframe srcdoc="<script>alert(4)</script>">', "{{constructor.constructor('alert(5)')()}}", "\u2028\u2029\x00",
    "__REPORT__ __SCRIPT__", "<style>*{display:none}</style>", "<a href='javascript:alert(6)'>x</a>", "\u202eabc",
)  # fmt: skip
_ANSWER = "🦊, and the fox"
_VERSIONS = ["base", "support@0123456789abcdef"]


def _row(model: str, number: int, passed: bool, **given: Any) -> Row:
    verdict = ConstraintVerdict("no_comma", passed, "" if passed else "a comma", None if passed else (1, 2))
    values: dict[str, Any] = {
        "verdicts": {"strict": (verdict,)},
        "generated_tokens": 7,
        "drawn_tokens": 7,
        "seconds": 0.5,
    } | given
    return Row(model, "t", str(number), 0, f"Say it, number {number}.", _ANSWER, **values)


def _pair() -> dict[str, Any]:
    rows = [_row("base", n, n < 10) for n in range(30)] + [_row(_VERSIONS[1], n, n < 14) for n in range(30)]
    return report_of(rows, _VERSIONS) | {"created": "2026-01-01T00:00:00Z"}


def _large() -> dict[str, Any]:
    """Two tasks, long names, errors, repeats, cut answers and hostile texts."""
    rng = random.Random(1)
    rows = []
    for number in range(8):
        for model in _VERSIONS:
            families = rng.sample(["detectable_format:number_bullet_lists", "a" * 70, *_HOSTILE[:3]], 2)
            verdicts = tuple(ConstraintVerdict(f, rng.random() < 0.5, _HOSTILE[1], (0, 9)) for f in families)
            for repeat in range(2):
                text = " ".join(rng.sample(_HOSTILE, 4)) + "x" * 500
                rows.append(Row(
                    model, "ifeval", str(number), repeat, text, text, reasoning=text, is_cut=number % 7 == 0,
                    verdicts={"repaired strict": verdicts, "published loose": verdicts[:1]}, error="", seconds=2.0,
                ))  # fmt: skip
    rows += [Row(model, _HOSTILE[1], "1", 0, "p", error=f"UNAVAILABLE: {_HOSTILE[0]}") for model in _VERSIONS]
    found = report_of(rows, _VERSIONS)
    found["server"] = {"model": _HOSTILE[1], "dtype": "float32", "device": "cpu", "version": "0"}
    found["settings"] = {"stop": [_HOSTILE[0]]}
    found["run"] = {"seconds": 3.0}
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture
def visit(browser: Browser, tmp_path: Path) -> Iterator[Callable[..., Visit]]:
    opened: list[Visit] = []

    def open_page(found: dict[str, Any], **how: Any) -> Visit:
        path = tmp_path / f"{len(opened)}.html"
        write_page(found, path)
        opened.append(Visit(browser, path, **how))
        return opened[-1]

    yield open_page
    for one in opened:
        one.page.close()


def _open_all(seen: Visit) -> None:
    seen.page.evaluate("for (const d of document.querySelectorAll('details')) d.open = true")
    seen.page.wait_for_selector(".prompt:last-of-type .inside")


def test_it_says_which_model_is_better_and_by_how_much(visit: Callable[..., Visit]) -> None:
    page = visit(_pair()).page
    headline = page.locator("h1").inner_text().replace("\u00a0", " ")
    assert headline == "support keeps 46.7 % of t's prompts, base 33.3 %"
    assert "+13.3 points on the same 30 prompts" in page.locator("#subline").inner_text()
    assert page.locator("#score-cards svg").count() == 2 and page.locator("#family-plot svg[role=img]").count() == 1
    label = page.locator("#score-cards svg").first.get_attribute("aria-label")
    assert label is not None and label.replace("\u00a0", " ").startswith("33.3 %, 95 % interval 19.2 to 51.2")


def test_prompts_are_filtered_and_offending_places_marked(visit: Callable[..., Visit]) -> None:
    page = visit(_pair()).page
    assert page.locator("#count").inner_text() == "30 of 30 prompts" and page.locator(".prompt").count() == 25
    page.locator("#more").click()
    assert page.locator(".prompt").count() == 30 and page.locator("#more").is_hidden()
    page.locator("#f-outcome").select_option(label="only support keeps")
    assert page.locator("#count").inner_text() == "4 of 30 prompts"
    page.locator(".prompt summary").first.click()
    page.wait_for_selector(".inside mark")
    assert page.locator(".inside mark").all_inner_texts() == [","], "a place behind a character of two units"
    assert page.locator(".inside .answers > div").count() == 2
    page.locator("#f-outcome").select_option("")
    page.locator("#f-text").fill("number 17.")
    assert page.locator("#count").inner_text() == "1 of 30 prompts"
    page.locator("#f-text").fill("no such text anywhere")
    assert page.locator("#count").inner_text() == "0 of 30 prompts"


@pytest.mark.parametrize(
    ("make", "width", "dark"), [(_pair, 1200, False), (_pair, 375, True), (_large, 375, False), (_large, 1200, True)]
)
def test_axe_finds_nothing_wrong(visit: Callable[..., Visit], make: Any, width: int, dark: bool) -> None:
    seen = visit(make(), width=width, dark=dark)
    _open_all(seen)
    assert seen.violations() == []


@pytest.mark.parametrize("make", [_pair, _large])
def test_a_phone_needs_no_sideways_scrolling(visit: Callable[..., Visit], make: Any) -> None:
    seen = visit(make(), width=375)
    _open_all(seen)
    assert seen.page.evaluate("document.documentElement.scrollWidth") == 375


def test_everything_is_reached_and_used_by_keyboard(visit: Callable[..., Visit]) -> None:
    page = visit(_pair()).page
    walked = []
    for _ in range(60):
        page.keyboard.press("Tab")
        name = page.evaluate("document.activeElement.id || document.activeElement.tagName.toLowerCase()")
        if name == "body":
            break
        walked.append(name)
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none", name
    reachable = "a[href], button, select, input, summary, [tabindex='0']"
    seen = page.locator(reachable).evaluate_all("all => all.filter(e => e.checkVisibility()).length")
    assert len(walked) == seen, walked
    page.locator("#f-outcome").focus()
    page.keyboard.press("ArrowDown")
    assert page.locator("#count").inner_text() == "4 of 30 prompts"
    page.locator(".prompt summary").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(".inside mark")
    assert page.locator(".inside mark").count() == 1


def test_more_prompts_keep_the_place_of_a_keyboard(visit: Callable[..., Visit]) -> None:
    page = visit(_pair()).page
    page.locator("#more").focus()
    page.keyboard.press("Enter")
    assert "number 25." in page.evaluate("document.activeElement.textContent")


def test_no_answer_gets_out_of_its_box_and_nobody_is_asked_for_anything(visit: Callable[..., Visit]) -> None:
    seen = visit(_large())
    _open_all(seen)
    for judge in ("0", "1"):
        seen.page.locator("#f-judge").select_option(judge)
        seen.page.locator("#family-judge").select_option(judge)
    _open_all(seen)
    assert seen.complaints == [] and len(seen.requests) == 1, seen.requests
    assert (
        seen.page.locator("iframe, img, main style, main script, [onerror], [onload], a[href^=javascript]").count() == 0
    )
    shown = "".join(seen.page.locator(".inside .text").all_text_contents())
    assert all(text in shown for text in _HOSTILE[:5]), "what is hostile is shown as it is"


def test_a_script_that_got_in_would_not_run(visit: Callable[..., Visit], browser: Browser, tmp_path: Path) -> None:
    made = page(_pair()).replace("</main>", "<script>document.title = 'owned'</script><img src=x onerror=1></main>")
    (tmp_path / "owned.html").write_text(made, encoding="utf-8")
    seen = Visit(browser, tmp_path / "owned.html")
    assert seen.page.title() != "owned" and any("Content Security Policy" in said for said in seen.complaints)
    seen.page.close()


def test_curves_rewordings_and_turns_are_shown(visit: Callable[..., Visit]) -> None:
    place = {"model": "base", "task": "density", "column": "strict"}
    bounds = {"low": 0.1, "high": 0.9}
    curve = [place | bounds | {"constraints": n, "kept": 1 / n, "whole": 0.2, "prompts": 9} for n in (1, 2, 100)]
    cousins = place | bounds | {"k": 5, "value": 0.5, "single": 0.7, "mean": 0.6, "groups": 8, "left_out": 1}
    turn = place | bounds | {"turn": 2, "value": 0.5, "kept": 0.7, "prompts": 9}
    part = place | bounds | {"adapter": _VERSIONS[1], "part": "unseen", "value": 0.25, "kept": 0.5, "prompts": 9}
    lost = {"adapter": _VERSIONS[1], "kept": 12, "lost": 3, "share": 0.25, "gained": 1, "p_value": 0.6}
    text = {"task": "perplexity", "adapter": _VERSIONS[1], "before": 1.25, "after": 1.5}
    more = {"parts": [part], "forgetting": [place | bounds | lost], "text_changes": [text], "notes": ["t: <b>left out"]}
    seen = visit(_pair() | {"curves": curve, "reliability": [cousins], "turns": [turn]} | more)
    said = seen.page.locator("#breakdowns").inner_text()
    for expected in ("unseen", "what was forgotten", "1.5000", "t: <b>left out"):
        assert expected in said
    assert "reliable@5" in said and "by turn" in said and seen.page.locator("#breakdowns circle").count() == 3
    assert seen.complaints == [] and visit(_pair()).page.locator("#breakdowns").is_hidden()


def test_verdicts_of_a_turn_point_into_its_answer(visit: Callable[..., Visit]) -> None:
    verdicts = tuple({"family": f"f{n}", "passed": False, "reason": "", "span": (0, 3), "turn": n} for n in (1, 2))
    found = _pair()
    found["rows"][0] |= {"earlier": ["one, said"], "answer": "two, said", "verdicts": {"strict": verdicts}}
    page = visit(found).page
    page.locator(".prompt summary").first.click()
    page.wait_for_selector(".inside mark")
    assert page.locator(".answers > div").first.locator("mark").all_inner_texts() == ["one", "two"]

"""The review page in a browser and over raw HTTP: by keyboard alone, for everybody, and closed to everyone else."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

pytest.importorskip("uvicorn", reason="needs the package uvicorn (extra data)")

from ift_training.data.generation.record import GeneratedRecord, Lineage, Reason, Turn
from ift_training.data.generation.store import RecordStore
from ift_training.data.quality.review.queue import EDIT_STEP
from tests.support.browser import MISSING, Visit, chromium
from tests.support.review_server import review_server

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

in_browser = pytest.mark.skipif(bool(MISSING), reason=MISSING or "a browser is there")
_HOSTILE = (
    "</script><script>alert(1)</script><img src=x onerror=alert(2)>\u2028\u202e__SCRIPT__ "
    "<style>*{display:none}</style><a href='javascript:alert(3)'>x</a>" + "w" * 400
)


def _filled(path: Path, count: int = 6, hostile: bool = False) -> Path:
    with RecordStore(path) as store:
        for number in range(count):
            text = _HOSTILE if hostile else f"It is {number}."
            record = GeneratedRecord(
                text if hostile else f"Say {number}.", text, Lineage("made", place=number), text if hostile else "",
                (Turn("user", text), Turn("assistant", "Yes.")) if hostile else (),
            )  # fmt: skip
            store.put(record)
            reason = Reason(text[:80] if hostile else ("coherence", "personal")[number % 2], text, 0.25, 0.3)
            store.judge(record.id, "filter", "flagged", [reason])
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Visit]]:
    opened: list[Visit] = []

    def open_page(link: str, **how: Any) -> Visit:
        opened.append(Visit(browser, link, **how))
        return opened[-1]

    yield open_page
    for one in opened:
        one.page.close()


def _settled(page: Page, decided: str) -> None:
    page.wait_for_function("said => document.getElementById('done-text').textContent.startsWith(said)", arg=decided)


def _statuses(path: Path) -> list[str]:
    with RecordStore(path) as store:
        return [record.status for record in store.records() if record.lineage.step != EDIT_STEP]


@in_browser
def test_records_are_accepted_edited_rejected_and_undone_by_keyboard(
    visit: Callable[..., Visit], tmp_path: Path
) -> None:
    path = _filled(tmp_path / "r.sqlite")
    with review_server(path, ["ann"]) as links:
        seen = visit(links["ann"])
        page = seen.page
        _settled(page, "0 of 6")
        page.keyboard.press("a")
        _settled(page, "1 of 6")
        page.keyboard.press("r")
        _settled(page, "2 of 6")
        page.keyboard.press("e")
        page.locator("textarea[name=response]").fill("It is better.")
        page.keyboard.press("Control+Enter")
        _settled(page, "3 of 6")
        assert page.locator("#said").inner_text() == "Saved and accepted."
        page.keyboard.press("u")
        _settled(page, "2 of 6")
        assert page.locator("textarea[name=response]").input_value() == "It is better."
        page.keyboard.press("Control+Enter")
        _settled(page, "3 of 6")
        assert _statuses(path) == ["kept", "rejected", "rejected", "flagged", "flagged", "flagged"]
        with RecordStore(path) as store:
            kept = [r.response for r in store.records(step=EDIT_STEP) if r.status == "kept"]
        assert kept == ["It is better."]
        for decided in (4, 5, 6):
            page.keyboard.press("r")
            _settled(page, f"{decided} of 6")
        assert page.locator("#empty").is_visible()
        page.keyboard.press("u")
        _settled(page, "5 of 6")
        assert page.locator("#empty").is_hidden() and page.locator("#record").is_visible()
        assert seen.complaints == []


@in_browser
def test_keys_rest_while_a_person_writes_or_has_turned_them_off(visit: Callable[..., Visit], tmp_path: Path) -> None:
    path = _filled(tmp_path / "r.sqlite")
    with review_server(path, ["ann"]) as links:
        page = visit(links["ann"]).page
        _settled(page, "0 of 6")
        page.keyboard.press("e")
        page.keyboard.type("arrue")
        assert page.locator("textarea[name=response]").input_value().endswith("arrue")
        page.keyboard.press("Escape")
        page.wait_for_selector("#buttons:visible")
        page.locator("#keys").uncheck()
        page.locator("#main").focus()
        page.keyboard.press("a")
        page.locator("#accept").click()
        _settled(page, "1 of 6")


@in_browser
def test_nothing_is_lost_on_reload(visit: Callable[..., Visit], tmp_path: Path) -> None:
    path = _filled(tmp_path / "r.sqlite")
    with review_server(path, ["ann"]) as links:
        page = visit(links["ann"]).page
        _settled(page, "0 of 6")
        page.keyboard.press("e")
        with page.expect_response(re.compile("api/draft")):
            page.locator("textarea[name=instruction]").fill("Say it as well as you can.")
        page.reload()
        _settled(page, "0 of 6")
        assert page.locator("textarea[name=instruction]").input_value() == "Say it as well as you can."


@in_browser
def test_two_reviewers_have_two_records_and_their_agreement_is_shown(
    visit: Callable[..., Visit], tmp_path: Path
) -> None:
    path = _filled(tmp_path / "r.sqlite", 3)
    with review_server(path, ["ann", "ben"], overlap=1.0) as links:
        ann, ben = visit(links["ann"]).page, visit(links["ben"]).page
        for page in (ann, ben):
            _settled(page, "0 of 3")
        assert ann.locator("#about").inner_text() != ben.locator("#about").inner_text()
        ann.keyboard.press("a")
        _settled(ann, "1 of 3")
        ben.keyboard.press("a")
        _settled(ben, "2 of 3")
        assert "second opinion" in ben.locator("#about").inner_text()
        ben.keyboard.press("a")
        ben.wait_for_selector("#agreement:visible")
        row = ben.locator("#agreement tbody tr").inner_text()
        assert "ann, ben" in row and "1 of 1 (100 %)" in row


@in_browser
def test_reasons_choose_what_is_shown(visit: Callable[..., Visit], tmp_path: Path) -> None:
    with review_server(_filled(tmp_path / "r.sqlite"), ["ann"]) as links:
        page = visit(links["ann"]).page
        _settled(page, "0 of 6")
        page.locator("#reason").select_option("personal")
        page.wait_for_function("() => document.getElementById('reasons').textContent.startsWith('personal')")
        assert page.locator("#reason option:checked").inner_text() == "personal (3)"
        page.locator("#accept").click()
        _settled(page, "1 of 6")
        assert page.locator("#reasons").inner_text().startswith("personal")


@in_browser
@pytest.mark.parametrize(("width", "dark"), [(1200, False), (375, True)])
@pytest.mark.parametrize("hostile", [False, True])
def test_axe_finds_nothing_wrong_and_a_phone_needs_no_sideways_scrolling(
    visit: Callable[..., Visit], tmp_path: Path, width: int, dark: bool, hostile: bool
) -> None:
    with review_server(_filled(tmp_path / "r.sqlite", 2, hostile), ["ann"]) as links:
        seen = visit(links["ann"], width=width, dark=dark)
        _settled(seen.page, "0 of 2")
        assert seen.violations() == []
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
        seen.page.keyboard.press("e")
        assert seen.violations() == []
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= width


@in_browser
def test_no_record_gets_out_of_its_box_and_nobody_else_is_asked(visit: Callable[..., Visit], tmp_path: Path) -> None:
    with review_server(_filled(tmp_path / "r.sqlite", 2, hostile=True), ["ann"]) as links:
        seen = visit(links["ann"])
        _settled(seen.page, "0 of 2")
        seen.page.keyboard.press("e")
        seen.page.keyboard.press("Control+Enter")
        _settled(seen.page, "1 of 2")
        assert seen.complaints == []
        origin = links["ann"].split("#")[0]
        assert all(request.startswith((origin, "data:")) for request in seen.requests)
        assert seen.page.locator("main img, main script, main style, main a, iframe").count() == 0
        assert _HOSTILE[:60] in "".join(seen.page.locator("#shown .text").all_text_contents())


@in_browser
def test_a_link_without_the_token_shows_nothing(visit: Callable[..., Visit], tmp_path: Path) -> None:
    with review_server(_filled(tmp_path / "r.sqlite"), ["ann"]) as links:
        page = visit(links["ann"].split("#")[0] + "#wrong").page
        page.wait_for_function("() => document.getElementById('wrong').textContent !== ''")
        assert "no valid token" in page.locator("#wrong").inner_text() and page.locator("#record").is_hidden()


def _call(link: str, name: str, body: bytes = b"{}", **headers: str) -> tuple[int, Any, http.client.HTTPMessage]:
    place = urlsplit(link)
    connection = http.client.HTTPConnection(place.hostname or "", place.port)
    sent = {"Content-Type": "application/json", "Authorization": f"Bearer {place.fragment}"} | headers
    connection.request("POST", f"/api/{name}", body, sent)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer.status, json.loads(text) if text[:1] == b"{" else text, answer.headers


def test_only_this_machine_with_a_token_is_answered(tmp_path: Path) -> None:
    with review_server(_filled(tmp_path / "r.sqlite"), ["ann"]) as links:
        link = links["ann"]
        assert urlsplit(link).hostname == "127.0.0.1"
        status, found, headers = _call(link, "current")
        assert status == 200 and found["reviewer"] == "ann" and headers["Cache-Control"] == "no-store"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        for wrong in ("", "Bearer ", "Bearer x", "Basic x", f"Bearer {urlsplit(link).fragment}x"):
            assert _call(link, "current", Authorization=wrong)[0] == 401
        assert _call(link, "current", Host="evil.example")[0] == 400, "another site's name leads nowhere"
        assert _call(link, "current", b"{}", **{"Content-Type": "text/plain"})[0] == 400
        assert _call(link, "nothing")[0] == 404


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"nonsense", b"[" * 50_000, b'{"record": 1, "choice": "accept"}', b'{"record": "x"}',
     b'{"record": "\\ud800", "choice": "accept"}', b'{"record": "x", "choice": "edit", "edited": []}',
     b'{"record": "x", "choice": "edit", "edited": {"instruction": "\\ud800"}}', b'{"reason": {}}', b" " * 3_000_000],
    ids=range(11),
)  # fmt: skip
def test_no_call_is_a_reason_to_fail(tmp_path: Path, body: bytes) -> None:
    with review_server(_filled(tmp_path / "r.sqlite"), ["ann"]) as links:
        status, found, _ = _call(links["ann"], "decide", body)
        assert status in (400, 409) and found["error"]
        assert _call(links["ann"], "current")[0] == 200


def test_half_a_character_is_shown_and_kept(tmp_path: Path) -> None:
    with RecordStore(tmp_path / "r.sqlite") as store:
        record = GeneratedRecord("Say \ud800.", "\udfff", Lineage("made"))
        store.put(record)
        store.judge(record.id, "filter", "flagged", [Reason("format", "\ud800")])
    with review_server(tmp_path / "r.sqlite", ["ann"]) as links:
        status, found, _ = _call(links["ann"], "current")
        assert status == 200 and found["assignment"]["response"] == "\udfff"
        edited = {"instruction": "Say \ud800!", "context": "", "response": "x"}
        body = json.dumps({"record": record.id, "choice": "edit", "edited": edited}).encode()
        assert _call(links["ann"], "decide", body)[0] == 200

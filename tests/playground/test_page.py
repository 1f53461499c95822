"""The playground in a browser, on a real server: it shows what the server said, for everybody, and nothing leaks."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("httptools", reason="needs the package httptools (extra gateway)")

from google.protobuf import json_format

from ift_serve.client import Client, Message
from ift_serve.embedded import model_path
from ift_serve.gateway.config import GatewayConfig
from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.playground.page import POLICY
from ift_serve.playground.page import page as page_text
from ift_serve.playground.routes import playground
from ift_serve.v1 import inference_pb2 as pb
from tests.support.adapters import write_random
from tests.support.browser import MISSING, Visit, chromium
from tests.support.gateway import RunningGateway, Serving, engine_server, gateway
from tests.support.playground import ask

if TYPE_CHECKING:
    from playwright.sync_api import Browser

in_browser = pytest.mark.skipif(bool(MISSING), reason=MISSING or "a browser is there")
_HOSTILE = "</script><img src=x onerror=alert(1)>\u2028__SCRIPT__ <style>*{display:none}</style>" + "w" * 300


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("playground")
    adapter = write_random(folder / "tone", BaseMetadata.of_directory(model_path()), seed=3)
    with engine_server(adapters={"tone": adapter}) as running:
        yield running


@pytest.fixture(scope="module")
def running(serving: Serving) -> Iterator[RunningGateway]:
    with gateway(serving.address, playground(GatewayConfig(server=serving.address))) as started:
        yield started


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture
def visit(browser: Browser, running: RunningGateway) -> Iterator[Callable[..., Visit]]:
    opened: list[Visit] = []

    def open_page(**how: Any) -> Visit:
        opened.append(Visit(browser, f"{running.url}/", **how))
        opened[-1].page.wait_for_selector("#models input")
        return opened[-1]

    yield open_page
    for one in opened:
        one.page.close()


def test_the_page_asks_nobody_and_allows_neither_eval_nor_foreign_script() -> None:
    text = page_text("127.0.0.1:1", is_encrypted=False)
    assert not re.findall(r"(?:src|href)=[\"'](?!data:|#)", text)
    assert not re.search(r"\bstyle=|\son\w+=|\beval\(|new Function|innerHTML|https?://[^/$\"'`]*\w\.\w", text)
    assert "unsafe" not in POLICY and "default-src 'none'" in POLICY


def test_the_servers_name_is_text() -> None:
    assert "<b>" not in page_text('"><b>', is_encrypted=True)


@in_browser
def test_an_answer_and_its_thought_are_the_servers(visit: Callable[..., Visit], serving: Serving) -> None:
    seen = visit()
    ask(seen.page, "What is 38 + 35?", temperature="0", reasoning="trace", budget="64")
    card = seen.page.locator("article")
    with Client(serving.address) as direct:
        from ift_serve.client import Trace

        own = direct.generate([Message("user", "What is 38 + 35?")], temperature=0, reasoning=Trace(budget=64))
    assert card.locator(".text:not(.thought)").text_content() == own.text
    assert card.locator(".thought.text").text_content() == own.reasoning
    assert "eos" in (card.locator("p.dim").last.text_content() or "")
    assert seen.complaints == []
    assert {re.sub(r"^http://127.0.0.1:\d+", "", url) for url in seen.requests} <= {
        "/", "/v1/models", "/v1/chat/completions", "data:,",
    }  # fmt: skip


@in_browser
def test_tokens_are_coloured_and_told_with_their_alternatives_by_keyboard(visit: Callable[..., Visit]) -> None:
    page = visit().page
    ask(page, "Name three animals.", temperature="1", seed="3")
    assert page.locator(".token[class*=heat]").count() == 0
    for measure in ("probability", "entropy", "temperature"):
        page.locator("#colour").select_option(measure)
        assert page.locator(".token[class*=heat]").count() > 0 and page.locator("#legend").is_visible()
    assert page.locator(".token[tabindex='0']").count() == 1
    page.locator(".token").first.focus()
    first = page.locator("#token-card").inner_text()
    assert "probability" in first and page.locator("#token-card li").count() == 8
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement === document.querySelectorAll('.token')[1]")
    page.keyboard.press("End")
    assert page.evaluate("document.activeElement === [...document.querySelectorAll('.token')].at(-1)")
    page.locator(".token").first.hover()
    assert page.locator("#token-card").inner_text() == first
    page.keyboard.press("Escape")
    assert page.locator("#token-card").is_hidden()


@in_browser
@pytest.mark.parametrize("width", [375, 1200])
def test_the_card_of_a_token_leaves_the_answer_in_sight_in_a_low_window(
    visit: Callable[..., Visit], width: int
) -> None:
    seen = visit(width=width, height=500)
    page = seen.page
    ask(page, "Name three animals.", temperature="1", seed="3", max_tokens="12")
    page.locator(".token").first.focus()
    card, token = page.locator("#token-card"), page.locator(".token").first
    assert card.locator("li").count() == 8
    assert card.evaluate("one => one.scrollHeight <= one.clientHeight"), "all of it is seen without scrolling"
    around, inner = card.bounding_box(), token.bounding_box()
    assert around is not None and inner is not None
    assert around["height"] < 250, "half of the window is the answer's"
    assert inner["y"] >= 0 and inner["y"] + inner["height"] <= around["y"], "the focus is in sight"
    assert seen.violations() == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@in_browser
def test_several_answers_are_a_tree_of_their_tokens(visit: Callable[..., Visit]) -> None:
    page = visit().page
    ask(page, "Name three animals.", temperature="1", seed="1", n="4")
    page.wait_for_function("() => !document.querySelector('.tree').textContent.includes('…')")
    answers = page.locator(".tree .dim").all_inner_texts()
    assert sorted(re.findall(r"answer (\d)", " ".join(answers))) == ["1", "2", "3", "4"]


_GROWN = """async () => {
  const card = new AnswerCard("model", null), sizes = [];
  const drawn = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  for (const [index, id, text] of [[0, 1, "a"], [1, 1, "a"], [0, 2, "b"], [1, 3, "c"], [1, 4, "d"]]) {
    card.take({ choices: [{ index, delta: {}, ift: { tokens: [{ id, text, channel: "answer", logprob: -1 }] } }] });
    await drawn();
    sizes.push(card.tree.querySelectorAll("li").length);
  }
  return [sizes, [...card.tree.querySelectorAll(".piece")].map((piece) => piece.textContent)];
}"""


@in_browser
def test_the_tree_grows_with_every_chunk(visit: Callable[..., Visit]) -> None:
    assert visit().page.evaluate(_GROWN) == [[0, 1, 2, 3, 3], ["a", "b", "cd"]]


@in_browser
def test_a_vote_shows_its_samples_once_they_are_told(visit: Callable[..., Visit]) -> None:
    page = visit().page
    ask(page, "What is 23 + 14?", temperature="0.8", seed="5", reasoning="vote", width="4")
    assert "vote:" in page.locator(".branches h3").inner_text()
    assert page.locator(".tree .chosen").count() == 1
    assert 2 <= page.locator(".tree ul li").count() <= 4


@in_browser
def test_base_and_adapter_answer_side_by_side_and_keep_their_own_history(visit: Callable[..., Visit]) -> None:
    page = visit().page
    page.get_by_label("tone (adapter)").check()
    ask(page, "Name three animals.", temperature="0", max_tokens="8")
    assert page.locator("article h3").all_inner_texts() == ["ift-tiny", "tone"]
    first, second = page.locator("article").all()
    a, b = first.bounding_box(), second.bounding_box()
    assert a is not None and b is not None and a["x"] < b["x"] and a["y"] == b["y"]
    texts = page.locator("article > .text:not(.thought)").all_text_contents()
    sent: list[Any] = []
    page.on("request", lambda request: sent.append(request.post_data_json) if request.post_data else None)
    ask(page, "Another one.")
    assert sorted(body["messages"][1]["content"] for body in sent) == sorted(texts)


@in_browser
def test_conversations_survive_a_reload_without_the_token(visit: Callable[..., Visit]) -> None:
    page = visit().page
    page.locator("#token").fill("a-secret-token-01")
    ask(page, "What is 23 + 14?", temperature="0", max_tokens="9")
    answer = page.locator("article .text:not(.thought)").text_content()
    assert "a-secret-token-01" not in page.evaluate("JSON.stringify({...localStorage, ...sessionStorage})")
    page.reload()
    page.wait_for_selector("#models input")
    assert page.locator("article .text:not(.thought)").text_content() == answer
    assert page.locator("#settings [name=max_tokens]").input_value() == "9"
    page.locator("#new").click()
    assert page.locator("article").count() == 0
    page.locator("#conversations button").click()
    assert page.locator("article").count() == 1
    page.locator("#forget").click()
    page.reload()
    page.wait_for_selector("#models input")
    assert page.locator("#conversations button").count() == 0


@in_browser
@pytest.mark.parametrize(
    "kept", ["nonsense", "[1, null]", '[{"id": "x", "turns": [{"prompt": "p", "answers": [null, {"more": 3}]}]}]']
)
def test_what_the_browser_kept_badly_is_left_out(visit: Callable[..., Visit], kept: str) -> None:
    seen = visit()
    seen.page.evaluate("kept => localStorage.setItem('ift-serve-playground', kept)", kept)
    seen.page.reload()
    seen.page.wait_for_selector("#models input")
    ask(seen.page, "What is 23 + 14?", temperature="0", max_tokens="4")
    assert seen.complaints == []


@in_browser
def test_the_commands_do_what_the_page_does(visit: Callable[..., Visit], serving: Serving) -> None:
    page = visit().page
    prompt = "It's 5 o'clock. $(touch x) \"quoted\" \\ `y`?"
    for name, value in {"temperature": "0", "max_tokens": "6", "stop": "Q'"}.items():
        page.locator(f"#settings [name={name}]").fill(value)
    page.locator("#prompt").fill(prompt)
    told = {}
    for kind in ("python", "curl", "buf"):
        page.locator("#command-kind").select_option(kind)
        told[kind] = page.locator("#command").text_content() or ""
    with Client(serving.address) as direct:
        wanted = direct.generate([Message("user", prompt)], temperature=0, max_new_tokens=6, stop=["Q'"]).text
        words = shlex.split(told["buf"])
        message = json_format.Parse(words[words.index("-d") + 1], pb.GenerateRequest())
        assert message.prompt.conversation.messages[0].parts[0].text == prompt
        assert (message.sampling.max_new_tokens, list(message.sampling.stop)) == (6, ["Q'"])
        assert words[-1] == f"http://{serving.address}/ift_serve.v1.InferenceService/Generate"
    words = shlex.split(told["curl"])
    body = json.loads(words[words.index("-d") + 1])
    assert body["messages"][0]["content"] == prompt
    pytest.importorskip("openai", reason="needs the package openai (extra dev)")
    ran = subprocess.run(
        [sys.executable, "-c", told["python"]], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.stdout == f"{wanted}\n", ran.stderr


@in_browser
def test_hostile_text_is_text(visit: Callable[..., Visit]) -> None:
    seen = visit()
    ask(
        seen.page, _HOSTILE, temperature="0", max_tokens="4", form="regex", form_text="<img src=x onerror=alert\\(2\\)>"
    )
    assert seen.page.locator(".turn img, .turn script, .turn style").count() == 0
    assert seen.page.locator(".asked").text_content() == _HOSTILE
    assert seen.complaints == []


@in_browser
def test_what_is_refused_is_told(visit: Callable[..., Visit]) -> None:
    page = visit().page
    page.locator("#other-models").fill("nobody")
    ask(page, "What is 23 + 14?", temperature="0")
    assert "nobody" in page.locator(".failed").inner_text()
    assert "1 of 2 answers failed" in page.locator("#said").inner_text()
    page.locator("#settings [name=form]").select_option("json_schema")
    page.locator("#settings [name=form_text]").fill("{")
    page.locator("#prompt").fill("x")
    page.locator("#send").click()
    assert "not JSON" in page.locator("#wrong").inner_text()


@in_browser
def test_escape_stops(visit: Callable[..., Visit], serving: Serving) -> None:
    page = visit().page
    page.locator("#settings [name=form]").select_option("regex")
    page.locator("#settings [name=form_text]").fill("[ab]{900}")
    page.locator("#settings [name=temperature]").fill("1")
    page.locator("#settings [name=max_tokens]").fill("900")
    page.locator("#prompt").fill("Go on.")
    page.locator("#send").click()
    page.wait_for_selector(".token")
    page.keyboard.press("Escape")
    page.wait_for_function("() => document.getElementById('stop').hidden")
    assert "stopped" in page.locator("article > p").last.inner_text()
    page.wait_for_function("() => !document.getElementById('send').disabled")


@in_browser
@pytest.mark.parametrize("width", [375, 1200])
@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_nothing_and_nothing_sticks_out(visit: Callable[..., Visit], width: int, dark: bool) -> None:
    seen = visit(width=width, dark=dark)
    page = seen.page
    page.get_by_label("tone (adapter)").check()
    ask(page, "What is 23 + 14? " + "w" * 200, temperature="0.9", seed="2", n="2", max_tokens="12")
    page.locator("#colour").select_option("probability")
    page.locator(".token").first.focus()
    assert seen.violations() == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.get_by_label("tone (adapter)").uncheck()
    ask(page, "What is 38 + 35?", n="", reasoning="vote", width="4")
    assert seen.violations() == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("document.activeElement.id") == "prompt"

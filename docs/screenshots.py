"""Screenshots of the playground for the README: a server of the embedded model, an adapter, a page, a browser.

Run by ``make screenshots``, which trains the adapter; ``python -m docs.screenshots ADAPTER`` takes one that is there.
Writes ``docs/images/*.png``. Needs Chromium and the package playwright.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.browser import chromium
from tests.support.playground import ask

IMAGES = Path(__file__).parent / "images"
_COMMAND = [sys.executable, "-c", "from ift_serve.cli import main; main()"]


@contextmanager
def _running(*arguments: str) -> Iterator[str]:
    """A command that tells where it listens; its first line."""
    process = subprocess.Popen([*_COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline()
    finally:
        process.terminate()
        process.wait()


def _fresh(page: Any) -> None:
    page.locator("#settings").evaluate("form => form.reset()")
    page.locator("#new").click()


def take(url: str, output: Path) -> None:
    """Three pictures: an answer with its tokens, base and adapter side by side, and a vote on a narrow screen."""
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1100, "height": 760}, color_scheme="light")
        page.goto(url)
        page.wait_for_selector("#models input")
        ask(page, "Name three animals.", temperature="1", seed="3")
        page.locator("#colour").select_option("entropy")
        page.locator("#turns .text:not(.thought) .token").first.focus()
        page.locator("#conversation-title").scroll_into_view_if_needed()
        page.screenshot(path=output / "playground-tokens.png")
        _fresh(page)
        page.get_by_label("ift-tiny (base)").check()
        page.get_by_label("style (adapter)").check()
        page.locator("#colour").select_option("probability")
        ask(page, "Name three animals.", temperature="1", seed="2", n="3", max_tokens="24")
        page.locator("#conversation-title").scroll_into_view_if_needed()
        page.screenshot(path=output / "playground-adapters.png")
        page.close()
        page = browser.new_page(viewport={"width": 375, "height": 760}, color_scheme="dark")
        page.goto(url)
        page.wait_for_selector("#models input")
        ask(page, "What is 47 + 38?", temperature="0.8", seed="1", reasoning="vote", width="8")
        page.locator("#turns").scroll_into_view_if_needed()
        page.screenshot(path=output / "playground-vote.png")


def _smaller(path: Path) -> None:
    """The same picture in at most 256 colours."""
    from PIL import Image

    with Image.open(path) as image:
        image.convert("RGB").quantize(128).save(path, optimize=True)


def main(arguments: list[str]) -> None:
    """Train the small adapter, or take one that is there, serve, look."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        adapter = Path(arguments[0]) if arguments else Path(folder) / "style"
        if not arguments:
            subprocess.run([*_COMMAND, "train", "style-small", "--set", f"output={adapter}"], check=True)
        serve = ("serve", "--port", "0", "--metrics-port", "-1", "--dtype", "float32", "--adapter", f"style={adapter}")
        with _running(*serve) as told:
            server = told.split(" on ")[1].split(",")[0]
            with _running("playground", "--port", "0", "--server", server) as line:
                take(line.split("playground on ")[1].strip(), IMAGES)
    for path in sorted(IMAGES.glob("playground-*.png")):
        _smaller(path)
        print(f"{path.name}: {path.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main(sys.argv[1:])

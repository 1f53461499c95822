"""What a person does on the playground's page."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page


def ask(page: Page, prompt: str, **fields: str) -> None:
    """Set fields of the settings, send the prompt, and wait for the end of the answers."""
    for name, value in fields.items():
        control = page.locator(f"#settings [name={name}]")
        if control.evaluate("one => one.tagName") == "SELECT":
            control.select_option(value)
        else:
            control.fill(value)
    page.locator("#prompt").fill(prompt)
    page.locator("#prompt").press("Control+Enter")
    page.wait_for_function("() => /complete|failed/.test(document.getElementById('said').textContent)")

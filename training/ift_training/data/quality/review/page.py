"""The review page; it holds no record. All that it shows of records comes by calls, and is put in as text."""

from __future__ import annotations

from ift_serve.pages.single_page import SinglePage

PAGE = SinglePage("ift_training.data.quality.review", "calls.js", "record.js", "start.js")

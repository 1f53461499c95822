"""What a server's metrics say, read from its metrics port: single values, and quantiles of what happened in between."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from collections import defaultdict
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

_LARGEST = 16 * 2**20


class ScrapeError(ValueError):
    """The metrics cannot be read; the message says what to do."""


@dataclass(frozen=True)
class Scrape:
    """Samples at one time, ``when`` (seconds of the monotonic clock), by name and then by their labels."""

    when: float
    samples: dict[str, dict[tuple[tuple[str, str], ...], float]] = field(default_factory=dict)

    def value(self, name: str) -> float:
        """The sum over all labels; 0 where there is no such metric."""
        return sum(self.samples.get(name, {}).values())

    def by_label(self, name: str, label: str) -> dict[str, float]:
        """Sums by the value of one label."""
        found: dict[str, float] = defaultdict(float)
        for labels, value in self.samples.get(name, {}).items():
            found[dict(labels).get(label, "")] += value
        return dict(found)

    def buckets(self, name: str) -> list[tuple[float, float]]:
        """Bounds of a histogram, ascending, and how many observations were at most that."""
        by_bound = self.by_label(f"{name}_bucket", "le")
        return sorted((float(bound), count) for bound, count in by_bound.items())


def parse(text: str, when: float) -> Scrape:
    """Prometheus' text format. Raises ScrapeError where it is none."""
    samples: dict[str, dict[tuple[tuple[str, str], ...], float]] = defaultdict(dict)
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                samples[sample.name][tuple(sorted(sample.labels.items()))] = sample.value
    except ValueError as error:
        raise ScrapeError(f"not Prometheus' text format: {error}") from None
    return Scrape(when, dict(samples))


def scrape(url: str, timeout: float = 5.0) -> Scrape:
    """Read the metrics at ``url``. Raises ScrapeError."""
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:
            text = answer.read(_LARGEST).decode()
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else type(error).__name__
        raise ScrapeError(f"metrics at {url} cannot be read: {reason}; is --metrics right?") from None
    return parse(text, time.monotonic())


def rate(before: Scrape, after: Scrape, name: str) -> float:
    """A counter's growth a second; of one that began anew, what it has reached since."""
    seconds = after.when - before.when
    grown = after.value(name) - before.value(name)
    return 0.0 if seconds <= 0 else (grown if grown >= 0 else after.value(name)) / seconds


def quantile(before: Scrape | None, after: Scrape, name: str, share: float) -> float | None:
    """Of a histogram's observations between two scrapes (``before`` None: of all), linear within a bucket.

    None where there were none; the largest finite bound where it lies beyond that.
    """
    earlier = dict(before.buckets(name)) if before is not None else {}
    counts = [(bound, max(0.0, count - earlier.get(bound, 0.0))) for bound, count in after.buckets(name)]
    if not counts or not counts[-1][1]:
        return None
    rank, low, below = share * counts[-1][1], 0.0, 0.0
    for bound, count in counts:
        if count >= rank:
            if bound == float("inf"):
                return low
            return low + (bound - low) * (rank - below) / (count - below) if count > below else bound
        low, below = bound, count
    return low

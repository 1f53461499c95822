"""The dashboard and the alerts ask only for metrics that a server really exports, by labels that these have."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from ift_serve.server.config import ServerConfig
from tests.support.serving import serving

CHART = Path(__file__).parents[2] / "deploy/helm/ift-serve"
DASHBOARD = json.loads((CHART / "dashboards/ift-serve.json").read_text())
ALERTS = yaml.safe_load((CHART / "alerts.yaml").read_text())
GIVEN = {"job", "instance"}
"""Labels that Prometheus adds."""
COUNTED_LATER = {"ift_adapter_requests_in_flight": {"adapter"}}
"""Labels of what has no sample while there is nothing to count."""


def panels() -> Iterator[dict[str, Any]]:
    return (panel for panel in DASHBOARD["panels"] if panel["type"] != "row")


def queries() -> list[str]:
    asked = [target["expr"] for panel in panels() for target in panel["targets"]]
    return [*asked, *(rule["expr"] for group in ALERTS["groups"] for rule in group["rules"])]


async def labels_by_name(config: ServerConfig) -> dict[str, set[str]]:
    """Samples of a server that has answered, with the labels that they have."""
    async with serving(config) as (server, client):
        await client.generate("the fox", max_new_tokens=4)
        found: dict[str, set[str]] = {}
        for family in text_string_to_metric_families(generate_latest(server.metrics.registry).decode()):
            found.setdefault(family.name, set())
            for sample in family.samples:
                found.setdefault(sample.name, set()).update(sample.labels)
        return {**found, **COUNTED_LATER}


def asked_for(query: str) -> list[tuple[str, set[str]]]:
    """Metrics of a query with the labels that they are chosen by."""
    chosen = re.findall(r"\b(ift_\w+)(?:\{([^}]*)\})?", query)
    return [(name, set(re.findall(r"(\w+)\s*[=!]", labels))) for name, labels in chosen]


async def test_every_query_names_metrics_and_labels_that_a_server_exports(
    server_config: Callable[..., ServerConfig],
) -> None:
    known = await labels_by_name(server_config())
    for query in queries():
        asked = asked_for(query)
        assert asked, query
        for name, labels in asked:
            assert name in known, f"{name} in {query}"
            assert labels <= known[name] | GIVEN, query
        grouped = set(re.split(r"[,\s]+", ",".join(re.findall(r"by \(([^)]*)\)", query)))) - {""}
        own = set.union(*(known[name] for name, _ in asked))
        assert grouped <= own | GIVEN, query


async def test_every_metric_is_shown(server_config: Callable[..., ServerConfig]) -> None:
    known = {name for name in await labels_by_name(server_config()) if name.startswith("ift_")}
    shown = {re.sub(r"_(bucket|total)$", "", name) for query in queries() for name, _ in asked_for(query)}
    families = {re.sub(r"_(bucket|count|sum|created|total)$", "", name) for name in known}
    own = {"ift_engine_prompt_tokens"}  # what callers asked for is shown in its place
    assert families - own <= shown


def test_panels_lie_beside_each_other_and_have_what_grafana_needs() -> None:
    places: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        grid = panel["gridPos"]
        assert grid["x"] + grid["w"] <= 24
        cells = {
            (x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert not cells & places, panel["title"]
        places |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in panels())
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = {name for query in queries() for name in re.findall(r"\$(\w+)", query)} - {"__rate_interval"}
    assert used <= variables


def test_prometheus_itself_reads_every_query(tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("needs the binary promtool (package prometheus)")
    asked = [re.sub(r"\$__rate_interval", "5m", query) for query in queries()]
    rules = [{"record": f"q:{number}", "expr": query} for number, query in enumerate(asked)]
    files = {"dashboard.yaml": {"groups": [{"name": "g", "rules": rules}]}, "alerts.yaml": ALERTS}
    for name, content in files.items():
        (tmp_path / name).write_text(yaml.safe_dump(content))
        done = subprocess.run(["promtool", "check", "rules", str(tmp_path / name)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

"""What a collector gets over OTLP: from a real server, at a receiver made of OpenTelemetry's own definitions."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from ift_serve.client import AsyncClient
from ift_serve.engines.thread import local_engine
from ift_serve.server.app import Server
from ift_serve.server.config import ServerConfig
from tests.frontend.test_engine_client import until
from tests.support.otlp_receiver import otlp_receiver

Make = Callable[..., ServerConfig]
ROOT = Path(__file__).parents[3]


@asynccontextmanager
async def sending(config: ServerConfig) -> AsyncIterator[tuple[Server, AsyncClient]]:
    server = Server(config, local_engine(config.engine))
    await server.start()
    try:
        async with AsyncClient(f"127.0.0.1:{server.port}", timeout=60) as client:
            yield server, client
    finally:
        await server.stop()


def text_of(value: Any) -> Any:
    return getattr(value, value.WhichOneof("value"))


def attributes(message: Any) -> dict[str, Any]:
    return {pair.key: text_of(pair.value) for pair in message.attributes}


def prometheus_samples(registry: CollectorRegistry) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """As Prometheus' own parser reads them, less the times at which counters were made."""
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def received_samples(metrics: dict[str, Any]) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """The same of what a collector got, by the rules by which OpenTelemetry's histograms become Prometheus'."""
    found: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for name, metric in metrics.items():
        kind = metric.WhichOneof("data")
        for point in getattr(metric, kind).data_points:
            labels = tuple(sorted(attributes(point).items()))
            if kind != "histogram":
                found[name, labels] = point.as_double if point.HasField("as_double") else point.as_int
                continue
            assert not point.HasField("min") and not point.HasField("max")
            found[f"{name}_count", labels], found[f"{name}_sum", labels] = point.count, point.sum
            below = 0
            for bound, count in zip((*point.explicit_bounds, float("inf")), point.bucket_counts, strict=True):
                below += count
                le = "+Inf" if bound == float("inf") else repr(bound)
                found[f"{name}_bucket", tuple(sorted((*labels, ("le", le))))] = below
    return found


async def test_collector_and_prometheus_get_the_same_metrics(
    server_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "50")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=blue")
    with otlp_receiver() as receiver:
        async with sending(server_config(otlp_endpoint=f"http://{receiver.address}")) as (server, client):
            for number in range(3):
                await client.generate(f"the fox {number}", temperature=0, max_new_tokens=8, ignore_eos=True)
            await until(lambda: server.metrics.in_flight._value.get() == 0)
            here = prometheus_samples(server.metrics.registry)
            sent = len(receiver.metrics)
            await until(lambda: len(receiver.metrics) > sent + 1)
            there = received_samples(receiver.last_metrics)
        moving = ("ift_process", "ift_event_loop_blocked")
        assert {name for name, _ in here} == {name for name, _ in there}
        still = {key: value for key, value in here.items() if not key[0].startswith(moving)}
        assert len(still) > 80 and {key: there[key] for key in still} == still
        assert there["ift_generated_tokens_total", ()] == 24
        tokens = receiver.last_metrics["ift_generated_tokens_total"].sum
        assert tokens.is_monotonic and tokens.aggregation_temporality == 2, "cumulative"
        assert tokens.data_points[0].start_time_unix_nano < tokens.data_points[0].time_unix_nano
        assert receiver.last_metrics["ift_queue_seconds"].unit == "s"
        assert receiver.headers["x-tenant"] == "blue"


def test_labelled_histograms_and_awkward_numbers_become_points() -> None:
    from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
    from opentelemetry.sdk.resources import Resource

    from ift_serve.server.telemetry.metrics_push import metrics_data

    registry = CollectorRegistry()
    wait = Histogram("wait_seconds", "w", ["who"], buckets=(0.1, 1.0), registry=registry)
    for who, seconds in (("a", 0.1), ("a", 0.5), ("b", 70.0)):
        wait.labels(who).observe(seconds)
    Histogram("idle_seconds", "i", registry=registry)
    Counter("made", "m", ["le"], registry=registry).labels("1").inc(2.5)
    Gauge("depth", "d", registry=registry).set(float("nan"))
    encoded = encode_metrics(metrics_data(registry, Resource.create(), 1, 2))
    there = received_samples({m.name: m for m in encoded.resource_metrics[0].scope_metrics[0].metrics})
    here = prometheus_samples(registry)
    assert here.keys() == there.keys()
    assert {k: v for k, v in here.items() if v == v} == {k: v for k, v in there.items() if v == v}


async def test_environment_alone_turns_it_on_and_names_who_sends(
    server_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    with otlp_receiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{receiver.address}")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "answers")
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
        async with sending(server_config()) as (_, client):
            await client.generate("the fox", max_new_tokens=2)
        assert receiver.metrics == []
        names = [span.name for span in receiver.spans]
        assert names.count("ift_serve.v1.InferenceService/Generate") == 1, "the rest is sent before the server ends"
        resource = attributes(receiver.traces[0].resource_spans[0].resource)
        assert resource["service.name"] == "answers" and resource["deployment.environment.name"] == "test"
        assert resource["service.version"] and resource["service.instance.id"]


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin", "OTEL_TRACES_EXPORTER: 'zipkin' is not served"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "OTEL_EXPORTER_OTLP_PROTOCOL: 'http/json' is not served"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "soon", "OTEL_METRIC_EXPORT_INTERVAL: 'soon'"),
    ],
)
async def test_an_environment_that_is_not_served_is_named(
    server_config: Make, monkeypatch: pytest.MonkeyPatch, name: str, value: str, problem: str
) -> None:
    monkeypatch.setenv(name, value)
    config = server_config(otlp_endpoint="http://127.0.0.1:1")
    with pytest.raises(ValueError, match=problem):
        Server(config, local_engine(config.engine))


@pytest.mark.parametrize("endpoint", ["collector:4317", "http://", "ftp://c:1", "http://user:secret@c:1"])
def test_an_endpoint_that_is_none_is_named(server_config: Make, endpoint: str) -> None:
    with pytest.raises(ValueError, match="otlp_endpoint: write http://HOST:PORT"):
        server_config(otlp_endpoint=endpoint)


async def test_without_the_library_the_option_is_refused_and_the_environment_warned_of(
    server_config: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in [name for name in sys.modules if name.startswith(("opentelemetry", "ift_serve.server.telemetry.exp"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    config = server_config(otlp_endpoint="http://127.0.0.1:1")
    with pytest.raises(ValueError, match=r"otlp_endpoint: .*pip install 'ift-serve\[otel\]'"):
        Server(config, local_engine(config.engine))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:1")
    async with sending(server_config()) as (_, client):
        assert (await client.generate("the fox", max_new_tokens=2)).usage.generated_tokens == 2
    assert "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is set, but nothing is sent there" in caplog.text


@pytest.mark.parametrize("module", ["ift_serve.server.app", "ift_serve.client", "ift_serve.engine.worker"])
def test_nothing_is_imported_that_nobody_asks_for(module: str) -> None:
    code = f"import sys, {module}; sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def serve(*options: str, **environment: str) -> subprocess.Popen[str]:
    """The command, once it is ready."""
    command = [sys.executable, "-c", "from ift_serve.cli import main; main()", "serve", "--port", "0", *options]
    process = subprocess.Popen(
        [*command, "--metrics-port", "-1", "--cache-mib", "16", "--threads", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
        cwd=ROOT,
    )
    assert process.stdout is not None and process.stdout.readline().startswith("ift-serve ready on ")
    return process


def test_a_collector_that_is_not_there_holds_nothing_up() -> None:
    process = serve("--otlp-endpoint", "http://127.0.0.1:9", "--trace-ratio", "1", OTEL_METRIC_EXPORT_INTERVAL="100")
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 0 and time.monotonic() - began < 40
    assert '"logger": "opentelemetry' in said, "what could not be sent is logged as everything is"


_COLLECTOR = """
receivers: {otlp: {protocols: {grpc: {endpoint: "127.0.0.1:%d"}}}}
exporters: {debug: {verbosity: detailed}}
service:
  telemetry: {metrics: {level: none}}
  pipelines:
    metrics: {receivers: [otlp], exporters: [debug]}
    traces: {receivers: [otlp], exporters: [debug]}
"""


@contextmanager
def collector(binary: str, folder: Path) -> Iterator[tuple[str, Path]]:
    """A collector's endpoint, and the file in which it writes what it gets."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "collector.yaml").write_text(_COLLECTOR % port)
    written = folder / "written"
    with (
        written.open("w") as file,
        subprocess.Popen([binary, "--config", str(folder / "collector.yaml")], stderr=file, stdout=file) as process,
    ):
        try:
            yield f"http://127.0.0.1:{port}", written
        finally:
            process.terminate()


def test_a_real_collector_takes_it(tmp_path: Path) -> None:
    binary = shutil.which("otelcol") or shutil.which("otelcol-contrib")
    if binary is None:
        pytest.skip("needs the binary otelcol or otelcol-contrib")
    with collector(binary, tmp_path) as (endpoint, written):
        process = serve("--otlp-endpoint", endpoint, OTEL_METRIC_EXPORT_INTERVAL="100")
        deadline = time.monotonic() + 60
        while "ift_engine_ready" not in written.read_text() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        assert "ift_engine_ready" in written.read_text()

"""The configuration of a deployment: what is accepted, and how what is not is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ift_serve.cli import app
from ift_serve.deploy.ray.config import ConfigFileError, RayConfig, read_config
from ift_serve.deploy.ray.deployment import environment_of, options_of, version_of

SERVER = {"engine": {"model": "somewhere"}}


def read(path: Path, text: str) -> RayConfig:
    path.write_text(text)
    return read_config(path, "the-embedded-one", "its-name")


def test_a_configuration_that_says_nothing_serves_the_embedded_model(tmp_path: Path) -> None:
    found = read(tmp_path / "empty.yaml", "")
    assert found.server.engine.model == "the-embedded-one" and found.server.engine.model_name == "its-name"
    assert options_of(found, {})["num_replicas"] == 1


def test_a_model_that_is_named_is_served(tmp_path: Path) -> None:
    found = read(tmp_path / "one.yaml", "replicas: 3\nserver: {engine: {model: /models/one}}")
    assert found.server.engine.model == "/models/one" and options_of(found, {})["num_replicas"] == 3


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("replica: 2", "replica"),
        ("replicas: 0", "replicas"),
        ("replicas: 2\nautoscaling: {max_replicas: 4}", "replicas and autoscaling"),
        ("autoscaling: {min_replicas: 5, max_replicas: 4}", "max_replicas"),
        ("autoscaling: {max_replicas: 4, target_cache: 1.5}", "target_cache"),
        ("port: 8000", "port"),
        ("drain_timeout: .inf", "drain_timeout"),
        ("server: {port: 50051}", "server.port"),
        ("server: {tls_key: key.pem}", "server.tls_key"),
        ("server: {adapter_folder: /adapters}", "server.adapter_folder"),
        ("server: {engine: {threds: 1}}", "server.engine.threds"),
        ("server: [1]", "server"),
        ("- one", "holds no fields"),
        ("a: [", "is not YAML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(ConfigFileError) as refused:
        read(tmp_path / "wrong.yaml", text)
    assert named in str(refused.value) and "wrong.yaml" in str(refused.value)


def test_ray_holds_no_call_back_that_the_server_would_take() -> None:
    """Or two replicas whose places are all taken by calls for one another would wait for ever."""
    found = RayConfig.model_validate({"server": SERVER | {"max_calls": 7}})
    taken = found.server.max_calls + 2 * (found.server.max_admin_calls + found.server.max_watches)
    assert options_of(found, {})["max_ongoing_requests"] > 2 * taken


def test_variables_that_are_set_go_before_our_own() -> None:
    found = RayConfig.model_validate({"server": SERVER, "environment": {"RAY_SERVE_HAPROXY_NBTHREAD": "1"}})
    environment = environment_of(found, "haproxy")
    assert environment["RAY_SERVE_ENABLE_HA_PROXY"] == "1" and environment["RAY_SERVE_HAPROXY_NBTHREAD"] == "1"
    assert environment_of(found, "python")["RAY_SERVE_ENABLE_HA_PROXY"] == "0"


def test_haproxys_old_process_ends_no_call_before_its_replica_would() -> None:
    """A change of replicas starts HAProxy anew, and the old process holds the calls that had begun."""
    for seconds, wanted in ((30, "120"), (600.5, "601")):
        found = RayConfig.model_validate({"server": SERVER, "drain_timeout": seconds})
        assert environment_of(found, "haproxy")["RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S"] == wanted


def test_deploying_again_makes_new_replicas_only_of_what_has_changed() -> None:
    found = RayConfig.model_validate({"server": SERVER, "replicas": 2})
    version = version_of(found, {"A": "1"})
    more = RayConfig.model_validate({"server": SERVER, "replicas": 5, "drain_timeout": 7, "resources": {"cpus": 3}})
    assert version_of(more, {"A": "1"}) == version
    other = RayConfig.model_validate({"server": {"engine": {"model": "elsewhere"}}})
    assert len({version, version_of(other, {"A": "1"}), version_of(found, {"A": "2"})}) == 3


def test_the_command_says_what_a_configuration_comes_to(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("ingress: python\nautoscaling: {max_replicas: 4}")
    result = CliRunner().invoke(app, ["deploy", "ray", str(path), "--check", "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.output)
    assert told["replicas"] == [1, 4] and told["ingress"] == "python" and told["model"] == "ift-tiny"
    assert told["deployed"] is False


def test_the_command_refuses_a_wrong_configuration(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("server: {host: 0.0.0.0}")
    result = CliRunner().invoke(app, ["deploy", "ray", str(path), "--check"])
    assert result.exit_code == 1 and "server.host" in result.output

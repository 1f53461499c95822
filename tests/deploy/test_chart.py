"""The Helm chart: linted and rendered by helm, every object held against Kubernetes' own schemas."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from ift_serve.cli import app
from ift_serve.server.app import LIVENESS
from ift_serve.server.run import GRACE

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/helm/ift-serve"
CUSTOM = {"ServiceMonitor", "PrometheusRule", "InferencePool"}
"""Kinds that clusters know of only with the operator or gateway that they are for."""
TLS = ["tls.secretName=certificate"]
MUTUAL = [*TLS, "tls.mutual=true", "tls.probeSecretName=probe"]
EVERYTHING = [
    "replicas=3", "model.existingClaim=models", "model.path=/models/smol", "model.name=smol",
    "adapters.existingClaim=adapters", "tokens.secretName=tokens", "otlp.endpoint=http://collector:4317",
    "otlp.traceRatio=0", "serviceMonitor.enabled=true", "serviceMonitor.labels.release=prometheus",
    "alerts.enabled=true", "dashboard.enabled=true", "networkPolicy.enabled=true", "inference.pool.enabled=true",
    "inference.pool.picker.name=picker", "image.pullSecrets[0].name=registry", "podLabels.team=blue",
    "podAnnotations.note=hello", "server.extraArgs[0]=--max-calls=64", "extraEnv[0].name=A", "extraEnv[0].value=b",
    "networkPolicy.callers[0].podSelector.matchLabels.app=web", "nodeSelector.gpu=yes", "priorityClassName=high",
    "extraVolumes[0].name=x", "extraVolumes[0].emptyDir.medium=Memory", "extraVolumeMounts[0].name=x",
    "extraVolumeMounts[0].mountPath=/x", "tolerations[0].operator=Exists", "runtimeClassName=nvidia",
    "topologySpreadConstraints[0].maxSkew=1", "topologySpreadConstraints[0].topologyKey=zone",
    "topologySpreadConstraints[0].whenUnsatisfiable=ScheduleAnyway",
]  # fmt: skip
SETTINGS = {"as it is": [], "everything": EVERYTHING, "tls": TLS, "mutual tls": MUTUAL}


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    beside = Path(sys.executable).parent / "helm"
    binary = str(beside) if beside.exists() else shutil.which("helm")
    if binary is None:
        pytest.skip("needs the binary helm (package helm-binary)")
    return subprocess.run([binary, *arguments], capture_output=True, text=True, check=False)


def options(settings: list[str]) -> list[str]:
    return [part for setting in settings for part in ("--set-json" if _is_number(setting) else "--set", setting)]


def _is_number(setting: str) -> bool:
    return setting.partition("=")[2] in ("0", "0.5")


def rendered(*settings: str) -> list[dict[str, Any]]:
    done = helm("template", "release", str(CHART), "--namespace", "serving", *options(list(settings)))
    assert done.returncode == 0, done.stderr
    return [found for found in yaml.safe_load_all(done.stdout) if found]


def one(objects: list[dict[str, Any]], kind: str, ending: str = "") -> dict[str, Any]:
    (found,) = [o for o in objects if o["kind"] == kind and o["metadata"]["name"] == f"release-ift-serve{ending}"]
    return found


def container(objects: list[dict[str, Any]]) -> dict[str, Any]:
    (found,) = one(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    return dict(found)


def test_text_that_yaml_would_read_otherwise_arrives_as_it_is() -> None:
    """Release, namespace and names of objects may be digits alone, and a model's name may be anything."""
    given = {
        "fullnameOverride": "2024", "serviceAccount.name": "1e3", "priorityClassName": "7", "runtimeClassName": "0x1",
        "tokens.secretName": "08", "model.existingClaim": "1", "model.name": "my model: #1", "tls.secretName": "5",
        "tls.authorityKey": "a #b",
    }  # fmt: skip
    settings = [part for name, value in given.items() for part in ("--set-string", f"{name}={value}")]
    done = helm("template", "1999", str(CHART), "--namespace", "42", *settings)
    assert done.returncode == 0, done.stderr
    objects = [found for found in yaml.safe_load_all(done.stdout) if found]
    for found in objects:
        assert found["metadata"]["namespace"] == "42" and isinstance(found["metadata"]["name"], str)
        assert found["metadata"]["labels"]["app.kubernetes.io/instance"] == "1999"
    (deployment,) = [found for found in objects if found["kind"] == "Deployment"]
    pod = deployment["spec"]["template"]["spec"]
    assert deployment["metadata"]["name"] == "2024"
    assert [pod[name] for name in ("serviceAccountName", "priorityClassName", "runtimeClassName")] == [
        "1e3",
        "7",
        "0x1",
    ]
    assert "--name=my model: #1" in pod["containers"][0]["args"]
    assert "--authority=/etc/ift-serve/tls/a #b" in pod["containers"][0]["readinessProbe"]["exec"]["command"]
    volumes = {one["name"]: one for one in pod["volumes"]}
    assert volumes["tokens"]["secret"]["secretName"] == "08" and volumes["tls"]["secret"]["secretName"] == "5"
    assert volumes["models"]["persistentVolumeClaim"]["claimName"] == "1"


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
def test_the_chart_is_clean_and_every_object_is_one_that_kubernetes_knows(settings: list[str]) -> None:
    linted = helm("lint", "--strict", str(CHART), *options(settings))
    assert linted.returncode == 0, linted.stdout
    schemas = pytest.importorskip("kubernetes_validate", reason="needs the package kubernetes-validate")
    for found in rendered(*settings):
        assert found["metadata"]["namespace"] == "serving"
        if found["kind"] not in CUSTOM:
            for version in ("1.27", "1.34"):
                schemas.validate(found, version, strict=True)


def test_the_schemas_find_what_kubernetes_does_not_know() -> None:
    schemas = pytest.importorskip("kubernetes_validate", reason="needs the package kubernetes-validate")
    deployment = one(rendered(), "Deployment")
    deployment["spec"]["template"]["spec"]["containers"][0]["readOnlyRootFilesystem"] = True
    with pytest.raises(schemas.ValidationError):
        schemas.validate(deployment, "1.34", strict=True)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
def test_the_server_knows_every_option_that_it_is_given(settings: list[str]) -> None:
    command: Any = typer.main.get_command(app)
    known = {
        name for parameter in command.commands["serve"].params for name in (*parameter.opts, *parameter.secondary_opts)
    }
    command_name, *arguments = container(rendered(*settings))["args"]
    assert command_name == "serve"
    given = [argument.partition("=")[0] for argument in arguments if argument.startswith("--")]
    assert given and set(given) <= known
    assert len(arguments) - len(given) == (settings is EVERYTHING), "the model alone has no name"
    health = {name for parameter in command.commands["health"].params for name in parameter.opts}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = container(rendered(*settings))[probe].get("exec", {}).get("command", [])
        assert {argument.partition("=")[0] for argument in asked[2:]} <= health


def test_a_pod_has_the_time_that_its_drain_takes() -> None:
    objects = rendered("server.drainNotice=7", "server.drainSeconds=90")
    arguments = container(objects)["args"]
    assert "--drain-notice=7" in arguments and "--drain-timeout=90" in arguments
    pod = one(objects, "Deployment")["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > 7 + 90 + GRACE


def test_probes_ask_the_health_service_and_liveness_only_of_the_process() -> None:
    asked = container(rendered("server.port=6000", "model.startSeconds=61"))
    assert asked["startupProbe"]["grpc"] == asked["readinessProbe"]["grpc"] == {"port": 6000}
    assert asked["livenessProbe"]["grpc"] == {"port": 6000, "service": LIVENESS}
    assert asked["startupProbe"]["failureThreshold"] * asked["startupProbe"]["periodSeconds"] >= 61
    encrypted = container(rendered(*MUTUAL))
    command = encrypted["livenessProbe"]["exec"]["command"]
    assert command[:2] == ["ift-serve", "health"] and f"--service={LIVENESS}" in command
    assert not any("grpc" in encrypted[probe] for probe in ("startupProbe", "readinessProbe", "livenessProbe"))
    mounted = tuple(mount["mountPath"] for mount in encrypted["volumeMounts"])
    paths = [argument.partition("=")[2] for argument in (*command, *encrypted["args"]) if "=/" in argument]
    assert len(paths) >= 6 and all(path.startswith(mounted) for path in paths)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
def test_a_pod_has_no_rights_and_writes_only_where_it_may(settings: list[str]) -> None:
    pod = one(rendered(*settings), "Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    (server,) = pod["containers"]
    assert server["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert set(volumes) == {mount["name"] for mount in server["volumeMounts"]}
    writable = {m["mountPath"] for m in server["volumeMounts"] if not m.get("readOnly") and m["name"] != "x"}
    assert writable == {"/cache", "/tmp"}
    assert all(volumes[name]["emptyDir"]["sizeLimit"] for name in ("cache", "temporary"))
    assert {"name": "IFT_CACHE_DIR", "value": "/cache"} in server["env"]
    assert server["resources"]["limits"].keys() >= {"cpu", "memory"}
    given = "".join(server["args"]) + str(server["env"])
    assert "secretKeyRef" not in given, "tokens and keys are files: they can be renewed without a restart"


def test_services_and_monitors_find_the_pods() -> None:
    objects = rendered(*EVERYTHING)
    pod = one(objects, "Deployment")["spec"]["template"]
    labels = pod["metadata"]["labels"].items()
    ports = {port["name"]: port["containerPort"] for port in container(objects)["ports"]}
    services = [o for o in objects if o["kind"] == "Service"]
    assert len(services) == 3
    for service in services:
        assert service["spec"]["selector"].items() <= labels
        assert all(port["targetPort"] in ports for port in service["spec"]["ports"])
    for kind in ("PodDisruptionBudget", "InferencePool"):
        assert one(objects, kind)["spec"]["selector"]["matchLabels"].items() <= labels
    monitor = one(objects, "ServiceMonitor")
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    (scraped,) = [service for service in services if wanted <= service["metadata"]["labels"].items()]
    assert monitor["spec"]["endpoints"][0]["port"] == scraped["spec"]["ports"][0]["name"] == "metrics"
    assert one(objects, "Service")["spec"]["ports"][0]["appProtocol"] == "kubernetes.io/h2c"


def test_the_pool_is_one_by_the_rules_of_its_api() -> None:
    objects = rendered(*EVERYTHING)
    pool = one(objects, "InferencePool")
    assert pool["apiVersion"] == "inference.networking.k8s.io/v1"
    spec = pool["spec"]
    assert set(spec) == {"selector", "targetPorts", "appProtocol", "endpointPickerRef"}
    assert spec["targetPorts"] == [{"number": 50051}] and spec["appProtocol"] == "kubernetes.io/h2c"
    assert spec["endpointPickerRef"] == {"name": "picker", "port": {"number": 9002}, "failureMode": "FailOpen"}
    pod = one(objects, "Deployment")["spec"]["template"]
    assert pod["metadata"]["labels"]["llm-d.ai/engine-type"] == "vllm"
    assert "--picker-metrics" in container(objects)["args"]
    plain = one(rendered("inference.pickerMetrics=false"), "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert "llm-d.ai/engine-type" not in plain


def test_who_may_connect_is_nobody_until_somebody_is_named() -> None:
    closed = one(rendered("networkPolicy.enabled=true"), "NetworkPolicy")["spec"]
    assert closed["ingress"] == [] and closed["policyTypes"] == ["Ingress"]
    (rule,) = one(rendered(*EVERYTHING), "NetworkPolicy")["spec"]["ingress"]
    assert rule["ports"] == [{"port": "grpc"}], "callers see no metrics"


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (["tls.mutual=true"], "tls.mutual: needs tls.secretName"),
        ([*TLS, "tls.mutual=true"], "tls.probeSecretName"),
        (["inference.pool.enabled=true"], "inference.pool.picker.name"),
        (["inference.pool.enabled=true", "inference.pool.picker.name=p", *TLS], "plain HTTP/2"),
        (["server.prot=1"], "prot"),
        (["replicas=-1"], "replicas"),
        (["otlp.endpoint=collector:4317"], "otlp.endpoint"),
        (["server.port=80"], "server.port"),
    ],
)
def test_values_that_make_no_sense_are_refused_by_name(settings: list[str], problem: str) -> None:
    done = helm("template", "release", str(CHART), *options(settings))
    assert done.returncode != 0 and problem in done.stderr


def test_the_chart_is_of_the_packages_version() -> None:
    package = (ROOT / "pyproject.toml").read_text()
    assert f'version = "{yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]}"' in package

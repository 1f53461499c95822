"""`ift-serve deploy`: serve on a cluster."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated

import typer

from ift_serve.cli.connect import fail

app = typer.Typer(help="Serve on a cluster.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Serve on a cluster."""


@app.command("ray")
def deploy_on_ray(
    config: Annotated[Path, typer.Argument(help="YAML; docs/ray.md has every field", exists=True, dir_okay=False)],
    check: Annotated[bool, typer.Option("--check", help="read the configuration and say what it comes to")] = False,
    json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Put replicas on a Ray cluster, behind Ray Serve's gRPC ingress; returns once they are ready.

    With `address: null` the cluster is one of this machine, until Ctrl-C.
    """
    from ift_serve.deploy.ray.config import ConfigFileError, read_config
    from ift_serve.deploy.ray.deployment import DeployError, deploy, ingress_of
    from ift_serve.embedded import EMBEDDED_NAME, model_path

    try:
        chosen = read_config(config, str(model_path()), EMBEDDED_NAME)
        ingress = ingress_of(chosen) if check else deploy(chosen)
    except (ConfigFileError, DeployError) as error:
        raise fail(str(error)) from None
    replicas: object = chosen.replicas or 1
    if chosen.autoscaling is not None:
        replicas = [chosen.autoscaling.min_replicas, chosen.autoscaling.max_replicas]
    told = {
        "application": chosen.application,
        "model": chosen.server.engine.model_name or chosen.server.engine.model,
        "port": chosen.port,
        "ingress": ingress,
        "replicas": replicas,
        "deployed": not check,
    }
    if json:
        print(json_module.dumps(told), flush=True)
    else:
        verb = "would serve" if check else "serves"
        what = f"{told['application']} {verb} {told['model']} on gRPC port {told['port']} of Ray's {ingress} ingress"
        print(f"{what}, replicas: {replicas}", flush=True)
    if not check and chosen.address is None:
        _stay()


def _stay() -> None:
    """Keep this machine's cluster until Ctrl-C or SIGTERM."""
    import signal
    import threading

    import ray
    from ray import serve

    asked = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: asked.set())
    asked.wait()
    serve.shutdown()
    ray.shutdown()

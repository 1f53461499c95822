"""One of two processes that train together; each writes what it saw beside the plan. To be run forked.

The plan is JSON: ``model``, ``output``, ``store`` (a file to meet at), ``settings``, ``options``,
``examples``. The run is made twice, replicated and sharded: to begin a process takes longer than to train in it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

_SHARDING = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
}


def _shard_on_cpu() -> None:
    """accelerate shards on GPUs only; PyTorch's sharding itself runs over gloo just as well."""
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedType

    begin = AcceleratorState.__init__

    def opened(self: Any, *args: Any, fsdp_plugin: Any = None, **options: Any) -> None:
        begin(self, *args, fsdp_plugin=fsdp_plugin, **options)
        if fsdp_plugin is not None:
            self.distributed_type = DistributedType.FSDP
            self.fsdp_plugin = fsdp_plugin

    AcceleratorState.__init__ = opened


def _join(plan: dict[str, Any], rank: int) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    import torch

    torch.distributed.init_process_group("gloo", init_method=f"file://{plan['store']}", rank=rank, world_size=2)


def _layers_are_shards_of_their_own(model: Any) -> bool:
    from torch.distributed.fsdp import FSDPModule

    return all(isinstance(layer, FSDPModule) for layer in model.causal.base_model.layers)


def train(plan: dict[str, Any], output: Path) -> dict[str, Any]:
    """Train, and train again from the first checkpoint."""
    import torch

    from ift_training.settings import TrainerSettings
    from tests.support.training import examples, trainer

    chosen = TrainerSettings.model_validate(plan["settings"])
    data, held = examples(plan["examples"]), examples(5, seed=9)
    options = {**plan["options"], "validation": held}
    run = trainer(Path(plan["model"]), chosen, data, output, **options)
    run.train()
    sharded = run.is_fsdp_enabled and _layers_are_shards_of_their_own(run.model)
    again = trainer(Path(plan["model"]), chosen, data, output / "again", **options)
    again.train(resume_from_checkpoint=str(output / "checkpoint-1"))
    run.save_model(str(output / "end"))
    if run.args.process_index == 0:
        run.write(output / "written")
    torch.distributed.barrier()
    lines = [line for line in run.state.log_history if "loss" in line]
    return {
        "grad_norms": [line["grad_norm"] for line in lines],
        "ewc": [line["loss_ewc"] for line in lines],
        "parts": {key: value for key, value in lines[0].items() if key.startswith("loss")},
        "evaluated": {k: v for k, v in run.state.log_history[1].items() if k.startswith("eval_loss")},
        "best": run.state.best_global_step,
        "sharded": sharded,
    }


def main(plan_path: Path, rank: int) -> None:
    """Both runs."""
    plan = json.loads(plan_path.read_text())
    _join(plan, rank)
    import torch
    from accelerate.state import AcceleratorState

    report = {"replicated": train(plan, Path(plan["output"]) / "replicated")}
    AcceleratorState._reset_state(reset_partial_state=True)
    os.environ |= _SHARDING
    _shard_on_cpu()
    report["sharded"] = train(plan, Path(plan["output"]) / "sharded")
    plan_path.with_suffix(f".{rank}").write_text(json.dumps(report))
    torch.distributed.destroy_process_group()

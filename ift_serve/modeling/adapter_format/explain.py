"""Description of an adapter, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ift_serve.modeling.adapter_format.weights import AdapterWeights


def explain(weights: AdapterWeights) -> dict[str, Any]:
    """A summary that JSON can hold."""
    own, components = weights.config, weights.components
    return {
        "version": weights.version,
        "bytes": weights.bytes,
        "parameters": sum(tensor.numel() for tensor in weights.tensors().values()),
        "lora": _explain_lora(weights),
        "replaced": {path: list(tensor.shape) for path, tensor in sorted(weights.replaced.items())},
        "trainable_tokens": {path: ids.tolist() for path, (ids, _) in sorted(weights.token_rows.items())},
        "components": {name: getattr(components, name) for name in components.names},
        "component_tensors": {name: list(tensor.shape) for name, tensor in weights.extras.items()},
        "needs_segments": components.uses_segments,
        "base": None if own is None else own.base.model_dump(mode="json"),
        "template": "" if own is None else own.template,
        "template_fingerprint": "" if own is None else own.template_fingerprint,
        "calibration_temperature": None if own is None else own.calibration_temperature,
        "recipe": {} if own is None else own.recipe,
        "scores": {} if own is None else own.scores,
    }


def _explain_lora(weights: AdapterWeights) -> dict[str, Any]:
    modules = weights.lora
    ranks = sorted({module.a.shape[0] for module in modules.values()})
    return {
        "modules": len(modules),
        "kinds": sorted({path.rsplit(".", 1)[-1] for path in modules}),
        "ranks": ranks,
        "scales": sorted({round(module.scale, 6) for module in modules.values()}),
        "dora": any(module.magnitude is not None for module in modules.values()),
        "dtypes": sorted({str(module.a.dtype).removeprefix("torch.") for module in modules.values()}),
    }


def rows(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """The summary as name and value, one line each, without what the adapter does not have."""
    lora = summary["lora"]
    decomposed = ", weight-decomposed (DoRA)" if lora["dora"] else ""
    base = summary["base"]
    shown = [
        ("version", summary["version"]),
        ("size", f"{summary['bytes'] / 2**20:.2f} MiB, {summary['parameters']:,} parameters"),
        ("base", f"{base['architecture']} {base['fingerprint'][:15]}" if base else "not named; shapes fit"),
        ("LoRA", f"{lora['modules']} modules: {_list(lora['kinds'])}{decomposed}" if lora["modules"] else ""),
        ("rank", _list(lora["ranks"])),
        ("scale", _list(lora["scales"])),
        ("replaced", _list(f"{path} {shape}" for path, shape in summary["replaced"].items())),
    ]
    shown += [(f"tokens of {path}", f"{len(ids)}: {_list(ids)}") for path, ids in summary["trainable_tokens"].items()]
    shown += [
        (f"component {name}", "on" if width is True else f"width {width}")
        for name, width in summary["components"].items()
    ]
    if summary["components"]:
        shown.append(
            ("keys and values", "depend on segments" if summary["needs_segments"] else "as without components")
        )
    shown += [
        ("template", "its own" if summary["template"] else ""),
        ("calibration", f"T = {summary['calibration_temperature']:.4g}" if summary["calibration_temperature"] else ""),
        ("scores", _list(f"{name} {value}" for name, value in summary["scores"].items())),
    ]
    return [(name, value) for name, value in shown if value]


def _list(items: Iterable[Any], most: int = 8) -> str:
    texts = [str(item) for item in items]
    more = f", and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more

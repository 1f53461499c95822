"""Our reports in lm-eval's own files: ``results_DATE.json`` and ``samples_TASK_DATE.jsonl`` in a folder a model.

Names and shapes are those of lm-eval 0.4.13 (``EvaluationTracker``), so that its tools and those of others read them.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from ift_serve.evaluation.rows import Row

_SOURCE = "ift-serve"


def write_result_files(
    found: Mapping[str, Any], rows: Sequence[Row], folder: Path, harness: Mapping[str, Mapping[str, Any]] | None = None
) -> list[Path]:
    """Write the files of every model. ``found``: the report; ``harness``: lm-eval's own results, by model.

    The published column of IFEval and IFBench has lm-eval's names (``prompt_level_strict_acc``); the repaired one has
    names of its own. Requests without an answer are in no score; ``n-samples`` says how many there are.
    """
    date = datetime.now()
    written = []
    for model in found["models"]:
        own = [row for row in rows if row.model == model]
        written += _write_model(found, model, own, folder, date, (harness or {}).get(model, {}))
    return written


def _write_model(
    found: Mapping[str, Any], model: str, rows: Sequence[Row], folder: Path, date: datetime, harness: Mapping[str, Any]
) -> list[Path]:
    path = folder / re.sub(r"[\"<>:/|\\?*\[\]]+", "__", model)
    path.mkdir(parents=True, exist_ok=True)
    stamp = date.isoformat().replace(":", "-")
    by_task: dict[str, list[Row]] = {}
    for row in rows:
        by_task.setdefault(row.task, []).append(row)
    samples: dict[str, list[Mapping[str, Any]]] = dict(harness.get("samples", {}))
    results = _shell(found, model, date) | {k: v for k, v in harness.items() if k != "samples"}
    for section in ("results", "group_subtasks", "configs", "versions", "n-shot", "higher_is_better", "n-samples"):
        results[section] = dict(results.get(section, {}))
    results["config"] = dict(harness.get("config", {})) | _config(found, model)
    for task, own in by_task.items():
        if task not in samples:
            samples[task] = _samples(own, found["settings"])
            _add_task(results, task, own)
    results["task_hashes"] = {
        task: _hash("".join(s["doc_hash"] + s["prompt_hash"] + s["target_hash"] for s in own))
        for task, own in samples.items()
    }
    written = [path / f"results_{stamp}.json"]
    written[0].write_text(json.dumps(results, indent=2, ensure_ascii=False, default=str), encoding="utf-8")
    for task, listed in samples.items():
        name = re.sub(r"\W", "_", task)
        written.append(path / f"samples_{name}_{stamp}.jsonl")
        lines = [json.dumps(_plain(sample), ensure_ascii=False, default=str) + "\n" for sample in listed]
        written[-1].write_text("".join(lines), encoding="utf-8")
    return written


def _shell(found: Mapping[str, Any], model: str, date: datetime) -> dict[str, Any]:
    run = found.get("run", {})
    return {
        "git_hash": None,
        "date": date.timestamp(),
        "model_source": _SOURCE,
        "model_name": model,
        "model_name_sanitized": re.sub(r"[\"<>:/|\\?*\[\]]+", "__", model),
        "system_instruction": None,
        "system_instruction_sha": None,
        "fewshot_as_multiturn": None,
        "chat_template": None,
        "chat_template_sha": found.get("server", {}).get("template_fingerprint"),
        "total_evaluation_time_seconds": str(run.get("seconds", "")),
    }


def _config(found: Mapping[str, Any], model: str) -> dict[str, Any]:
    server, settings = found.get("server", {}), found.get("settings", {})
    return {
        "model": _SOURCE,
        "model_args": {"adapter": "" if model == "base" else model},
        "model_name": server.get("model"),
        "model_fingerprint": server.get("fingerprint"),
        "model_dtype": server.get("dtype"),
        "gen_kwargs": settings.get("sampling"),
        "limit": settings.get("limit"),
        "random_seed": settings.get("seed"),
        "batch_size": None,
        "device": server.get("device"),
    }


def _add_task(results: dict[str, Any], task: str, rows: Sequence[Row]) -> None:
    """One task's part of the results."""
    values: dict[str, Any] = {"alias": task}
    higher: dict[str, bool] = {}
    for name, (value, error) in _metrics(rows).items():
        values[f"{name},none"] = value
        values[f"{name}_stderr,none"] = "N/A" if error is None else error
        higher[name] = not name.endswith(("perplexity", "bits_per_byte"))
    keys = {row.key for row in rows}
    answered = {row.key for row in rows if not row.error}
    values["sample_len"] = len(answered)
    results["results"][task] = values
    results["group_subtasks"][task] = []
    results["configs"][task] = {
        "task": task, "output_type": "loglikelihood_rolling" if rows[0].log_prob is not None else "generate_until",
        "repeats": 1 + max(row.repeat for row in rows), "num_fewshot": 0,
    }  # fmt: skip
    results["versions"][task] = 1.0
    results["n-shot"][task] = 0
    results["higher_is_better"][task] = higher
    results["n-samples"][task] = {"original": len(keys), "effective": len(answered)}


def _metrics(rows: Sequence[Row]) -> dict[str, tuple[float, float | None]]:
    """Values with standard errors over prompts: shares of prompts and constraints by column, or bits of texts."""
    found: dict[str, tuple[float, float | None]] = {}
    scored = [row for row in rows if row.log_prob is not None]
    if scored:
        bits = -sum(row.log_prob or 0.0 for row in scored) / sum(row.text_bytes for row in scored) / math.log(2)
        return {"bits_per_byte": (bits, None), "byte_perplexity": (2.0**bits, None)}
    judged = [row for row in rows if row.verdicts and not row.error]
    for column in judged[0].verdicts if judged else ():
        prompts: dict[str, list[bool]] = {}
        for row in judged:
            prompts.setdefault(row.key, []).append(row.passes(column))
        shares = [statistics.fmean(passes) for passes in prompts.values()]
        error = statistics.stdev(shares) / math.sqrt(len(shares)) if len(shares) > 1 else None
        found[f"prompt_level_{_name(column)}_acc"] = (statistics.fmean(shares), error)
        kept = [verdict.passed for row in judged for verdict in row.verdicts[column]]
        found[f"inst_level_{_name(column)}_acc"] = (statistics.fmean(kept), None)
    return found


def _name(column: str) -> str:
    """``published strict`` is what lm-eval calls strict."""
    return column.removeprefix("published ").replace(" ", "_")


def _samples(rows: Sequence[Row], settings: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """One sample a prompt with all its repeats, in the shape that lm-eval logs."""
    prompts: dict[str, list[Row]] = {}
    for row in rows:
        if not row.error:
            prompts.setdefault(row.key, []).append(row)
    return [_sample(number, own, settings) for number, own in enumerate(prompts.values())]


def _sample(number: int, rows: Sequence[Row], settings: Mapping[str, Any]) -> Mapping[str, Any]:
    first = rows[0]
    doc = {"key": first.key, "prompt": first.prompt} | dict(first.labels)
    metrics: dict[str, Any] = {}
    for column in first.verdicts:
        metrics[f"prompt_level_{_name(column)}_acc"] = statistics.fmean(row.passes(column) for row in rows)
        metrics[f"inst_level_{_name(column)}_acc"] = [v.passed for row in rows for v in row.verdicts[column]]
    is_text = first.log_prob is not None
    if is_text:
        metrics["bits_per_byte"] = [first.log_prob, first.text_bytes]
    responses: list[Any] = [[first.log_prob]] if is_text else [[row.answer for row in rows]]
    arguments = [(first.prompt,)] if is_text else [(first.prompt, dict(settings.get("sampling") or {}))]
    return {
        "doc_id": number, "doc": doc, "target": "", "arguments": arguments, "resps": responses,
        "filtered_resps": [response[0] for response in responses], "filter": "none", "metrics": list(metrics),
        "doc_hash": _hash(json.dumps(doc, indent=2, ensure_ascii=False)), "prompt_hash": _hash(first.prompt),
        "target_hash": _hash(""), **metrics,
    }  # fmt: skip


def _plain(sample: Mapping[str, Any]) -> dict[str, Any]:
    """As lm-eval's tracker writes it: arguments by name, targets as text, answers in lists of texts."""
    arguments = {
        f"gen_args_{i}": {f"arg_{j}": part for j, part in enumerate(given)}
        for i, given in enumerate(sample["arguments"])
    }
    return dict(sample) | {
        "arguments": arguments,
        "resps": _texts(sample["resps"]),
        "filtered_resps": _texts(sample["filtered_resps"]),
        "target": str(sample["target"]),
    }


def _texts(found: Any) -> Any:
    if isinstance(found, list | tuple):
        return [_texts(part) for part in found]
    return str(found)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

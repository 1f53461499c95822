"""Every causal language model class of the installed transformers, small and random, served and compared.

Each class is tried in a few variants, each in a process of its own: served through the engine's runner in chunks and
single tokens, against transformers' own eager forward pass over the whole text, or refused with a reason.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from small_models import NOT_OF_TEXT, build, variants

TOKENS, CHUNK, DECODES = 60, 24, 8
TOLERANCE = 1e-3
"""Largest difference of a token's log-probability that counts as the same computation in float32."""


@dataclass(slots=True)
class Verdict:
    """One variant: served, refused, wrong, unbuilt (no such small model), failed, or no model of text at all."""

    model_type: str
    class_name: str
    variant: str
    outcome: str
    reason: str = ""
    difference: float = 0.0


def model_types() -> dict[str, str]:
    """Class by model type."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return {
        name: classes if isinstance(classes, str) else classes[0]
        for name, classes in sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items())
    }


def expected_log_probs(directory: Path, tokens: list[int]) -> list[float]:
    """Of every token but the first, by transformers alone."""
    import torch
    import transformers

    (name,) = transformers.AutoConfig.from_pretrained(directory).architectures
    model_class = getattr(transformers, name)
    model = model_class.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0].float()
    found: list[float] = torch.log_softmax(logits, -1)[torch.arange(len(tokens) - 1), tokens[1:]].tolist()
    return found


def served_log_probs(directory: Path, tokens: list[int]) -> list[float]:
    """The same by the engine's runner: chunks, then single tokens, beside another sequence."""
    from ift_serve.engine.config import EngineConfig
    from ift_serve.engine.runner.model_runner import ModelRunner
    from ift_serve.engine.sequences.step import SequenceStep, StepBatch

    runner = ModelRunner(EngineConfig(model=str(directory), dtype="float32", total_blocks=16))
    if runner.description.context_length < len(tokens):
        tokens = tokens[: runner.description.context_length]
    found: list[float] = []
    other = tokens[::-1]
    for start, end in _pieces(len(tokens) - 1):
        mine = SequenceStep(0, tokens[start:end], start, [3, 0, 5, 7], score_targets=tokens[start + 1 : end + 1])
        beside = SequenceStep(1, other[start:end], start, [1, 4, 2, 6], score_targets=other[start + 1 : end + 1])
        scored = runner.execute(StepBatch([beside, mine], [])).scored[1]
        assert scored is not None
        found += scored.log_probs
    return found


def _pieces(length: int) -> Iterator[tuple[int, int]]:
    first = max(length - DECODES, 0)
    yield from ((start, min(start + CHUNK, first)) for start in range(0, first, CHUNK))
    yield from ((start, start + 1) for start in range(first, length))


def judge(model_type: str, class_name: str, name: str, make: Callable[[], Any]) -> Verdict:
    """Build, serve and compare one variant."""
    from ift_serve.modeling.decoder.model_loader import UnsupportedModelError

    verdict = Verdict(model_type, class_name, name, "unbuilt")
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        tokens = [4 + (7919 * (i + 1) * (i + 3)) % 150 for i in range(TOKENS)]
        try:
            build(make(), directory)
            expected = expected_log_probs(directory, tokens)
        except Exception as error:
            verdict.reason = _line(error)
            return verdict
        if not all(value == value and abs(value) < 1e6 for value in expected):
            verdict.reason = "its log-probabilities are not finite"
            return verdict
        try:
            served = served_log_probs(directory, tokens)
        except UnsupportedModelError as error:
            verdict.outcome, verdict.reason = "refused", str(error).replace(f"{directory.name}: ", "", 1)
            return verdict
        except Exception as error:
            verdict.outcome, verdict.reason = "failed", _line(error)
            return verdict
        verdict.difference = max(abs(a - b) for a, b in zip(served, expected, strict=False))
        verdict.outcome = "served" if verdict.difference < TOLERANCE else "wrong"
    return verdict


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _judge_type(model_type: str, class_name: str, only: str, connection: Any) -> None:
    import torch
    from transformers.utils import logging

    logging.set_verbosity_error()
    torch.set_num_threads(1)
    if reason := NOT_OF_TEXT.get(model_type):
        connection.send(asdict(Verdict(model_type, class_name, "", "no model of text", reason)))
        connection.send(None)
        return
    for name, make in variants(model_type).items():
        if not only or name == only:
            connection.send(asdict(judge(model_type, class_name, name, make)))
    connection.send(None)


def sweep(
    types: dict[str, str],
    *,
    variant: str = "",
    processes: int = 2,
    seconds: float = 300,
    told: Callable[[Verdict], None] = lambda verdict: None,
) -> list[Verdict]:
    """Judge every type, some at a time, each in a process that a crash or a hang cannot take others down with."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "transformers", "ift_serve.engine.runner.model_runner"])

    def one(item: tuple[str, str]) -> list[Verdict]:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_judge_type, args=(*item, variant, theirs), daemon=True)
        process.start()
        theirs.close()
        found: list[Verdict] = []
        ended = "no answer in time"
        with contextlib.suppress(EOFError):
            while ours.poll(seconds):
                if (message := ours.recv()) is None:
                    ended = ""
                    break
                found.append(Verdict(**message))
                told(found[-1])
        if ended:
            process.kill()
            process.join()
            found.append(Verdict(*item, "", "failed", f"{ended} (exit code {process.exitcode})"))
            told(found[-1])
        process.join()
        return found

    with ThreadPoolExecutor(processes) as pool:
        return [verdict for found in pool.map(one, types.items()) for verdict in found]


def table(verdicts: list[Verdict], kept: Iterable[str] = ()) -> str:
    """Markdown: a row for each class; its variants are together unless they were judged differently.

    ``kept`` are rows of an earlier table, for model types that were not judged now.
    """
    import transformers

    rows: dict[tuple[str, str, str, str], list[Verdict]] = {}
    for verdict in verdicts:
        key = (verdict.model_type, verdict.class_name, verdict.outcome, verdict.reason if verdict.reason else "")
        rows.setdefault(key, []).append(verdict)
    lines = [
        "# Models that are served",
        "",
        f"Every causal language model class of transformers {transformers.__version__}, small and random, in float32, "
        f"with its window below the prompt: {TOKENS} tokens through the engine's runner in chunks of {CHUNK} and then "
        "single tokens, against transformers' own eager forward pass. The last column is the largest difference of a "
        f"token's log-probability; over {TOLERANCE:g} a class is wrong. *unbuilt*: the sweep could make no small model "
        "of this class, so nothing is shown of it here; the check at load holds for it as for every model. *failed*: "
        "it was given up after its time, or ended with another error. *no model of text*: the class is listed by "
        "transformers as a causal language model, but token ids alone are not what it reads.",
        "",
        "Written by `python benchmarks/model_sweep.py --write docs/models.md`.",
        "",
        "| Model type | Class | Variants | Outcome | Reason | Difference |",
        "|---|---|---|---|---|---|",
    ]
    written = list(kept)
    for (kind, name, outcome, reason), group in sorted(rows.items()):
        largest = f"{max(v.difference for v in group):.1e}" if outcome in ("served", "wrong") else ""
        shown = reason.replace("|", "\\|").replace("<", "&lt;").split("; choose a decoder whose")[0]
        variants = ", ".join(v.variant for v in group)
        written.append(f"| {kind} | {name} | {variants} | {outcome} | {shown} | {largest} |")
    return "\n".join([*lines, *sorted(written, key=_model_type)]) + "\n"


def _model_type(row: str) -> str:
    return row.split("|")[1].strip()


def rows_of_others(path: Path, types: Iterable[str]) -> list[str]:
    """Rows of the table in ``path`` that are not of these model types."""
    rows = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    return [row for row in rows if _model_type(row) not in {"Model type", *types}]


def main() -> None:
    """Sweep, and write or print the table. Ends with 1 where a class is served wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, help="file for the table; printed without")
    parser.add_argument("--only", nargs="*", default=[], help="model types; a table that is there keeps its other rows")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=300, help="longest wait for one variant")
    asked = parser.parse_args()
    types = {name: kind for name, kind in model_types().items() if not asked.only or name in asked.only}
    verdicts = sweep(
        types,
        processes=asked.processes,
        seconds=asked.seconds,
        told=lambda v: print(v.model_type, v.variant, v.outcome, v.reason, file=sys.stderr),
    )
    merged = asked.only and asked.write is not None and asked.write.is_file()
    text = table(verdicts, rows_of_others(asked.write, types) if merged else ())
    print(text) if asked.write is None else asked.write.write_text(text, encoding="utf-8")
    sys.exit(any(verdict.outcome == "wrong" for verdict in verdicts))


if __name__ == "__main__":
    main()

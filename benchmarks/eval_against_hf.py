"""IFEval by lm-eval's own ``hf`` backend beside a run over the wire: the same verdicts, and how much longer it takes.

The whole set takes that backend hours on two cores, so a random sample of the prompts is asked, in pieces:

    ift-serve serve MODEL --dtype float32 --max-sequences 32
    ift-serve eval --tasks ifeval --data ifeval=FILE --report OUT
    python eval_against_hf.py MODEL FILE --ours OUT/report.json --seconds 240
    python eval_against_hf.py MODEL FILE --ours OUT/report.json --served 127.0.0.1:50051 --json

The third is repeated while it says that prompts are left; the fourth times ours on the sample. Answers of ``hf`` are
kept in ``--answers``. Answers that differ are explained: the first token that differs, and by how much the model,
computed here in float32 on the whole text, prefers the one to the other.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

from ift_serve.checks.instructions import InstructedPrompt
from ift_serve.evaluation.tasks.record_file import read_records

LENGTH = 1280
COLUMN = "published strict"


def sampled(data: Path, count: int, seed: int) -> list[dict[str, Any]]:
    """Rows of the benchmark, drawn without replacement; in the order of the draw, so a prefix is a sample too."""
    return random.Random(seed).sample([row for _, row in read_records(data)], count)


class HfBackend:
    """lm-eval's ``hf`` with its defaults: greedy, one prompt at a time."""

    def __init__(self, model: str, batch: int) -> None:
        import lm_eval.models  # noqa: F401  (registers the backends)
        from lm_eval.models.huggingface import HFLM

        self.lm = HFLM(pretrained=model, dtype="float32", device="cpu", batch_size=batch)

    def answer(self, prompts: list[str]) -> list[str]:
        """As `lm_eval --model hf --tasks ifeval --apply_chat_template` asks them."""
        from lm_eval.api.instance import Instance

        settings = {"until": [], "do_sample": False, "temperature": 0.0, "max_gen_toks": LENGTH}
        contexts = [self.lm.apply_chat_template([{"role": "user", "content": prompt}]) for prompt in prompts]
        requests = [Instance("generate_until", {}, (context, settings), i) for i, context in enumerate(contexts)]
        return [str(text) for text in self.lm.generate_until(requests, disable_tqdm=True)]


def fill(args: argparse.Namespace, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Ask for what is not kept yet, for so many seconds; what is kept by key."""
    kept: dict[str, Any] = json.loads(args.answers.read_text()) if args.answers.exists() else {}
    left = [row for row in rows if str(row["key"]) not in kept]
    begun = time.monotonic()
    if left and args.seconds > 0:
        backend = HfBackend(args.model, args.batch)
        print(f"loaded in {time.monotonic() - begun:.0f} s", file=sys.stderr)
        while left and time.monotonic() - begun < args.seconds:
            group, left = left[: args.batch], left[args.batch :]
            started = time.perf_counter()
            answers = backend.answer([row["prompt"] for row in group])
            seconds = time.perf_counter() - started
            for row, answer in zip(group, answers, strict=True):
                kept[str(row["key"])] = {"answer": answer, "seconds": seconds / len(group)}
            args.answers.write_text(json.dumps(kept))
            print(f"{len(kept)}/{len(rows)} {seconds:.1f} s", file=sys.stderr)
    return kept


def served_seconds(args: argparse.Namespace, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The same prompts over the wire, all of them in one run, nothing kept from before."""
    import asyncio
    import tempfile

    from ift_serve.client import AsyncClient
    from ift_serve.evaluation.run import Plan, evaluate
    from ift_serve.evaluation.serving.decoding_settings import DecodingSettings
    from ift_serve.evaluation.serving.result_store import ResultStore
    from ift_serve.evaluation.tasks.instructed import Instructed

    async def run(data: Path) -> Any:
        plan = Plan([Instructed("ifeval", data)], settings=DecodingSettings(sampling={"temperature": 0.0}))
        async with AsyncClient(args.served, retries=0) as client:
            return await evaluate(client, plan, ResultStore(), timeout=3600)

    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "sample.jsonl"
        data.write_text("\n".join(json.dumps(row) for row in rows))
        result = asyncio.run(run(data))
    tokens = sum(row.generated_tokens for row in result.rows)
    answers = {row.key: row.answer for row in result.rows}
    return {"seconds": result.seconds, "tokens": tokens, "concurrency": result.runner.concurrency, "answers": answers}


def difference(model: str, prompt: str, ours: str, theirs: str) -> dict[str, Any]:
    """Where two answers part, and how much the model prefers each next token there (logits in float32)."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
    )
    context = tokenizer(rendered, add_special_tokens=False).input_ids
    a, b = (tokenizer(text, add_special_tokens=False).input_ids + [tokenizer.eos_token_id] for text in (ours, theirs))
    place = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)) - 1)
    with torch.inference_mode():
        logits = network(torch.tensor([context + a[:place]])).logits[0, -1]
    best = torch.topk(logits, 2)
    return {
        "token": place, "ours": tokenizer.decode([a[place]]), "hf": tokenizer.decode([b[place]]),
        "logit_ours": logits[a[place]].item(), "logit_hf": logits[b[place]].item(),
        "margin_of_the_best": (best.values[0] - best.values[1]).item(),
        "rounding": torch.finfo(torch.float32).eps * logits.abs().max().item(),
    }  # fmt: skip


def verdicts(row: dict[str, Any], answer: str) -> list[bool]:
    """By the published checkers, as lm-eval has them."""
    prompt = InstructedPrompt.parse(row)
    if not answer.strip():
        return [False] * len(prompt.instructions)
    return [bool(verdict) for verdict in prompt.judge(answer, "published").strict]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("--ours", type=Path, required=True, help="report.json of the run over the wire")
    parser.add_argument("--sample", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=1, help="of the hf backend; 1 is its default")
    parser.add_argument("--seconds", type=float, default=0.0, help="ask hf for so long")
    parser.add_argument("--answers", type=Path, default=Path("hf-answers.json"))
    parser.add_argument("--served", help="time the sample over the wire at this address")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rows = sampled(args.data, args.sample, args.seed)
    kept = fill(args, rows)
    rows = [row for row in rows if str(row["key"]) in kept]
    answered = {row["key"]: row for row in json.loads(args.ours.read_text())["rows"] if not row["error"]}
    rows = [row for row in rows if str(row["key"]) in answered]
    same_answer, same_verdicts, differing = 0, 0, []
    for row in rows:
        key = str(row["key"])
        ours, theirs = answered[key]["answer"], kept[key]["answer"]
        equal = verdicts(row, ours) == verdicts(row, theirs)
        same_answer += ours == theirs
        same_verdicts += equal
        if ours != theirs:
            parted = difference(args.model, row["prompt"], ours, theirs) if args.json else {}
            differing.append({"key": key, "same_verdicts": equal, **parted})
    found: dict[str, Any] = {
        "prompts": len(rows), "sample": args.sample, "seed": args.seed, "same_answer": same_answer,
        "same_verdicts": same_verdicts, "differing": differing, "hf_batch": args.batch,
        "hf_seconds": sum(kept[str(row["key"])]["seconds"] for row in rows),
        "answer_tokens": sum(answered[str(row["key"])]["generated_tokens"] for row in rows),
    }  # fmt: skip
    if args.served:
        served = served_seconds(args, rows)
        repeated = served.pop("answers")
        served["same_answer_as_the_whole_run"] = sum(repeated[k] == answered[k]["answer"] for k in repeated)
        found["served"] = served | {"times_faster": found["hf_seconds"] / served["seconds"]}
    if args.json:
        print(json.dumps(found, indent=1))
    else:
        print(", ".join(f"{name} {value}" for name, value in found.items() if not isinstance(value, list | dict)))
        print(f"{args.sample - len(kept)} prompts left for hf")


if __name__ == "__main__":
    main()

"""Does a head that chooses temperatures get more than any fixed temperature does?

``python benchmarks/temperature.py --adapter DIRECTORY --json`` draws answers to test prompts of the adapter's own
families, at the same seeds, with: greedy decoding, a grid of fixed temperatures, the head, a constant at the head's own
mean, the head's temperatures shuffled over all tokens, and the entropy rule (EDT). Rewards are those of the adapter's
recipe, which ``ift_config.json`` holds. The head is compared with each by a paired sign-flip test over prompts, and on
each kind of task with the fixed temperature, greedy among them, that is best there: chosen by these very answers, so
the comparison favours it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

GRID = (0.1, 0.3, 0.5, 0.7, 1.0, 1.3)
FLIPS = 20_000
HEAD = "head"


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--adapter", type=Path, required=True, help="directory that `ift-serve train temperature` wrote"
    )
    parser.add_argument("--prompts", type=int, default=16, help="test prompts of each family")
    parser.add_argument("--samples", type=int, default=4, help="answers to each prompt, seed and policy")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--output", type=Path, help="file for the report")
    return parser.parse_args()


@dataclass(frozen=True)
class Policy:
    """How answers are drawn. rule: ``head``, ``entropy`` or none; shuffled: the head temperatures out of order."""

    name: str
    temperature: float
    rule: str = ""
    shuffled: bool = False


@dataclass(frozen=True)
class Result:
    """One prompt's answers of one seed: mean reward, share of different word pairs, temperatures used."""

    task: str
    reward: float
    distinct: float
    temperatures: list[float]


class Shuffler:
    """Stands between the sampler and the heads; while it has a pool, rows get temperatures out of that instead.

    A row's depends on its request's seed and its step alone, as all that is drawn.
    """

    def __init__(self, heads: Any) -> None:
        self._heads = heads
        self.pool: np.ndarray | None = None

    def __call__(self, measured: Any, hidden: Tensor, initial: Tensor, rows: Sequence[Any]) -> Tensor:
        if self.pool is None:
            found: Tensor = self._heads(measured, hidden, initial, rows)
            return found
        chosen = initial.clone()
        for index, row in enumerate(rows):
            sampling = None if row is None else row.sampling
            if sampling is not None and sampling.params.adaptive is not None and sampling.temperature > 0:
                place = np.random.default_rng((sampling.seed, sampling.step)).integers(len(self.pool))
                chosen[index] = float(self.pool[place])
        return chosen


class Bench:
    """An engine with the adapter, the prompts, and what their answers are worth."""

    def __init__(self, options: argparse.Namespace) -> None:
        from ift_serve.modeling.adapter_format.config import IFT_CONFIG, ift_config
        from ift_training.prepare import open_encoder
        from ift_training.temperature.settings import TemperatureRecipe
        from ift_training.temperature.verifier import make_verifier

        config = ift_config(json.loads((options.adapter / IFT_CONFIG).read_text(encoding="utf-8")))
        self.recipe = TemperatureRecipe.parse(config.recipe)
        self.options = options
        self.encoder = open_encoder(self.recipe)
        self.verifier = make_verifier(self.recipe.reward)
        self.shuffler: Shuffler | None = None
        self.prompts = list(self._prompts())

    def _prompts(self) -> Iterator[Any]:
        from ift_training.data.settings import SourceSettings
        from ift_training.data.sources import ProceduralSource
        from ift_training.temperature.prompts import TaskPrompt

        names = [name for source in self.recipe.sources for name in source.procedural or ()]
        for name in names:
            source = ProceduralSource(SourceSettings(procedural=[name], split="test"), 12345)
            seen: set[bytes] = set()
            for index in range(100 * self.options.prompts):
                record, task = source.record(index)
                if record.key not in seen and len(seen) < self.options.prompts:
                    seen.add(record.key)
                    yield TaskPrompt(task, record, self.encoder.renderer.conversation(record.prompt))

    def engine(self) -> Any:
        """One whose sampler asks the shuffler."""
        from ift_serve.engine.build import build_core
        from ift_serve.engine.config import EngineConfig
        from ift_serve.engines.thread import LocalEngine

        def build(config: EngineConfig) -> Any:
            core, model = build_core(config)
            temperatures: Any = core._runner._sampler._temperatures  # type: ignore[attr-defined]
            self.shuffler = temperatures._heads = Shuffler(temperatures._heads)
            return core, model

        return LocalEngine(EngineConfig(model=self.recipe.base_directory()), build)

    async def draw(self, drawer: Any, policy: Policy, seed: int) -> list[Result]:
        """A result a prompt."""

        async def one(number: int, prompt: Any) -> Result:
            drawn = await drawer.draw(prompt, self._sampling(policy, seed, number), HEAD if policy.rule == HEAD else "")
            return self._judged(prompt, drawn)

        return list(await asyncio.gather(*(one(number, prompt) for number, prompt in enumerate(self.prompts))))

    def _sampling(self, policy: Policy, seed: int, number: int) -> Any:
        from ift_serve.engine.protocol.generate import SamplingParams
        from ift_training.temperature.rollouts import request_seed

        return SamplingParams(
            temperature=policy.temperature,
            adaptive=self._adaptive(policy),
            seed=request_seed(seed, number),
            candidates=self.options.samples,
            max_new_tokens=self.recipe.rollouts.max_new_tokens,
        )

    def _adaptive(self, policy: Policy) -> Any:
        from ift_serve.engine.protocol.sampling import AdaptiveTemperature, TemperatureRule

        if not policy.rule:
            return None
        is_head = policy.rule == HEAD and not policy.shuffled
        below = self.recipe.head.greedy_below if is_head else 0.0
        return AdaptiveTemperature(rule=TemperatureRule(policy.rule), greedy_below=below)

    def _judged(self, prompt: Any, drawn: Any) -> Result:
        from ift_training.temperature.rewards import rewards_of

        decode = self.encoder.renderer.encoder.backend.decode
        texts = [str(decode(ids, skip_special_tokens=True)) for ids in drawn.token_ids]
        rewards = rewards_of(prompt.record, texts, self.verifier, self.recipe.reward.novelty.get(prompt.task, 0.0))
        pairs = [pair for text in texts for pair in zip(text.split(), text.split()[1:], strict=False)]
        distinct = len(set(pairs)) / len(pairs) if pairs else 1.0
        used = [token.temperature for own in drawn.statistics for token in own]
        return Result(prompt.task, statistics.fmean(rewards), distinct, used)


async def measure(bench: Bench) -> dict[str, list[list[Result]]]:
    """Results by policy, seed and prompt. The head goes first: what it uses decides two of its controls."""
    from ift_serve.text.ends import answer_ends
    from ift_training.temperature.rollouts import Drawer

    initial = bench.recipe.head.temperature
    results: dict[str, list[list[Result]]] = {}
    engine = bench.engine()
    await engine.start(600.0)
    try:
        await engine.load_adapter(HEAD, str(bench.options.adapter.resolve()))
        drawer = Drawer(engine, answer_ends(bench.encoder.renderer), 32)

        async def run(policy: Policy) -> None:
            begun = time.perf_counter()
            results[policy.name] = [await bench.draw(drawer, policy, seed) for seed in range(bench.options.seeds)]
            print(f"{policy.name}: {time.perf_counter() - begun:.0f} s", file=sys.stderr)

        await run(Policy(HEAD, initial, HEAD))
        used = np.array([t for own in results[HEAD] for result in own for t in result.temperatures])
        for temperature in GRID:
            await run(Policy(f"T = {temperature:g}", temperature))
        await run(Policy("greedy", 0.0))
        await run(Policy("constant at the head's mean", float(used.mean())))
        await run(Policy("entropy rule", initial, "entropy"))
        assert bench.shuffler is not None
        bench.shuffler.pool = used
        await run(Policy("head's, shuffled", initial, HEAD, shuffled=True))
        return results
    finally:
        await engine.close()


def sign_flip(differences: np.ndarray) -> float:
    """Two-sided p of a mean as far from 0, the signs of paired differences being as likely either way."""
    rng = np.random.default_rng(0)
    signs = rng.choice((-1.0, 1.0), size=(FLIPS, len(differences)))
    return float((1 + (abs(signs @ differences) >= abs(differences.sum()) - 1e-12).sum()) / (FLIPS + 1))


def summary(results: dict[str, list[list[Result]]], kinds: Mapping[str, str]) -> list[dict[str, Any]]:
    """A line a policy: rewards by kind, distinct pairs, mean temperature, and the head's lead over it with p."""
    tasks = [result.task for result in results[HEAD][0]]

    def by_prompt(name: str) -> np.ndarray:
        rewards = np.array([[result.reward for result in own] for own in results[name]])
        return np.asarray(rewards.mean(0))

    lines: list[dict[str, Any]] = []
    for name, own in results.items():
        rewards, lead = by_prompt(name), by_prompt(HEAD) - by_prompt(name)
        line: dict[str, Any] = {"policy": name, "all": float(rewards.mean())}
        for kind in sorted(set(kinds.values())):
            chosen = np.array([kinds[task] == kind for task in tasks])
            line[kind] = float(rewards[chosen].mean())
            line[f"lead_{kind}"], line[f"p_{kind}"] = float(lead[chosen].mean()), sign_flip(lead[chosen])
        line["tasks"] = {task: float(rewards[[t == task for t in tasks]].mean()) for task in dict.fromkeys(tasks)}
        line["distinct"] = statistics.fmean(r.distinct for seed in own for r in seed)
        line["temperature"] = statistics.fmean(t for seed in own for r in seed for t in r.temperatures)
        line["lead"], line["p"] = float(lead.mean()), sign_flip(lead)
        lines.append(line)
    return lines


def best_fixed(lines: Sequence[dict[str, Any]], kinds: Sequence[str]) -> dict[str, dict[str, Any]]:
    """By kind, the fixed temperature with most reward, and the head's lead over it with p."""
    fixed = [line for line in lines if line["policy"] == "greedy" or line["policy"].startswith("T = ")]
    best = {kind: max(fixed, key=lambda line: line[kind]) for kind in kinds}
    return {
        kind: {"policy": line["policy"], "lead": line[f"lead_{kind}"], "p": line[f"p_{kind}"]}
        for kind, line in best.items()
    }


def table(lines: Sequence[dict[str, Any]]) -> str:
    """Markdown."""
    kinds = [key.removeprefix("lead_") for key in lines[0] if key.startswith("lead_")]
    rows = [f"| policy | mean T | all | {' | '.join(kinds)} | distinct pairs | head's lead | p |"]
    rows.append("|" + " --- |" * (len(kinds) + 6))
    for line in lines:
        values = " | ".join(f"{line[kind]:.3f}" for kind in kinds)
        lead = "| |" if line["policy"] == HEAD else f"{line['lead']:+.3f} | {line['p']:.4f} |"
        rows.append(
            f"| {line['policy']} | {line['temperature']:.2f} | {line['all']:.3f} | {values} | {line['distinct']:.3f} | "
            + lead
        )
    return "\n".join(rows)


def main() -> None:
    """Run it."""
    options = arguments()
    from ift_training.data.procedural import family

    bench = Bench(options)
    kinds = {prompt.task: family(prompt.task).kind for prompt in bench.prompts}
    lines = summary(asyncio.run(measure(bench)), kinds)
    report = {
        "base": bench.recipe.base,
        "grain": bench.recipe.head.grain,
        "prompts": len(bench.prompts),
        "samples": options.samples,
        "seeds": options.seeds,
        "threads": torch.get_num_threads(),
        "policies": lines,
        "best_fixed": best_fixed(lines, sorted(set(kinds.values()))),
    }
    text = json.dumps(report, indent=1)
    if options.output is not None:
        options.output.write_text(text + "\n", encoding="utf-8")
    print(text if options.json else table(lines))


if __name__ == "__main__":
    main()

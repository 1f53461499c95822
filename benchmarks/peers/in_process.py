"""What we are measured against, in this process: transformers' own two ways to generate for many requests."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig, PreTrainedModel

from ift_serve.cli.bench import Request

_PAD = 0
_TIMEOUT = 900.0


@dataclass(frozen=True)
class Timing:
    """``tokens`` counts what was asked for; padded batches compute more than that."""

    seconds: float
    tokens: int

    @property
    def rate(self) -> float:
        """Tokens asked for, per second."""
        return self.tokens / self.seconds


def load(directory: Path, dtype: str) -> PreTrainedModel:
    """The model with its end-of-sequence ids removed, so that every answer has the length asked for."""
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=getattr(torch, dtype)).eval()
    model.generation_config.eos_token_id = model.config.eos_token_id = None
    model.generation_config.pad_token_id = _PAD
    return model


class StaticBatches:
    """``generate`` in left-padded batches of the concurrency, in the order the requests come."""

    name = "transformers-static"

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model

    @torch.inference_mode()
    def generate(self, prompts: Sequence[Sequence[int]], new_tokens: int, **options: Any) -> list[list[int]]:
        """Greedy answers of exactly ``new_tokens`` tokens."""
        width = max(len(p) for p in prompts)
        ids = torch.tensor([[_PAD] * (width - len(p)) + list(p) for p in prompts])
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
        output: Any = self._model.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=False,
            max_new_tokens=new_tokens,
            min_new_tokens=new_tokens,
            **options,
        )
        answers: list[list[int]] = output[:, width:].tolist()
        return answers

    def run(self, requests: list[Request], concurrency: int) -> Timing:
        """All requests."""
        begun = time.perf_counter()
        for first in range(0, len(requests), concurrency):
            batch = requests[first : first + concurrency]
            self.generate([r.token_ids for r in batch], max(r.new_tokens for r in batch))
        return Timing(time.perf_counter() - begun, sum(r.new_tokens for r in requests))

    def seconds_per_token(self, request: Request) -> float:
        """Alone, without the time to the first token."""
        times = []
        for count in (1, request.new_tokens):
            begun = time.perf_counter()
            self.generate([request.token_ids], count)
            times.append(time.perf_counter() - begun)
        return (times[1] - times[0]) / (request.new_tokens - 1)


class AdapterBatches(StaticBatches):
    """The same with PEFT's adapters mixed in a batch, by name; ``BASE`` is no adapter."""

    name = "peft-static"
    BASE = "__base__"

    def __init__(self, model: PreTrainedModel, directories: dict[str, Path]) -> None:
        from peft import PeftModel

        (first, path), *others = directories.items()
        adapted: Any = PeftModel.from_pretrained(model, path, adapter_name=first)
        for name, path in others:
            adapted.load_adapter(path, adapter_name=name)
        super().__init__(adapted.eval())

    def run_mixed(self, requests: list[Request], concurrency: int, adapters: list[str]) -> Timing:
        """All requests, each with the adapter of the same index."""
        begun = time.perf_counter()
        for first in range(0, len(requests), concurrency):
            batch, names = requests[first : first + concurrency], adapters[first : first + concurrency]
            self.generate([r.token_ids for r in batch], max(r.new_tokens for r in batch), adapter_names=names)
        return Timing(time.perf_counter() - begun, sum(r.new_tokens for r in requests))


class ContinuousBatches:
    """``generate_batch``'s manager, each request with its own length; its start is not counted."""

    name = "transformers-cb"

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model

    def run(self, requests: list[Request], concurrency: int) -> Timing:
        """All requests, at most ``concurrency`` in a batch."""
        generation = GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=_PAD)
        page = 256
        longest = max(len(r.token_ids) + r.new_tokens for r in requests)
        batching = ContinuousBatchingConfig(
            page_size=page,
            num_blocks=concurrency * (-(-longest // page) + 1),
            max_batch_tokens=512,
            max_requests_per_batch=concurrency,
        )
        # A manager that waits keeps a core busy, so one lives only as long as it is measured.
        with self._model.continuous_batching_context_manager(
            generation_config=generation, continuous_batching_config=batching, timeout=30
        ) as manager:
            begun = time.perf_counter()
            for request in requests:
                manager.add_request(list(request.token_ids), max_new_tokens=request.new_tokens)
            tokens = self._collect(manager, len(requests))
            return Timing(time.perf_counter() - begun, tokens)

    def _collect(self, manager: Any, count: int) -> int:
        deadline, tokens = time.perf_counter() + _TIMEOUT, 0
        while count:
            result = manager.get_result(timeout=1)
            if result is not None and result.is_finished():
                if result.error is not None:
                    raise RuntimeError(f"{self.name}: {result.error}")
                tokens += len(result.generated_tokens)
                count -= 1
            elif not manager.is_running() or time.perf_counter() > deadline:
                raise RuntimeError(f"{self.name}: {count} requests were not answered")
        return tokens

    def seconds_per_token(self, request: Request) -> float:
        """Alone, without the time to the first token."""
        short = self.run([Request(request.token_ids, 1)], 1).seconds
        return (self.run([request], 1).seconds - short) / (request.new_tokens - 1)


PEERS = {peer.name: peer for peer in (StaticBatches, ContinuousBatches)}

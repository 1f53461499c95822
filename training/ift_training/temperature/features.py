"""Features of all drawn answers, a file a prompt: computed once, read from disk by every later run."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ift_serve.modeling.components.instruction_components import InstructionComponents
from ift_training.temperature.frozen_model import FrozenModel
from ift_training.temperature.partition import fit_partition
from ift_training.temperature.prompts import TaskPrompt
from ift_training.temperature.rollout_file import Answers
from ift_training.temperature.trajectories import PromptFeatures

_LOGIT_ROWS = 256
"""Rows of logits computed at a time."""


class FeatureCache:
    """A directory of safetensors files. ``key``: what the features depend on; those of another are computed anew."""

    def __init__(self, directory: Path, key: str) -> None:
        self._directory = directory
        self._key = key
        directory.mkdir(parents=True, exist_ok=True)

    def of(self, number: int, compute: Callable[[], PromptFeatures]) -> PromptFeatures:
        """The features of a prompt, by its number. Raises OSError."""
        path = self._directory / f"{number:06d}.safetensors"
        known = self._read(path)
        if known is None:
            known = compute()
            scratch = path.with_suffix(".unfinished")
            tensors = {field.name: getattr(known, field.name).contiguous() for field in fields(PromptFeatures)}
            save_file(tensors, scratch, metadata={"key": self._key})
            os.replace(scratch, path)
        return known

    def _read(self, path: Path) -> PromptFeatures | None:
        try:
            with safe_open(path, framework="pt") as file:
                if (file.metadata() or {}).get("key") != self._key:
                    return None
                return PromptFeatures(**{field.name: file.get_tensor(field.name) for field in fields(PromptFeatures)})
        except (FileNotFoundError, SafetensorError):
            return None


@torch.no_grad()
def compute_features(
    model: FrozenModel,
    components: InstructionComponents,
    prompt: TaskPrompt,
    answers: Sequence[Answers],
    initial: float,
) -> PromptFeatures:
    """The features of the answers to one prompt, by temperature; initial: T_0.

    What was drawn several times, as most is at low temperatures, is computed once.
    """
    ids = prompt.prompt.token_ids
    every = [(behaviour, tuple(answer)) for behaviour, own in enumerate(answers) for answer in own]
    different = list(dict.fromkeys(answer for _, answer in every))
    states = model.hidden_states([[*ids, *answer[:-1]] for answer in different])
    hidden = torch.cat([state[len(ids) - 1 :] for state in states])
    drawn = torch.tensor([token for answer in different for token in answer], device=hidden.device)
    parts = [
        _of_rows(model.logits(rows), tokens, initial)
        for rows, tokens in zip(torch.split(hidden, _LOGIT_ROWS), torch.split(drawn, _LOGIT_ROWS), strict=True)
    ]
    statistics, chosen, partition = (torch.cat(part).cpu() for part in zip(*parts, strict=True))
    lengths = torch.tensor([len(answer) for _, answer in every])
    rows = _rows_of([answer for _, answer in every], different)
    return PromptFeatures(
        hidden=hidden.cpu()[rows],
        statistics=statistics[rows],
        chosen=chosen[rows],
        partition=partition[rows],
        answer=torch.repeat_interleave(torch.arange(len(every)), lengths),
        behaviour=torch.tensor([behaviour for behaviour, _ in every]),
        instruction=model.instruction_vector(components, ids, prompt.prompt.segment_ids),
    )


def _rows_of(every: Sequence[tuple[int, ...]], different: Sequence[tuple[int, ...]]) -> Tensor:
    """Of each token of every answer, its row among those of the different ones."""
    begin, total = dict[tuple[int, ...], int](), 0
    for answer in different:
        begin[answer] = total
        total += len(answer)
    return torch.cat([torch.arange(begin[answer], begin[answer] + len(answer)) for answer in every])


def _of_rows(logits: Tensor, tokens: Tensor, initial: float) -> tuple[Tensor, Tensor, Tensor]:
    """Statistics ``[n, 2]``, the drawn logit less the largest ``[n]``, coefficients ``[n, 32]``."""
    log_probs = torch.log_softmax(logits, 1)
    probs = log_probs.exp()
    entropy = -torch.where(probs > 0, probs * log_probs, 0.0).sum(1)
    two = probs.topk(2, dim=1).values
    chosen = logits.gather(1, tokens[:, None])[:, 0] - logits.amax(1)
    return torch.stack((entropy, two[:, 0] - two[:, 1]), 1), chosen, fit_partition(logits, initial)

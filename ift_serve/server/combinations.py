"""Contradictions within a request: each is refused with the names of both fields, nothing is ignored."""

from __future__ import annotations

from ift_serve.engine.protocol.generate import SamplingParams
from ift_serve.engine.protocol.reasoning import BestOf, Reasoning, Vote
from ift_serve.server.errors import conflict
from ift_serve.v1 import inference_pb2 as pb

AnyGenerate = pb.GenerateRequest | pb.StreamGenerateRequest
_SINGLE = ("branch", "vote", "best_of", "auto")
"""Kinds that give one answer however many sequences they compare."""
_NOT_GREEDY = ("adaptive", "target_probability")
"""Fields of ``sampling`` that mean nothing where nothing is drawn."""


def check_combinations(
    request: AnyGenerate, sampling: SamplingParams, settings: Reasoning | None, *, has_thoughts: bool
) -> None:
    """Raise StatusError for the first contradiction. ``has_thoughts``: whether the answers may hold thoughts."""
    _check_output(request, sampling)
    kind = request.reasoning.WhichOneof("kind")
    path = f"reasoning.{kind}"
    if kind in _SINGLE and sampling.candidates > 1:
        raise conflict([path, "sampling.n"], f"gives one answer; {sampling.candidates} candidates cannot be had of it")
    if isinstance(settings, Vote | BestOf) and sampling.temperature == 0:
        raise conflict([path, "sampling.temperature"], "at temperature 0 all samples are the same; give one above 0")
    if kind == "branch":
        _check_branch(request.sampling, path)
    _check_adapter(request, settings)
    if request.sampling.HasField("reasoning_temperature") and not has_thoughts:
        problem = "the model has no markers of thoughts that are known, so no token is known to be thought"
        raise conflict(["sampling.reasoning_temperature", "reasoning"], problem)


def _check_output(request: AnyGenerate, sampling: SamplingParams) -> None:
    """Reading the form itself takes time, and is the engine's, beside its steps."""
    form, kind = request.output.WhichOneof("kind"), request.reasoning.WhichOneof("kind")
    if form is None:
        return
    path = f"output.{form}"
    if sampling.ignore_eos:
        raise conflict([path, "sampling.ignore_eos"], "an answer of a form ends where the form does")
    if kind in ("branch", "auto"):
        raise conflict([path, f"reasoning.{kind}"], "branches begin with tokens that the form may not allow")


def _check_branch(sampling: pb.Sampling, path: str) -> None:
    for name in ("temperature", "reasoning_temperature"):
        if sampling.HasField(name) and getattr(sampling, name) != 0:  # type: ignore[arg-type]
            raise conflict([path, f"sampling.{name}"], "branches go on greedily; leave the temperature open or give 0")
    for name in _NOT_GREEDY:
        if sampling.HasField(name):  # type: ignore[arg-type]
            raise conflict([path, f"sampling.{name}"], "branches go on greedily, at temperature 0")


def _check_adapter(request: AnyGenerate, settings: Reasoning | None) -> None:
    """What only an adapter has."""
    if request.adapter:
        return
    if isinstance(settings, BestOf) and settings.by == "adherence":
        raise conflict(["reasoning.best_of.by", "adapter"], "the adherence head is an adapter's; name one")
    if request.reasoning.WhichOneof("kind") == "auto":
        raise conflict(["reasoning.auto", "adapter"], "the classifier that chooses is an adapter's; name one")

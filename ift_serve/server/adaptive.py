"""Validation of adaptive temperature and adaptive-p."""

from __future__ import annotations

from ift_serve.engine.protocol.sampling import AdaptiveTemperature, TargetProbability, TemperatureRule
from ift_serve.server.bounds import choice, enum_names, inside, number
from ift_serve.server.errors import conflict, invalid
from ift_serve.v1 import inference_pb2 as pb

_HOTTEST = 10
_LONGEST_DECAY = 0.99
_ADAPTIVE, _TARGET = "sampling.adaptive", "sampling.target_probability"
_RULES = enum_names(pb.TemperatureRule.DESCRIPTOR, TemperatureRule.HEAD)


def adaptive_temperature(sampling: pb.Sampling, temperature: float, adapter: str) -> AdaptiveTemperature | None:
    """The rule of a request, None without one. ``temperature``: what it starts from. Raises StatusError."""
    if not sampling.HasField("adaptive"):
        return None
    message, default = sampling.adaptive, AdaptiveTemperature()
    if temperature == 0:
        raise conflict([_ADAPTIVE, "sampling.temperature"], "a temperature of 0 is greedy whatever the rule says")
    rule = TemperatureRule(choice(f"{_ADAPTIVE}.rule", message.rule, _RULES))
    if rule is TemperatureRule.HEAD:
        _check_head(message, adapter)
    chosen = AdaptiveTemperature(
        min=number(f"{_ADAPTIVE}.min", message.min, 0, _HOTTEST) if message.HasField("min") else default.min,
        max=number(f"{_ADAPTIVE}.max", message.max, 0, _HOTTEST, above=True)
        if message.HasField("max")
        else default.max,
        scale=number(f"{_ADAPTIVE}.scale", message.scale, 0, 10, above=True)
        if message.HasField("scale")
        else default.scale,
        greedy_below=number(f"{_ADAPTIVE}.greedy_below", message.greedy_below, 0, _HOTTEST),
        rule=rule,
        base=inside(f"{_ADAPTIVE}.base", message.base, 0, 1) if message.HasField("base") else default.base,
        theta=number(f"{_ADAPTIVE}.theta", message.theta, 0, 10, above=True)
        if message.HasField("theta")
        else default.theta,
    )
    _check_range(sampling, chosen)
    return chosen


def _check_head(message: pb.AdaptiveTemperature, adapter: str) -> None:
    for name in ("base", "theta"):
        if message.HasField(name):  # type: ignore[arg-type]
            raise conflict([f"{_ADAPTIVE}.{name}", f"{_ADAPTIVE}.rule"], f"only the rule entropy has {name}")
    if not adapter:
        raise conflict([f"{_ADAPTIVE}.rule", "adapter"], "the temperature head is an adapter's; name one")


def _check_range(sampling: pb.Sampling, chosen: AdaptiveTemperature) -> None:
    if chosen.min > chosen.max:
        raise conflict([f"{_ADAPTIVE}.min", f"{_ADAPTIVE}.max"], f"{chosen.min:g} is more than {chosen.max:g}")
    if chosen.greedy_below > chosen.max:
        problem = f"every temperature would be below {chosen.greedy_below:g}; give a temperature of 0 for that"
        raise conflict([f"{_ADAPTIVE}.greedy_below", f"{_ADAPTIVE}.max"], problem)
    if 0 < chosen.greedy_below <= chosen.min:
        problem = f"no temperature is below {chosen.greedy_below:g}"
        raise conflict([f"{_ADAPTIVE}.greedy_below", f"{_ADAPTIVE}.min"], problem)
    if not sampling.HasField("temperature"):
        return
    for name, is_outside in (("min", sampling.temperature < chosen.min), ("max", sampling.temperature > chosen.max)):
        if is_outside:
            problem = f"{sampling.temperature:g} is outside {chosen.min:g} to {chosen.max:g}"
            raise conflict(["sampling.temperature", f"{_ADAPTIVE}.{name}"], problem)


def target_probability(sampling: pb.Sampling, temperature: float) -> TargetProbability | None:
    """The wanted probability of a request, None without one. Raises StatusError."""
    if not sampling.HasField("target_probability"):
        return None
    message = sampling.target_probability
    if not message.HasField("target"):
        raise invalid(f"{_TARGET}.target", "is missing; give a probability")
    if temperature == 0:
        raise conflict([_TARGET, "sampling.temperature"], "at temperature 0 nothing is drawn")
    decay = message.decay if message.HasField("decay") else TargetProbability(target=0).decay
    # A float of the message may be a little more than the number that it stands for.
    decay = number(f"{_TARGET}.decay", decay, 0, _LONGEST_DECAY + 1e-7)
    return TargetProbability(target=inside(f"{_TARGET}.target", message.target, 0, 1), decay=min(decay, _LONGEST_DECAY))


def applied_adaptive(adaptive: AdaptiveTemperature | None) -> pb.AdaptiveTemperature | None:
    """What a caller is told of a rule: what the rule has, so that it is accepted as it is."""
    if adaptive is None:
        return None
    message = pb.AdaptiveTemperature(min=adaptive.min, max=adaptive.max, scale=adaptive.scale)
    if adaptive.greedy_below:
        message.greedy_below = adaptive.greedy_below
    message.rule = pb.TEMPERATURE_RULE_HEAD
    if adaptive.rule is TemperatureRule.ENTROPY:
        message.rule, message.base, message.theta = pb.TEMPERATURE_RULE_ENTROPY, adaptive.base, adaptive.theta
    return message


def applied_target(target: TargetProbability | None) -> pb.TargetProbability | None:
    """What a caller is told of a wanted probability."""
    return None if target is None else pb.TargetProbability(target=target.target, decay=target.decay)

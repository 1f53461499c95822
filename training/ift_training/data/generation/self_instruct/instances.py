"""Inputs and outputs out of what a model wrote for a task, by the rules of the published code."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ift_serve.evaluation.serving.outcomes import Answer
from ift_training.data.generation.record import Reason

_EXAMPLE = re.compile(r"Example\s?\d*\.?")
_OUTPUT = re.compile(r"Output\s*\d*\s*:")
_INPUT = re.compile(r"Input\s*\d*\s*:")
_LABEL = "Class label:"


@dataclass(frozen=True, slots=True)
class Instance:
    """An input, perhaps empty, and its output; ``rejection`` where a rule drops it."""

    input: str
    output: str
    rejection: Reason | None = None


def is_classification(answer: Answer) -> bool:
    """Whether a model said that a task is a classification."""
    return answer.text.strip().rstrip(".").lower() == "yes"


def input_first(answer: Answer) -> list[Instance]:
    """Instances of examples with an input, if they need one, and then an output."""
    text = answer.text.strip()
    if _EXAMPLE.search(text):
        parts = [part.strip() for part in _EXAMPLE.split(text)]
        found = [_input_and_output(part) for part in parts if part]
    elif _OUTPUT.search(text):
        found = [_input_and_output(text)]
    else:
        return [Instance("", text, Reason("form", "is no example with an output"))]
    return _checked(found, answer)


def output_first(answer: Answer) -> list[Instance]:
    """Instances of class labels, each with the input that it is right for."""
    if _LABEL not in answer.text:
        return [Instance("", answer.text.strip(), Reason("form", "has no class label"))]
    found = []
    for part in answer.text.split(_LABEL)[1:]:
        label, _, rest = part.strip().partition("\n")
        # The label's input is written as the prompt shows it; what is kept is the input itself.
        found.append(Instance(_INPUT.sub("", rest.strip(), count=1).strip(), label.strip()))
    return _checked(found, answer)


def _input_and_output(text: str) -> Instance:
    """Of several outputs the first counts, up to where another input begins."""
    parts = _OUTPUT.split(text)
    given, output = (parts[0].strip(), parts[1].strip()) if len(parts) > 1 else ("", text.strip())
    output = _INPUT.split(output)[0].strip()
    return Instance(re.sub(rf"^{_INPUT.pattern}", "", given).strip(), output)


def _checked(found: Sequence[Instance], answer: Answer) -> list[Instance]:
    """Instances with why they are dropped. What was cut off loses its last; one input with two outputs drops all."""
    checked = [Instance(each.input, each.output, _rejection(each)) for each in found]
    if answer.is_cut and checked:
        last = checked[-1]
        checked[-1] = Instance(last.input, last.output, Reason("cut", "the answer was cut off at its length"))
    outputs: dict[str, str] = {}
    for each in checked:
        if each.rejection is None and each.input and outputs.setdefault(each.input, each.output) != each.output:
            reason = Reason("contradiction", "one input has two outputs")
            return [Instance(other.input, other.output, other.rejection or reason) for other in checked]
    seen: set[tuple[str, str]] = set()
    for index, each in enumerate(checked):
        if each.rejection is None and (each.input, each.output) in seen:
            checked[index] = Instance(each.input, each.output, Reason("repeated", "is there already"))
        seen.add((each.input, each.output))
    return checked


def _rejection(found: Instance) -> Reason | None:
    if not found.output:
        return Reason("empty", "has no output")
    if found.input == found.output:
        return Reason("copy", "the output is the input")
    if any(pattern.search(text) for pattern in (_OUTPUT, _INPUT) for text in (found.input, found.output)):
        return Reason("form", "holds the marks of another example")
    if found.input.endswith(":") or found.output.endswith(":"):
        return Reason("unfinished", "ends with a colon")
    return None

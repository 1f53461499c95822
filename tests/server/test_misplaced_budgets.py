"""A budget has one place: in another one it is refused, and never left aside."""

from __future__ import annotations

from typing import Any

import pytest

from ift_serve.v1 import inference_pb2 as pb
from ift_serve.v1 import reasoning_pb2
from tests.server.conftest import refused
from tests.server.test_reasoning_contract import asked


@pytest.mark.parametrize("name", ["trace", "vote", "best_of"])
async def test_case_08_a_budget_in_the_wrong_place_is_refused_and_not_left_aside(stub: Any, name: str) -> None:
    settings = "fields { key: 'budget' value { number_value: 5 } }"
    misplaced = asked(f"registered {{ name: '{name}' settings {{ {settings} }} }}")
    assert await refused(stub.Generate(misplaced)) == ["reasoning.registered.name"]


@pytest.mark.parametrize("name", ["budget", "thinking_token_budget", "reasoning_budget"])
def test_case_08_no_message_has_a_second_place_for_it(name: str) -> None:
    messages: list[type[Any]] = [pb.GenerateRequest, pb.Sampling, reasoning_pb2.Reasoning, reasoning_pb2.Vote]
    for message in messages:
        with pytest.raises(ValueError, match=name):
            message(**{name: 5})

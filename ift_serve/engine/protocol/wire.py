"""The messages between the server process and the engine process, as they go over the socket.

Plain msgspec structs, encoded as MessagePack. Times are seconds of the machine-wide monotonic clock
(``time.monotonic()``), which both processes share.
"""

from __future__ import annotations

import msgspec

from ift_serve.engine.protocol.adapter import AdapterInfo, AdapterReply, LoadAdapter, UnloadAdapter
from ift_serve.engine.protocol.generate import CandidateOutput, GenerateRequest, StopCandidate
from ift_serve.engine.protocol.model import Failed, Ready
from ift_serve.engine.protocol.results import RequestFailed
from ift_serve.engine.protocol.score import ScoreOutput, ScoreRequest
from ift_serve.engine.protocol.stats import EngineStats


class Abort(msgspec.Struct, frozen=True, tag="abort"):
    """The caller is gone or out of time: free the whole request within one step, send nothing more."""

    request_id: str


class Profile(msgspec.Struct, frozen=True, tag="profile"):
    """Write a trace of the next steps into the directory that the configuration names."""


class Shutdown(msgspec.Struct, frozen=True, tag="shutdown"):
    """End the engine process once this message is read."""


class StepOutputs(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="outputs"):
    """Everything one step produced, for all requests at once, and every change of an adapter since the last one."""

    outputs: list[CandidateOutput | ScoreOutput | AdapterReply | RequestFailed]
    stats: EngineStats
    adapters: list[AdapterInfo] = []


EngineInput = GenerateRequest | ScoreRequest | StopCandidate | Abort | LoadAdapter | UnloadAdapter | Profile | Shutdown
EngineOutput = Ready | Failed | StepOutputs

encode = msgspec.msgpack.Encoder().encode
decode_input = msgspec.msgpack.Decoder(EngineInput).decode
decode_output = msgspec.msgpack.Decoder(EngineOutput).decode

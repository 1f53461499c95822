"""How many requests a second the evaluation can make: its own cost, against a server that computes nothing.

    python benchmarks/eval_ceiling.py --requests 4000 --json

Client and stub server are two processes on the same machine, as they are when a model is small. The figure is of whole
requests through lm-eval's model class: prompt, call, answer kept in SQLite. The goal is 500 a second on two cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from lm_eval.api.instance import Instance

from ift_serve.evaluation.harness.backend import IftServeLM
from ift_serve.v1 import inference_pb2, inference_pb2_grpc, model_pb2, model_pb2_grpc

GOAL = 500.0
_ANSWER = "word " * 200
"""About what IFEval's answers are long."""


class Inference(inference_pb2_grpc.InferenceServiceServicer):
    """Answers at once."""

    async def Generate(self, request: inference_pb2.GenerateRequest, context: Any) -> inference_pb2.GenerateResponse:
        """One candidate, always the same."""
        candidate = inference_pb2.Candidate(text=_ANSWER, finish_reason=inference_pb2.FINISH_REASON_EOS)
        usage = inference_pb2.Usage(prompt_tokens=100, generated_tokens=200)
        return inference_pb2.GenerateResponse(candidates=[candidate], usage=usage, model="stub")

    async def Score(self, request: inference_pb2.ScoreRequest, context: Any) -> inference_pb2.ScoreResponse:
        """A score for each continuation."""
        count = len(request.continuations.continuations)
        scores = [inference_pb2.Score(log_prob=-1.0 - i, token_count=2) for i in range(count)]
        return inference_pb2.ScoreResponse(scores=scores, usage=inference_pb2.Usage(prompt_tokens=100), model="stub")


class Model(model_pb2_grpc.ModelServiceServicer):
    """A model that there is not."""

    async def GetModel(self, request: model_pb2.GetModelRequest, context: Any) -> model_pb2.GetModelResponse:
        """Its description."""
        limits = model_pb2.Limits(context_length=4096, running_sequences=16)
        return model_pb2.GetModelResponse(name="stub", fingerprint="stub", limits=limits, features=["score"])


async def serve() -> None:
    """Serve until the parent closes our input; the port goes to standard output."""
    server = grpc.aio.server()
    inference_pb2_grpc.add_InferenceServiceServicer_to_server(Inference(), server)  # type: ignore[abstract, no-untyped-call]
    model_pb2_grpc.add_ModelServiceServicer_to_server(Model(), server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    with ThreadPoolExecutor(1) as pool:
        await asyncio.get_running_loop().run_in_executor(pool, sys.stdin.read)
    await server.stop(0)


def measure(port: str, requests: int) -> dict[str, Any]:
    """Rates of generation, of choices (four a question), and of a run of which everything is kept."""
    prompt = "Write a short text about the sea without any comma. " * 8
    asked = [Instance("generate_until", {}, (f"{i} {prompt}", {"until": []}), 0, ("t", i, 1)) for i in range(requests)]
    choices = [
        Instance("loglikelihood", {}, (f"{i} {prompt}", f" {choice}"), j, ("t", i, 1))
        for i in range(requests)
        for j, choice in enumerate("ABCD")
    ]
    with tempfile.TemporaryDirectory() as folder:
        lm = IftServeLM(f"127.0.0.1:{port}", results=str(Path(folder) / "results.sqlite"))
        try:
            lm.generate_until(asked[:50], disable_tqdm=True)
            rates = {}
            for name, call, count in (
                ("generate", lambda: lm.generate_until(asked[50:], disable_tqdm=True), requests - 50),
                ("score", lambda: lm.loglikelihood(choices, disable_tqdm=True), requests),
                ("kept", lambda: lm.generate_until(asked, disable_tqdm=True), requests),
            ):
                begun = time.perf_counter()
                call()
                rates[name] = round(count / (time.perf_counter() - begun), 1)
            return {"requests": requests, "requests_per_second": rates, "in_flight": lm.runner.concurrency}
        finally:
            lm.close()


def main() -> None:
    """Run the stub, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--requests", type=int, default=4000)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve())
        return
    command = [sys.executable, __file__, "--serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as stub:
        assert stub.stdin is not None and stub.stdout is not None
        try:
            report = measure(stub.stdout.readline().strip(), options.requests)
        finally:
            stub.stdin.close()
    report |= {"goal": GOAL, "cores": os.cpu_count()}
    report["passed"] = min(report["requests_per_second"].values()) >= GOAL
    if not options.json:
        for name, rate in report["requests_per_second"].items():
            print(f"{name:>10}: {rate:8.1f} requests a second")
        return
    print(json.dumps(report))


if __name__ == "__main__":
    main()

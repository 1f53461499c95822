"""`ift-serve serve`: run a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ift_serve.cli.connect import fail


def _given(**given: Any) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}


def _named(given: list[str]) -> dict[str, Path]:
    """``NAME=DIRECTORY`` options. Raises ValueError."""
    found = {}
    for option in given:
        name, equals, path = option.partition("=")
        if not equals or not path:
            raise ValueError(f"--adapter {option}: write --adapter NAME=DIRECTORY")
        if name in found:
            raise ValueError(f"--adapter {option}: {name} is given twice; each adapter needs a name of its own")
        found[name] = Path(path)
    return found


def serve(
    model: Annotated[
        str | None, typer.Argument(help="directory, .gguf file or hub id; none: the embedded model")
    ] = None,
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: a free one", min=0, max=65535)] = 50051,
    metrics_port: Annotated[int, typer.Option(help="0: a free one; -1: no metrics", min=-1, max=65535)] = 9464,
    metrics_host: Annotated[str, typer.Option(help="address of the metrics port")] = "127.0.0.1",
    name: Annotated[str | None, typer.Option(help="name shown to clients")] = None,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16, float16")] = "auto",
    weights: Annotated[str, typer.Option(help="auto (as stored), int8, int4")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda")] = "auto",
    threads: Annotated[int | None, typer.Option(help="compute threads", min=1)] = None,
    context_length: Annotated[int | None, typer.Option(help="tokens of prompt and answer", min=1)] = None,
    max_sequences: Annotated[int | None, typer.Option(help="sequences that run at once", min=1)] = None,
    max_batch_tokens: Annotated[int | None, typer.Option(help="tokens computed in one step", min=1)] = None,
    max_waiting: Annotated[int | None, typer.Option(help="requests of one caller that wait", min=1)] = None,
    cache_mib: Annotated[int | None, typer.Option(help="memory for keys and values, MiB", min=1)] = None,
    cache_dtype: Annotated[str, typer.Option(help="keys and values: auto (the model's), fp8 on a GPU")] = "auto",
    batch_invariant: Annotated[
        bool, typer.Option("--batch-invariant", help="the same bits whatever else is computed beside it, on a GPU too")
    ] = False,
    attention_backend: Annotated[str, typer.Option(help="auto, triton, cpu, reference (for debugging)")] = "auto",
    tensor_parallel: Annotated[
        int | None, typer.Option(help="processes that compute the model together, on as many GPUs", min=1)
    ] = None,
    speculation: Annotated[
        Literal["off", "lookup", "draft"] | None,
        typer.Option(help="what guesses tokens, to draw several in a step: nothing, the text so far, a draft model"),
    ] = None,
    draft_model: Annotated[
        str | None, typer.Option(help="directory of a small model with the same tokens; means --speculation draft")
    ] = None,
    adapter: Annotated[
        list[str] | None, typer.Option(help="NAME=DIRECTORY, loaded at the start; may be given several times")
    ] = None,
    adapter_root: Annotated[
        list[Path] | None, typer.Option(help="clients may load adapters from below it", exists=True, file_okay=False)
    ] = None,
    adapter_folder: Annotated[
        Path | None, typer.Option(help="keep every adapter in it loaded, by its name", exists=True, file_okay=False)
    ] = None,
    require_signature: Annotated[
        Path | None,
        typer.Option(help="file or directory of minisign public keys: adapters need a signature of one", exists=True),
    ] = None,
    adapter_slots: Annotated[int | None, typer.Option(help="adapters that requests use at once", min=1)] = None,
    max_adapters: Annotated[int | None, typer.Option(help="adapters in host memory at once", min=1)] = None,
    max_adapter_bytes: Annotated[int | None, typer.Option(help="host memory of loaded adapters", min=1)] = None,
    evict_adapters: Annotated[
        bool, typer.Option(help="past these, the adapter unused for longest gives way; otherwise loads are refused")
    ] = True,
    max_lora_rank: Annotated[int | None, typer.Option(help="largest rank that is loaded", min=1, max=256)] = None,
    prefix_caching: Annotated[bool, typer.Option(help="reuse the keys and values of common prefixes")] = True,
    chat_template: Annotated[str | None, typer.Option(help="name of one of the tokenizer's chat templates")] = None,
    parse_special_tokens: Annotated[
        bool, typer.Option(help="control tokens typed into messages are control tokens, not text")
    ] = False,
    tls_certificate: Annotated[Path | None, typer.Option(exists=True, dir_okay=False)] = None,
    tls_key: Annotated[Path | None, typer.Option(exists=True, dir_okay=False)] = None,
    tls_client_authority: Annotated[
        Path | None, typer.Option(help="require client certificates of it", exists=True, dir_okay=False)
    ] = None,
    tokens_file: Annotated[
        Path | None, typer.Option(help="lines of `role name token`; roles generate, admin", exists=True, dir_okay=False)
    ] = None,
    audit_log: Annotated[
        Path | None,
        typer.Option(help="file for a line of JSON about each call that needs the role admin"),
    ] = None,
    allow_insecure: Annotated[bool, typer.Option(help="listen beyond this machine without TLS")] = False,
    request_bytes: Annotated[int | None, typer.Option(help="bytes of a request message", min=1024)] = None,
    answer_entries: Annotated[
        int | None, typer.Option(help="tokens and alternatives of all candidates, in one message", min=1024)
    ] = None,
    stream_entries: Annotated[int | None, typer.Option(help="the same of a streamed answer", min=1024)] = None,
    max_calls: Annotated[int | None, typer.Option(help="calls in flight", min=1)] = None,
    max_admin_calls: Annotated[int | None, typer.Option(help="adapter calls of one caller in flight", min=1)] = None,
    max_priority: Annotated[
        int | None, typer.Option(help="highest priority of callers of role generate", min=0, max=100)
    ] = None,
    max_thought_tokens: Annotated[int | None, typer.Option(help="tokens of one thought", min=0)] = None,
    max_width: Annotated[int | None, typer.Option(help="sequences that a strategy compares", min=2, max=256)] = None,
    max_total_tokens: Annotated[
        int | None, typer.Option(help="tokens of a request, hidden sequences included", min=1)
    ] = None,
    max_connections: Annotated[int | None, typer.Option(help="open connections", min=1)] = None,
    max_connections_per_address: Annotated[
        int | None, typer.Option(help="of one address (of IPv6 its /64); else half of all", min=1)
    ] = None,
    trusted_proxy: Annotated[
        list[str] | None,
        typer.Option(help="address or network of a proxy: its connections are many callers', its x-forwarded-for true"),
    ] = None,
    max_streams: Annotated[int | None, typer.Option(help="calls on one connection", min=1)] = None,
    max_watches: Annotated[int | None, typer.Option(help="watches of adapters, of health", min=1)] = None,
    stream_idle_timeout: Annotated[
        float | None, typer.Option(help="seconds that a stream may be left unread", min=0.1)
    ] = None,
    sampling_defaults: Annotated[
        str, typer.Option(help="of what requests leave open: model (its generation_config), neutral")
    ] = "model",
    engine_patience: Annotated[
        float | None, typer.Option(help="seconds without progress after which the engine is replaced", min=0.1)
    ] = None,
    profile: Annotated[
        Path | None, typer.Option(help="write a trace of some steps into it at each SIGUSR2", file_okay=False)
    ] = None,
    profile_steps: Annotated[int | None, typer.Option(help="steps in a trace", min=1)] = None,
    check_timeout: Annotated[
        float | None, typer.Option(help="seconds that the checks of one response may take", min=0.1)
    ] = None,
    max_evaluations: Annotated[
        int | None, typer.Option(help="evaluations that the server runs at once for admins; 0: none", min=0)
    ] = None,
    drain_timeout: Annotated[float, typer.Option(help="seconds for calls in flight on SIGTERM", min=0)] = 30.0,
    drain_notice: Annotated[
        float, typer.Option(help="seconds between NOT_SERVING and refusing calls on SIGTERM", min=0)
    ] = 0.0,
    log_level: Annotated[str, typer.Option(help="debug, info, warning, error")] = "info",
    picker_metrics: Annotated[
        bool, typer.Option(help="metrics also by the names that Kubernetes' endpoint pickers know (vllm:...)")
    ] = False,
    otlp_endpoint: Annotated[
        str | None,
        typer.Option(help="http(s)://HOST:PORT of a collector (OTLP, gRPC) of spans and metrics; extra otel"),
    ] = None,
    trace_ratio: Annotated[
        float | None,
        typer.Option(help="share of calls whose spans are recorded, where the caller decides nothing", min=0, max=1),
    ] = None,
    log_prompts: Annotated[bool, typer.Option(help="write prompt texts into the log")] = False,
) -> None:
    """Serve MODEL (or the embedded model) until SIGTERM or Ctrl-C."""
    from pydantic import ValidationError

    from ift_serve.cli.hosted_evaluation import hosted_evaluation
    from ift_serve.embedded import EMBEDDED_NAME, model_path
    from ift_serve.engines.process import engine_process
    from ift_serve.frontend.errors import EngineError, EngineStartError
    from ift_serve.modeling.checkpoint.files import ModelFilesError
    from ift_serve.modeling.checkpoint.gguf_directory import gguf_directory
    from ift_serve.server.config import ServerConfig
    from ift_serve.server.run import serve as run
    from ift_serve.text.message import PromptError

    try:
        if model is None:
            model, name = str(model_path()), name or EMBEDDED_NAME
        elif model.endswith(".gguf"):
            name, model = name or Path(model).stem, str(gguf_directory(Path(model)))
        engine = _given(
            model=model,
            model_name=name,
            chat_template=chat_template,
            dtype=dtype,
            weights=weights,
            device=device,
            threads=threads,
            context_length=context_length,
            max_sequences=max_sequences,
            max_batch_tokens=max_batch_tokens,
            max_waiting=max_waiting,
            cache_bytes=None if cache_mib is None else cache_mib * 2**20,
            cache_dtype=cache_dtype,
            batch_invariant=batch_invariant,
            attention_backend=attention_backend,
            prefix_caching=prefix_caching,
            tensor_parallel=tensor_parallel,
            speculation="draft" if speculation is None and draft_model is not None else speculation,
            draft_model=draft_model,
            trusted_keys=None if require_signature is None else str(require_signature.absolute()),
            adapter_slots=adapter_slots,
            max_lora_rank=max_lora_rank,
            patience=engine_patience,
            max_adapters=max_adapters,
            max_adapter_bytes=max_adapter_bytes,
            evict_adapters=evict_adapters,
            profile=None if profile is None else str(profile.absolute()),
            profile_steps=profile_steps,
        )
        config = ServerConfig.model_validate(
            {
                "engine": engine, "host": host, "port": port, "metrics_host": metrics_host,
                "metrics_port": None if metrics_port < 0 else metrics_port, "tls_certificate": tls_certificate,
                "tls_key": tls_key, "tls_client_authority": tls_client_authority, "tokens_file": tokens_file,
                "audit_log": audit_log,
                "allow_insecure": allow_insecure, "drain_timeout": drain_timeout, "drain_notice": drain_notice,
                "log_level": log_level, "log_prompts": log_prompts, "adapters": _named(adapter or []),
                "adapter_roots": adapter_root or [],
                "adapter_folder": adapter_folder, "sampling_defaults": sampling_defaults,
                "parse_special_tokens": parse_special_tokens, "otlp_endpoint": otlp_endpoint,
                "trace_ratio": trace_ratio, "picker_metrics": picker_metrics,
                "limits": _given(
                    request_bytes=request_bytes, answer_entries=answer_entries, stream_entries=stream_entries,
                    max_priority=max_priority, thought_tokens=max_thought_tokens, width=max_width,
                    total_tokens=max_total_tokens,
                ),
                **_given(
                    max_calls=max_calls, max_connections=max_connections, max_streams=max_streams,
                    max_connections_per_address=max_connections_per_address, trusted_proxies=trusted_proxy,
                    max_watches=max_watches, max_admin_calls=max_admin_calls,
                    stream_idle_timeout=stream_idle_timeout, check_timeout=check_timeout,
                    max_evaluations=max_evaluations,
                ),
            }
        )  # fmt: skip
        run(config, engine_process, evaluate=hosted_evaluation)
    except ValidationError as error:
        told = [(".".join(map(str, e["loc"])), e["msg"].removeprefix("Value error, ")) for e in error.errors()]
        problems = [f"{where}: {message}".lstrip(": ") for where, message in told]
        raise fail("; ".join(problems)) from None
    except (EngineStartError, EngineError, ModelFilesError, PromptError, OSError, ValueError) as error:
        raise fail(str(error)) from None

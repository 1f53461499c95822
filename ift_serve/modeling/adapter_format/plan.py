"""Expected tensors of ``adapter_model.safetensors``, worked out from its configuration and the base model alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.modeling.adapter_format.config import PEFT_CONFIG, PEFT_WEIGHTS
from ift_serve.modeling.adapter_format.errors import AdapterError, quoted
from ift_serve.modeling.adapter_format.peft_config import PeftConfig

PREFIX = "base_model.model."
Role = Literal["a", "b", "magnitude", "replaced", "stored", "rows"]


@dataclass(frozen=True, slots=True)
class Expected:
    """One tensor. ``stored``: a weight of the base model that PEFT writes along with some adapters, or does not."""

    role: Role
    path: str
    shape: tuple[int, ...]

    @property
    def optional(self) -> bool:
        """Whether the file may lack it."""
        return self.role == "stored"


@dataclass(slots=True)
class Plan:
    """``tensors`` by name in the file; ``scales`` by path of the adapted modules; ``token_ids`` by module path."""

    tensors: dict[str, Expected] = field(default_factory=dict)
    scales: dict[str, float] = field(default_factory=dict)
    token_ids: dict[str, list[int]] = field(default_factory=dict)
    tied_tokens: bool = False


def make_plan(config: PeftConfig, base: BaseMetadata, max_rank: int) -> Plan:
    """Raises AdapterError, naming the field, for what the base model does not have or serving does not do."""
    plan = Plan()
    if config.ensure_weight_tying and base.tied_by_name:
        raise AdapterError(
            f"{PEFT_CONFIG}: ensure_weight_tying: True: adapters tied across embeddings and head are not served; "
            "train with False"
        )
    _plan_lora(plan, config, base, max_rank)
    _plan_replaced(plan, config, base)
    _plan_tokens(plan, config, base)
    if not plan.tensors:
        raise AdapterError(
            f"{PEFT_CONFIG}: target_modules: {quoted(config.target_modules)}: the base model "
            f"({base.architecture}) has no such module; was the adapter made for another one?"
        )
    _plan_stored(plan, config, base)
    return plan


def _plan_lora(plan: Plan, config: PeftConfig, base: BaseMetadata, max_rank: int) -> None:
    for path in base.modules:
        if config.every_linear and (path not in base.linears or path == base.head_path):
            continue
        if not config.targets(path):
            continue
        shape = base.shapes.get(f"{path}.weight")
        if shape is None or not (path in base.linears or path == base.embedding_path):
            raise AdapterError(
                f"{PEFT_CONFIG}: target_modules: {quoted(config.target_modules)}: matches {path}, which is neither a "
                "linear layer nor the token embeddings; name linear layers"
            )
        rank = config.rank_of(path)
        if rank > max_rank:
            raise AdapterError(
                f"{PEFT_CONFIG}: rank {rank} of {path} is over the {max_rank} that is served; raise the server's "
                "limit or train with a smaller r"
            )
        _add_lora(plan, path, shape, rank, embeddings=path == base.embedding_path, dora=config.use_dora)
        plan.scales[path] = config.scale_of(path, rank)


def _add_lora(plan: Plan, path: str, shape: tuple[int, ...], rank: int, *, embeddings: bool, dora: bool) -> None:
    outputs, inputs = shape[::-1] if embeddings else shape
    names = ("lora_embedding_A", "lora_embedding_B") if embeddings else ("lora_A.weight", "lora_B.weight")
    plan.tensors[f"{PREFIX}{path}.{names[0]}"] = Expected("a", path, (rank, inputs))
    plan.tensors[f"{PREFIX}{path}.{names[1]}"] = Expected("b", path, (outputs, rank))
    if dora:
        plan.tensors[f"{PREFIX}{path}.lora_magnitude_vector"] = Expected("magnitude", path, (outputs,))


def _plan_replaced(plan: Plan, config: PeftConfig, base: BaseMetadata) -> None:
    for name in config.modules_to_save:
        if not any(path.endswith(name) for path in base.modules):
            raise AdapterError(
                f"{PEFT_CONFIG}: modules_to_save: {quoted(name)}: the base model ({base.architecture}) has no such "
                "module, so what was trained in it could not be used"
            )
    saved = {path for path in base.modules if config.saves(path)}
    for name, shape in base.shapes.items():
        parts = name.split(".")
        if any(".".join(parts[:end]) in saved for end in range(1, len(parts))):
            plan.tensors[PREFIX + name] = Expected("replaced", name, shape)
    both = [path for path in plan.scales if f"{PREFIX}{path}.weight" in plan.tensors]
    if both:
        raise AdapterError(f"{PEFT_CONFIG}: modules_to_save: {both[0]} also has LoRA; a module can have one of them")


def _plan_tokens(plan: Plan, config: PeftConfig, base: BaseMetadata) -> None:
    """PEFT's rule (``set_additional_trainable_modules``): a tied head follows the embeddings, or has its own ids."""
    given = config.trainable_token_indices
    chosen = given if isinstance(given, dict) else {base.embedding_path: given} if given else {}
    for name, ids in chosen.items():
        paths = [path for path in base.modules if name and path.endswith(name)]
        if not paths or any(path not in (base.embedding_path, base.head_path) for path in paths):
            raise AdapterError(
                f"{PEFT_CONFIG}: trainable_token_indices: {quoted(name)}: trainable tokens are served for the "
                f"embeddings ({base.embedding_path}) and the head ({base.head_path}) only"
            )
        plan.token_ids.update((path, ids) for path in paths)
    embedding, head = base.embedding_path, base.head_path
    if base.tied_by_name and embedding in plan.token_ids:
        plan.tied_tokens = plan.token_ids.get(head, plan.token_ids[embedding]) == plan.token_ids[embedding]
    if plan.tied_tokens:
        plan.token_ids.pop(head, None)
    for path, ids in plan.token_ids.items():
        _check_tokens(plan, path, ids, base)
        rows = f"{PREFIX}{path}.token_adapter.trainable_tokens_delta"
        plan.tensors[rows] = Expected("rows", path, (len(ids), base.hidden_size))


def _check_tokens(plan: Plan, path: str, ids: list[int], base: BaseMetadata) -> None:
    where = f"{PEFT_CONFIG}: trainable_token_indices: {path}"
    if not ids or len(set(ids)) != len(ids):
        raise AdapterError(f"{where}: ids are missing or repeat")
    if max(ids) >= base.shapes[f"{path}.weight"][0]:
        raise AdapterError(f"{where}: token {max(ids)} is outside the vocabulary of {base.vocabulary_size}")
    if f"{base.head_path}.bias" in base.shapes:
        raise AdapterError(f"{where}: PEFT drops the bias of this model's head; trainable tokens are not served")
    for changed in (path, base.head_path) if plan.tied_tokens else (path,):
        if changed in plan.scales or f"{PREFIX}{changed}.weight" in plan.tensors:
            raise AdapterError(f"{where}: {changed} also has LoRA or a full copy; a module can have one of them")


def _plan_stored(plan: Plan, config: PeftConfig, base: BaseMetadata) -> None:
    """PEFT stores the embeddings' and the head's own weight beside their LoRA, or plainly if told to."""
    for path in (base.embedding_path, base.head_path):
        if not path or path in plan.token_ids or f"{PREFIX}{path}.weight" in plan.tensors:
            continue
        middle = ".base_layer" if path in plan.scales else ""
        for kind in ("weight", "bias"):
            if (shape := base.shapes.get(f"{path}.{kind}")) is not None:
                plan.tensors[f"{PREFIX}{path}{middle}.{kind}"] = Expected("stored", f"{path}.{kind}", shape)


def check_names(plan: Plan, shapes: dict[str, tuple[int, ...]], config: PeftConfig, base: BaseMetadata) -> None:
    """Whether the file's tensors are the planned ones. Raises AdapterError, naming the first that is not."""
    _check_vocabulary(shapes, base)
    for name, shape in shapes.items():
        expected = plan.tensors.get(name)
        if expected is None:
            raise AdapterError(f"{PEFT_WEIGHTS}: {quoted(name)}: {_why_unexpected(name, config, base)}")
        if shape != expected.shape:
            raise AdapterError(
                f"{PEFT_WEIGHTS}: {quoted(name)}: shape {quoted(list(shape))}; the base model and {PEFT_CONFIG} "
                f"want {list(expected.shape)}"
            )
    missing = next((n for n, e in plan.tensors.items() if n not in shapes and not e.optional), None)
    if missing is not None:
        raise AdapterError(f"{PEFT_WEIGHTS}: {missing}: is missing, though {PEFT_CONFIG} asks for it")


def _check_vocabulary(shapes: dict[str, tuple[int, ...]], base: BaseMetadata) -> None:
    """PEFT stores embeddings and head that were resized before the training; they are of another base model."""
    for path in filter(None, (base.embedding_path, base.head_path)):
        own = base.shapes[f"{path}.weight"]
        for name, shape in shapes.items():
            if not name.startswith(f"{PREFIX}{path}.") or len(shape) != 2:
                continue
            rows = shape[1] if name.endswith("lora_embedding_A") else shape[0]
            whole = name.endswith(".weight") and ".lora_" not in name and shape[1] == own[1]
            by_token = name.endswith("lora_embedding_A") or (path == base.head_path and name.endswith("lora_B.weight"))
            if (whole or by_token) and rows != own[0]:
                raise AdapterError(
                    f"{PEFT_WEIGHTS}: {quoted(name)}: made for a vocabulary of {rows} tokens, and the base model has "
                    f"{own[0]}: the embeddings were resized before the training. Resize the base model alike "
                    f"(resize_token_embeddings({rows})), save it with the adapter's tokenizer and serve that, or train "
                    "without resizing"
                )


def _why_unexpected(name: str, config: PeftConfig, base: BaseMetadata) -> str:
    if not name.startswith(PREFIX):
        return f"not a name that PEFT gives; they begin with {PREFIX}"
    path = name.removeprefix(PREFIX)
    if ".lora_magnitude_vector" in path and not config.use_dora:
        return f"a magnitude, but {PEFT_CONFIG} says use_dora: false"
    for mark in (".lora_", ".token_adapter."):
        if mark in path:
            module = path.split(mark)[0]
            if module not in base.modules:
                return f"the base model ({base.architecture}) has no such module"
            return f"{PEFT_CONFIG} does not name this module, or not for this"
    if path in base.shapes:
        return f"a full weight, but {PEFT_CONFIG} does not name its module in modules_to_save"
    return f"the base model ({base.architecture}) has no such parameter"

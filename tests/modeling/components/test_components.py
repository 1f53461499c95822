"""What the components promise: nothing at first, gradients soon, rows and documents for themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.modeling.components.adaptation import SoloAdaptation
from ift_serve.modeling.components.config import BaseShape, ComponentsConfig
from ift_serve.modeling.components.instruction_components import InstructionComponents
from ift_serve.modeling.components.tokens import TokenBatch, pool
from ift_serve.modeling.decoder.hooks import attach
from ift_serve.modeling.decoder.model_loader import load_model
from ift_training.model.batch import TrainingBatch, visible_pairs
from tests.support.adapters import EVERYTHING, shape_of
from tests.support.architectures import build

ARCHITECTURES = ["llama", "qwen3", "gemma2"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SHAPE = BaseShape(hidden_size=16, layers=2, heads=2, vocabulary_size=50)
FIRST = [0, 1, 1, 1, 2, 2, 0, 3, 3, 3]
SECOND = [0, 1, 1, 2, 0, 3, 3]
BARE = [0, 2, 2, 0, 3]
SEQUENCES = (FIRST, SECOND, BARE)


def _tokens(sequences: tuple[list[int], ...] = SEQUENCES, *, vocabulary: int = 50, seed: int = 0) -> TokenBatch:
    generator = torch.Generator().manual_seed(seed)
    segments = torch.tensor([s for one in sequences for s in one], dtype=torch.uint8)
    owner = torch.tensor([i for i, one in enumerate(sequences) for _ in one])
    ids = torch.randint(6, vocabulary, (len(segments),), generator=generator)
    return TokenBatch(ids, segments, owner, len(sequences))


def _random(config: ComponentsConfig = EVERYTHING, shape: BaseShape = SHAPE, *, seed: int = 1) -> InstructionComponents:
    torch.manual_seed(seed)
    components = InstructionComponents(config, shape)
    with torch.no_grad():
        for parameter in components.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return components


def _positions(tokens: TokenBatch) -> Tensor:
    counts = torch.bincount(tokens.sequence, minlength=tokens.sequences)
    return torch.cat([torch.arange(int(count)) for count in counts])


def _run(model: nn.Module, tokens: TokenBatch, components: InstructionComponents | None) -> Tensor:
    """Logits ``[T, V]`` of packed documents in one row."""
    adaptation = None if components is None else SoloAdaptation(components, tokens)
    batch = TrainingBatch(visible_pairs(tokens.sequence[None]), adaptation)
    logits: Tensor = model(
        input_ids=tokens.input_ids[None], position_ids=_positions(tokens)[None], use_cache=False, batch=batch
    ).logits[0]
    return logits


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: build(name, tmp_path_factory.mktemp(name)) for name in ARCHITECTURES}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_fresh_components_leave_the_base_model_as_it_is_bit_for_bit(
    architecture: str, dtype: str, models: dict[str, Path]
) -> None:
    path = models[architecture]
    model = load_model(str(path), dtype=dtype).model
    attach(model)
    tokens = _tokens(vocabulary=150)
    fresh = InstructionComponents(EVERYTHING, shape_of(BaseMetadata.of_directory(path)))
    with torch.inference_mode():
        base = _run(model, tokens, None)
        for kind in (torch.float32, DTYPES[dtype]):
            # In serving the components have the model's dtype, in training they stay in float32.
            assert torch.equal(_run(model, tokens, fresh.to(kind)), base)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("name", EVERYTHING.names)
def test_each_component_alone_changes_nothing_at_first_and_something_later(name: str, dtype: torch.dtype) -> None:
    on_c = ("two_stream", "instruction_gate", "sequence_temperature", "mode_classifier")
    needed = {"instruction_encoder": 16} if name in on_c else {}
    config = ComponentsConfig.model_validate({**needed, name: getattr(EVERYTHING, name)})
    tokens, hidden = _tokens(), torch.randn(22, 16, generator=torch.Generator().manual_seed(3)).to(dtype)
    fresh, changed = InstructionComponents(config, SHAPE), _random(config)

    def apply(components: InstructionComponents) -> dict[str, Tensor]:
        components = components.to(dtype)
        own = tokens.with_instruction(components.instruction_vector(hidden, tokens))
        heads = hidden.view(22, 2, 8)
        return {
            "embed": components.embed(hidden, own),
            "gain": components.gain(1, heads, own).reshape(22, 16),
            "after_layer": components.after_layer(1, hidden, own),
            "before_head": components.before_head(hidden, own),
        }

    for states in apply(fresh).values():
        assert states.dtype == dtype and torch.equal(states, hidden)
    assert not fresh.head_bias().any()
    assert torch.equal(fresh.strength(None, 3), torch.ones(3))
    statistics = torch.rand(22, 2)
    assert torch.equal(fresh.temperature(hidden, None, statistics), torch.ones(22))
    assert torch.equal(fresh.initial_temperature(torch.rand(3, 16)), torch.ones(3))
    if fresh.mode_classifier is not None:
        assert not fresh.mode_classifier(torch.rand(3, 16)).any()
    where = {
        "segment_embedding": "embed",
        "instruction_embedding": "embed",
        "two_stream": "embed",
        "attention_gain": "gain",
        "instruction_gate": "after_layer",
        "reasoning_pathways": "before_head",
    }
    for place, states in apply(changed).items():
        assert torch.equal(states, hidden) == (place != where.get(name)), place


def test_every_parameter_has_a_gradient_after_two_steps() -> None:
    torch.manual_seed(0)
    components = InstructionComponents(EVERYTHING, SHAPE)
    optimiser = torch.optim.SGD(components.parameters(), lr=0.5)
    tokens, embeddings = _tokens(), torch.randn(22, 16)
    targets = [torch.randn(22, 16) for _ in range(4)]
    seen: set[str] = set()
    for _ in range(3):
        own = tokens.with_instruction(components.instruction_vector(embeddings, tokens))
        results = [components.embed(embeddings, own), components.before_head(embeddings, own)]
        results += [components.after_layer(layer, embeddings, own) for layer in range(2)]
        results += [components.gain(layer, embeddings.view(22, 2, 8), own).reshape(22, 16) for layer in range(2)]
        pairs = zip(results, [*targets, *targets[:2]], strict=True)
        loss = torch.stack([((result - target) ** 2).mean() for result, target in pairs]).sum()
        biased = components.strength(own.instruction, 3)[:, None, None] * components.head_bias()[None]
        loss = loss + ((biased - torch.arange(12.0).view(3, 2, 2) / 9) ** 2).sum()
        factors = components.temperature(embeddings, own.own_instruction(), torch.rand(22, 2))
        loss = loss + ((factors - torch.linspace(0.5, 2, 22)) ** 2).sum()
        assert own.instruction is not None
        whole = components.initial_temperature(own.instruction)
        loss = loss + ((whole - torch.linspace(0.5, 2, 3)) ** 2).sum()
        assert components.mode_classifier is not None
        modes = components.mode_classifier(own.instruction)
        loss = loss + nn.functional.cross_entropy(modes, torch.tensor([0, 1, 2]))
        loss = loss + nn.functional.binary_cross_entropy_with_logits(
            components.adherence(embeddings, own), torch.tensor([1.0, 0.0, 1.0])
        )
        optimiser.zero_grad()
        loss.backward()
        seen |= {n for n, p in components.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
        optimiser.step()
    assert seen == {name for name, _ in components.named_parameters()}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_packed_documents_do_not_see_one_another(architecture: str, models: dict[str, Path]) -> None:
    path = models[architecture]
    model = load_model(str(path), dtype="float32").model
    attach(model)
    components = _random(shape=shape_of(BaseMetadata.of_directory(path)))
    first, second = _tokens(vocabulary=150), _tokens(vocabulary=150, seed=8)
    own = first.sequence == 0
    changed = TokenBatch(torch.where(own, second.input_ids, first.input_ids), first.segments, first.sequence, 3)
    with torch.inference_mode():
        before, after = _run(model, first, components), _run(model, changed, components)
    assert not torch.equal(before[own], after[own])
    assert torch.equal(before[~own], after[~own])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_documents_packed_together_are_computed_as_if_each_were_alone(
    architecture: str, models: dict[str, Path]
) -> None:
    path = models[architecture]
    model = load_model(str(path), dtype="float32").model
    attach(model)
    components = _random(shape=shape_of(BaseMetadata.of_directory(path)))
    tokens = _tokens(vocabulary=150)
    with torch.inference_mode():
        together = _run(model, tokens, components)
        for sequence in range(tokens.sequences):
            alone = _run(model, _part(tokens, tokens.sequence == sequence, [sequence]), components)
            assert torch.allclose(together[tokens.sequence == sequence], alone, atol=1e-5 * float(together.abs().max()))


def _part(tokens: TokenBatch, rows: Tensor, sequences: list[int]) -> TokenBatch:
    """Some rows of a batch, which are of the sequences named."""
    place = torch.tensor([sequences.index(int(s)) for s in tokens.sequence[rows]])
    pooled = None if tokens.instruction is None else tokens.instruction[sequences]
    return TokenBatch(tokens.input_ids[rows], tokens.segments[rows], place, len(sequences), pooled)


@pytest.mark.parametrize("seed", range(4))
def test_any_subset_of_rows_gives_the_same_rows(seed: int) -> None:
    components, embeddings = _random(), torch.randn(22, 16, generator=torch.Generator().manual_seed(2))
    tokens = _tokens()
    tokens = tokens.with_instruction(components.instruction_vector(embeddings, tokens))
    rows = torch.rand(22, generator=torch.Generator().manual_seed(seed)) < 0.4
    part = _part(tokens, rows, [0, 1, 2])
    statistics = torch.rand(22, 2, generator=torch.Generator().manual_seed(4))
    heads = embeddings.view(22, 2, 8)
    pairs = [
        (components.embed(embeddings, tokens)[rows], components.embed(embeddings[rows], part)),
        (components.gain(1, heads, tokens)[rows], components.gain(1, heads[rows], part)),
        (components.after_layer(0, embeddings, tokens)[rows], components.after_layer(0, embeddings[rows], part)),
        (components.before_head(embeddings, tokens)[rows], components.before_head(embeddings[rows], part)),
        (
            components.temperature(embeddings, tokens.own_instruction(), statistics)[rows],
            components.temperature(embeddings[rows], part.own_instruction(), statistics[rows]),
        ),
    ]
    for whole, chosen in pairs:
        assert torch.allclose(whole, chosen, atol=1e-6)


def test_the_instruction_vector_needs_only_the_instructions_and_is_zero_without_one() -> None:
    components, embeddings, tokens = _random(), torch.randn(22, 16), _tokens()
    vector = components.instruction_vector(embeddings, tokens)
    assert vector is not None and vector.shape == (3, 16) and vector.dtype == torch.float32
    assert not vector[2].any() and vector[:2].abs().sum(1).gt(0).all()
    only = tokens.is_instruction
    assert torch.equal(components.instruction_vector(embeddings[only], _part(tokens, only, [0, 1, 2])), vector)  # type: ignore[arg-type]
    lone = components.instruction_vector(embeddings[tokens.sequence == 1], _part(tokens, tokens.sequence == 1, [1]))
    assert lone is not None and torch.allclose(lone[0], vector[1], atol=1e-6)


def test_the_bias_stays_within_its_bound_however_far_it_is_trained() -> None:
    components = _random()
    assert components.attention_bias is not None and components.attention_bias.strength_weight is not None
    with torch.no_grad():
        components.attention_bias.heads.copy_(torch.tensor([[50.0, -50.0], [1.0, 0.0]]))
        components.attention_bias.strength_weight.fill_(100.0)
    strength = components.strength(torch.ones(1, 16), 1)
    assert (strength[:, None, None] * components.head_bias()).abs().max() <= 4.0
    assert components.head_bias()[1].tolist() == [1.0, 0.0]


def test_pooling_weighs_by_softmax_within_each_sequence() -> None:
    torch.manual_seed(0)
    values, scores = torch.randn(9, 4, dtype=torch.float64), torch.randn(9, dtype=torch.float64) * 30
    sequence = torch.tensor([2, 0, 2, 0, 0, 3, 2, 3, 3])
    found = pool(values, scores, sequence, 4)
    for index in (0, 2, 3):
        own = sequence == index
        assert torch.allclose(found[index], torch.softmax(scores[own], 0) @ values[own])
    assert not found[1].any()

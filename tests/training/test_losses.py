"""Every part of the loss against the formula, written out in float64."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ift_serve.modeling.components.adaptation import SoloAdaptation
from ift_serve.modeling.components.config import BaseShape, ComponentsConfig
from ift_serve.modeling.components.instruction_components import InstructionComponents
from ift_serve.modeling.components.tokens import TokenBatch
from ift_training.losses.ewc import EwcPenalty, fisher_information, save_fisher, trainable
from ift_training.losses.instruction import UNJUDGED, instruction_sum
from ift_training.losses.multi_task import TaskBalance
from ift_training.losses.next_token import IGNORED, next_token_sums, targets_of
from ift_training.losses.representation import Projection, representation_sum
from ift_training.model.batch import TrainingBatch, visible_pairs


def test_next_token_is_the_negative_log_probability_summed_by_task() -> None:
    torch.manual_seed(0)
    labels = torch.tensor([[IGNORED, 3, IGNORED, 5, 1], [IGNORED, IGNORED, 2, IGNORED, IGNORED]])
    logits, tasks = torch.randn(2, 5, 7) * 3, torch.tensor([[2, 2, 0, 0, 0], [2, 2, 2, 2, 2]])
    expected = [0.0, 0.0, 0.0]
    for row in range(2):
        for place in range(1, 5):
            if labels[row, place] != IGNORED:
                scores = [math.exp(x) for x in logits[row, place - 1].double().tolist()]
                expected[int(tasks[row, place])] -= math.log(scores[int(labels[row, place])] / sum(scores))
    places = targets_of(labels)
    flat = labels.flatten()
    found = next_token_sums(logits.flatten(0, 1)[places], flat[places + 1], tasks.flatten()[places + 1], 3)
    assert found.tolist() == pytest.approx(expected, rel=1e-6)
    assert found[1] == 0


def test_instruction_is_the_binary_cross_entropy_of_what_is_judged() -> None:
    logits = torch.tensor([2.0, -1.5, 40.0, 0.3, -3.0])
    judged = torch.tensor([1, 1, 0, UNJUDGED, 0])
    expected = math.log1p(math.exp(-2.0)) + math.log1p(math.exp(1.5)) + 40.0 + math.log1p(math.exp(-3.0))
    assert float(instruction_sum(logits, judged)) == pytest.approx(expected, rel=1e-6)
    assert float(instruction_sum(logits, torch.full((5,), UNJUDGED))) == 0


def test_representation_is_the_mean_squared_distance_to_the_projected_mean_of_the_response() -> None:
    torch.manual_seed(1)
    tokens = TokenBatch(
        torch.zeros(8, dtype=torch.long),
        torch.tensor([1, 3, 3, 3, 1, 3, 1, 0], dtype=torch.uint8),
        torch.tensor([0, 0, 0, 0, 1, 1, 2, 2]),
        3,
    )
    hidden, vectors, counted = torch.randn(8, 6), torch.randn(3, 4), torch.tensor([True, True, False])
    projection = Projection(6, 4)
    weight, bias = projection.linear.weight.double(), projection.linear.bias.double()
    expected = 0.0
    for sequence, rows in ((0, [1, 2, 3]), (1, [5])):
        pooled = torch.stack([hidden[row].double() for row in rows]).sum(0) / len(rows)
        expected += float(((vectors[sequence].double() - weight @ pooled - bias) ** 2).sum() / 4)
    found = representation_sum(vectors, projection(hidden, tokens), counted)
    assert float(found) == pytest.approx(expected, rel=1e-5)


SUMS, COUNTS = torch.tensor([12.0, 30.0, 0.0]), torch.tensor([6.0, 10.0, 0.0])
TASKS = ["a", "b", "c"]


def test_without_weights_the_loss_is_the_mean_over_tokens() -> None:
    assert float(TaskBalance(TASKS, None)(SUMS, COUNTS, COUNTS, None)) == pytest.approx(42 / 16)


def test_fixed_weights_give_the_weighted_mean_over_tokens() -> None:
    balance = TaskBalance(TASKS, {"a": 4.0, "c": 9.0})
    assert float(balance(SUMS, COUNTS, COUNTS, None)) == pytest.approx((4 * 12 + 30) / (4 * 6 + 10))


def test_learned_weights_are_log_variances_that_settle_where_tasks_weigh_the_same() -> None:
    balance = TaskBalance(TASKS, "learned")
    assert balance.log_variances is not None
    with torch.no_grad():
        balance.log_variances.copy_(torch.tensor([0.5, -1.0, 3.0]))
    expected = (math.exp(-0.5) * 2 + 0.5 + math.exp(1.0) * 3 - 1.0) / 2
    assert float(balance(SUMS, COUNTS, COUNTS, balance.log_variances)) == pytest.approx(expected, rel=1e-6)
    with torch.no_grad():
        balance.log_variances.copy_(torch.tensor([math.log(2), math.log(3), 0.0]))
    balance(SUMS, COUNTS, COUNTS, balance.log_variances).backward()
    assert balance.log_variances.grad is not None
    assert balance.log_variances.grad.abs().max() < 1e-7


@pytest.mark.parametrize("weights", [None, {"a": 4.0}, "learned"])
def test_shares_of_batches_add_up_to_the_loss_of_the_step(weights: object) -> None:
    balance = TaskBalance(TASKS, weights)  # type: ignore[arg-type]
    variances = torch.tensor([0.5, -1.0, 3.0]) if weights == "learned" else None
    first = (torch.tensor([12.0, 5.0, 0.0]), torch.tensor([6.0, 1.0, 0.0]))
    second = (SUMS - first[0], COUNTS - first[1])
    shares = sum(float(balance(sums, counts, COUNTS, variances)) for sums, counts in (first, second))
    assert shares == pytest.approx(float(balance(SUMS, COUNTS, COUNTS, variances)), rel=1e-6)


def test_an_unknown_task_in_the_weights_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"task_weights.*'d'.*a, b, c"):
        TaskBalance(TASKS, {"d": 1.0})


class _Quadratic(nn.Module):
    """Two parameters, one of which is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.free = nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)


def test_fisher_squares_the_gradients_of_single_examples_not_of_their_mean() -> None:
    model = _Quadratic()
    inputs = torch.tensor([[1.0, 2.0, 0.0], [-1.0, 1.0, 3.0], [0.5, 0.0, -3.0]])
    losses = [lambda x=x: (model.free * x).sum() ** 2 / 2 for x in inputs]
    fisher = fisher_information(model, losses)
    gradients = torch.stack([(model.free.detach().double() @ x.double()) * x.double() for x in inputs])
    assert set(fisher) == {"free"}
    assert torch.allclose(fisher["free"].double(), gradients.pow(2).mean(0), rtol=1e-6)
    assert not torch.allclose(fisher["free"].double(), gradients.mean(0).pow(2), rtol=0.1)


def _moved(folder: Path, weight: float) -> tuple[_Quadratic, EwcPenalty, Tensor, Tensor]:
    before, after = _Quadratic(), _Quadratic()
    fisher = torch.tensor([2.0, 0.0, 5.0])
    save_fisher(folder / "fisher.safetensors", before, {"free": fisher})
    penalty = EwcPenalty(after, folder / "fisher.safetensors", weight)
    with torch.no_grad():
        after.free.add_(torch.tensor([0.1, 7.0, -0.3]))
    return after, penalty, fisher, before.free.detach()


def test_ewc_is_half_the_weighted_square_and_its_gradient_the_weighted_distance(tmp_path: Path) -> None:
    model, penalty, fisher, anchor = _moved(tmp_path, 3.0)
    value = penalty(trainable(model))
    distance = model.free.detach().double() - anchor.double()
    assert float(value) == pytest.approx(float(1.5 * (fisher.double() * distance**2).sum()), rel=1e-6)
    value.backward()
    assert model.free.grad is not None
    assert torch.allclose(model.free.grad.double(), 3.0 * fisher.double() * distance, rtol=1e-6)
    assert model.free.grad[1] == 0, "what did not matter may move freely"


@pytest.mark.parametrize(
    ("name", "shape", "said"),
    [("free", (4,), "free is"), ("other", (3,), r"has no (fisher|anchor)\.free")],
)
def test_a_fisher_file_of_another_adapter_is_refused(
    name: str, shape: tuple[int, ...], said: str, tmp_path: Path
) -> None:
    wrong = nn.Module()
    wrong.register_parameter(name, nn.Parameter(torch.zeros(shape)))
    save_fisher(tmp_path / "f.safetensors", wrong, {name: torch.zeros(shape)})
    with pytest.raises(ValueError, match=said):
        EwcPenalty(_Quadratic(), tmp_path / "f.safetensors", 1.0)


def test_a_fisher_file_that_knows_more_than_is_trained_is_refused(tmp_path: Path) -> None:
    larger = _Quadratic()
    larger.register_parameter("more", nn.Parameter(torch.zeros(2)))
    fisher = {name: torch.zeros_like(parameter) for name, parameter in trainable(larger).items()}
    save_fisher(tmp_path / "f.safetensors", larger, fisher)
    with pytest.raises(ValueError, match="more, which is not trained here"):
        EwcPenalty(_Quadratic(), tmp_path / "f.safetensors", 1.0)


@pytest.mark.parametrize("content", [None, b"", b"not safetensors at all"])
def test_a_fisher_file_that_cannot_be_read_is_named(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "f.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"losses\.ewc\.fisher: .*f\.safetensors cannot be read"):
        EwcPenalty(_Quadratic(), path, 1.0)


class _Layer(nn.Module):
    layer_idx = 1


@pytest.mark.parametrize("window", [0, 4])
@pytest.mark.parametrize("softcap", [0.0, 3.0])
@pytest.mark.parametrize("packed", [False, True])
def test_biased_attention_and_all_its_gradients_are_the_formulas(window: int, softcap: float, packed: bool) -> None:
    """``score = cap(scale q.k) + s b[layer, head] m_key``, within documents, window and the past."""
    torch.manual_seed(2)
    shape = BaseShape(hidden_size=12, layers=2, heads=4, vocabulary_size=9)
    components = InstructionComponents(ComponentsConfig(attention_bias=True, instruction_encoder=8), shape)
    assert components.attention_bias is not None and components.attention_bias.strength_weight is not None
    with torch.no_grad():
        components.attention_bias.heads.copy_(torch.randn(2, 4))
        components.attention_bias.strength_weight.normal_()
    documents = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1], [2] * 8] if packed else [[0] * 8, [1] * 8])
    segments = torch.tensor([[0, 1, 1, 3, 1, 0, 1, 3], [1, 1, 0, 2, 1, 3, 3, 3]], dtype=torch.uint8)
    count = int(documents.max()) + 1
    vectors = torch.randn(count, 8)
    tokens = TokenBatch(torch.zeros(16, dtype=torch.long), segments.flatten(), documents.flatten(), count, vectors)
    q, k, v = torch.randn(16, 4, 6), torch.randn(16, 2, 6), torch.randn(16, 2, 6)
    inputs = [q.requires_grad_(), k.requires_grad_(), v.requires_grad_()]
    learned: list[torch.Tensor] = [components.attention_bias.heads, components.attention_bias.strength_weight]
    batch = TrainingBatch(visible_pairs(documents), SoloAdaptation(components, tokens))
    found = batch.attend(_Layer(), q, k, v, 0.4, window, softcap)
    expected = _attention(inputs, learned, tokens, window, softcap)
    assert torch.allclose(found.double(), expected, atol=1e-5)
    direction = torch.randn(16, 4, 6)
    mine = torch.autograd.grad((found * direction).sum(), [*inputs, *learned])
    theirs = torch.autograd.grad((expected * direction).sum(), [*inputs, *learned])
    for gradient, reference in zip(mine, theirs, strict=True):
        assert gradient.abs().max() > 0
        assert torch.allclose(gradient, reference, atol=2e-5)


def _attention(inputs: list[Tensor], learned: list[Tensor], tokens: TokenBatch, window: int, softcap: float) -> Tensor:
    """One query and one head at a time, in float64."""
    q, k, v = (states.double() for states in inputs)
    bias, direction = (parameter.double() for parameter in learned)
    assert tokens.instruction is not None
    rows = []
    for token in range(16):
        owner = int(tokens.sequence[token])
        seen = [
            other
            for other in range(token // 8 * 8, token + 1)
            if int(tokens.sequence[other]) == owner and (not window or token - other < window)
        ]
        strength = 1 + torch.tanh(tokens.instruction[owner].double() @ direction)
        heads = []
        for head in range(4):
            scores = []
            for other in seen:
                score = 0.4 * (q[token, head] @ k[other, head // 2])
                score = softcap * torch.tanh(score / softcap) if softcap else score
                scores.append(score + strength * bias[1, head].clamp(-2, 2) * float(tokens.segments[other] == 1))
            weights = torch.softmax(torch.stack(scores), 0)
            heads.append(weights @ v[seen, head // 2])
        rows.append(torch.stack(heads))
    return torch.stack(rows)

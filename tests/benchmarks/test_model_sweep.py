"""Classes in which something acts only at a distance, through the cache or after the backbone: right or refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from model_sweep import (
    Verdict,
    expected_log_probs,
    judge,
    model_types,
    rows_of_others,
    served_log_probs,
    sweep,
    table,
)
from small_models import build, small_config

SERVED = (
    "cohere",
    "dbrx",
    "cohere2",
    "phimoe",
    "granite",
    "gemma2",
    "gemma3_text",
    "mistral",
    "qwen2_moe",
    "olmo2",
    "afmoe",
    "deepseek_v3",
    "gemma4_text",
)
WITHOUT_WINDOW = frozenset({"cohere", "dbrx", "granite", "olmo2", "deepseek_v3"})
"""Their configurations are the same whatever window is asked for."""
REFUSED = {
    "blt": "no num_hidden_layers",
    "emu3": "cannot be loaded",
    "diffllama": "attends more than once",
    "gpt_oss": "sinks",
    "llama4_text": "masks are neither causal",
    "doge": "masks are neither causal",
    "falcon_h1": "cannot be served",
    "hunyuan_v1_moe": "fails in the routed decoder",
    "nemotron": "does not pass keywords on",
    "qwen3_next": "recurrent or linear attention",
}
CHANGES = {"logit_scale": 0.4, "logits_scaling": 3.0, "final_logit_softcapping": 2.5, "attn_logit_softcapping": 2.0}
TOKENS = [4 + (7919 * (i + 1) * (i + 3)) % 150 for i in range(60)]


@pytest.mark.parametrize(
    ("model_type", "window"),
    [(model_type, window) for model_type in SERVED for window in (9, 40)[model_type in WITHOUT_WINDOW :]],
)
def test_what_is_served_is_what_the_model_computes(model_type: str, window: int) -> None:
    verdict = judge(model_type, "", "", lambda: small_config(model_type, {**CHANGES, "sliding_window": window}))
    assert (verdict.outcome, verdict.reason) == ("served", "")


@pytest.mark.parametrize("model_type", REFUSED)
def test_what_cannot_be_served_right_is_refused_by_name(model_type: str) -> None:
    verdict = judge(model_type, "", "", lambda: small_config(model_type, {**CHANGES, "sliding_window": 9}))
    assert verdict.outcome == "refused"
    assert REFUSED[model_type] in verdict.reason
    assert model_types()[model_type] in verdict.reason


def test_a_window_that_only_masks_have_changes_what_is_served(tmp_path: Path) -> None:
    found = []
    for window in (40, None):
        directory = tmp_path / str(window)
        build(small_config("phimoe", {"sliding_window": window}), directory)
        found.append(torch.tensor(served_log_probs(directory, TOKENS)))
        expected = torch.tensor(expected_log_probs(directory, TOKENS))
        torch.testing.assert_close(found[-1], expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(found[0][:40], found[1][:40], atol=1e-4, rtol=0)
    assert (found[0] - found[1])[40:].abs().max() > 0.01


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_class_is_served_wrong() -> None:
    verdicts = sweep(model_types())
    assert [v for v in verdicts if v.outcome in ("wrong", "failed")] == []
    assert sum(v.outcome == "served" for v in verdicts) > 200


def test_a_new_table_keeps_the_rows_of_types_that_were_not_judged(tmp_path: Path) -> None:
    served, refused = Verdict("b", "B", "plain", "served", "", 1e-6), Verdict("a", "A", "plain", "refused", "sinks")
    path = tmp_path / "models.md"
    path.write_text(table([refused, Verdict("b", "B", "plain", "unbuilt", "no sizes")]), encoding="utf-8")
    assert table([served], rows_of_others(path, ["b"])) == table([refused, served])

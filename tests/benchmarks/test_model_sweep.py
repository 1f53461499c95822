"""Classes in which something acts only at a distance, through the cache or after the backbone: right or refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from model_sweep import Verdict, judge, model_types, rows_of_others, small_config, sweep, table

SERVED = (
    "cohere", "cohere2", "phimoe", "granite", "gemma2", "gemma3_text", "mistral", "qwen2_moe", "olmo2",
    "deepseek_v3", "gemma4_text",
)  # fmt: skip
REFUSED = {
    "diffllama": "attends more than once", "gpt_oss": "sinks", "llama4_text": "decoder layers",
    "hunyuan_v1_moe": "fails in the routed decoder",
}  # fmt: skip
CHANGES = {"sliding_window": 9, "logit_scale": 0.4, "logits_scaling": 3.0, "final_logit_softcapping": 2.5}


@pytest.mark.parametrize("model_type", SERVED)
def test_what_is_served_is_what_the_model_computes(model_type: str) -> None:
    verdict = judge(model_type, "", "", lambda: small_config(model_type, CHANGES))
    assert (verdict.outcome, verdict.reason) == ("served", "")


@pytest.mark.parametrize("model_type", REFUSED)
def test_what_cannot_be_served_right_is_refused_by_name(model_type: str) -> None:
    verdict = judge(model_type, "", "", lambda: small_config(model_type, CHANGES))
    assert verdict.outcome == "refused"
    assert REFUSED[model_type] in verdict.reason


@pytest.mark.slow
def test_no_class_is_served_wrong() -> None:
    verdicts = sweep(model_types())
    assert [v for v in verdicts if v.outcome == "wrong"] == []
    assert sum(v.outcome == "served" for v in verdicts) > 200


def test_a_new_table_keeps_the_rows_of_types_that_were_not_judged(tmp_path: Path) -> None:
    served, refused = Verdict("b", "B", "plain", "served", "", 1e-6), Verdict("a", "A", "plain", "refused", "sinks")
    path = tmp_path / "models.md"
    path.write_text(table([refused, Verdict("b", "B", "plain", "unbuilt", "no sizes")]), encoding="utf-8")
    assert table([served], rows_of_others(path, ["b"])) == table([refused, served])

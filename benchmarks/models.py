"""Models to measure with: random weights in the shapes of published models, so that nothing has to be downloaded."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

PRINTABLE = [chr(c) for c in range(33, 127)] + ["Ġ"]
_SPECIAL = ["<pad>", "<s>", "</s>"]


@dataclass(frozen=True)
class Shape:
    """Dimensions of a decoder; ``family`` is its transformers prefix."""

    family: str
    hidden: int
    layers: int
    heads: int
    key_value_heads: int
    intermediate: int
    vocabulary: int
    context: int = 2048
    tied: bool = True


SHAPES = {
    "smollm2-135m": Shape("Llama", 576, 30, 9, 3, 1536, 49_152),
    "qwen2.5-0.5b": Shape("Qwen2", 896, 24, 14, 2, 4864, 151_936),
    "llama-3-8b": Shape("Llama", 4096, 32, 32, 8, 14_336, 128_256, tied=False),
    "qwen3-0.6b": Shape("Qwen3", 1024, 28, 16, 8, 3072, 151_936),
    "small": Shape("Llama", 256, 4, 4, 2, 512, 2_048),
}
"""``small`` is for trying the script, not for figures."""


def save_tokenizer(directory: Path, vocabulary: int) -> None:
    """Byte-level BPE of exactly that size whose every token decodes to text, as a trained one's would."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = [*_SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    pairs = [(a, b) for a, b in itertools.product(PRINTABLE, repeat=2)]
    longer = ((a + b, c) for (a, b), c in itertools.product(pairs, PRINTABLE))
    merges = list(itertools.islice(itertools.chain(pairs, longer), vocabulary - len(tokens)))
    tokens += [left + right for left, right in merges]
    backend = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(directory)


def build(name: str, directory: Path, dtype: str, seed: int = 0) -> Path:
    """Save the random model of that shape. Nothing is done where it is saved already."""
    import torch
    import transformers

    if (directory / "model.safetensors").exists():
        return directory
    shape = SHAPES[name]
    config = getattr(transformers, f"{shape.family}Config")(
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        vocab_size=shape.vocabulary,
        max_position_embeddings=shape.context,
        tie_word_embeddings=shape.tied,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    torch.manual_seed(seed)
    model = getattr(transformers, f"{shape.family}ForCausalLM")(config).to(getattr(torch, dtype))
    save_tokenizer(directory, shape.vocabulary)
    model.save_pretrained(directory)
    return directory

"""A base whose configuration names another end token than its template writes: trained and served alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from ift_serve.client import Prompt
from ift_serve.engine.config import EngineConfig
from ift_serve.server.config import ServerConfig
from ift_training.recipe import Recipe
from ift_training.run import train
from tests.support.models import tiny_tokenizer
from tests.support.serving import serving

ANSWER = "the river ran to the fox"


def base_with_two_ends(directory: Path) -> tuple[Path, int]:
    """As Qwen's bases: ``</s>`` in the configuration, and turns that end with another token."""
    tokenizer: Any = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_end|>"]})
    tokenizer.chat_template = tokenizer.chat_template.replace("</s>", "<|im_end|>")
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=len(tokenizer),
        max_position_embeddings=256,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, 0.2)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory, int(tokenizer.convert_tokens_to_ids("<|im_end|>"))


async def test_an_answer_ends_where_the_trainer_taught_it_to(tmp_path: Path) -> None:
    base, end = base_with_two_ends(tmp_path / "base")
    records = tmp_path / "records.jsonl"
    record = {"instruction": "say hello", "output": ANSWER}
    records.write_text("".join(json.dumps(record) + "\n" for _ in range(16)))
    recipe = Recipe.parse(
        {
            "base": str(base),
            "output": str(tmp_path / "tuned"),
            "max_length": 128,
            "name": "tuned",
            "sources": [{"jsonl": str(records)}],
            "validation": {"share": 0.25},
            "evaluation": {"every": 0},
            "trainer": {"batch_size": 4, "max_steps": 40, "learning_rate": 2e-2, "lora": {"rank": 8}},
        }
    )
    train(recipe, progress=False)
    assert json.loads((tmp_path / "tuned" / "ift_config.json").read_text())["end_ids"] == [end, 2]
    engine = EngineConfig(model=str(base), dtype="float32", total_blocks=64, threads=1)
    config = ServerConfig(engine=engine, port=0, metrics_port=None, adapters={"tuned": tmp_path / "tuned"})
    async with serving(config) as (_, client):
        found = await client.generate(
            Prompt(instruction="say hello"), adapter="tuned", temperature=0, max_new_tokens=64, tokens=True
        )
        assert (found.text, found.finish_reason) == (ANSWER, "eos")
        assert found.candidates[0].tokens[-1].token_id == end

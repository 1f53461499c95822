"""Tokenizers as AutoTokenizer loads them, without what only models need."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer, LlamaConfig

from ift_serve.text.tokenizer import load_tokenizer
from tests.support.models import tiny_tokenizer

TEXTS = ["the fox and the dog", " é🙂 \n<|user|>hello</s>", "", "<s> the"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    tiny_tokenizer().save_pretrained(path)
    LlamaConfig().save_pretrained(path)
    return path


def _name_class(directory: Path, name: str) -> None:
    file = directory / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"tokenizer_class": name}))


@pytest.mark.parametrize("name", ["PreTrainedTokenizerFast", "TokenizersBackend", "GPT2Tokenizer"])
def test_it_is_the_tokenizer_that_auto_tokenizer_gives(directory: Path, name: str) -> None:
    _name_class(directory, name)
    own, expected = load_tokenizer(str(directory)), AutoTokenizer.from_pretrained(directory)
    assert type(own) is type(expected)
    assert own.backend_tokenizer.to_str() == expected.backend_tokenizer.to_str()
    assert own.special_tokens_map == expected.special_tokens_map
    assert own.chat_template == expected.chat_template
    for text in TEXTS:
        assert own.encode(text) == expected.encode(text)
        ids = expected.encode(text)
        assert own.decode(ids) == expected.decode(ids)


def test_rendering_needs_no_torch(directory: Path) -> None:
    _name_class(directory, "PreTrainedTokenizerFast")
    program = (
        "import sys\n"
        "from ift_serve.text.prompt import PromptRenderer\n"
        "import ift_serve.server.app\n"
        "renderer = PromptRenderer.from_pretrained(sys.argv[1])\n"
        "assert renderer.instruction('say hello').token_ids\n"
        "assert 'torch' not in sys.modules, 'torch'\n"
    )
    subprocess.run([sys.executable, "-c", program, str(directory)], check=True, timeout=60)


@pytest.mark.parametrize("content", ["", "{", '{"tokenizer_class": null}'])
def test_a_broken_config_is_left_to_auto_tokenizer(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer_config.json").write_text(content)
    with pytest.raises((OSError, ValueError)):
        load_tokenizer(str(tmp_path))

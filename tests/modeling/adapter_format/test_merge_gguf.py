"""A merged model written as GGUF: what transformers' own reader of GGUF computes from it."""

from __future__ import annotations

import importlib
import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers, processors
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast
from typer.testing import CliRunner

from ift_serve.cli import app
from ift_serve.modeling.adapter_format.export import export_merged
from ift_serve.modeling.gguf_export.errors import GgufError
from tests.support import tiny_tokenizers as tokenizers
from tests.support.architectures import build

gguf = pytest.importorskip("gguf", reason="needs the extra gguf")

IDS = torch.tensor([[(17 * i + 5) % 150 + 6 for i in range(19)]])
TEXTS = [
    "the quick brown fox isn't it?",
    "héllo  wörld 日本語 🙂\n\n\tb ",
    "a 12345 1 ½",
    "",
    " <|im_start|>user\nHi<|im_end|>",
    "x<think> y</think>",
]
LLAMA3 = r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"""
LLAMA3 += r"|\s+(?!\S)|\s+"


def _base(
    place: Path,
    architecture: str = "llama",
    tokenizer: Tokenizer | None = None,
    dtype: torch.dtype = torch.float32,
    **options: Any,
) -> Path:
    build(architecture, place, dtype=dtype, **{"vocab_size": 384, **options})
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer or tokenizers.byte_level(),
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        chat_template="{% for m in messages %}{{ m.content }}{% endfor %}",
    ).save_pretrained(place)
    return place


def _adapter(base: Path, output: Path, **options: Any) -> Path:
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    peft = get_peft_model(model, LoraConfig(r=4, task_type="CAUSAL_LM", **{"target_modules": "all-linear", **options}))
    with torch.no_grad():
        for name, parameter in peft.named_parameters():
            if "lora" in name:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    peft.save_pretrained(output)
    return output


def _both(base: Path, place: Path, **options: Any) -> tuple[Path, Path]:
    """The model merged as safetensors and as GGUF."""
    adapter = _adapter(base, place / "adapter", **options)
    export_merged(adapter, base, place / "plain")
    export_merged(adapter, base, place / "gguf", file_format="gguf")
    return place / "plain", place / "gguf"


def _logits(place: Path, **options: Any) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32, **options)
    with torch.inference_mode():
        found: torch.Tensor = model(IDS).logits[0]
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("tied", [False, True])
def test_logits_are_those_of_the_merged_model(dtype: torch.dtype, tied: bool, tmp_path: Path) -> None:
    plain, written = _both(_base(tmp_path / "b", dtype=dtype, tie_word_embeddings=tied), tmp_path)
    assert [path.name for path in written.iterdir()] == ["model.gguf"]
    expected = _logits(plain)
    assert torch.allclose(_logits(written, gguf_file="model.gguf"), expected, atol=1e-5, rtol=0)
    assert not torch.allclose(_logits(tmp_path / "b"), expected, atol=1e-2)
    reader = gguf.GGUFReader(written / "model.gguf")
    found = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    kind = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}[dtype]
    assert found["blk.2.attn_k.weight"] == found["token_embd.weight"] == kind
    assert found["output_norm.weight"] == "F32"
    assert ("output.weight" in found) is not tied


def test_an_adapter_of_tied_embeddings_gives_the_head_its_own_weight(tmp_path: Path) -> None:
    base = _base(tmp_path / "b", tie_word_embeddings=True)
    plain, written = _both(base, tmp_path, target_modules=["embed_tokens", "q_proj"])
    assert torch.allclose(_logits(written, gguf_file="model.gguf"), _logits(plain), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("mistral", {"sliding_window": None}),
        ("qwen2", {}),
        ("qwen2", {"tie_word_embeddings": True, "rope_parameters": {"rope_type": "default", "rope_theta": 54321.0}}),
        ("llama", {"head_dim": 32, "rms_norm_eps": 3e-5}),
        ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 123456.0}}),
    ],
)
def test_shapes_and_constants_are_carried(architecture: str, options: dict[str, Any], tmp_path: Path) -> None:
    plain, written = _both(_base(tmp_path / "b", architecture, **options), tmp_path)
    assert torch.allclose(_logits(written, gguf_file="model.gguf"), _logits(plain), atol=1e-5, rtol=0)


def _split(*stages: Any, ignore_merges: bool = False, composed: bool = False) -> Tokenizer:
    tokenizer = tokenizers.byte_level()
    if composed:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(list(stages))
    fields = json.loads(tokenizer.to_str())
    fields["model"]["ignore_merges"] = ignore_merges
    return Tokenizer.from_str(json.dumps(fields))


def _beginning() -> Tokenizer:
    tokenizer = tokenizers.byte_level()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return tokenizer


@pytest.mark.parametrize(
    ("name", "tokenizer"),
    [
        ("gpt-2", tokenizers.byte_level()),
        ("gpt-2", _beginning()),
        (
            "llama-bpe",
            _split(
                pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
                pre_tokenizers.ByteLevel(False, use_regex=False),
                ignore_merges=True,
            ),
        ),
        (
            "qwen2",
            _split(
                pre_tokenizers.Split(Regex(LLAMA3.replace("{1,3}", "")), "isolated"),
                pre_tokenizers.ByteLevel(False, use_regex=False),
                composed=True,
            ),
        ),
    ],
)
def test_the_tokenizer_gives_the_same_ids(name: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    base = _base(tmp_path / "b", tokenizer=tokenizer)
    written = export_merged(_adapter(base, tmp_path / "a"), base, tmp_path / "gguf", file_format="gguf")
    assert [("NFC" in note) for note in written.notes] == [True] * (name == "qwen2")
    before = AutoTokenizer.from_pretrained(base)
    after = AutoTokenizer.from_pretrained(tmp_path / "gguf", gguf_file="model.gguf")
    for text in TEXTS:
        assert after(text).input_ids == before(text).input_ids, text
    assert (after.bos_token, after.eos_token, after.chat_template) == ("<s>", "</s>", before.chat_template)
    fields = gguf.GGUFReader(tmp_path / "gguf" / "model.gguf").fields
    assert fields["tokenizer.ggml.pre"].contents() == name
    assert fields["tokenizer.ggml.add_bos_token"].contents() is (before("a").input_ids[0] == 1)
    tokens, kinds = fields["tokenizer.ggml.tokens"].contents(), fields["tokenizer.ggml.token_type"].contents()
    assert kinds[tokens.index("<|im_end|>")] == gguf.TokenType.CONTROL
    assert kinds[tokens.index("<think>")] == gguf.TokenType.USER_DEFINED
    assert len(tokens) == 384 and kinds[383] == gguf.TokenType.UNUSED


def _pieces(
    *,
    prefix: bool = True,
    metaspace: bool = False,
    split: bool = False,
    lacking: str = "",
    forgotten: bool = False,
    shuffled: bool = False,
    ignore_merges: bool = False,
) -> Tokenizer:
    """A SentencePiece-like BPE with every pair of tokens that makes a token among its merges, or damaged."""
    fields = json.loads(tokenizers.byte_fallback().to_str())
    model = fields["model"]
    # A token with two splits, which the corpus has none of.
    model["vocab"] |= {token: 370 + number for number, token in enumerate(("xy", "yz", "xyz", "do", "fo"))}
    model["merges"] = sorted(
        (
            (token[:end], token[end:])
            for token in model["vocab"]
            for end in range(1, len(token))
            if token[:end] in model["vocab"] and token[end:] in model["vocab"] and not token.startswith("<")
        ),
        key=lambda pair: model["vocab"]["".join(pair)],
    )
    if lacking:
        model["vocab"]["other"] = model["vocab"].pop(lacking)
    if forgotten:
        model["merges"].remove(("x", "yz"))
    if shuffled:
        model["merges"].append(model["merges"].pop(model["merges"].index(("x", "yz"))))
    model["ignore_merges"] = ignore_merges
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    if not prefix:
        fields["normalizer"] = replace
    if metaspace or split:
        fields["normalizer"] = None
        fields["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": split}
    return Tokenizer.from_str(json.dumps(fields))


def _sentencepiece_ids(text: str, fields: Any) -> list[int]:
    """As llama.cpp cuts a text by a file's scores: the best pair of neighbours first, of equals the leftmost."""
    tokens, scores = fields["tokenizer.ggml.tokens"].contents(), fields["tokenizer.ggml.scores"].contents()
    index = {token: number for number, token in enumerate(tokens)}
    if text and fields["tokenizer.ggml.add_space_prefix"].contents():
        text = " " + text
    symbols = list(text.replace(" ", "▁"))
    while pairs := [
        (-scores[index[a + b]], i) for i, (a, b) in enumerate(itertools.pairwise(symbols)) if a + b in index
    ]:
        place = min(pairs)[1]
        symbols[place : place + 2] = ["".join(symbols[place : place + 2])]
    found = []
    for symbol in symbols:
        found += [index[symbol]] if symbol in index else [index[f"<0x{byte:02X}>"] for byte in symbol.encode()]
    return found


@pytest.mark.parametrize(
    ("options", "noted"),
    [({}, False), ({"prefix": False}, False), ({"metaspace": True}, True)],
    ids=["before every text", "never", "before the first word"],
)
def test_scores_cut_text_as_the_merges_of_a_sentencepiece_tokenizer_do(
    options: dict[str, Any], noted: bool, tmp_path: Path
) -> None:
    base = _base(tmp_path / "b", tokenizer=_pieces(**options))
    written = export_merged(_adapter(base, tmp_path / "a"), base, tmp_path / "gguf", file_format="gguf")
    assert bool(written.notes) is noted
    before = AutoTokenizer.from_pretrained(base)
    fields = gguf.GGUFReader(tmp_path / "gguf" / "model.gguf").fields
    assert fields["tokenizer.ggml.model"].contents() == "llama"
    tokens, kinds = fields["tokenizer.ggml.tokens"].contents(), fields["tokenizer.ggml.token_type"].contents()
    named = {token: kinds[tokens.index(token)] for token in ("<unk>", "<s>", "<0x41>", "<think>", "▁the", "[PAD383]")}
    kind = gguf.TokenType
    assert list(named.values()) == [kind.UNKNOWN, kind.CONTROL, kind.BYTE, kind.USER_DEFINED, kind.NORMAL, kind.UNUSED]
    spaces = st.sampled_from(
        ["the", " the", " quick", "  ", "brown", "dog", "xyz", "xxyzz", "é", "日", "🙂", "\n", "<"]
    )
    texts = st.lists(spaces | st.text(max_size=3), max_size=12).map("".join)
    texts = texts.filter(lambda text: not any(token in text for token in before.all_special_tokens))

    @settings(max_examples=150, deadline=None)
    @given(texts if not noted else texts.filter(lambda text: not text.startswith((" ", "▁"))))
    def same(text: str) -> None:
        assert _sentencepiece_ids(text, fields) == before(text, add_special_tokens=False).input_ids

    same()


def test_transformers_reads_a_sentencepiece_tokenizer_and_the_weights_back(tmp_path: Path) -> None:
    plain, written = _both(_base(tmp_path / "b", tokenizer=_pieces(metaspace=True)), tmp_path)
    assert torch.allclose(_logits(written, gguf_file="model.gguf"), _logits(plain), atol=1e-5, rtol=0)
    before = AutoTokenizer.from_pretrained(plain)
    after = AutoTokenizer.from_pretrained(written, gguf_file="model.gguf")
    for text in (
        "the quick brown fox isn't it?",
        "héllo  wörld 日本語 🙂\n\n\tb ",
        "a 12345 1 ½",
        "x<think> y</think>",
    ):
        assert after(text).input_ids == before(text).input_ids, text
    assert after("the").input_ids[0] == before.bos_token_id


def test_digits_taken_one_by_one_have_their_name(tmp_path: Path) -> None:
    """transformers' reader knows no such name, and splits as GPT-2 does: the name itself is what is held."""
    digits = _split(pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False))
    base = _base(tmp_path / "b", tokenizer=digits)
    export_merged(_adapter(base, tmp_path / "a"), base, tmp_path / "gguf", file_format="gguf")
    fields = gguf.GGUFReader(tmp_path / "gguf" / "model.gguf").fields
    assert fields["tokenizer.ggml.pre"].contents() == "smollm"


def test_scaled_frequencies_are_written_as_divisors(tmp_path: Path) -> None:
    base = _base(tmp_path / "b", "llama3-rope")
    export_merged(_adapter(base, tmp_path / "a"), base, tmp_path / "gguf", file_format="gguf")
    tensors = {tensor.name: tensor.data for tensor in gguf.GGUFReader(tmp_path / "gguf" / "model.gguf").tensors}
    expected = []
    for pair in range(8):  # by the definition of Llama 3's scaling: factor 4, between wavelengths 32 / 4 and 32 / 1
        wavelength = 2 * math.pi * 10000.0 ** (pair / 8)
        share = min(max((32 / wavelength - 1.0) / (4.0 - 1.0), 0.0), 1.0)
        expected.append(1 / ((1 - share) / 4.0 + share))
    assert tensors["rope_freqs.weight"].tolist() == pytest.approx(expected, rel=1e-5)
    assert min(expected) == 1 and max(expected) == 4


def test_several_tokens_may_end_an_answer(tmp_path: Path) -> None:
    base = _base(tmp_path / "b")
    settings = json.loads((base / "generation_config.json").read_text())
    (base / "generation_config.json").write_text(json.dumps({**settings, "eos_token_id": [4, 2]}))
    export_merged(_adapter(base, tmp_path / "a"), base, tmp_path / "gguf", file_format="gguf")
    fields = gguf.GGUFReader(tmp_path / "gguf" / "model.gguf").fields
    assert fields["tokenizer.ggml.eos_token_id"].contents() == 2
    assert fields["tokenizer.ggml.eot_token_id"].contents() == 4


def _spaced() -> Tokenizer:
    tokenizer = tokenizers.byte_level()
    tokenizer.add_tokens([AddedToken("<mask>", lstrip=True)])
    return tokenizer


def _composed() -> Tokenizer:
    tokenizer = tokenizers.byte_level()
    tokenizer.normalizer = normalizers.NFKC()
    return tokenizer


@pytest.mark.parametrize(
    ("architecture", "options", "tokenizer", "reason"),
    [
        ("qwen3", {}, None, "Qwen3ForCausalLM is not written"),
        ("qwen2-windowed", {}, None, "sliding window"),
        ("qwen2", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}}, None, "type linear"),
        ("qwen2", {"head_dim": 32}, None, "heads of 32"),
        ("mistral", {}, None, "sliding window"),
        ("llama-biased", {}, None, "bias has no place"),
        ("llama", {"hidden_act": "gelu"}, None, "hidden_act gelu"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, None, "dynamic"),
        ("llama", {}, tokenizers.unigram(), "tokenizer is Unigram"),
        ("llama", {}, _pieces(split=True), "SentencePiece-like and changes or splits text"),
        ("llama", {}, _pieces(lacking="<0x41>"), "lacks tokens of bytes .<0x41>"),
        ("llama", {}, _pieces(forgotten=True), "which it does not merge, and SentencePiece would"),
        ("llama", {}, _pieces(shuffled=True), "have others between them"),
        ("llama", {}, _pieces(ignore_merges=True), "takes whole words"),
        ("llama", {}, tokenizers.suffixed(), "marks parts of words"),
        ("llama", {}, _composed(), "normalizer NFKC"),
        ("llama", {}, _split(pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(False)), "has no name"),
        ("llama", {}, _spaced(), "<mask>"),
        ("llama", {"vocab_size": 200}, None, "embeddings have 200 rows"),
    ],
)
def test_what_gguf_does_not_say_exactly_is_refused_by_name(
    architecture: str, options: dict[str, Any], tokenizer: Tokenizer | None, reason: str, tmp_path: Path
) -> None:
    base = _base(tmp_path / "b", architecture, tokenizer, **options)
    adapter = _adapter(base, tmp_path / "a", target_modules=["q_proj"])
    with pytest.raises(GgufError, match=f"{reason}.*--format safetensors"):
        export_merged(adapter, base, tmp_path / "gguf", file_format="gguf")
    assert not (tmp_path / "gguf").exists()


def test_the_command_replaces_a_gguf_when_told_to(tmp_path: Path) -> None:
    base = _base(tmp_path / "b")
    _adapter(base, tmp_path / "a")
    command = ["adapters", "merge", str(tmp_path / "a"), "--base", str(base), "--output", str(tmp_path / "m")]
    for extra, code in (([], 0), ([], 1), (["--overwrite"], 0)):
        done = CliRunner().invoke(app, [*command, "--format", "gguf", *extra])
        assert done.exit_code == code, done.output
    assert [path.name for path in (tmp_path / "m").iterdir()] == ["model.gguf"]


def test_without_the_package_its_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(GgufError, match=r"pip install 'ift-serve\[gguf\]'"):
        export_merged(tmp_path / "a", tmp_path / "b", tmp_path / "m", file_format="gguf")

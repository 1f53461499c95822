"""Rendered prompts: the template's own ids, with every token's segment."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from ift_serve.text.prompt import Message, Part, PromptError, PromptRenderer, Segment

TEMPLATES = {
    "chatml": "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "trimming": "<s>{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] | trim }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}",
    "inst": "<s>{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% elif m['role'] == 'assistant' %} {{ m['content'] }}</s>{% endif %}{% endfor %}",
    "default-system": "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nBe good.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "no-system": "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "<s>{% for m in messages %}<start>{{ m['role'] }}\n{{ m['content'] | trim }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<start>model\n{% endif %}",
    "none": None,
}
SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|user|>", "<|assistant|>", "<|system|>", "<start>", "<end>"]
WORDS = "Be good. Sort these words: pear apple fig user assistant system model Write a story."


def _tokenizer(template: str | None) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        [WORDS] * 3,
        trainers.BpeTrainer(vocab_size=340, initial_alphabet=alphabet, special_tokens=SPECIAL, show_progress=False),
    )
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = template
    return tokenizer


RENDERERS = {name: PromptRenderer(_tokenizer(template)) for name, template in TEMPLATES.items()}
CONTENT = st.text(alphabet=st.sampled_from("ab Sort pear\n<|>é🙂"), min_size=1, max_size=24).filter(str.strip)


def _conversation(contents: list[str], roles: tuple[str, ...]) -> list[Message]:
    return [Message(role, (Part(text),)) for role, text in zip(roles, contents, strict=False)]  # type: ignore[arg-type]


@pytest.mark.parametrize("name", TEMPLATES)
@settings(max_examples=60, deadline=None)
@given(
    contents=st.lists(CONTENT, min_size=4, max_size=4),
    turns=st.sampled_from([("user",), ("user", "assistant", "user"), ("system", "user")]),
)
def test_ids_are_those_of_apply_chat_template(name: str, contents: list[str], turns: tuple[str, ...]) -> None:
    renderer = RENDERERS[name]
    if name in ("no-system", "inst") and turns[0] == "system":
        turns = ("user",)
    messages = _conversation(contents, turns)
    rendered = renderer.conversation(messages)
    if renderer.has_template:
        plain = [{"role": m.role, "content": m.content} for m in messages]
        expected = renderer.tokenizer.apply_chat_template(
            plain, add_generation_prompt=True, tokenize=True, return_dict=False
        )
        assert rendered.token_ids == list(expected)
    assert len(rendered.segment_ids) == len(rendered.token_ids)


def _texts(renderer: PromptRenderer, rendered: object) -> dict[Segment, str]:
    ids, segments = rendered.token_ids, rendered.segment_ids  # type: ignore[attr-defined]
    decode = renderer.tokenizer.backend_tokenizer.decode
    return {
        s: decode([i for i, g in zip(ids, segments, strict=True) if g == s], skip_special_tokens=False) for s in Segment
    }


@pytest.mark.parametrize("name", [n for n in TEMPLATES if n != "none"])
def test_segments_cover_instruction_context_and_response(name: str) -> None:
    renderer = RENDERERS[name]
    messages = [
        Message("user", (Part("Sort these words: "), Part("pear apple", is_context=True))),
        Message("assistant", (Part("apple pear"),)),
        Message("user", (Part("Sort these words: "), Part("pear apple", is_context=True))),
    ]
    texts = _texts(renderer, renderer.conversation(messages))
    assert texts[Segment.INSTRUCTION].replace(" ", "") == "Sortthesewords:" * 2
    assert texts[Segment.CONTEXT].replace(" ", "") == "pearapple" * 2
    assert texts[Segment.RESPONSE].replace(" ", "") == "applepear"


def test_a_dropped_system_message_is_refused_by_name() -> None:
    renderer = RENDERERS["inst"]
    for dropped in ("Be good.", "<", "s"):
        with pytest.raises(PromptError, match="system message") as caught:
            renderer.conversation([Message("system", (Part(dropped),)), Message("user", (Part("Write"),))])
        assert caught.value.field == "prompt.conversation.messages[0].parts[0]"


def test_without_a_template_the_prompt_is_inst_and_ends_on_a_token_boundary() -> None:
    renderer = RENDERERS["none"]
    rendered = renderer.instruction("Sort these", "pear apple")
    assert rendered.text == "<s>[INST] Sort these\n\npear apple [/INST]"
    assert _texts(renderer, rendered)[Segment.CONTEXT].strip() == "pear apple"
    answer = renderer.text(rendered.text + " apple", add_special_tokens=False).token_ids
    assert answer[: len(rendered.token_ids)] == rendered.token_ids


def test_continuing_the_assistant() -> None:
    messages = [Message("user", (Part("Write a story."),)), Message("assistant", (Part("Once"),))]
    rendered = RENDERERS["chatml"].conversation(messages, continue_final=True)
    assert rendered.text is not None and rendered.text.endswith("assistant\nOnce")
    assert rendered.segment_ids[-1] == Segment.RESPONSE


@pytest.mark.parametrize(
    ("messages", "continued", "field"),
    [
        ([], False, "prompt.conversation.messages"),
        ([Message("user", ())], False, "prompt.conversation.messages[0].parts"),
        ([Message("assistant", (Part("x"),))], False, "prompt.conversation.messages[0].role"),
        ([Message("user", (Part("x"),))], True, "prompt.conversation.messages[0].role"),
    ],
)
def test_what_cannot_be_rendered_is_named(messages: list[Message], continued: bool, field: str) -> None:
    with pytest.raises(PromptError) as caught:
        RENDERERS["chatml"].conversation(messages, continue_final=continued)
    assert caught.value.field == field


def test_a_template_that_refuses_is_quoted() -> None:
    with pytest.raises(PromptError, match="System role not supported"):
        RENDERERS["no-system"].conversation(_conversation(["a", "b"], ("system", "user")))


def test_an_empty_instruction_is_refused() -> None:
    with pytest.raises(PromptError, match="is empty"):
        RENDERERS["chatml"].instruction("  ")


@settings(max_examples=60, deadline=None)
@given(
    context=st.text(alphabet="ab pear ", max_size=12), continuation=st.text(alphabet="ab pear ", min_size=1, max_size=8)
)
def test_continuations_split_where_lm_eval_splits(context: str, continuation: str) -> None:
    renderer = RENDERERS["none"]
    ids, (own,) = renderer.continuations(context, [continuation])
    encode = renderer.tokenizer.backend_tokenizer.encode
    if context.strip():
        assert ids == encode(context.rstrip()).ids
        assert own == (encode(context + continuation).ids[len(ids) :] or own)
        assert own
    else:
        assert ids == [renderer.tokenizer.bos_token_id]
        assert own == encode(context + continuation, add_special_tokens=False).ids


def test_a_real_chat_model() -> None:
    path = Path(__file__).parents[3] / "shared" / "models" / "tinystories-chat-3M"
    if not path.is_dir():
        pytest.skip("the shared models are not beside this checkout")
    tokenizer = AutoTokenizer.from_pretrained(path)
    rendered = PromptRenderer(tokenizer).instruction("Tell me a story about a fox.")
    expected = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Tell me a story about a fox."}], add_generation_prompt=True, return_dict=False
    )
    assert rendered.token_ids == list(expected)
    assert rendered.segment_ids.count(Segment.INSTRUCTION) >= 8

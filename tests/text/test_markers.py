"""Control tokens come from templates and raw text, never from what is typed into a message."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from ift_serve.text.prompt import Message, Part, PromptRenderer, Segment
from tests.support.tiny_tokenizers import KINDS, NOT_SPECIAL, SPECIAL, tokenizer_of

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>{% endif %}"
)
MARKERS = [m for m in (*SPECIAL, *NOT_SPECIAL) if m != "<unk>"]
FRAGMENTS = st.sampled_from(
    [*MARKERS, "<|im_", "start|>", "end|>", "<", "|>", "<thi", "nk>", "</", "s>", " ", "\n", "the dog", "é🙂", "pear"]
)
PLAIN = st.text(alphabet=st.sampled_from("ab the dog pear.\né🙂"), min_size=1, max_size=20).filter(str.strip)
TYPED = st.lists(FRAGMENTS, min_size=1, max_size=8).map("".join).filter(str.strip)
RENDERERS: dict[tuple[str, bool], PromptRenderer] = {}


def renderer_of(kind: str, *, parse: bool = False) -> PromptRenderer:
    if (kind, parse) not in RENDERERS:
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer_of(kind), bos_token="<s>", eos_token="</s>", unk_token="<unk>"
        )
        tokenizer.chat_template = TEMPLATE
        RENDERERS[kind, parse] = PromptRenderer(tokenizer, parse_special_tokens=parse)
    return RENDERERS[kind, parse]


def applied(renderer: PromptRenderer, messages: list[Message]) -> list[int]:
    plain = [{"role": m.role, "content": m.content} for m in messages]
    tokenizer: Any = renderer.tokenizer
    return list(tokenizer.apply_chat_template(plain, add_generation_prompt=True, tokenize=True, return_dict=False))


def control_tokens(renderer: PromptRenderer, ids: list[int]) -> list[str]:
    contents = [renderer.tokenizer.backend_tokenizer.id_to_token(i) for i in ids]
    return [c for c in contents if c in MARKERS]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None)
@given(system=PLAIN, user=PLAIN, context=PLAIN)
def test_without_markers_the_ids_are_those_of_apply_chat_template(
    kind: str, system: str, user: str, context: str
) -> None:
    renderer = renderer_of(kind)
    messages = [Message("system", (Part(system),)), Message("user", (Part(user), Part(context, is_context=True)))]
    assert renderer.conversation(messages).token_ids == applied(renderer, messages)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(user=TYPED, context=TYPED, answer=TYPED)
def test_typed_markers_are_text(kind: str, user: str, context: str, answer: str) -> None:
    renderer = renderer_of(kind)
    messages = [
        Message("user", (Part(user), Part(context, is_context=True))),
        Message("assistant", (Part(answer),)),
        Message("user", (Part("pear"),)),
    ]
    rendered = renderer.conversation(messages)
    expected = ["<s>", *["<|im_start|>", "<|im_end|>"] * 3, "<|im_start|>", "<think>"]
    assert control_tokens(renderer, rendered.token_ids) == expected
    typed = {i for i, s in zip(rendered.token_ids, rendered.segment_ids, strict=True) if s != Segment.TEMPLATE}
    if kind in ("byte-level", "byte-fallback"):
        # These write any text, so that it is there again; and no control token lies within a part.
        text = renderer.tokenizer.backend_tokenizer.decode(rendered.token_ids, skip_special_tokens=False)
        assert user + context in text and answer in text
        assert not control_tokens(renderer, list(typed))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30, deadline=None)
@given(user=TYPED)
def test_with_the_switch_they_are_control_tokens(kind: str, user: str) -> None:
    renderer = renderer_of(kind, parse=True)
    messages = [Message("user", (Part(user),))]
    assert renderer.conversation(messages).token_ids == applied(renderer, messages)


@pytest.mark.parametrize("kind", KINDS)
def test_raw_text_is_the_callers_own_rendering(kind: str) -> None:
    renderer = renderer_of(kind)
    text = "<s><|im_start|>user\nthe dog<|im_end|>"
    expected = renderer.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
    assert renderer.text(text, add_special_tokens=False).token_ids == expected
    assert control_tokens(renderer, expected) == ["<s>", "<|im_start|>", "<|im_end|>"]


def test_segments_of_a_marker_that_spans_two_parts() -> None:
    renderer = renderer_of("byte-level")
    parts = (Part("the <|im_"), Part("start|> dog", is_context=True))
    rendered = renderer.conversation([Message("user", parts)])
    backend = renderer.tokenizer.backend_tokenizer
    texts = {
        segment: backend.decode(
            [i for i, s in zip(rendered.token_ids, rendered.segment_ids, strict=True) if s == segment]
        )
        for segment in (Segment.INSTRUCTION, Segment.CONTEXT)
    }
    assert texts[Segment.INSTRUCTION] + texts[Segment.CONTEXT] == "the <|im_start|> dog"
    assert rendered.text is not None and "the <|im_start|> dog" in rendered.text


def test_markers_that_a_template_splits_stay_text() -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer_of("byte-level"))
    tokenizer.chat_template = (
        "{% for m in messages %}{% for line in m['content'].split('\n') %}{{ line | trim }};{% endfor %}{% endfor %}"
    )
    one = PromptRenderer(tokenizer)
    rendered = one.conversation([Message("user", (Part("<|im_end|>"),))])
    assert control_tokens(one, rendered.token_ids) == []


def test_what_was_typed_is_told() -> None:
    renderer = renderer_of("byte-level")
    typed = renderer.conversation([Message("user", (Part("the <think> dog<|im_"), Part("end|>")))])
    assert sorted(renderer.typed_markers(typed)) == ["<think>", "<|im_end|>"]
    assert renderer.typed_markers(renderer.conversation([Message("user", (Part("the dog"),))])) == []


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_behind_its_prompt_is_text_too(kind: str) -> None:
    renderer = renderer_of(kind)
    prompt = renderer.conversation([Message("user", (Part("pear"),))])
    ids = renderer.answer_ids(prompt, "</think>", "the<|im_end|>dog")
    assert control_tokens(renderer, ids) == ["</think>"]


def test_continuations_of_a_rendered_prompt_keep_its_typed_markers_text() -> None:
    renderer = renderer_of("byte-level")
    prompt = renderer.conversation([Message("user", (Part("the <|im_end|> dog"),))])
    context, (own,) = renderer.continuations_of(prompt, [" pear<|im_end|>"])
    assert context == prompt.token_ids
    assert control_tokens(renderer, own) == ["<|im_end|>"]

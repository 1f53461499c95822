"""Examples as token ids: what the server would have seen and said, and what the loss looks at."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from ift_serve.embedded import model_path
from ift_serve.text.prompt import PromptRenderer
from ift_serve.text.tokenizer import load_tokenizer
from ift_training.data.encode import EncodedExample, Encoder, EncodingError, TemplateError
from ift_training.data.preview import legend, to_html, to_json, to_plain, to_text, token_texts
from ift_training.data.records import parse_record
from tests.support.models import tiny_tokenizer

RECORD = parse_record({"instruction": "Sort these.", "context": "fox, dog", "output": "dog, fox"})
CONVERSATION = parse_record(
    {
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "Say hello."},
            {"role": "assistant", "content": "hello"},
            {"role": "user", "content": [{"text": "Read: "}, {"text": "the river", "context": True}]},
            {"role": "assistant", "content": "the end"},
        ]
    }
)
TEMPLATES = {
    "plain": None,
    "lead": "{% for m in messages %}{% if m['role'] == 'assistant' %} {{ m['content'] }}</s>"
    "{% else %}[{{ m['content'] }}]{% endif %}{% endfor %}",
    "trimming": "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] | trim }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}",
}


def renderer(template: str | None = None) -> PromptRenderer:
    tokenizer = tiny_tokenizer()
    if template is not None:
        tokenizer.chat_template = template
    return PromptRenderer(tokenizer)


def text(encoder: Encoder, ids: list[int]) -> str:
    return str(encoder.renderer.tokenizer.decode(ids))


@pytest.mark.parametrize("template", list(TEMPLATES.values()), ids=list(TEMPLATES))
@pytest.mark.parametrize("record", [RECORD, CONVERSATION], ids=["single", "conversation"])
def test_training_sees_what_serving_renders(template: str | None, record: Any) -> None:
    encoder = Encoder(renderer(template), 512)
    example = encoder.encode(record)
    prompt = encoder.renderer.conversation(record.prompt)
    assert example.input_ids[: len(prompt.token_ids)] == prompt.token_ids
    assert example.segment_ids[: len(prompt.token_ids)] == prompt.segment_ids
    assert example.response_start == len(prompt.token_ids)
    assert len(example.input_ids) == len(example.segment_ids) == len(example.labels_mask)
    whole = encoder.renderer.tokenizer.apply_chat_template(
        [{"role": m.role, "content": m.content} for m in record.prompt]
        + [{"role": "assistant", "content": record.response}],
        tokenize=False,
    )
    assert text(encoder, example.input_ids) == whole
    assert example.input_ids[-1] == 2 == encoder.end_id


def test_a_single_record_is_rendered_as_the_instruction_of_a_request() -> None:
    encoder = Encoder(renderer(), 512)
    assert (
        encoder.renderer.instruction("Sort these.", "fox, dog").token_ids
        == (encoder.encode(RECORD).input_ids[: encoder.encode(RECORD).response_start])
    )


def test_the_embedded_model_ends_answers_as_it_was_trained_to() -> None:
    encoder = Encoder(PromptRenderer(load_tokenizer(str(model_path()))), 512)
    assert text(encoder, encoder.encode(RECORD).input_ids).endswith("<|assistant|>dog, fox<|end|>")


def test_without_a_template_the_usual_one_is_used() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    encoder = Encoder(PromptRenderer(tokenizer), 512)
    assert text(encoder, encoder.encode(RECORD).input_ids) == "<s>[INST] Sort these.\n\nfox, dog [/INST] dog, fox</s>"


def seen(encoder: Encoder, example: EncodedExample) -> str:
    kept = [i for i, mark in zip(example.input_ids, example.labels_mask, strict=True) if mark]
    return text(encoder, kept)


@pytest.mark.parametrize(("loss_on", "expected"), [("responses", "hello</s>the end</s>"), ("response", "the end</s>")])
def test_the_loss_sees_answers_and_their_ends(loss_on: Any, expected: str) -> None:
    encoder = Encoder(renderer(), 512, loss_on=loss_on)
    assert seen(encoder, encoder.encode(CONVERSATION)) == expected


def test_the_loss_may_see_all_but_the_first_token() -> None:
    example = Encoder(renderer(), 512, loss_on="all").encode(RECORD)
    assert example.labels_mask == b"\0" + b"\1" * (len(example.input_ids) - 1)


def test_too_long_is_dropped_with_both_numbers() -> None:
    encoder = Encoder(renderer(), 512)
    length = len(encoder.encode(RECORD).input_ids)
    assert Encoder(renderer(), length).encode(RECORD).input_ids == encoder.encode(RECORD).input_ids
    with pytest.raises(EncodingError, match=f"too long: {length} tokens, max_length is {length - 1}"):
        Encoder(renderer(), length - 1).encode(RECORD)


def test_the_violating_answer_ends_too() -> None:
    encoder = Encoder(renderer(), 512)
    example = encoder.encode(RECORD, violating="fox, dog")
    assert example.violating is not None and text(encoder, example.violating) == "fox, dog</s>"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (
            "{% for m in messages %}{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}GO{% endif %}",
            "continua",
        ),
        ("{{ raise_exception('no') }}", "template"),
        ("{{ messages[0]['content'] }}", "continu"),
    ],
)
def test_a_template_that_cannot_be_trained_on_is_refused(template: str, said: str) -> None:
    with pytest.raises(TemplateError, match=said):
        Encoder(renderer(template), 512)


def test_a_template_that_hides_the_instruction_is_noticed() -> None:
    hiding = (
        "{% for m in messages %}{% if m['role'] == 'assistant' %}A{{ m['content'] }}"
        "{% elif m['content'] == 'question' %}{{ m['content'] }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}A{% endif %}"
    )
    with pytest.raises(EncodingError, match="loses its instruction"):
        Encoder(renderer(hiding), 512).encode(RECORD)


def test_a_tokenizer_without_an_end_cannot_be_trained() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = str(TEMPLATES["lead"]).replace("</s>", "")
    tokenizer.eos_token = None
    with pytest.raises(TemplateError, match="end-of-text"):
        Encoder(PromptRenderer(tokenizer), 512)


def test_the_token_that_opens_a_user_message_ends_no_answer() -> None:
    template = (
        "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    assert Encoder(renderer(template), 512).end_id == 2


def test_previews_show_every_token_with_its_segment() -> None:
    encoder = Encoder(renderer(), 512)
    example = encoder.encode(RECORD, task_name="sort", violating="fox, dog")
    tokenizer = encoder.renderer.tokenizer
    shown = to_json(example, tokenizer)
    assert "".join(t["text"] for t in shown["tokens"]) == text(encoder, example.input_ids)
    assert [t["loss"] for t in shown["tokens"]] == [bool(mark) for mark in example.labels_mask]
    assert "".join(t["text"] for t in shown["tokens"] if t["segment"] == "context") == "fox, dog"
    console = Console(width=200, record=True, force_terminal=True, color_system="truecolor")
    console.print(to_text(example, tokenizer), legend())
    plain = console.export_text(clear=False)
    assert "Sort these." in plain and "violating: fox, dog" in plain and "seen by the loss" in plain
    assert "\x1b[" in console.export_text(styles=True)


def test_without_colours_every_run_of_tokens_is_a_line() -> None:
    encoder = Encoder(renderer(), 512)
    lines = to_plain(encoder.encode(RECORD, violating="fox, dog"), encoder.renderer.tokenizer).splitlines()
    assert [line.split(maxsplit=1)[0] for line in lines] == [
        "template",
        "instruction",
        "context",
        "template",
        "response",
        "violating",
    ]
    assert "* dog, fox</s>" in lines[4] and not any("*" in line for line in lines[:4])


def test_a_page_escapes_what_it_shows() -> None:
    encoder = Encoder(renderer(), 512)
    example = encoder.encode(parse_record({"instruction": "<script>alert(1)</script>", "output": "<b>"}))
    page = to_html([example], encoder.renderer.tokenizer)
    assert "<script>" not in page and page.count('class="response loss"') == sum(example.labels_mask)


def test_characters_of_several_tokens_are_shown_once() -> None:
    tokenizer = tiny_tokenizer()
    ids = tokenizer.backend_tokenizer.encode("a → ä 漢 😀", add_special_tokens=False).ids
    texts = token_texts(tokenizer, ids)
    assert len(texts) == len(ids) and "".join(texts) == "a → ä 漢 😀"

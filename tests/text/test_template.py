"""Chat templates: shapes of content, faults, and bounds of their work."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from ift_serve.text.message import Message, Part, PromptError
from ift_serve.text.prompt import PromptRenderer
from ift_serve.text.template import ChatTemplate
from tests.support.tiny_tokenizers import byte_level

USER = [Message("user", (Part("the dog"),))]
LIST = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for part in m.content %}{% if part.type == 'text' %}"
    "{{ part.text }}{% endif %}{% endfor %}<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>{% endif %}"
)
MIXED = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ m.content[0].text }}{% elif m.content is string %}"
    "{{ m.content }}{% else %}{{ m.content[0]['text'] }}{% endif %};{% endfor %}"
)
FEATURES = (
    "{%- set ns = namespace(n=0, text='') -%}{%- macro wrap(x) -%}[{{ x }}]{%- endmacro -%}"
    "{%- for m in messages if m.role != 'x' -%}{%- set ns.n = ns.n + 1 -%}{%- set ns.text = ns.text ~ m.role -%}"
    "{{ wrap(loop.index ~ '/' ~ loop.length) }}{{ '%s-%d' % (m.role, ns.n) }}{% generation %}{{ m['content'] }}"
    "{% endgeneration %}{% if loop.last %}{% break %}{% endif %}{{ loop.previtem is defined }}\n{%- endfor -%}"
    "{{ ns.text * 2 }}{{ {'a': [1, 'é<']} | tojson(indent=1) }}{{ messages | map(attribute='role') | join(',') }}"
    "{% for k, v in messages[0].items() %}{{ k }}{% endfor %}{% for x in nothing %}{{ x }}{% else %}none{% endfor %}"
    "{{ bos_token }}{{ ''.join(['a', 'b']) }}{{ 'a{}'.format(3) }}{{ 2 ** 3 }}"
    "{% if add_generation_prompt %}>{% endif %}"
)


def tokenizer_with(template: Any) -> PreTrainedTokenizerFast:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=byte_level(), bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = template
    return tokenizer


def renderer(template: Any, **options: Any) -> PromptRenderer:
    return PromptRenderer(tokenizer_with(template), **options)


def conversation(*turns: tuple[str, str]) -> list[Message]:
    return [Message(role, (Part(text),)) for role, text in turns]  # type: ignore[arg-type]


@pytest.mark.parametrize("template", [FEATURES, LIST])
def test_it_writes_what_apply_chat_template_writes(template: str) -> None:
    messages = conversation(("system", "Be good."), ("user", "the dog"), ("assistant", "fox"), ("user", "pear"))
    one = renderer(template)
    shaped = [
        {"role": m.role, "content": [{"type": "text", "text": m.content}] if template is LIST else m.content}
        for m in messages
    ]
    expected = one.tokenizer.apply_chat_template(shaped, add_generation_prompt=True, tokenize=False)
    assert one.conversation(messages).text == expected


def test_content_is_given_in_the_shape_that_shows_it() -> None:
    assert (
        renderer(LIST).instruction("the dog", "a fox").text
        == "<|im_start|>user\nthe dog\n\na fox<|im_end|><|im_start|>"
    )
    messages = conversation(("system", "Be good."), ("user", "the dog"))
    assert renderer(MIXED).conversation(messages).text == "Be good.;the dog;"


def test_continuing_a_list() -> None:
    rendered = renderer(LIST).conversation(conversation(("user", "a"), ("assistant", "fox ")), continue_final=True)
    assert rendered.text is not None and rendered.text.endswith("assistant\nfox ")


@pytest.mark.parametrize(
    ("template", "lost"),
    [
        ("<s>{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}", 0),
        ("{% for m in messages %}{% if m.role != 'user' %}{{ m.content }}{% endif %}{% endfor %}x", 1),
        ("{{ messages[-1].content | upper }}{{ messages[0].content }}", 1),
        ("{{ messages[0].content }}{{ messages[1].content[:3] }}", 1),
        ("nothing", 0),
    ],
)
def test_what_a_template_drops_is_refused_by_name(template: str, lost: int) -> None:
    with pytest.raises(PromptError, match="drops or changes") as caught:
        renderer(template).conversation(conversation(("system", "not that"), ("user", "the dog")))
    assert caught.value.field == f"prompt.conversation.messages[{lost}].parts[0]"


def test_a_template_may_move_and_repeat_what_it_is_given() -> None:
    moved = "{{ messages[1].content }}|{{ messages[0].content }}|{{ messages[1].content }}"
    rendered = renderer(moved).conversation(conversation(("system", "Be good."), ("user", "the dog")))
    assert rendered.text == "the dog|Be good.|the dog"
    assert rendered.segment_ids.count(0) == 2


def test_reasoning_of_earlier_answers_may_be_left_out() -> None:
    template = (
        "{% for m in messages %}{% if m.role == 'assistant' %}{{ m.content.split('</think>')[-1] | trim }}"
        "{% else %}{{ m.content }}{% endif %};{% endfor %}"
    )
    one = renderer(template, parse_special_tokens=True)
    messages = conversation(("user", "the dog"), ("assistant", "<think>so</think>\n\nfox"), ("user", "pear"))
    assert one.conversation(messages).text == "the dog;fox;pear;"


@pytest.mark.parametrize(
    "template",
    [
        "{{ 1 // 0 }}{{ messages[0].content }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
        "{% set ns = namespace(t='a') %}{% for i in range(60) %}{% set ns.t = ns.t ~ ns.t %}{% endfor %}{{ ns.t }}",
        "{% set ns = namespace(t='a') %}{% for i in range(60) %}{% set ns.t = ns.t + ns.t %}{% endfor %}{{ ns.t }}",
        "{{ 'a' * 10 ** 12 }}",
        "{{ 9 ** (9 ** 9) }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '{:>1000000000}'.format(1) }}",
        "{{ 'a'.center(1000000000) }}",
        "{% for i in range(90000) %}{{ 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' }}{% endfor %}",
        "{{ raise_exception('no') }}",
        "{{ messages.nothing.more }}",
        "{{ messages[0].content.no_such_method() }}",
        "{{ messages | no_such_filter }}",
        "{{ ''.__class__.__mro__ }}",
        "{% for",
        "{{ dict(1) }}",
        "{% include 'x' %}",
    ],
)
def test_a_template_that_fails_or_works_for_ever_is_an_error_of_the_prompt(template: str) -> None:
    with pytest.raises(PromptError, match="the model's chat template"):
        renderer(template).conversation(USER)


@pytest.mark.parametrize("made", ["'{:>9}|{}'.format(1, 2)", "'{a:>9}|2'.format_map({'a': 1})", "'%9d|%d' % (1, 2)"])
def test_a_width_is_refused_before_a_text_of_it_is_made(made: str) -> None:
    template = f"{{{{ messages[0].content }}}}{{{{ {made} }}}}"
    assert renderer(template).conversation(USER).text == "the dog        1|2"
    tracemalloc.start()
    try:
        with pytest.raises(PromptError, match="too long a text"):
            renderer(template.replace("9", "99999999")).conversation(USER)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_long_conversations_are_within_the_bound() -> None:
    messages = [*conversation(*[("user", "the dog"), ("assistant", "fox")] * 400), *USER]
    template = (
        "{% set ns = namespace(t='') %}{% for m in messages %}{% set ns.t = ns.t + m.content %}{% endfor %}{{ ns.t }}"
    )
    rendered = renderer(template).conversation(messages)
    assert rendered.text == "".join(m.content for m in messages)


def test_named_templates_are_chosen_or_refused() -> None:
    named = {"plain": "{{ messages[0].content }}", "tool_use": "T{{ messages[0].content }}"}
    with pytest.raises(PromptError, match="'plain', 'tool_use'"):
        renderer(named)
    with pytest.raises(PromptError, match="none named 'rag'"):
        renderer(named, chat_template="rag")
    with pytest.raises(PromptError, match="no templates by name"):
        renderer("{{ messages[0].content }}", chat_template="rag")
    assert renderer(named, chat_template="tool_use").conversation(USER).text == "Tthe dog"
    assert renderer(named | {"default": "D{{ messages[0].content }}"}).conversation(USER).text == "Dthe dog"


_TURNS = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"


@pytest.mark.parametrize(
    ("ending", "opens"),
    [
        ("{% if enable_thinking %}{{ '<think>' }}{% endif %}", True),
        ("{% if enable_thinking %}{{ '<think>\n' }}{% endif %}", True),
        # The prompt opens each thought, asked or not; the model opens them itself; one says that there is none.
        ("{{ '<think>\n' }}", False),
        ("", False),
        ("{% if enable_thinking is defined and not enable_thinking %}{{ '<think></think>' }}{% endif %}", False),
        ("{{ raise_exception('no') }}", False),
        ("{% if", False),
    ],
)
def test_it_is_known_whether_thoughts_are_the_prompts_to_open(ending: str, opens: bool) -> None:
    assert ChatTemplate(_TURNS + ending, {}).opens_thoughts("<think>") is opens

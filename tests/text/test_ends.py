"""Which token ends an answer: the template's and the tokenizer's."""

from __future__ import annotations

from transformers import PreTrainedTokenizerFast

from ift_serve.text.ends import answer_ends, template_end
from ift_serve.text.prompt import PromptRenderer
from tests.support.tiny_tokenizers import byte_level

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def renderer(template: str | None, eos: str | None = "</s>") -> PromptRenderer:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=byte_level(), bos_token="<s>", eos_token=eos)
    tokenizer.chat_template = template
    return PromptRenderer(tokenizer)


def ids(one: PromptRenderer, *tokens: str) -> list[int]:
    return [one.tokenizer.convert_tokens_to_ids(token) for token in tokens]


def test_both_count_the_templates_first() -> None:
    one = renderer(CHATML)
    assert answer_ends(one) == ids(one, "<|im_end|>", "</s>")


def test_a_control_token_that_is_not_special_ends_an_answer_too() -> None:
    one = renderer(CHATML.replace("<|im_end|>", "</think>"))
    assert answer_ends(one) == ids(one, "</think>", "</s>")


def test_a_token_that_opens_the_next_message_ends_no_answer() -> None:
    one = renderer(CHATML.replace("<|im_end|>", ""))
    assert template_end(one) is None
    assert answer_ends(one) == ids(one, "</s>")


def test_without_a_template_the_tokenizers_end_is_the_only_one() -> None:
    one = renderer(None)
    assert answer_ends(one) == ids(one, "</s>")
    assert answer_ends(renderer("{{ messages[0].content }}", eos=None)) == []

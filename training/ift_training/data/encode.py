"""Records to token ids, as the server would have rendered and generated them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ift_serve.text.ends import answer_ends
from ift_serve.text.prompt import Message, Part, PromptError, PromptRenderer, RenderedPrompt, Segment
from ift_serve.text.spans import LostPartError
from ift_training.data.record_error import EncodingError, Problem
from ift_training.data.records import Record

__all__ = ["EncodedExample", "Encoder", "EncodingError", "LossOn", "TemplateError"]

LossOn = Literal["response", "responses", "all"]
_PROBE = "\ue0b0answer\ue0b0"


class TemplateError(ValueError):
    """The chat template cannot be trained on; the message says what is wrong with it."""


@dataclass(slots=True)
class EncodedExample:
    """One training sequence.

    input_ids: prompt, response, end token. segment_ids: one byte a token (0 template, 1 instruction, 2 context,
    3 response; the end token belongs to the response). labels_mask: 1 where the loss sees the token as a target.
    task: index of the task name among the recipe's. violating: ids of a response to the same prompt, with its end
    token, that breaks the instruction; None where none is known.
    """

    input_ids: list[int]
    segment_ids: bytes
    labels_mask: bytes
    task: int
    task_name: str
    violating: list[int] | None = None

    @property
    def response_start(self) -> int:
        """Index of the first token of the last response."""
        return len(self.segment_ids.rstrip(bytes([Segment.RESPONSE])))


class Encoder:
    """Encodes records for one tokenizer.

    The prompt's ids are the renderer's own, so they are what the server computes for the same request; the response
    follows as generated tokens do, and ends with the token that ends an answer. Raises TemplateError for a template
    in which an answer is not a continuation of its prompt.
    """

    def __init__(self, renderer: PromptRenderer, max_length: int, *, loss_on: LossOn = "responses") -> None:
        self.renderer = renderer
        self.max_length = max_length
        self.loss_on = loss_on
        self._lead, self._trims = _lead(renderer)
        self.end_id = _end_id(renderer)

    def encode(
        self, record: Record, task: int = 0, task_name: str = "", violating: str | None = None
    ) -> EncodedExample:
        """The example of a record. Raises EncodingError when it does not fit."""
        prompt = self._prompt(record)
        response = self.response_ids(prompt, record.response)
        length = len(prompt.token_ids) + len(response)
        if length > self.max_length:
            raise EncodingError(
                Problem.TOO_LONG, f"is too long: {length} tokens, max_length is {self.max_length}", length
            )
        segments = prompt.segment_ids + bytes([Segment.RESPONSE]) * len(response)
        ids = prompt.token_ids + response
        broken = None if violating is None else self._violating(prompt, violating)
        mask = self._mask(prompt, len(response))
        return EncodedExample(ids, segments, mask, task, task_name, broken)

    def response_ids(self, prompt: RenderedPrompt, response: str) -> list[int]:
        """Ids of an answer behind its prompt, with the end token."""
        try:
            ids = self.renderer.answer_ids(prompt, self._lead, response.strip() if self._trims else response)
        except PromptError as error:
            raise EncodingError(Problem.TOO_LONG, f"is too long: {error}") from error
        if not ids:
            raise EncodingError(Problem.EMPTY_ANSWER, "has an answer without tokens; write one")
        return [*ids, self.end_id]

    def _violating(self, prompt: RenderedPrompt, answer: str) -> list[int] | None:
        """Ids of an answer that breaks the instruction, None where it does not fit."""
        try:
            ids = self.response_ids(prompt, answer)
        except EncodingError:
            return None
        return ids if len(prompt.token_ids) + len(ids) <= self.max_length else None

    def typed_markers(self, record: Record) -> list[str]:
        """The tokenizer's control tokens that are typed into the texts of a record, each as often as it is."""
        texts = [*(message.content for message in record.prompt), record.response]
        return [content for found in self.renderer.encoder.markers.find(texts) for _, _, content in found]

    def _prompt(self, record: Record) -> RenderedPrompt:
        try:
            prompt = self.renderer.conversation(record.prompt)
        except LostPartError as error:
            raise EncodingError(Problem.LOST_INSTRUCTION, f"loses its instruction: {error}") from error
        except PromptError as error:
            raise EncodingError(Problem.REFUSED_BY_TEMPLATE, f"is refused by the chat template: {error}") from error
        if bytes([Segment.INSTRUCTION]) not in prompt.segment_ids:
            raise EncodingError(Problem.LOST_INSTRUCTION, "loses its instruction: the chat template does not show it")
        return prompt

    def _mask(self, prompt: RenderedPrompt, response: int) -> bytes:
        if self.loss_on == "all":
            return b"\0" + b"\1" * (len(prompt.token_ids) - 1 + response)
        mask = bytearray(len(prompt.token_ids))
        if self.loss_on == "responses":
            for index, segment in enumerate(prompt.segment_ids):
                after = index > 0 and prompt.segment_ids[index - 1] == Segment.RESPONSE
                if segment == Segment.RESPONSE or (after and prompt.token_ids[index] == self.end_id):
                    mask[index] = 1
        return bytes(mask) + b"\1" * response


def _lead(renderer: PromptRenderer) -> tuple[str, bool]:
    """What the template writes between the prompt and an answer, and whether it trims the answer."""
    request = Message("user", (Part("question"),))
    try:
        prompt = renderer.conversation([request]).text or ""
        plain, spaced = (
            renderer.conversation([request, Message("assistant", (Part(answer),))], continue_final=True).text or ""
            for answer in (_PROBE, f"  {_PROBE}")
        )
    except PromptError as error:
        raise TemplateError(f"template: {error}") from error
    if not plain.startswith(prompt) or not plain.rstrip().endswith(_PROBE):
        raise TemplateError(
            "template: an answer is not rendered as a continuation of the prompt that asks for it, so training would "
            "show the model other tokens than serving; give the recipe a `template` whose generation prompt begins "
            "the assistant's message"
        )
    return plain[len(prompt) : plain.rindex(_PROBE)], f"  {_PROBE}" not in spaced


def _end_id(renderer: PromptRenderer) -> int:
    """The token that the template ends an answer with where it is a control token, else the end-of-text token."""
    ends = answer_ends(renderer)
    if not ends:
        raise TemplateError("tokenizer: has no end-of-text token, so no answer could end; set one in the base model")
    return ends[0]

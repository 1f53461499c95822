"""Prompts to token ids and segments, exactly as the model's chat template writes them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Literal

from ift_serve.text.tokenizer import load_tokenizer

_DEFAULT_TEMPLATE = (
    "{{ bos }}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ ' ' + message['content'] }}"
    "{% if not loop.last or not continue_final_message %}{{ eos }}{% endif %}"
    "{% else %}"
    "{% if loop.first or messages[loop.index0 - 1]['role'] == 'assistant' %}{{ '[INST] ' }}"
    "{% else %}{{ '\n\n' }}{% endif %}{{ message['content'] }}"
    "{% if loop.last or messages[loop.index0 + 1]['role'] == 'assistant' %}{{ ' [/INST]' }}{% endif %}"
    "{% endif %}{% endfor %}"
)
"""For models without a template. It ends on ``]``, never on a space that would merge into the answer's first token."""

_MARK_OPEN, _MARK_CLOSE = "\ue0a0", "\ue0a1"


class Segment(IntEnum):
    """What part a prompt token plays."""

    TEMPLATE = 0
    INSTRUCTION = 1
    CONTEXT = 2
    RESPONSE = 3


Role = Literal["system", "user", "assistant"]


class PromptError(ValueError):
    """A prompt that cannot be rendered; ``field`` is the path of what is wrong."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a message; context is material, anything else is instruction."""

    text: str
    is_context: bool = False


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation; its parts are joined without anything between."""

    role: Role
    parts: tuple[Part, ...]

    @property
    def content(self) -> str:
        """The text of all parts."""
        return "".join(part.text for part in self.parts)


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    """``segment_ids`` has one byte per token; ``text`` is None for a prompt of token ids."""

    token_ids: list[int]
    segment_ids: bytes
    text: str | None


def _segment(message: Message, part: Part) -> Segment:
    if part.is_context:
        return Segment.CONTEXT
    return Segment.RESPONSE if message.role == "assistant" else Segment.INSTRUCTION


class PromptRenderer:
    """Renders every kind of prompt for one tokenizer. Safe to use from several threads."""

    def __init__(self, tokenizer: Any) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise PromptError("tokenizer", "segments need character offsets; the model must come with a tokenizer.json")
        self.tokenizer = tokenizer
        self._backend = tokenizer.backend_tokenizer
        template = tokenizer.chat_template
        if isinstance(template, dict):
            template = template.get("default")
        self.has_template = bool(template)
        self.template: str = template or _DEFAULT_TEMPLATE
        digest = hashlib.sha256(self.template.encode())
        digest.update(self._backend.to_str().encode())
        self.template_fingerprint = digest.hexdigest()[:32]
        starts = self._backend.encode("a").ids
        self._begins = bool(starts) and starts[0] == tokenizer.bos_token_id and tokenizer.bos_token_id is not None

    @classmethod
    def from_pretrained(cls, path: str) -> PromptRenderer:
        """Load the tokenizer of a directory or hub id; code that comes with a model is never run."""
        try:
            tokenizer = load_tokenizer(path)
        except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
            # transformers raises any of these for a configuration file of the wrong shape.
            raise PromptError(
                "model", f"{path} is no directory with a model, nor a hub id that can be fetched: {error}"
            ) from error
        return cls(tokenizer)

    def instruction(self, instruction: str, context: str = "") -> RenderedPrompt:
        """One user message: the instruction, and after an empty line the context if there is one."""
        if not instruction.strip():
            raise PromptError("prompt.instruction.instruction", "is empty; say what to do")
        parts = [Part(instruction)]
        if context:
            parts += [Part("\n\n"), Part(context, is_context=True)]
        return self.conversation([Message("user", tuple(parts))])

    def conversation(self, messages: Sequence[Message], *, continue_final: bool = False) -> RenderedPrompt:
        """The chat template's ids, with the beginning of the assistant's turn unless the last message is continued."""
        self._check(messages, continue_final)
        text = self._render([m.content for m in messages], messages, continue_final)
        spans = self._spans(text, messages, continue_final)
        encoding = self._backend.encode(text, add_special_tokens=False)
        if not encoding.ids:
            raise PromptError("prompt.conversation", "renders to no tokens")
        return RenderedPrompt(list(encoding.ids), _token_segments(encoding.offsets, spans, len(text)), text)

    def text(self, text: str, *, add_special_tokens: bool = True) -> RenderedPrompt:
        """Raw text: all of it counts as template, since nothing says which part is the instruction."""
        ids = list(self._backend.encode(text, add_special_tokens=add_special_tokens).ids)
        if not ids:
            raise PromptError("prompt.text.text", "is empty")
        return RenderedPrompt(ids, bytes(len(ids)), text)

    def continuations(
        self, context: str, continuations: Sequence[str], *, add_special_tokens: bool = True
    ) -> tuple[list[int], list[list[int]]]:
        """Token ids of a context and of each continuation of it.

        As lm-eval's ``TemplateLM._encode_pair``: spaces at the end of the context move to the continuation, both are
        tokenised together, and the continuation is what follows as many tokens as the context alone has. An empty
        context is the beginning-of-text (or end-of-text) token.
        """
        kept = context.rstrip()
        moved = context[len(kept) :]
        if not kept:
            begin = (
                self.tokenizer.bos_token_id if self.tokenizer.bos_token_id is not None else self.tokenizer.eos_token_id
            )
            if begin is None:
                raise PromptError("continuations.context", "is empty, and the model has no token that begins a text")
            own = [list(self._backend.encode(moved + c, add_special_tokens=False).ids) for c in continuations]
            return [int(begin)], own
        context_ids = list(self._backend.encode(kept, add_special_tokens=add_special_tokens).ids)
        whole = [
            list(self._backend.encode(kept + moved + c, add_special_tokens=add_special_tokens).ids)
            for c in continuations
        ]
        own = [ids[len(context_ids) :] for ids in whole]
        # Where the continuation melts into the context's last token nothing is left: then it stands by itself.
        for index, ids in enumerate(own):
            if not ids:
                own[index] = list(self._backend.encode(moved + continuations[index], add_special_tokens=False).ids)
        return context_ids, own

    def _check(self, messages: Sequence[Message], continue_final: bool) -> None:
        if not messages:
            raise PromptError("prompt.conversation.messages", "is empty; give at least one message")
        for index, message in enumerate(messages):
            if not message.parts:
                raise PromptError(f"prompt.conversation.messages[{index}].parts", "is empty; give at least one part")
        if continue_final != (messages[-1].role == "assistant"):
            raise PromptError(
                f"prompt.conversation.messages[{len(messages) - 1}].role",
                "must be assistant to be continued" if continue_final else
                "is assistant; end with a user message, or set continue_final_message",
            )  # fmt: skip

    def _render(self, contents: Sequence[str], messages: Sequence[Message], continue_final: bool) -> str:
        from jinja2.exceptions import TemplateError

        plain = [{"role": m.role, "content": c} for m, c in zip(messages, contents, strict=True)]
        extra = {}
        if not self.has_template:
            extra = {
                "bos": (self.tokenizer.bos_token or "") if self._begins else "",
                "eos": self.tokenizer.eos_token or "",
            }
        try:
            rendered = self.tokenizer.apply_chat_template(
                plain, chat_template=self.template, tokenize=False, add_generation_prompt=not continue_final,
                continue_final_message=continue_final, **extra,
            )  # fmt: skip
        except (TemplateError, ValueError) as error:
            raise PromptError("prompt.conversation", f"the model's chat template refuses it: {error}") from error
        return str(rendered)

    def _spans(self, text: str, messages: Sequence[Message], continue_final: bool) -> list[tuple[int, int, Segment]]:
        """Where each part stands in the rendered text.

        The template is rendered a second time with a mark in place of every part; what stands between the marks
        is template text, and walking both side by side finds the parts, repeated or stripped as they may be.
        """
        parts = [(part.text, _segment(message, part)) for message in messages for part in message.parts]
        marks = [f"{_MARK_OPEN}{index}{_MARK_CLOSE}" for index in range(len(parts))]
        waiting = iter(marks)
        contents = ["".join(next(waiting) for _ in message.parts) for message in messages]
        try:
            skeleton = self._render(contents, messages, continue_final)
        except PromptError:
            skeleton = ""
        spans: list[tuple[int, int, Segment]] = []
        cursor, place = 0, 0
        for mark, (part, segment) in zip(marks, parts, strict=True):
            found = skeleton.find(mark, place)
            if found < 0:
                start, used = _find(text, part, cursor)
            else:
                literal = skeleton[place:found]
                place = found + len(mark)
                start, used = _after(text, literal, part, cursor)
            if start >= 0:
                spans.append((start, start + used, segment))
                cursor = start + used
        return spans


def _variants(part: str) -> list[str]:
    """A part as it is, and as a template may have trimmed it."""
    return list(dict.fromkeys(v for v in (part, part.rstrip(), part.lstrip(), part.strip()) if v))


def _after(text: str, literal: str, part: str, cursor: int) -> tuple[int, int]:
    """Start and length of the part behind a piece of template text; searched for where the template differs."""
    start = cursor + len(literal)
    if text.startswith(literal, cursor):
        for variant in _variants(part):
            if text.startswith(variant, start):
                return start, len(variant)
    return _find(text, part, cursor)


def _find(text: str, part: str, cursor: int) -> tuple[int, int]:
    for variant in _variants(part):
        start = text.find(variant, cursor)
        if start >= 0:
            return start, len(variant)
    return -1, 0


def _token_segments(offsets: Sequence[tuple[int, int]], spans: list[tuple[int, int, Segment]], length: int) -> bytes:
    """The segment of each token: that of most of its characters, instruction before context before the rest."""
    characters = bytearray(length)
    for start, end, segment in spans:
        characters[start:end] = bytes([segment]) * (end - start)
    segments = bytearray(len(offsets))
    for index, (start, end) in enumerate(offsets):
        piece = characters[start:end]
        if len(piece) == 1 or piece.count(piece[:1]) == len(piece):
            segments[index] = piece[0] if piece else Segment.TEMPLATE
        else:
            order = (Segment.INSTRUCTION, Segment.CONTEXT, Segment.RESPONSE, Segment.TEMPLATE)
            segments[index] = max(order, key=lambda s: piece.count(s))
    return bytes(segments)

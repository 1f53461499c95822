"""Prompts to token ids and segments, exactly as the model's chat template writes them."""

from __future__ import annotations

import hashlib
import secrets
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ift_serve.text.encoder import TextEncoder, TextLimits
from ift_serve.text.functions import Function, broken_texts, check_shown, more_of, replaced, texts_of
from ift_serve.text.message import Message, Part, PromptError, Role, Segment
from ift_serve.text.spans import Span, locate, marked, token_segments
from ift_serve.text.template import DEFAULT_TEMPLATE, ChatTemplate
from ift_serve.text.token_texts import TokenDecoder
from ift_serve.text.tokenizer import load_tokenizer

__all__ = ["Message", "Part", "PromptError", "PromptRenderer", "RenderedPrompt", "Role", "Segment"]


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    """``segment_ids`` has one byte per token; ``text`` is None for a prompt of token ids.

    ``source``: the text as it was tokenised, in which the template's control tokens bear the names of
    :class:`ift_serve.text.markers.Markers`; None where the text itself was tokenised.
    """

    token_ids: list[int]
    segment_ids: bytes
    text: str | None
    source: str | None = None


class PromptRenderer:
    """Renders every kind of prompt for one tokenizer. Safe to use from several threads.

    ``chat_template``: the name of one of the tokenizer's templates, where it has several. Control tokens that are
    typed into a message are text, unless ``parse_special_tokens``; in raw text they are control tokens.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        chat_template: str | None = None,
        parse_special_tokens: bool = False,
        limits: TextLimits | None = None,
    ) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise PromptError("tokenizer", "segments need character offsets; the model must come with a tokenizer.json")
        self.tokenizer = tokenizer
        self._chat_template = chat_template
        self.encoder = TextEncoder(tokenizer.backend_tokenizer, limits)
        self.decoder = TokenDecoder(tokenizer)
        self.parse_special_tokens = parse_special_tokens
        template = _named(tokenizer.chat_template, chat_template)
        self.has_template = bool(template)
        self.template: str = template or DEFAULT_TEMPLATE
        self._breaker = f"\ue0a2{secrets.token_hex(8)}\ue0a3"
        digest = hashlib.sha256(self.template.encode())
        digest.update(tokenizer.backend_tokenizer.to_str().encode())
        self.template_fingerprint = digest.hexdigest()[:32]
        self._chat = ChatTemplate(self.template, self._variables())

    @classmethod
    def from_pretrained(cls, path: str, **options: Any) -> PromptRenderer:
        """Load the tokenizer of a directory or hub id; code that comes with a model is never run."""
        try:
            tokenizer = load_tokenizer(path)
        except ValueError as error:
            raise PromptError("model", str(error)) from error
        return cls(tokenizer, **options)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy in another process compiles its template and draws its secret names itself."""
        options = {"chat_template": self._chat_template, "parse_special_tokens": self.parse_special_tokens}
        return _renderer, (self.tokenizer, {**options, "limits": self.encoder.limits})

    def instruction(self, instruction: str, context: str = "") -> RenderedPrompt:
        """One user message: the instruction, and after an empty line the context if there is one."""
        if not instruction.strip():
            raise PromptError("prompt.instruction.instruction", "is empty; say what to do")
        parts = [Part(instruction)]
        if context:
            parts += [Part("\n\n"), Part(context, is_context=True)]
        return self.conversation([Message("user", tuple(parts))])

    def conversation(
        self, messages: Sequence[Message], *, continue_final: bool = False, tools: Sequence[Function] = ()
    ) -> RenderedPrompt:
        """The chat template's ids, with the beginning of the assistant's turn unless the last message is continued.

        ``tools``: functions that the model may call; a template that does not show them is a PromptError.
        """
        _check(messages, continue_final, has_template=self.has_template)
        field = "prompt.conversation"
        beside = texts_of(tools, messages)
        self.encoder.check([*(part.text for message in messages for part in message.parts), *beside], "prompt")
        broken = messages if self.parse_special_tokens else self._broken(messages)
        typed = {} if self.parse_special_tokens else broken_texts(beside, self.encoder.markers.find, self._breaker)
        shown: dict[str, Any] = {"tools": replaced(list(tools), typed), "more": [more_of(m, typed) for m in messages]}
        contents = [(m.role, m.content) for m in broken]
        text = self._chat.render(contents, continue_final=continue_final, **shown)
        skeleton = self._chat.render(marked(messages), continue_final=continue_final, **shown)

        def without() -> tuple[str, str]:
            without_calls = [{k: v for k, v in more.items() if k != "tool_calls"} for more in shown["more"]]
            return (
                self._chat.render(contents, continue_final=continue_final, more=shown["more"]),
                self._chat.render(contents, continue_final=continue_final, tools=shown["tools"], more=without_calls),
            )

        check_shown(text, tools, messages, without)
        spans = locate(text, skeleton, broken)
        if self.parse_special_tokens:
            source, (encoding,) = text, self.encoder.encode_all([text], "prompt")
        else:
            source, spans = self._written(text, spans)
            text = text.replace(self._breaker, "")
            (encoding,) = self.encoder.encode_written([source], "prompt")
        if not encoding.ids:
            raise PromptError(field, "renders to no tokens")
        segments = token_segments(encoding.offsets, spans, len(source))
        return RenderedPrompt(list(encoding.ids), segments, text, None if self.parse_special_tokens else source)

    def opens_thoughts(self, marker: str) -> bool:
        """Whether it is for the prompt to open a thought with ``marker``: it does where the template is asked to."""
        return self._chat.opens_thoughts(marker)

    def text(self, text: str, *, add_special_tokens: bool = True) -> RenderedPrompt:
        """Raw text: all of it counts as template, since nothing says which part is the instruction."""
        ids = list(self.encoder.encode(text, "prompt", special=add_special_tokens).ids)
        if not ids:
            raise PromptError("prompt.text.text", "is empty")
        return RenderedPrompt(ids, bytes(len(ids)), text)

    def answer_ids(self, prompt: RenderedPrompt, lead: str, answer: str) -> list[int]:
        """Ids of template text and an answer behind a prompt; an answer is text as a message is.

        Where its first characters would melt into the prompt's last token, it is tokenised by itself: generated
        tokens never melt.
        """
        rest, begin, encode = lead + answer, prompt.text or "", self._encode_raw
        if prompt.source is not None:
            rest, begin, encode = self.encoder.markers.write([lead])[0] + answer, prompt.source, self._encode_written
        ids, begun = encode(begin + rest), prompt.token_ids
        return ids[len(begun) :] if ids[: len(begun)] == begun else encode(rest)

    def _encode_raw(self, text: str) -> list[int]:
        return list(self.encoder.encode(text, "text").ids)

    def _encode_written(self, text: str) -> list[int]:
        return list(self.encoder.encode_written([text], "text")[0].ids)

    def typed_markers(self, prompt: RenderedPrompt) -> list[str]:
        """Control tokens that callers have typed into a rendered conversation, and that stayed text."""
        if prompt.source is None or prompt.text is None:
            return []
        contents = self.encoder.markers.ids
        (parsed,) = self.encoder.encode_all([prompt.text], "prompt")
        counts: dict[int, int] = {}
        for step, ids in ((1, parsed.ids), (-1, prompt.token_ids)):
            for token in ids:
                if token in contents:
                    counts[token] = counts.get(token, 0) + step
        return [contents[token] for token, count in counts.items() if count > 0]

    def continuations(
        self, context: str, continuations: Sequence[str], *, add_special_tokens: bool = True
    ) -> tuple[list[int], list[list[int]]]:
        """Token ids of a raw text and of each continuation of it.

        As lm-eval's ``TemplateLM._encode_pair``: spaces at the end of the context move to the continuation, both are
        tokenised together, and the continuation is what follows as many tokens as the context alone has. An empty
        context is the beginning-of-text (or end-of-text) token.
        """
        kept = context.rstrip()
        moved = context[len(kept) :]
        field = "continuations"
        if not kept:
            begin = (
                self.tokenizer.bos_token_id if self.tokenizer.bos_token_id is not None else self.tokenizer.eos_token_id
            )
            if begin is None:
                raise PromptError("continuations.context", "is empty, and the model has no token that begins a text")
            return [int(begin)], self.encoder.batch_ids([moved + text for text in continuations], field)
        rest = [moved + text for text in continuations]
        return self._split(kept, rest, special=add_special_tokens)

    def continuations_of(self, prompt: RenderedPrompt, texts: Sequence[str]) -> tuple[list[int], list[list[int]]]:
        """As :meth:`continuations`, of a rendered conversation; the continuations are raw text."""
        if prompt.source is None:
            return self.continuations(prompt.text or "", texts, add_special_tokens=False)
        kept = prompt.source.rstrip()
        moved = prompt.source[len(kept) :]
        return self._split(kept, [moved + text for text in self.encoder.markers.write(texts)], written=True)

    def _split(
        self, kept: str, rest: list[str], *, special: bool = False, written: bool = False
    ) -> tuple[list[int], list[list[int]]]:
        """Ids of a context, and what follows as many ids where each text stands behind it."""
        field = "continuations"
        self.encoder.check([kept], field)
        context, *whole = self.encoder.tails.token_ids(
            kept,
            rest,
            lambda texts, begins: self.encoder.batch_ids(texts, field, special=special and begins, written=written),
        )
        own = [ids[len(context) :] for ids in whole]
        # Where the continuation melts into the context's last token nothing is left: then it stands by itself.
        for index, ids in enumerate(own):
            if not ids:
                own[index] = self.encoder.batch_ids([rest[index]], field, written=written)[0]
        return context, own

    def _variables(self) -> dict[str, Any]:
        """What a template can name beside the messages."""
        if self.has_template:
            return dict(self.tokenizer.special_tokens_map)
        starts = self.encoder.backend.encode("a").ids
        begins = bool(starts) and self.tokenizer.bos_token_id is not None and starts[0] == self.tokenizer.bos_token_id
        return {"bos": (self.tokenizer.bos_token or "") if begins else "", "eos": self.tokenizer.eos_token or ""}

    def _broken(self, messages: Sequence[Message]) -> Sequence[Message]:
        """The messages with typed markers broken, so that nothing a template does with them makes one of them."""
        found = self.encoder.markers.find([m.content for m in messages])
        if not any(found):
            return messages
        broken = []
        for message, markers in zip(messages, found, strict=True):
            places = deque(start + 1 for start, end, _ in markers if end - start > 1)
            parts, begin = [], 0
            for part in message.parts:
                cuts = [0]
                while places and places[0] <= begin + len(part.text):
                    cuts.append(places.popleft() - begin)
                pieces = [part.text[a:b] for a, b in pairwise([*cuts, len(part.text)])]
                parts.append(Part(self._breaker.join(pieces), part.is_context))
                begin += len(part.text)
            broken.append(Message(message.role, tuple(parts)))
        return broken

    def _written(self, text: str, spans: Sequence[Span]) -> tuple[str, list[Span]]:
        """The text as it is tokenised: the template's control tokens by name, the parts as they were typed."""
        edges = [0, *(edge for span in spans for edge in (span.start, span.end)), len(text)]
        between = [text[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True)]
        gaps = [gap.replace(self._breaker, "") for gap in self.encoder.markers.write(between)]
        pieces, moved, place = [gaps[0]], [], len(gaps[0])
        for span, gap in zip(spans, gaps[1:], strict=True):
            own = text[span.start : span.end].replace(self._breaker, "")
            pieces += [own, gap]
            moved.append(Span(place, place + len(own), span.segment))
            place += len(own) + len(gap)
        return "".join(pieces), moved


def _renderer(tokenizer: Any, options: dict[str, Any]) -> PromptRenderer:
    return PromptRenderer(tokenizer, **options)


def _named(template: Any, name: str | None) -> str | None:
    """The template to use. Raises PromptError where a choice is to be made."""
    if isinstance(template, dict):
        chosen = template.get(name or "default")
        if chosen is None:
            wrong = "none of them is the default" if name is None else f"there is none named {name!r}"
            raise PromptError(
                "chat_template",
                f"the tokenizer has templates named {', '.join(map(repr, template))}, and {wrong}; choose one "
                "(--chat-template NAME)",
            )
        return str(chosen)
    if name not in (None, "default"):
        raise PromptError("chat_template", f"the tokenizer has no templates by name, so there is none named {name!r}")
    return template or None


def _check(messages: Sequence[Message], continue_final: bool, *, has_template: bool) -> None:
    if not messages:
        raise PromptError("prompt.conversation.messages", "is empty; give at least one message")
    for index, message in enumerate(messages):
        if message.role == "tool" and not has_template:
            problem = "is tool, and the model has no chat template, which would say how that is shown"
            raise PromptError(f"prompt.conversation.messages[{index}].role", problem)
        if not message.parts:
            raise PromptError(f"prompt.conversation.messages[{index}].parts", "is empty; give at least one part")
    if continue_final != (messages[-1].role == "assistant"):
        raise PromptError(
            f"prompt.conversation.messages[{len(messages) - 1}].role",
            "must be assistant to be continued"
            if continue_final
            else "is assistant; end with a user message, or set continue_final_message",
        )

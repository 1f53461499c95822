"""A conversation in the place where lm-eval expects rendered text, so that the server renders it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ift_serve.client import Message, Prompt
from ift_serve.client.types import Role

_ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


class ChatContext(str):
    """The messages as JSON, which is what logs and caches of lm-eval hold.

    A text of a task that looks the same is not one: what is rendered is told by the type.
    """

    __slots__ = ()

    @classmethod
    def of(cls, messages: Sequence[Mapping[str, Any]], *, continue_final: bool) -> ChatContext:
        """From lm-eval's messages. ``continue_final``: the last is the beginning of the answer (``gen_prefix``)."""
        values = [{"role": str(m["role"]), "content": str(m["content"])} for m in messages]
        return cls(json.dumps({"messages": values, "continue_final_message": continue_final}, ensure_ascii=False))

    @property
    def prompt(self) -> Prompt:
        """For the client. Raises ValueError for a role that there is not."""
        values = json.loads(self)
        messages = []
        for message in values["messages"]:
            if message["role"] not in _ROLES:
                raise ValueError(f"a message of the role {message['role']!r}; there are {', '.join(_ROLES)}")
            messages.append(Message(_ROLES[message["role"]], message["content"]))
        return Prompt(messages=tuple(messages), continue_final_message=values["continue_final_message"])


def prompt_of(context: str) -> Prompt:
    """A conversation, or raw text with the tokenizer's own special tokens, as lm-eval's backends read it.

    Raises TypeError where something was appended to a conversation: its parts would be read as text.
    """
    if isinstance(context, ChatContext):
        return context.prompt
    if context.startswith('{"messages": [{"role": ') and '"continue_final_message": ' in context:
        raise TypeError("a task has made text of a conversation; it cannot be rendered by the server")
    return Prompt.from_text(context)

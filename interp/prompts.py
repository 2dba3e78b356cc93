"""What a user asks a model about: prompts, conversations and facts."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import SupportsIndex, TypeAlias

from interp.errors import UsageError, unknown
from interp.foreign_json import parse_json

ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True)
class Conversation:
    """Messages that the tokenizer's chat template turns into one prompt.

    ``messages`` are (role, content) pairs in order. With ``reply`` the prompt ends where the assistant's answer begins.
    """

    messages: tuple[tuple[str, str], ...]
    reply: bool = True

    def __post_init__(self) -> None:
        if not self.messages:
            raise UsageError("a conversation needs at least one message")
        for role, content in self.messages:
            if role not in ROLES:
                raise unknown("role", role, ROLES)
            if not isinstance(content, str):
                raise UsageError(f"the content of a {role} message must be text, got {type(content).__name__}")

    @classmethod
    def of(cls, user: str, *, system: str | None = None) -> "Conversation":
        """One user message, with a system message before it if given."""
        head = () if system is None else (("system", system),)
        return cls((*head, ("user", user)))

    @classmethod
    def from_messages(cls, messages: Sequence[Mapping[str, str]]) -> "Conversation":
        """From the usual list of ``{"role": ..., "content": ...}``."""
        try:
            return cls(tuple((message["role"], message["content"]) for message in messages))
        except (KeyError, TypeError) as error:
            raise UsageError('each message must be {"role": ..., "content": ...}') from error


PromptLike: TypeAlias = str | Conversation | Iterable[SupportsIndex]
"""Text, a conversation, or token ids (a sequence or a tensor of one dimension)."""


@dataclass(frozen=True)
class Fact:
    """A (subject, relation, object) fact: ``template`` holds one ``{}`` for the subject; ``target`` is what should follow."""

    subject: str
    template: str
    target: str

    def __post_init__(self) -> None:
        if self.template.count("{}") != 1:
            raise UsageError(f"the template {self.template!r} needs exactly one {{}} for the subject")
        if not self.subject:
            raise UsageError("the subject is empty")

    @property
    def prompt(self) -> str:
        """The template with the subject in place."""
        return self.template.replace("{}", self.subject)


def read_jsonl(path: str | os.PathLike[str]) -> Iterator[dict[str, object]]:
    """The objects of a JSON Lines file (or of a JSON array), with file and line in the error of a bad one."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text (byte {error.start})") from error
    if text.lstrip().startswith("["):
        rows = [(1, text)]
    else:
        rows = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    for number, line in rows:
        try:
            value = parse_json(line)
        except json.JSONDecodeError as error:
            raise UsageError(f"{path}, line {number + error.lineno - 1}: not JSON ({error.msg})") from error
        for item in value if isinstance(value, list) else [value]:
            if not isinstance(item, dict):
                raise UsageError(f"{path}, line {number}: expected an object, got {type(item).__name__}")
            yield item


def read_prompts(path: str | os.PathLike[str]) -> tuple[PromptLike, ...]:
    """Prompts from a file: each object has ``prompt`` (text), ``messages`` (a conversation) or ``ids`` (token ids)."""
    prompts: list[PromptLike] = []
    for index, row in enumerate(read_jsonl(path)):
        prompt, messages, ids = row.get("prompt"), row.get("messages"), row.get("ids")
        if isinstance(prompt, str):
            prompts.append(prompt)
        elif isinstance(messages, list):
            try:
                prompts.append(Conversation.from_messages(messages))
            except UsageError as error:
                raise UsageError(f"{path}, object {index}: {error}") from error
        elif isinstance(ids, list) and all(isinstance(token, int) for token in ids):
            prompts.append(tuple(ids))
        else:
            raise UsageError(
                f"{path}, object {index}: needs 'prompt' (text), 'messages' (a list) or 'ids' (a list of integers)"
            )
    return tuple(prompts)

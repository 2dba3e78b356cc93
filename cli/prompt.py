"""What a PROMPT argument means: text, stdin or a conversation."""

import json
import sys
from pathlib import Path

from interp.errors import UsageError
from interp.foreign_json import parse_json
from interp.prompts import Conversation


def read_prompt(argument: str, *, chat: bool = False, system: str | None = None) -> str | Conversation:
    """The prompt that a command line asks for.

    ``-`` is all of stdin without its last line break; ``@FILE.json`` is a conversation, a list of ``{"role", "content"}``; anything
    else is the text itself. With ``chat`` or ``system``, text becomes one user message. Raises UsageError.
    """
    if argument.startswith("@") and argument.endswith(".json"):
        if system is not None:
            raise UsageError(f"--system and {argument} were both given; put the system message into the file")
        return _read_conversation(Path(argument[1:]))
    text = _read_stdin() if argument == "-" else argument
    if not text:
        raise UsageError("the prompt is empty; give at least one character of text")
    return Conversation.of(text, system=system) if chat or system is not None else text


def _read_stdin() -> str:
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError("the prompt '-' reads stdin, which is a terminal; pipe text in or give the prompt itself")
    try:
        return sys.stdin.read().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise UsageError(f"stdin is not UTF-8 text (byte {error.start})") from error


def _read_conversation(path: Path) -> Conversation:
    try:
        messages = parse_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text (byte {error.start})") from error
    except json.JSONDecodeError as error:
        raise UsageError(f"{path}, line {error.lineno}: not JSON ({error.msg})") from error
    if isinstance(messages, dict):
        messages = messages.get("messages")
    if not isinstance(messages, list):
        raise UsageError(f'{path} must hold a list of {{"role": ..., "content": ...}}')
    try:
        return Conversation.from_messages(messages)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error

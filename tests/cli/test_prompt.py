"""What a PROMPT argument can be."""

import io
import json
from pathlib import Path

import pytest

from interp.errors import UsageError
from interp.prompts import Conversation
from interp_cli.prompt import read_prompt


def test_text_is_taken_as_it_is() -> None:
    assert read_prompt(" The @ [bold] \n") == " The @ [bold] \n"
    assert read_prompt("@someone said") == "@someone said"


def test_stdin_loses_only_its_last_line_break(monkeypatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("one\n\ntwo \n"))
    assert read_prompt("-") == "one\n\ntwo "


def test_chat_makes_a_conversation() -> None:
    assert read_prompt("Hi", chat=True) == Conversation((("user", "Hi"),))
    assert read_prompt("Hi", system="Be brief.") == Conversation((("system", "Be brief."), ("user", "Hi")))


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_conversation_comes_from_a_file(tmp_path: Path, wrapped: bool) -> None:
    path = tmp_path / "talk.json"
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    path.write_text(json.dumps({"messages": messages} if wrapped else messages))
    assert read_prompt(f"@{path}") == Conversation((("user", "Hi"), ("assistant", "Hello")))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read .*No such file"),
        (b"[{]", "line 1: not JSON"),
        (b"3", "must hold a list"),
        (b"[]", "at least one message"),
        (b'[{"role": "user"}]', "each message must be"),
        (b'[{"role": "you", "content": "Hi"}]', "unknown role 'you'; valid: system, user"),
        (b"[\xff]", "not UTF-8"),
    ],
)
def test_a_bad_conversation_says_what_is_wrong(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "talk.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read_prompt(f"@{path}")


@pytest.mark.parametrize(("argument", "stdin"), [("", None), ("-", ""), ("-", "\n")])
def test_an_empty_prompt_is_refused(monkeypatch, argument: str, stdin: str | None) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(stdin or ""))
    with pytest.raises(UsageError, match="the prompt is empty"):
        read_prompt(argument)


def test_system_and_file_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="put the system message into the file"):
        read_prompt("@talk.json", system="Be brief.")

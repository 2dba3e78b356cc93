"""Prompts, conversations and facts, and reading them from files."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interp.errors import UsageError
from interp.prompts import Conversation, Fact, read_jsonl, read_prompts


def test_conversations() -> None:
    talk = Conversation.of("hi", system="be brief")
    assert talk.messages == (("system", "be brief"), ("user", "hi"))
    assert talk.reply
    assert Conversation.of("hi").messages == (("user", "hi"),)
    given_ = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    assert Conversation.from_messages(given_).messages == (("user", "a"), ("assistant", "b"), ("user", "c"))
    with pytest.raises(UsageError, match="at least one message"):
        Conversation(())
    with pytest.raises(
        UsageError, match=r"unknown role 'users' \(did you mean 'user'\?\); valid: system, user, assistant, tool"
    ):
        Conversation((("users", "hi"),))
    for bad in ([{"role": "user"}], [{"content": "x"}]):
        with pytest.raises(UsageError, match='each message must be {"role": ..., "content": ...}'):
            Conversation.from_messages(bad)


def test_facts() -> None:
    fact = Fact("The Eiffel Tower", "{} is located in the city of", " Paris")
    assert fact.prompt == "The Eiffel Tower is located in the city of"
    assert Fact("a{0}b", "see {}", "x").prompt == "see a{0}b"
    for template in ("no place", "{} and {}"):
        with pytest.raises(UsageError, match=r"needs exactly one \{\} for the subject"):
            Fact("x", template, "y")
    with pytest.raises(UsageError, match="the subject is empty"):
        Fact("", "{} is", "y")


def test_prompts_from_a_file(tmp_path) -> None:
    rows = [{"prompt": "héllo\u2028there"}, {"messages": [{"role": "user", "content": "hi"}]}, {"ids": [1, 2]}]
    for name, text in (
        ("lines.jsonl", "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n"),
        ("array.json", json.dumps(rows, indent=1)),
    ):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        assert read_prompts(path) == ("héllo\u2028there", Conversation.of("hi"), (1, 2))


@given(st.lists(st.text(min_size=1), max_size=6))
def test_any_text_survives_the_file(tmp_path, prompts: list[str]) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": prompt}) for prompt in prompts), encoding="utf-8")
    assert read_prompts(path) == tuple(prompts)


def test_a_bad_file_names_file_and_line(tmp_path) -> None:
    path = tmp_path / "prompts.jsonl"
    with pytest.raises(UsageError, match="cannot read .*prompts.jsonl: No such file"):
        read_prompts(path)
    path.write_text('{"prompt": "a"}\n{"prompt": \n')
    with pytest.raises(UsageError, match="prompts.jsonl, line 2: not JSON"):
        read_prompts(path)
    path.write_text('{"prompt": "a"}\n[1]\n')
    with pytest.raises(UsageError, match="line 2: expected an object, got int"):
        list(read_jsonl(path))
    path.write_text('{"prompt": "a"}\n{"text": "b"}\n')
    with pytest.raises(UsageError, match="object 1: needs 'prompt'"):
        read_prompts(path)
    path.write_text('{"ids": [1, "2"]}\n')
    with pytest.raises(UsageError, match="object 0: needs 'prompt'"):
        read_prompts(path)
    path.write_bytes(b'{"prompt": "\xff"}')
    with pytest.raises(UsageError, match="is not UTF-8 text"):
        read_prompts(path)
    with pytest.raises(UsageError, match="cannot read"):
        read_prompts(tmp_path)
    path.write_text("")
    assert read_prompts(path) == ()

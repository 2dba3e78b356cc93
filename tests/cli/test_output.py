"""What is printed where: one JSON object, inert text, files all or nothing, progress only on a terminal."""

import json
import math
import os
import pty
from pathlib import Path

import pytest

from interp.errors import UsageError
from interp_cli.output import Output, check_writable, console, table
from interp_cli.text import inert, one_line

HOSTILE = "[bold]x[/bold] \x1b[2J\x1b]8;;file:///\x07 :smile: \u202eabc <script>"


def draw(target) -> None:
    target.print(table(("token", "p"), [(HOSTILE, 0.5)], right=" >"))


def test_json_is_one_object_with_its_version(capsys) -> None:
    Output(command="lens", as_json=True).show(
        {"value": 1.5, "bad": math.nan, "path": Path("a"), "rows": ((1, math.inf),)}, draw
    )
    written = capsys.readouterr()
    assert written.err == ""
    assert json.loads(written.out) == {
        "schema_version": 1,
        "command": "lens",
        "value": 1.5,
        "bad": None,
        "path": "a",
        "rows": [[1, None]],
    }
    assert written.out.count("\n") == 1


def test_text_is_neither_markup_nor_control(capsys) -> None:
    Output(command="lens").show({}, draw)
    shown = capsys.readouterr().out
    assert "[bold]x[/bold]" in shown
    assert ":smile:" in shown
    assert "\\x1b[2J" in shown
    assert "\\u202e" in shown
    assert not {"\x1b", "\x07", "\u202e"} & set(shown)


def test_a_file_gets_the_result_and_stderr_the_word(tmp_path: Path, capsys) -> None:
    path = tmp_path / "out.txt"
    Output(command="lens", path=path).show({}, draw)
    written = capsys.readouterr()
    assert (written.out, written.err) == ("", f"wrote {path}\n")
    assert "token" in path.read_text()
    Output(command="lens", path=path, as_json=True, quiet=True).show({"a": 1}, draw)
    assert capsys.readouterr().err == ""
    assert json.loads(path.read_text())["a"] == 1


def test_long_rows_keep_all_their_text(capsys) -> None:
    console().print(table(("name", "n"), [("x" * 500, 1)], right=" >"))
    assert capsys.readouterr().out.count("x") == 500


@pytest.mark.parametrize("quiet", [False, True])
def test_progress_is_silent_off_a_terminal(capsys, quiet: bool) -> None:
    with Output(command="lens", quiet=quiet).progress() as step:
        step("working", 1, 2)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("quiet", "drawn"), [(False, True), (True, False)])
def test_progress_on_a_terminal(monkeypatch, quiet: bool, drawn: bool) -> None:
    monkeypatch.setenv("TERM", "xterm")
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        with Output(command="lens", quiet=quiet).progress() as step:
            step("working [bold]hard", 1, 2)
            step("working [bold]hard", 2, 2)
        terminal.write("end")
        terminal.flush()
        seen = ""
        while not seen.endswith("end"):
            seen += os.read(ours, 65536).decode()
    os.close(ours)
    assert ("working [bold]hard" in seen) is drawn


def test_check_writable(tmp_path: Path) -> None:
    check_writable(None)
    check_writable(tmp_path / "a.json", (".json",))
    with pytest.raises(UsageError, match=r"valid: \.json, \.csv"):
        check_writable(tmp_path / "a.txt", (".json", ".csv"))
    with pytest.raises(UsageError, match="is a folder"):
        check_writable(tmp_path)
    with pytest.raises(UsageError, match="does not exist"):
        check_writable(tmp_path / "no" / "a.json")


def test_inert_keeps_ordinary_text() -> None:
    text = "Grüße, 你好 🙂\n\tend"
    assert inert(text) == text
    assert one_line(" a\n b\x00 ") == "a b\\x00"

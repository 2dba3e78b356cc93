"""Every command, every bad argument: the exit code, the one line on stderr, nothing on stdout, nothing written.

The rows are in bad_arguments.py; what holds for an option wherever it is (a number that is none or too small, a device, a model, an
output) is made from the commands' own parameters, so that a new command is tested as soon as it is there.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bad_workspace
from bad_arguments import ANY_TEXT, MODELS, ROWS, WORKS, Bad
from interp_cli.main import COMMANDS, load_command

READS_MODEL = tuple(name for name in WORKS if "--model" in WORKS[name])


def commands() -> Iterator[tuple[str, Any]]:
    """Every command with those below it, by the words that call it."""
    for name in COMMANDS:
        command = load_command(name)
        yield name, command
        for below, inner in getattr(command, "commands", {}).items():
            yield f"{name} {below}", inner


def options(command: Any) -> Iterator[Any]:
    """The options that take a value."""
    return (one for one in command.params if one.param_type_name == "option" and not one.is_flag)


def long_name(option: Any) -> str:
    return next(name for name in option.opts if name.startswith("--"))


def general() -> Iterator[Bad]:
    """Rows that follow from the parameters alone."""
    for name, command in commands():
        yield Bad(name, ("--none-such",), ("No such option: --none-such; valid: --",))
        if any(one.required for one in command.params):
            yield Bad(name, (), ("Missing ",), whole=True)
        for option in options(command):
            flag = long_name(option)
            kind, info = option.type_descriptor.annotation, option.type_descriptor.parameter_info
            if kind in (int, float):
                yield Bad(name, (flag, "many"), (f"Invalid value for '{flag}'", "got 'many'"))
            if getattr(info, "min", None) is not None:
                yield Bad(name, (flag, str(info.min - 1)), (f"greater than or equal to {info.min:g}, got",))
            if flag == "--device":
                yield Bad(name, (flag, "tpu"), ("'tpu'", "cpu"))
                yield Bad(name, (flag, "cuda:99"), ("cuda:99",))
            if flag == "--device-map":
                yield Bad(name, ("--device", "auto", flag, "warp"), ("unknown device map 'warp'", "balanced"))
            if flag == "--dtype":
                yield Bad(name, (flag, "float8"), ("'float8'", "float32", "bfloat16", "float16"))
            if flag == "--output" and name not in ("collect", "sweep"):
                ending = ".html" if name == "report" else ".safetensors" if name == "moments" else ".json"
                yield Bad(name, (flag, f"no/where{ending}"), ("the folder ", "/no does not exist"))
                yield Bad(name, (flag, f"folder{ending}"), ("is a folder",))
    for name in READS_MODEL:
        for model, says, code in MODELS:
            yield Bad(name, ("--model", model), says, code)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the tables, with a cache folder of its own. A model that loads is loaded once."""
    from interp.runner import model

    folder = tmp_path_factory.mktemp("bad")
    loaded: dict[tuple[Any, ...], Any] = {}

    def load(name: str, **asked: Any) -> Any:
        key = (name, *(asked.get(option) for option in ("device", "device_map", "dtype", "revision", "offline")))
        if key not in loaded:
            loaded[key] = really(name, **asked)
        return loaded[key]

    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        patched.setenv("INTERP_CACHE", str(folder / "cache"))
        patched.setenv("HF_HUB_CACHE", str(folder / "hub"))
        (folder / "cache").mkdir()
        bad_workspace.build(folder)
        really = model.load
        patched.setattr(model, "load", load)
        yield folder


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file, but for locks and what the cache folder knows of files it has read."""
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "cache" not in path.relative_to(folder).parts[:1] and path.name != ".lock"
    }


@pytest.mark.parametrize("row", [*ROWS, *general()], ids=str)
def test_one_line_its_code_and_nothing_written(interp, workspace: Path, row: Bad) -> None:
    before = tree(workspace)
    ended = interp(*row.arguments)
    assert (ended.code, ended.stdout) == (row.code, ""), ended.stderr
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1, ended.stderr
    at = 0
    for words in row.says:
        at = ended.stderr.find(words, at)
        assert at >= 0, f"{words!r} is not in {ended.stderr}"
    assert tree(workspace) == before


def test_every_option_that_takes_a_value_is_given_a_bad_one() -> None:
    rows = [*ROWS, *general()]
    missed = [
        (name, long_name(option))
        for name, command in commands()
        for option in options(command)
        if long_name(option) not in ANY_TEXT
        and not any(set(option.opts) & set(row.added) for row in rows if row.command == name)
    ]
    assert missed == []
    assert {row.command for row in ROWS} | {"doctor"} == {name for name, _ in commands()} == set(WORKS)


@pytest.mark.parametrize("name", WORKS)
def test_the_lines_that_are_spoilt_work_as_they_stand(
    interp, workspace: Path, tmp_path: Path, monkeypatch, name: str
) -> None:
    shutil.copytree(workspace, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    if name == "edit undo":
        assert interp("edit", "apply", *WORKS["edit apply"]).code == 0
    ended = interp(*name.split(), *WORKS[name])
    assert ended.code == (3 if name == "models fetch" else 0), ended.stderr

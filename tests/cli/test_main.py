"""The command as a whole: help, version, how quickly, and what an unknown word gets."""

import re
import subprocess
import sys
from time import perf_counter

import pytest

import interp as package
from interp_cli.main import COMMANDS, load_command


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_of_commands_repeats_each_ones_help(name: str) -> None:
    command = load_command(name)
    assert command.name == name
    assert (command.help or "").splitlines()[0] == COMMANDS[name]


def test_help_lists_every_command_in_full(process) -> None:
    ended = process("--help")
    assert (ended.code, ended.stderr) == (0, "")
    for name, summary in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(summary)}$", ended.stdout, re.MULTILINE)


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['interp', '--help']\n"
        "from interp_cli.main import main; main()\n"
        "heavy = {'torch', 'transformers', 'numpy', 'pandas', 'plotly', 'rich.console', 'huggingface_hub'}\n"
        "sys.exit(9 if heavy & sys.modules.keys() else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_help_is_quick(process) -> None:
    """A bound for a busy machine; the figure itself is in the benchmarks."""
    taken = []
    for _ in range(3):
        start = perf_counter()
        process("--help")
        taken.append(perf_counter() - start)
    assert min(taken) < 1.0


def test_version(process) -> None:
    assert process("--version").stdout == f"interp {package.__version__}\n"


def test_no_command_shows_help_on_stderr_and_is_a_usage_error(process) -> None:
    ended = process()
    assert (ended.code, ended.stdout) == (2, "")
    assert "Commands:" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("lenz",), "error: unknown command 'lenz' (did you mean 'lens'?); valid: report, lens, attention"),
        (("doctor", "--jsn"), "error: No such option: --jsn; valid: --json, --output, --quiet"),
        (("--verson",), "valid: --install-completion"),
        (("doctor", "extra"), "extra"),
        (("lens",), "error: Missing argument 'PROMPT'; see `interp lens --help`"),
        (("generate", "Hi", "-n", "many"), "'-n': Input should be a valid integer"),
        (("generate", "Hi", "--seed", "-1"), "'--seed': Input should be greater than or equal to 0"),
        (("doctor", "-o", "/nowhere/at/all/x.txt"), "error: the folder /nowhere/at/all does not exist"),
        (("doctor", "-o", "/"), "error: the output file / is a folder"),
    ],
)
def test_a_usage_error_is_one_line_and_exit_code_2(process, arguments: tuple[str, ...], expected: str) -> None:
    ended = process(*arguments)
    assert (ended.code, ended.stdout) == (2, "")
    assert expected in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert ended.stderr.startswith("error: ")

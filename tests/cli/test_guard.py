"""Every way a command can end has its exit code and its one line."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from interp.errors import (
    InterpError,
    MemoryLimitError,
    ModelError,
    NumericsError,
    UsageError,
    VerificationError,
)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InterpError("it failed"), 1),
        (UsageError("it failed"), 2),
        (ModelError("it failed"), 3),
        (NumericsError("it failed"), 4),
        (MemoryLimitError("it failed"), 5),
        (VerificationError("it failed"), 6),
    ],
)
def test_each_kind_of_error_has_its_code(interp, broken_command, error: InterpError, code: int) -> None:
    broken_command(error)
    ended = interp("doctor")
    assert ended.code == code
    assert (ended.stdout, ended.stderr) == ("", "error: it failed\n")


def test_the_message_is_one_line_without_control_characters(interp, broken_command) -> None:
    broken_command(ModelError("a file named\n\x1b[31mred\x07\x9b"))
    assert interp("doctor").stderr == "error: a file named \\x1b[31mred\\x07\\x9b\n"


def test_interrupt(interp, broken_command) -> None:
    broken_command(KeyboardInterrupt())
    ended = interp("doctor")
    assert (ended.code, ended.stderr) == (130, "error: interrupted\n")


@pytest.mark.parametrize("text", ["CUDA out of memory", None])
def test_out_of_memory(interp, broken_command, text: str | None) -> None:
    import torch

    broken_command(torch.OutOfMemoryError(text) if text else MemoryError())
    ended = interp("doctor")
    assert ended.code == 5
    assert ended.stderr.startswith("error: out of memory; use a shorter prompt")
    assert ended.stderr.count("\n") == 1


def test_out_of_memory_on_the_cpu(interp, broken_command) -> None:
    import torch

    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 58)
    broken_command(caught.value)
    assert interp("doctor").code == 5


def test_debug_shows_the_traceback_of_a_users_mistake(interp, broken_command, monkeypatch) -> None:
    monkeypatch.setenv("INTERP_DEBUG", "1")
    broken_command(ModelError("it failed"))
    ended = interp("doctor")
    assert ended.code == 3
    assert "Traceback" in ended.stderr
    assert ended.stderr.endswith("error: it failed\n")


UNFORESEEN = """
import sys, types, typer
module = types.ModuleType("interp_cli.doctor")
module.app = typer.Typer(add_completion=False)
@module.app.command()
def doctor():
    {}
sys.modules["interp_cli.doctor"] = module
from interp_cli.main import main
sys.exit(main(["doctor"]))
"""


def run_code(body: str, **environment: str) -> subprocess.CompletedProcess[str]:
    code = UNFORESEEN.format(body)
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}
    )


def test_an_unforeseen_error_is_one_line_and_exit_code_1() -> None:
    done = run_code("raise ZeroDivisionError('by\\nzero')")
    assert done.returncode == 1
    assert done.stderr == "error: ZeroDivisionError: by zero (run with INTERP_DEBUG=1 for the traceback)\n"


def test_an_unforeseen_error_under_debug_is_a_traceback() -> None:
    done = run_code("raise ZeroDivisionError", INTERP_DEBUG="1")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_interrupt_of_a_real_process(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    # A shell that runs the tests in the background has interrupts ignored, which a child would inherit.
    heed = "signal.signal(signal.SIGINT, signal.default_int_handler)"
    body = f"import time, pathlib, signal; {heed}; pathlib.Path({str(ready)!r}).touch(); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", UNFORESEEN.format(body)], stderr=subprocess.PIPE, text=True)
    for _ in range(200):
        if ready.exists():
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, written = process.communicate(timeout=20)
    assert (process.returncode, written) == (130, "error: interrupted\n")


def test_a_reader_that_goes_away_is_no_news() -> None:
    body = "print('x' * 100, flush=True) or [print('y' * 1000) for _ in range(10000)]"
    command = [sys.executable, "-c", UNFORESEEN.format(body)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        process.wait(timeout=20)
    assert process.returncode == 1

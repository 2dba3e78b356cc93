"""Two ways to run the command line: as a process of its own, and quicker, in this one."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

import tiny_models
import word_model
from interp.models.loading import Source
from interp.runner.model import Model


@dataclass(frozen=True)
class Ended:
    """How a command ended and what it wrote."""

    code: int
    stdout: str
    stderr: str


@pytest.fixture(scope="module")
def small() -> Model:
    """A tiny model that reads words and has a name, as one from a file has."""
    source = Source(
        name="tiny",
        path=Path(),
        revision=None,
        architecture="LlamaForCausalLM",
        format="safetensors",
        licence=None,
        known_sha256="ab" * 32,
    )
    return Model(tiny_models.build("llama"), word_model.build().tokenizer, source=source)


@pytest.fixture
def process() -> Callable[..., Ended]:
    """``process("lens", "Hi", stdin="", INTERP_DEBUG="1")`` runs ``interp`` as a user does."""

    def run(*arguments: str, stdin: str | None = None, **environment: str) -> Ended:
        command = [sys.executable, "-m", "interp_cli.main", *arguments]
        done = subprocess.run(
            command,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            env={**os.environ, **environment},
            timeout=120,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def interp(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ended]:
    """``interp("lens", "Hi")`` runs a command in this process."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # put back afterwards

    def run(*arguments: str) -> Ended:
        from interp_cli.main import main

        capsys.readouterr()
        code = main(list(arguments))
        written = capsys.readouterr()
        return Ended(code, written.out, written.err)

    return run


@pytest.fixture
def broken_command(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """``broken_command(error)`` puts a ``doctor`` in place that raises ``error``."""

    def install(error: BaseException) -> None:
        import typer

        module = ModuleType("interp_cli.doctor")
        module.app = typer.Typer(add_completion=False)

        @module.app.command()
        def doctor() -> None:
            raise error

        monkeypatch.setitem(sys.modules, "interp_cli.doctor", module)

    return install

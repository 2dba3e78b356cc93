"""The ``interp`` command. Each command's module is imported when that command runs, so that ``interp --help`` is quick.

``COMMANDS`` repeats each command's one-line help; a test holds the two equal.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from interp._version import __version__
from interp.errors import unknown

from .guard import guarded

COMMANDS = {
    "report": "Run a prompt and write one HTML file about it.",
    "lens": "Show what each layer would answer.",
    "attention": "Show where each head looks.",
    "heads": "Show which heads do one thing.",
    "circuits": "Show a head's circuits from its weights.",
    "induction": "Find the heads that continue what came before, and prove it.",
    "trace": "Find the states that carry an answer, by causal tracing.",
    "patch": "Show which states carry an answer, by patching.",
    "ablate": "Show what the model loses without each part.",
    "compare": "Put two prompts, two models, or before and after, side by side.",
    "edit": "Write a fact into a model's weights and show what that changes.",
    "moments": "Measure the second moment of a layer's keys over a corpus.",
    "collect": "Store the activations of a corpus.",
    "store": "Describe an activation store, and check its files.",
    "sweep": "Run an analyzer over many prompts, facts, models or settings.",
    "generate": "Continue a prompt; show the loop's times and memory.",
    "models": "List models with a short name and what is cached.",
    "tensors": "List a model's tensors without loading the weights.",
    "doctor": "Check installation, devices and cache.",
}


class LazyGroup(TyperGroup):
    """A group whose commands stand in the help by name and summary, and are imported when one is called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Replaces the stand-in of the called command by the real one."""
        name = args[0]
        if name not in COMMANDS:
            raise unknown("command", name, COMMANDS)
        self.commands[name] = load_command(name)
        return super().resolve_command(ctx, args)


def load_command(name: str) -> Any:
    """The click command that the module ``interp_cli.NAME`` makes in its ``app``."""
    command = typer.main.get_command(import_module(f"interp_cli.{name}").app)
    command.name = name
    return command


app = typer.Typer(cls=LazyGroup, rich_markup_mode=None, pretty_exceptions_enable=False)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"interp {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def interp(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Shows what happens inside a language model and changes it.

    Results go to stdout, progress to stderr. Exit codes: 0 ok, 1 failure, 2 usage, 3 model or file, 4 bad numbers,
    5 memory, 6 verification, 130 interrupted. INTERP_DEBUG=1 shows the traceback of an error.
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(2)


def _stand_in() -> None:
    """Never runs: ``LazyGroup`` puts the real command in its place."""


for _name, _summary in COMMANDS.items():
    app.command(_name, help=_summary)(_stand_in)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    command = typer.main.get_command(app)
    return guarded(lambda: command.main(args=arguments, prog_name="interp", standalone_mode=False))


if __name__ == "__main__":
    sys.exit(main())

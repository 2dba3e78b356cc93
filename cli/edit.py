"""``interp edit``: writes a fact into a model's weights and shows what that changes; its commands work with saved edits."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from interp.errors import UsageError, VerificationError

from . import edit_eval, edit_files
from .edit_drawing import draw, payload
from .model import open_model
from .options import DEFAULT_MODEL, Device, DeviceMap, Dtype, Json, ModelOption, Offline, Quiet, Revision, Seed
from .output import Output
from .prompt import read_prompt
from .saving import check_result_path, save_result

if TYPE_CHECKING:
    from interp.editing.settings import EditSettings
    from interp.prompts import Fact


class PromptOrCommand(TyperGroup):
    """A command that takes a prompt, unless its first word is the name of one of its own commands.

    A prompt that is such a name goes behind the options and ``--``.
    """

    allow_extra_args = False
    allow_interspersed_args = True

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """The context of the named command, else that of the prompt."""
        if args and args[0] in self.commands:
            name, *rest = args
            return self.commands[name].make_context(f"{info_name} {name}", rest, parent=parent, **extra)
        return super().make_context(info_name, args, parent=parent, **extra)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Options and prompt; the commands stand in a list of their own."""
        return super().collect_usage_pieces(ctx)[:-1]


app = typer.Typer(cls=PromptOrCommand, rich_markup_mode=None, add_completion=False, invoke_without_command=True)

app.command("show")(edit_files.show)
app.command("apply")(edit_files.apply)
app.command("undo")(edit_files.undo)
app.command("export")(edit_files.export)
app.command("eval")(edit_eval.evaluate)


@app.callback()
def edit(
    prompt: Annotated[
        str, typer.Argument(metavar="PROMPT", help="The text that ends where the fact's object begins; '-' is stdin.")
    ],
    subject: Annotated[
        str,
        typer.Option("--subject", "-s", metavar="TEXT", help="What the fact is about; it occurs in the prompt once."),
    ],
    target: Annotated[
        str,
        typer.Option(
            "--target", "-t", metavar="TEXT", help="What the model shall answer, such as ' Rome'; any number of tokens."
        ),
    ],
    method: Annotated[
        str, typer.Option("--method", metavar="NAME", help="rome, rome-original, memit or alphaedit.")
    ] = "rome",
    layer: Annotated[
        list[str] | None,
        typer.Option(
            "--layer",
            "-l",
            metavar="LAYERS",
            help="Edit these layers: 5, 3-5 or -1; repeatable; default: chosen by measurement.",
        ),
    ] = None,
    moments: Annotated[
        list[Path] | None,
        typer.Option(
            "--moments", metavar="FILE", help="A second moment from interp moments, one for each layer; repeatable."
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option("--steps", metavar="N", min=1, help="Steps of the optimisation at most; default: the method's."),
    ] = None,
    allow_known: Annotated[
        bool, typer.Option("--allow-known", help="Edit also where the model gives the target already.")
    ] = False,
    paraphrase: Annotated[
        list[str] | None,
        typer.Option("--paraphrase", metavar="TEXT", help="Ask for the fact in these words too; repeatable."),
    ] = None,
    neighbour: Annotated[
        list[str] | None,
        typer.Option(
            "--neighbour", metavar="TEXT", help="Ask this about another subject, whose answer should stay; repeatable."
        ),
    ] = None,
    tokens: Annotated[
        int, typer.Option("--tokens", "-n", metavar="N", min=0, help="Length of the continuations before and after.")
    ] = 40,
    model: ModelOption = DEFAULT_MODEL,
    seed: Seed = 0,
    device: Device = "auto",
    device_map: DeviceMap = None,
    dtype: Dtype = "auto",
    revision: Revision = None,
    offline: Offline = False,
    as_json: Json = False,
    output: Annotated[
        list[Path] | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write the edit (.safetensors), or what it changes (.html, .json, .csv); repeatable.",
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Write a fact into a model's weights and show what that changes.

    The model's own files stay as they are: -o edit.safetensors keeps the edit, a few kilobytes, and interp edit apply writes it into a
    model folder. Shown are the answers before and after, paraphrases, neighbours, a continuation, the size of the change, and whether its
    undo gives the same bytes back.
    """
    paths = output or []
    for path in paths:
        check_result_path(path)
    fact = read_fact(prompt, subject, target)
    _check_asked(paraphrase=paraphrase, neighbour=neighbour)
    settings = _settings(method, steps)
    speaker = Output(command="edit", as_json=as_json, quiet=quiet)
    found = _read_moments(moments or [])
    opened = open_model(
        speaker, model, device=device, device_map=device_map, dtype=dtype, revision=revision, offline=offline
    )

    from interp.editing.edit_facts import edit_facts
    from interp.editing.effect import edit_effect
    from interp.sites import read_layers
    from interp.tokens import leading_space_hint

    layers = [found for text in layer or [] for found in read_layers(text, opened.atlas.n_layers)]
    hint = leading_space_hint(opened.tokenizer, target)
    if hint:
        speaker.note(hint)
    with speaker.progress() as step:
        made = edit_facts(
            opened,
            fact,
            method,
            layers=list(dict.fromkeys(layers)) or "auto",
            moments=found or None,
            settings=settings,
            seed=seed,
            allow_known=allow_known,
            progress=step,
        )
        effect = edit_effect(
            opened,
            made,
            paraphrases=paraphrase or [],
            neighbours=neighbour or [],
            max_new_tokens=tokens,
            progress=step,
        )
    for path in paths:
        save_result(made if path.suffix == ".safetensors" else effect, path)
    speaker.show(payload(effect), lambda console: draw(console, effect))
    for path in paths:
        speaker.note(f"wrote {path}")
    if not effect.undo_exact:
        raise VerificationError("undoing the edit did not give the same bytes back; see the SHA-256 of each matrix")


def read_fact(prompt: str, subject: str, target: str) -> "Fact":
    """The fact that a prompt, the subject in it and a target say. Raises UsageError where they do not say one."""
    from interp.prompts import Fact

    text = read_prompt(prompt)
    if not isinstance(text, str):
        raise UsageError(f"the prompt of an edit is plain text, got the conversation {prompt!r}")
    if not subject:
        raise UsageError("the subject is empty; give the words of the prompt that the fact is about")
    if not target:
        raise UsageError("the target is empty; give its text, such as ' Rome'")
    first = text.find(subject)
    if first < 0:
        raise UsageError(f"the subject {subject!r} is not in the prompt {text!r}; give words of it, spelt as there")
    if text.find(subject, first + 1) >= 0:
        raise UsageError(
            f"the subject {subject!r} occurs more than once in {text!r}; give a longer piece that occurs once"
        )
    if "{}" in text:
        raise UsageError(f"the prompt {text!r} holds {{}}, which stands for the subject in a fact; leave it out")
    return Fact(subject, text.replace(subject, "{}"), target)


def _check_asked(**prompts: list[str] | None) -> None:
    """Fails before any work where a prompt that is asked beside the fact is empty."""
    for name, texts in prompts.items():
        if not all(texts or ()):
            raise UsageError(f"a prompt of --{name} is empty; give at least one character of text")


def _settings(method: str, steps: int | None) -> "EditSettings":
    from interp.editing.settings import settings_of

    settings = settings_of(method)
    return settings if steps is None else replace(settings, steps=steps)


def _read_moments(paths: Sequence[Path]) -> list[Any]:
    if not paths:
        return []
    from interp.editing.second_moments import SecondMoment

    return [SecondMoment.load(path) for path in paths]

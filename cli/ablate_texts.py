"""The texts that ``interp ablate`` runs on, and the answers that it scores: from the command line or from a file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp.errors import UsageError
from interp.prompts import read_jsonl, read_prompts

from .prompt import read_prompt


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Prompts, and the answers: None, one for all, or one for each."""

    prompts: list[Any]
    target: str | list[str] | None
    against: str | list[str] | None


def read_asked(prompts: Sequence[str], path: Path | None, target: str | None, against: str | None) -> Asked:
    """The prompts of the command line, or of the file ``--text``, with the answers of the options, or of the file. Raises UsageError."""
    if path is None:
        if not prompts:
            raise UsageError("there is no text; give one, such as 'The Eiffel Tower is in Paris', or --text FILE")
        if sum(prompt == "-" for prompt in prompts) > 1:
            raise UsageError("'-' reads all of stdin, so it can be given once")
        return Asked(prompts=[read_prompt(prompt) for prompt in prompts], target=target, against=against)
    if prompts:
        raise UsageError("texts and --text were both given; give one or the other")
    own = {"target": target, "against": against}
    if path.suffix in (".jsonl", ".json"):
        for key, given in own.items():
            answers = [row.get(key) for row in read_jsonl(path)]
            if all(answer is None for answer in answers):
                continue
            if given is not None:
                raise UsageError(f"--{key} was given, and {path} has answers of its own; leave out one of them")
            own[key] = _checked(answers, key, path)
    return Asked(prompts=read_texts(path), **own)


def read_texts(path: Path) -> list[Any]:
    """The texts of a file: JSON Lines by its ending, else one a line, blank lines left out. Raises UsageError."""
    if path.suffix in (".jsonl", ".json"):
        found = list(read_prompts(path))
    else:
        try:
            found = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise UsageError(f"{path} is not UTF-8 text (byte {error.start})") from error
    if not found:
        raise UsageError(f"{path} holds no text; write one a line, or JSON objects with 'prompt'")
    return found


def _checked(answers: list[Any], key: str, path: Path) -> Any:
    for index, answer in enumerate(answers):
        if not isinstance(answer, str):
            raise UsageError(f"{path}, object {index}: '{key}' must be text, as in the other objects")
    return answers

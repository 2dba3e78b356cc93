"""The pairs of prompts that a command line gives: one by its options, or many in a file."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from interp.errors import UsageError
from interp.prompts import read_jsonl

from .prompt import read_prompt

_KEYS = ("clean", "corrupted", "target", "against")


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Prompts side by side: one each, or a list of as many. Answers are None where the model's own are meant."""

    clean: Any
    corrupted: Any
    target: str | list[str] | None
    against: str | list[str] | None

    def request(self) -> dict[str, Any]:
        """What they ask, as values that JSON can hold."""
        return asdict(self)


def read_pairs(
    path: Path | None, clean: str | None, corrupted: str | None, target: str | None, against: str | None, metric: str
) -> Pairs:
    """The pairs of ``--pairs``, or the one of ``--clean`` and ``--corrupted``. Raises UsageError."""
    given = [
        f"--{name}" for name, value in zip(_KEYS, (clean, corrupted, target, against), strict=True) if value is not None
    ]
    if path is not None:
        if given:
            raise UsageError(f"--pairs and {', '.join(given)} were both given; the file holds the prompts and answers")
        return _read_file(path, weighed=metric == "logit_difference")
    if clean is None or corrupted is None:
        missing = " and ".join(
            name for name, value in (("--clean", clean), ("--corrupted", corrupted)) if value is None
        )
        raise UsageError(
            f"{missing} {'are' if ' and ' in missing else 'is'} missing; give two prompts, such as --clean 'The Louvre is in the city of' "
            "--corrupted 'The Colosseum is in the city of', or --pairs FILE"
        )
    if clean == corrupted == "-":
        raise UsageError("--clean and --corrupted both read stdin; give the text of one of them")
    prompts = [_prompt(name, text) for name, text in (("--clean", clean), ("--corrupted", corrupted))]
    return Pairs(clean=prompts[0], corrupted=prompts[1], target=target, against=against)


def _prompt(option: str, text: str) -> Any:
    try:
        return read_prompt(text)
    except UsageError as error:
        raise UsageError(f"{option}: {error}") from error


def _read_file(path: Path, *, weighed: bool) -> Pairs:
    """One object a line (or a JSON array of them). ``against`` may be missing where the metric does not weigh the answer."""
    needed = _KEYS if weighed else _KEYS[:3]
    rows = list(read_jsonl(path))
    if not rows:
        raise UsageError(f"{path} holds no pair; write JSON objects with {', '.join(_KEYS)}, one a line")
    places = _places(path, len(rows))
    for row, place in zip(rows, places, strict=True):
        for key in needed:
            if key not in row:
                found = ", ".join(map(repr, row)) or "nothing"
                raise UsageError(
                    f"{path}, {place}: the key {key!r} is missing; each pair needs {', '.join(needed)}, found {found}"
                )
        for key in _KEYS:
            if key in row and (not isinstance(row[key], str) or not row[key]):
                raise UsageError(f"{path}, {place}: {key!r} must be text, got {row[key]!r}")
    columns = {key: [str(row[key]) for row in rows] for key in needed}
    return Pairs(
        clean=columns["clean"], corrupted=columns["corrupted"], target=columns["target"], against=columns.get("against")
    )


def _places(path: Path, count: int) -> list[str]:
    """Where each object stands: its line, or its number in an array."""
    lines = path.read_text(encoding="utf-8").split("\n")
    numbers = [number for number, line in enumerate(lines, 1) if line.strip()]
    if len(numbers) != count or lines[numbers[0] - 1].lstrip().startswith("["):
        return [f"object {index}" for index in range(count)]
    return [f"line {number}" for number in numbers]

"""Reading the texts of a corpus from a text file, a ``.jsonl`` file, a ``.parquet`` file or a Hugging Face dataset, as they stream by."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp.errors import UsageError
from interp.foreign_json import parse_json

_ROWS_AT_ONCE = 256
"""Rows of a Parquet file in memory at one time."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SourceText:
    """A text with the number of its record in the source, from 0: its line, or its row. ``text`` is None for a record that has none.

    ``share`` is how much of the source was read with it, from 0 to 1; None where that is not known.
    """

    number: int
    text: Any
    share: float | None


def read_file(path: Path, field: str) -> Iterator[SourceText]:
    """The texts of a file, by its ending. Empty lines of a text file are left out; a record whose text is empty or null has None.

    Raises UsageError for a file that cannot be read or is not what its ending says, and for a record without the field.
    """
    if path.suffix == ".parquet":
        return _parquet_texts(path, field)
    return _jsonl_texts(path, field) if path.suffix in (".jsonl", ".ndjson") else _lines(path)


def _lines(path: Path) -> Iterator[SourceText]:
    """The lines that hold something."""
    number = 0
    try:
        size, read = max(1, path.stat().st_size), 0
        with open(path, "rb") as file:
            for number, line in enumerate(file):
                read += len(line)
                text = line.decode("utf-8" if number else "utf-8-sig").strip()  # some editors mark the file as UTF-8
                if text:
                    yield SourceText(number=number, text=text, share=read / size)
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text ({error.reason} in line {number + 1}); convert it first") from error
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error


def _jsonl_texts(path: Path, field: str) -> Iterator[SourceText]:
    for line in _lines(path):
        where = f"line {line.number + 1} of {path}"
        try:
            record = parse_json(line.text)
        except ValueError as error:
            raise UsageError(f"{where} is not JSON ({error}); each line is an object with a {field}") from error
        text = record.get(field, 0) if isinstance(record, dict) else 0
        if text is not None and not isinstance(text, str):
            raise UsageError(f'{where} has no {field}; each line is an object such as {{"{field}": "..."}}')
        yield SourceText(number=line.number, text=_filled(text), share=line.share)


def _parquet_texts(path: Path, field: str) -> Iterator[SourceText]:
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            if field not in file.schema_arrow.names:
                raise UsageError(
                    f"{path} has no column {field!r}; it has: {', '.join(file.schema_arrow.names)}. Name one of them as the field"
                )
            kind = file.schema_arrow.field(field).type
            if not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
                raise UsageError(f"the column {field!r} of {path} holds {kind}, not text; name another field")
            total, number = max(1, file.metadata.num_rows), 0
            for batch in file.iter_batches(_ROWS_AT_ONCE, columns=[field]):
                for text in batch.column(0).to_pylist():
                    yield SourceText(number=number, text=_filled(text), share=(number + 1) / total)
                    number += 1
    except (pyarrow.ArrowException, OSError) as error:
        raise UsageError(f"{path} is not a readable Parquet file ({' '.join(str(error).split())})") from error


def _filled(text: Any) -> str | None:
    return text if isinstance(text, str) and text.strip() else None


def read_dataset(name: str) -> Iterator[SourceText]:
    """The texts of a Hugging Face dataset, "hf:NAME[:split[:field]]", fetched as they are read; None for a record without one.

    Raises UsageError where it cannot be had.
    """
    parts = name.removeprefix("hf:").split(":")
    if not parts[0] or len(parts) > 3:
        raise UsageError(f"{name!r} names no dataset; write 'hf:NAME', 'hf:NAME:split' or 'hf:NAME:split:field'")
    dataset, split, field = (*parts, *("train", "text")[len(parts) - 1 :])
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise UsageError(
            f"reading {name} needs the package datasets (pip install datasets); a text file or .jsonl file needs nothing"
        ) from error
    try:
        for number, record in enumerate(load_dataset(dataset, split=split, streaming=True)):
            if field not in record:
                raise UsageError(
                    f"the dataset {dataset} has no field {field!r}; it has: {', '.join(record)}. Write hf:{dataset}:{split}:FIELD"
                )
            yield SourceText(number=number, text=_filled(record[field]), share=None)
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, UsageError):
            raise
        cause = " ".join(str(error).split())
        raise UsageError(
            f"cannot read the dataset {dataset}, split {split} ({cause}); check its name and the network, or give a text file"
        ) from error

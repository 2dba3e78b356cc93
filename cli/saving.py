"""Writing a result to the file that ``-o`` names, in the format that its ending says."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from interp.errors import UsageError
from interp.files import write_bytes

from .output import check_writable

if TYPE_CHECKING:
    from interp.results import Result

FORMATS = (".safetensors", ".json", ".csv", ".html")
"""The whole result, to load again; the same as JSON; its table; a page to look at."""


def check_result_path(path: Path | None) -> None:
    """Fails before any work when ``path`` cannot hold a result. Raises UsageError."""
    check_writable(path, FORMATS)


def check_result_folder(folder: Path | None) -> None:
    """Fails before any work when results cannot be written to a new or empty ``folder``. Raises UsageError."""
    if folder is None:
        return
    if folder.is_dir():
        if any(folder.iterdir()):
            raise UsageError(f"the folder {folder} is not empty; name a new one, and nothing in it is lost")
    elif folder.exists() or folder.is_symlink():
        raise UsageError(f"{folder} is not a folder; name a new one for the results")
    check_writable(folder / "x" if folder.is_dir() else folder.absolute())


def save_results(results: "Sequence[Result]", folder: Path) -> None:
    """Writes each result to a file of its own in a new or empty ``folder``, all of them or nothing.

    The names begin with numbers, so that sorted by name they come in their order.
    """
    check_result_folder(folder)
    part = folder.absolute().parent / f".interp-{folder.name}-{os.getpid()}.part"
    try:
        part.mkdir()
        for number, result in enumerate(results, start=1):
            result.save(part / f"{number:02}-{result.kind}.safetensors")
        if folder.is_dir():
            folder.rmdir()
        os.replace(part, folder)
    except OSError as error:
        raise UsageError(f"cannot write the folder {folder}: {error.strerror}; choose another one") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def save_result(result: "Result", path: Path) -> None:
    """Writes ``result`` to ``path``, all of it or nothing."""
    if path.suffix == ".safetensors":
        result.save(path)
    elif path.suffix == ".json":
        write_bytes(path, (json.dumps(result.to_json(), ensure_ascii=False, allow_nan=False) + "\n").encode())
    elif path.suffix == ".html":
        from interp.report.page import report

        report([result]).save(path)
    else:
        write_bytes(path, result.to_frame().to_csv(index=False).encode())

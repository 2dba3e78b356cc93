"""Writing a result to the file that ``-o`` names, in the format that its ending says."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from interp.files import write_bytes

from .output import check_writable

if TYPE_CHECKING:
    from interp.results import Result

FORMATS = (".safetensors", ".json", ".csv", ".html")
"""The whole result, to load again; the same as JSON; its table; a page to look at."""


def check_result_path(path: Path | None) -> None:
    """Fails before any work when ``path`` cannot hold a result. Raises UsageError."""
    check_writable(path, FORMATS)


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

"""The files of a sweep's finished tasks: what their names say, and what is checked of one that is read.

A part's name holds the number of the task, the digest of what the task is, the digest of what its numbers were computed with (weights,
versions, threads), and that of the file's bytes; so a list of names tells what is there, and a changed byte is found.
"""

import hashlib
import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from interp.scale.sweep_manifest import flattened

if TYPE_CHECKING:
    from pyarrow import Table

PARTS = "parts"
_NAME = re.compile(r"(\d{8})-([0-9a-f]{16})-([0-9a-f]{8})-([0-9a-f]{16})(-failed)?\.parquet")
_KEY = b"interp"
_COMPRESSION = "zstd"


@dataclass(frozen=True, kw_only=True)
class Part:
    """The file of one task's rows; ``failed`` where they say why there are none."""

    index: int
    task: str
    source: str
    content: str
    failed: bool

    @property
    def name(self) -> str:
        """Its place in the sweep's folder."""
        failed = "-failed" if self.failed else ""
        return f"{PARTS}/{self.index:08d}-{self.task}-{self.source}-{self.content}{failed}.parquet"

    @classmethod
    def named(cls, name: str) -> "Part | None":
        """The part of a file's name; None for another file."""
        match = _NAME.fullmatch(name)
        if match is None:
            return None
        return cls(index=int(match[1]), task=match[2], source=match[3], content=match[4], failed=match[5] is not None)

    def holds(self, data: bytes) -> bool:
        """Whether these are the bytes that were written."""
        return content_of(data) == self.content


def content_of(data: bytes) -> str:
    """The digest of a file's bytes, as a name holds it."""
    return hashlib.sha256(data).hexdigest()[:16]


def source_of(identity: Mapping[str, Any]) -> str:
    """The digest of what numbers were computed with. The processor is left out, as rows agree there up to rounding."""
    known = {name: value for name, value in flattened(identity).items() if name != "hardware"}
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:8]


def part_bytes(table: "Table", identity: Mapping[str, Any], kind: str | None) -> bytes:
    """Rows as a Parquet file that says in its metadata what they were computed with, and what ``kind`` of error the analyzer raised."""
    import pyarrow.parquet as pq

    told = json.dumps({"source": identity, "kind": kind}, sort_keys=True)
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({_KEY: told.encode()}), buffer, compression=_COMPRESSION)
    return buffer.getvalue()


def failure_in(table: "Table") -> tuple[str, str]:
    """Of a failed part's table the reason, and the kind of error."""
    told = json.loads(table.schema.metadata[_KEY])
    return str(table["error"][0].as_py()), str(told["kind"])

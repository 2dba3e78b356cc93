"""What a store is made of: the settings and the origin that fix every byte of it, and a record for each finished shard.

The manifest is ``store.json``. Shard 7 is ``shard-000007.safetensors`` (a tensor a site, named as TransformerLens names it, a row a
token), ``index-000007.parquet`` (whose token each row is) and ``shard-000007.json``, its record, which is written last: a shard without
one is not there. In a bucket the names of the first two carry a digest, too, as in ``shard-000007-0123456789ab.safetensors``. All JSON
files carry their own SHA-256.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

from interp.checkpoint import hash_of
from interp.errors import ModelError, UsageError, brief
from interp.foreign_json import parse_json
from interp.plain_json import from_plain
from interp.results import Provenance
from interp.scale.store_files import Place

MANIFEST = "store.json"
VERSION = 2
_SEAL = "sha256"
_HEAD = ("format", "version")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a store is made.

    ``positions`` are the words of the position filter, ``dtype`` that of the rows, ``window`` the longest run of tokens, ``max_tokens``
    where the corpus was cut. A shard is of whole windows: of as many as keep ``shard_rows`` rows and have ``shard_tokens`` tokens at most.
    ``batch_tokens`` bounds the positions of a forward, padding included, and ``threads`` are those that a worker computes with.
    """

    sites: tuple[str, ...]
    dtype: str
    positions: str
    skip_bos: bool
    window: int
    max_tokens: int | None
    shard_rows: int
    shard_tokens: int
    batch_tokens: int
    threads: int


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The model and the corpus. ``corpus_sha256`` is None for a dataset, which is known by its name and by what was read of it."""

    weights_sha256: str
    model_dtype: str
    attention: str
    edits: tuple[str, ...]
    corpus: str
    corpus_sha256: str | None
    field: str


@dataclass(frozen=True, kw_only=True)
class Totals:
    """What a finished store holds."""

    shards: int
    rows: int
    texts: int
    tokens: int


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """``smaller`` lists (first shard, last shard or None, batch_tokens): there memory allowed no larger batches. ``runs`` are those that
    wrote to it, each on its ``hardware``.
    """

    settings: Settings
    origin: Origin
    n_layers: int
    smaller: tuple[tuple[int, int | None, int], ...] = ()
    runs: tuple[Provenance, ...] = ()
    hardware: tuple[str, ...] = ()
    complete: Totals | None = None

    @property
    def key(self) -> str:
        """A name for the store's content, which stands in each of its shards."""
        return hash_of({"settings": asdict(self.settings), "origin": asdict(self.origin)})

    def batch_tokens(self, shard: int) -> int:
        """Positions of a batch in this shard."""
        there = (tokens for first, last, tokens in self.smaller if first <= shard and (last is None or shard <= last))
        return min(there, default=self.settings.batch_tokens)


@dataclass(frozen=True, kw_only=True)
class Cursor:
    """A place in the corpus: window ``window`` of document ``document``, by default the beginning.

    ``texts`` and ``tokens`` count those before it. ``read`` is the last document that was read to find it, ``through`` the digest of all
    texts up to and with that one, None for a file.
    """

    document: int = 0
    window: int = 0
    texts: int = 0
    tokens: int = 0
    read: int = 0
    through: str | None = None


@dataclass(frozen=True, kw_only=True)
class Record:
    """A finished shard: its rows, the documents they are of, the digests of its two files, where it begins and where the next one does.

    ``store`` is the key of the manifest that it belongs to. ``tag`` stands in the names of its files in a bucket, where several writers
    may be at work: the beginning of the digest of its activations.
    """

    shard: int
    rows: int
    first_document: int
    last_document: int
    bytes: int
    tensors_sha256: str
    index_sha256: str
    start: Cursor
    next: Cursor
    store: str = ""
    tag: str = ""

    @property
    def tensors(self) -> str:
        """The file of its activations."""
        return tensors_name(self.shard, self.tag)

    @property
    def index(self) -> str:
        """The file that says whose they are."""
        return f"index-{_numbered(self.shard, self.tag)}.parquet"


def tensors_name(shard: int, tag: str = "") -> str:
    """The file of a shard's activations."""
    return f"shard-{_numbered(shard, tag)}.safetensors"


def _numbered(shard: int, tag: str) -> str:
    return f"{shard:06d}-{tag}" if tag else f"{shard:06d}"


def record_name(shard: int) -> str:
    """The file of a shard's record."""
    return f"shard-{shard:06d}.json"


def read_manifest(place: Place) -> Manifest | None:
    """The manifest; None where there is none. Raises ModelError for a damaged one, and for one of another version."""
    if MANIFEST not in place.names():
        return None
    data = _unsealed(place, MANIFEST)
    if data.get("version") != VERSION:
        raise ModelError(
            f"{place.name} is a store of version {data.get('version')!r}, this interp reads {VERSION}; make it again"
        )
    return _made(Manifest, {name: data[name] for name in data if name not in _HEAD}, place, MANIFEST)


def write_manifest(place: Place, manifest: Manifest) -> None:
    """Puts the manifest in place."""
    place.write(MANIFEST, _sealed({"format": "interp activation store", "version": VERSION, **asdict(manifest)}))


def read_records(place: Place, manifest: Manifest) -> dict[int, Record]:
    """The finished shards by number. Raises ModelError for a damaged record, and for one that belongs to another manifest."""
    found = {}
    for name in sorted(name for name in place.names() if name.startswith("shard-") and name.endswith(".json")):
        record = _made(Record, _unsealed(place, name), place, name)
        if record_name(record.shard) != name or record.rows < 1:
            raise damaged(place, name, f"it is of shard {record.shard} with {record.rows} rows")
        if record.store not in ("", manifest.key):
            raise ModelError(
                f"{name} in {place.name} belongs to another collection that was written there at the same time; make the store again "
                "in an empty folder"
            )
        found[record.shard] = record
    return found


def write_record(place: Place, record: Record) -> None:
    """Puts a shard's record in place, by which it counts as finished."""
    place.write(record_name(record.shard), _sealed(asdict(record)))


Asked: TypeAlias = Mapping[str, Any]


def resumed(place: Place, old: Manifest, settings: Asked, origin: Origin) -> Manifest:
    """``old``, where it is of this request. Settings of None were not asked for. Raises UsageError that names what differs."""
    given = {name: value for name, value in settings.items() if value is not None or name == "max_tokens"}
    apart = [*_apart(asdict(old.settings), given), *_apart(asdict(old.origin), _compared(old.origin, origin))]
    if apart:
        raise UsageError(
            f"{place.name} was begun otherwise: {'; '.join(apart)}. Ask for the same to go on, or choose another folder"
        )
    return old


def _compared(old: Origin, new: Origin) -> Asked:
    """What must be equal of two origins: a corpus may have another name where its bytes are known."""
    values = asdict(new)
    if old.corpus_sha256 is not None and new.corpus_sha256 is not None:
        del values["corpus"]
    return values


def _apart(old: Asked, new: Asked) -> Iterable[str]:
    for name, value in new.items():
        if value != old[name]:
            yield f"{name} {_worded(old[name])}, now {_worded(value)}"


def _worded(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value)) or "none"
    return "unset" if value is None else str(value)


def _sealed(data: Mapping[str, Any]) -> bytes:
    whole = json.loads(json.dumps(data))
    return (json.dumps({**whole, _SEAL: hash_of(whole)}, indent=1, sort_keys=True) + "\n").encode()


def _unsealed(place: Place, name: str) -> dict[str, Any]:
    try:
        data = parse_json(place.read(name))
        sealed = data.pop(_SEAL)
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise damaged(place, name) from error
    if hash_of(data) != sealed:
        raise damaged(place, name)
    return data


def _made(cls: type, data: Any, place: Place, name: str) -> Any:
    """A dataclass from the JSON of a file."""
    try:
        return from_plain(cls, data)
    except (ValueError, TypeError) as error:
        raise damaged(place, name, brief(error)) from error


def damaged(place: Place, name: str, cause: str = "its SHA-256 is not the recorded one") -> ModelError:
    """The error for a file that is not what was written, by default because its bytes are others."""
    todo = (
        "put it back, or make the store again in an empty folder"
        if name == MANIFEST
        else f"remove {record_name(int(name.split('-')[1].split('.')[0]))} from it and collect again: the same command fills the gap"
    )
    return ModelError(f"{name} in {place.name} is damaged ({cause}); {todo}")

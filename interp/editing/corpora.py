"""Texts that second moments are taken over: a file, a dataset, a list, or text that the model writes itself.

A text longer than the window is cut into pieces of it. A token that the tokenizer puts in front of every text stands in front of
every piece.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from numbers import Integral
from pathlib import Path
from typing import Any, TypeAlias

from interp.editing.sampled_text import sampled_texts
from interp.errors import UsageError
from interp.models.cache import Step, hash_file
from interp.models.progress import silent
from interp.runner.model import Model

SAMPLED = "sampled"
WINDOW = 1024
"""Tokens of the longest piece of a text, where the model's context is not shorter."""
_AT_ONCE = 64
"""Texts that are given to the tokenizer together."""

CorpusLike: TypeAlias = str | os.PathLike[str] | Sequence[Any]
"""``"sampled"``, a path, ``"hf:NAME[:split[:field]]"``, or a list of texts (or of token ids)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Corpus:
    """Pieces of text as token ids, ``n_tokens`` in all.

    ``name`` says where they are from. ``sha256`` is of the file's bytes; of a dataset and a list of texts, of the texts that were
    read, as JSON; of sampled text, of its token ids.
    """

    name: str
    sha256: str
    pieces: tuple[tuple[int, ...], ...]

    @property
    def n_tokens(self) -> int:
        """Tokens of all pieces."""
        return sum(map(len, self.pieces))


def read_corpus(
    model: Model, corpus: CorpusLike, *, max_tokens: int, seed: int = 0, progress: Step | None = None
) -> Corpus:
    """The first ``max_tokens`` tokens of a corpus, or all of them where it has fewer.

    Args:
        model: whose tokenizer reads the texts, and which writes sampled ones.
        corpus: "sampled"; the path of a text file (each line that is not empty is a text) or of a ``.jsonl`` file (objects with a
            ``text``); "hf:NAME", a Hugging Face dataset (split "train" and field "text" unless given as "hf:NAME:split:field"),
            streamed, so that no more is fetched than is read; or a list of texts or token ids.
        max_tokens: the last text is cut so that no more are read.
        seed: of sampled text.
        progress: called with (what, done, total) while text is sampled.

    Raises:
        UsageError: the corpus cannot be read, is empty or has no text where one is due; ``max_tokens`` is below 1; text for a
            model without a tokenizer.

    """
    if max_tokens < 1:
        raise UsageError(f"max_tokens is {max_tokens}; give 1 or more")
    if isinstance(corpus, str) and corpus == SAMPLED:
        texts = sampled_texts(model, max_tokens, seed=seed, progress=progress or silent)
        pieces = _first(iter(texts), max_tokens)
        digest = hashlib.sha256(json.dumps(pieces).encode()).hexdigest()
        return Corpus(name=f"text sampled from the model (seed {seed})", sha256=digest, pieces=pieces)
    name, texts, digest = _opened(corpus)
    pieces = _first(_pieces(model, texts), max_tokens)
    if not pieces:
        raise UsageError(f"there is no text in {name}; give a corpus with at least one")
    return Corpus(name=name, sha256=digest(), pieces=pieces)


def _opened(corpus: CorpusLike) -> tuple[str, Iterator[Any], Callable[[], str]]:
    """A corpus' name, its texts, and what gives its digest once they were read."""
    if isinstance(corpus, str) and corpus.startswith("hf:"):
        watched = _Watched(_dataset_texts(corpus))
        return corpus, iter(watched), watched.digest
    if isinstance(corpus, str | os.PathLike):
        path = Path(corpus).expanduser()
        if not path.is_file():
            raise UsageError(
                f"there is no corpus file {path}; give a text file, a .jsonl file, 'hf:NAME' for a Hugging Face dataset or {SAMPLED!r}"
            )
        texts = _jsonl_texts(path) if path.suffix in (".jsonl", ".ndjson") else _lines(path)
        return path.name, (text for _, text in texts), lambda: hash_file(path)
    watched = _Watched(iter(corpus))
    return f"{len(corpus):,} given texts", iter(watched), watched.digest


class _Watched:
    """Texts on their way through, of which a digest is made."""

    def __init__(self, texts: Iterable[Any]) -> None:
        self._texts, self._seen = texts, hashlib.sha256()

    def __iter__(self) -> Iterator[Any]:
        for text in self._texts:
            plain = text if isinstance(text, str) else [int(index) for index in _ids(text)]
            self._seen.update(json.dumps(plain).encode() + b"\n")
            yield text

    def digest(self) -> str:
        """The SHA-256 of the texts so far, one JSON value a line."""
        return self._seen.hexdigest()


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that hold something, with their numbers from 1."""
    try:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line.strip()
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); convert it first"
        ) from error
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error


def _jsonl_texts(path: Path) -> Iterator[tuple[int, str]]:
    for number, line in _lines(path):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise UsageError(
                f"line {number} of {path} is not JSON ({error}); each line is an object with a text"
            ) from error
        text = record.get("text") if isinstance(record, dict) else None
        if not isinstance(text, str):
            raise UsageError(f'line {number} of {path} has no text; each line is an object such as {{"text": "..."}}')
        if text.strip():
            yield number, text


def _dataset_texts(name: str) -> Iterator[str]:
    """The texts of a Hugging Face dataset, fetched as they are read."""
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
        for record in load_dataset(dataset, split=split, streaming=True):
            if field not in record:
                raise UsageError(
                    f"the dataset {dataset} has no field {field!r}; it has: {', '.join(record)}. Write hf:{dataset}:{split}:FIELD"
                )
            if isinstance(record[field], str) and record[field].strip():
                yield record[field]
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, UsageError):
            raise
        cause = " ".join(str(error).split())
        raise UsageError(
            f"cannot read the dataset {dataset}, split {split} ({cause}); check its name and the network, or give a text file"
        ) from error


def _pieces(model: Model, texts: Iterable[Any]) -> Iterator[tuple[int, ...]]:
    """The texts as token ids, in pieces that fit the window."""
    window = min(WINDOW, model.atlas.n_ctx or WINDOW)
    waiting = iter(texts)
    while group := list(islice(waiting, _AT_ONCE)):
        read = iter(_tokenised(model, [text for text in group if isinstance(text, str)]))
        for text in group:
            ids = next(read) if isinstance(text, str) else _ids(text, model.atlas.d_vocab)
            lead = _lead(model, text, ids) if isinstance(text, str) and len(ids) > window else ()
            yield from _cut(ids, lead, window)


def _tokenised(model: Model, texts: Sequence[str]) -> list[list[int]]:
    """The ids of several texts, as the tokenizer makes them (with the special tokens it adds itself)."""
    if not texts:
        return []
    if model.tokenizer is None:
        raise UsageError("this model has no tokenizer; give the corpus as lists of token ids")
    return model.tokenizer(list(texts), add_special_tokens=True, verbose=False)["input_ids"]


def _lead(model: Model, text: str, ids: Sequence[int]) -> Sequence[int]:
    """The tokens that the tokenizer put in front of a text by itself."""
    plain = model.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    extra = len(ids) - len(plain)
    return next((ids[:start] for start in range(extra + 1) if list(ids[start : start + len(plain)]) == plain), ())


def _cut(ids: Sequence[int], lead: Sequence[int], window: int) -> Iterator[tuple[int, ...]]:
    """Pieces of at most ``window`` tokens, each behind the leading ones. A text of no token gives none."""
    step = window - len(lead)
    for start in range(len(lead), len(ids), step) if len(ids) > window else ():
        yield (*lead, *ids[start : start + step])
    if 0 < len(ids) <= window:
        yield tuple(ids)


def _ids(text: Any, d_vocab: int | None = None) -> list[int]:
    """A text that is given as token ids. Raises UsageError where it is none."""
    values = text.tolist() if hasattr(text, "tolist") else getattr(text, "ids", text)
    listed = list(values) if isinstance(values, Iterable) and not isinstance(values, Mapping) else None
    if listed is None or not all(isinstance(value, Integral) for value in listed):
        raise UsageError(f"a text of a corpus is a string or a sequence of token ids, got {type(text).__name__}")
    bad = [] if d_vocab is None else [value for value in listed if not 0 <= value < d_vocab]
    if d_vocab is not None and bad:
        raise UsageError(f"token id {bad[0]} is outside the vocabulary; valid: 0 to {d_vocab - 1}")
    return [int(value) for value in listed]


def _first(pieces: Iterable[Sequence[int]], max_tokens: int) -> tuple[tuple[int, ...], ...]:
    """The first ``max_tokens`` tokens."""
    found, left = [], max_tokens
    for piece in pieces:
        found.append(tuple(piece[:left]))
        left -= len(found[-1])
        if left == 0:
            break
    return tuple(found)

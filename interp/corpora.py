"""Corpora: the texts of a file, a dataset or a list, one after the other, and their tokens in windows that the model can read.

A text longer than the window is cut into several. A token that the tokenizer puts in front of every text stands in front of every
window.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from numbers import Integral
from pathlib import Path
from typing import Any, TypeAlias

from interp.corpus_files import SourceText, read_dataset, read_file
from interp.errors import UsageError
from interp.models.cache import hash_file
from interp.runner.model import Model

WINDOW = 1024
"""Tokens of the longest window, where the model's context is not shorter."""
_AT_ONCE = 64
"""Texts that are given to the tokenizer together."""

CorpusLike: TypeAlias = str | os.PathLike[str] | Sequence[Any]
"""A path, ``"hf:NAME[:split[:field]]"``, or a list of texts (or of token ids)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Document:
    """A text (or its token ids), its ``number`` in the source, and the digests of all texts ``before`` it and ``through`` it.

    Both are None where the source is a file.
    ``share`` is how much of the source was read with it, from 0 to 1; None where that is not known.
    """

    number: int
    text: Any
    before: str | None
    share: float | None
    through: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Window:
    """Token ids that are run together: window number ``index`` of a document."""

    document: Document
    index: int
    ids: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Documents:
    """The texts of a corpus, read anew each time they are iterated over.

    ``sha256`` gives the digest of the source: of a file its bytes, else that of the texts of the last iteration so far, one JSON value
    a line. ``whole_sha256`` is of all of it, before it is read; None for a dataset, which is streamed. ``skipped`` counts the records of
    the last iteration so far that hold no text, which are left out.
    """

    name: str
    read: Callable[[], Iterator[Document]]
    sha256: Callable[[], str]
    whole_sha256: Callable[[], str | None]
    skipped: Callable[[], int]

    def __iter__(self) -> Iterator[Document]:
        return self.read()


def open_documents(corpus: CorpusLike, *, field: str = "text") -> Documents:
    """The documents of a corpus, none of which is read yet.

    Args:
        corpus: the path of a text file (each line that is not empty is a text), of a ``.jsonl`` file (an object a line) or of a
            ``.parquet`` file (a row each); "hf:NAME[:split[:field]]", a Hugging Face dataset, streamed; or texts or token ids.
        field: the key, or the column, that holds the text.

    Raises:
        UsageError: there is no such file, or what is given names no corpus. What is wrong with a text is raised when it is read.

    """
    if isinstance(corpus, str) and corpus.startswith("hf:"):
        return _watched(corpus, lambda: read_dataset(corpus), streamed=True)
    if isinstance(corpus, str | os.PathLike):
        path = Path(corpus).expanduser()
        if not path.is_file():
            raise UsageError(
                f"there is no corpus file {path}; give a text file, a .jsonl or .parquet file, or 'hf:NAME' for a Hugging Face dataset"
            )

        skipped = [0]

        def read() -> Iterator[Document]:
            for found in _filled(read_file(path, field), skipped):
                yield Document(number=found.number, text=found.text, before=None, share=found.share)

        def digest() -> str:
            return hash_file(path)

        return Documents(name=path.name, read=read, sha256=digest, whole_sha256=digest, skipped=lambda: skipped[0])
    if isinstance(corpus, bytes | Iterator) or not isinstance(corpus, Iterable):
        raise UsageError(f"a corpus is a path, 'hf:NAME' or a list of texts, got {type(corpus).__name__}")
    total = len(corpus)

    def given() -> Iterator[SourceText]:
        for number, text in enumerate(corpus):
            yield SourceText(number=number, text=text, share=(number + 1) / total)

    return _watched(f"{total:,} given texts", given, streamed=False)


def _watched(name: str, source: Callable[[], Iterator[SourceText]], *, streamed: bool) -> Documents:
    """Documents of which a digest is made on their way through."""
    last, skipped = [hashlib.sha256()], [0]

    def read() -> Iterator[Document]:
        seen = last[0] = hashlib.sha256()
        for found in _filled(source(), skipped):
            plain = found.text if isinstance(found.text, str) else _ids(found.text)
            before = seen.hexdigest()
            seen.update(json.dumps(plain).encode() + b"\n")
            yield Document(
                number=found.number, text=found.text, before=before, share=found.share, through=seen.hexdigest()
            )

    def digest() -> str:
        return last[0].hexdigest()

    def whole() -> str | None:
        if streamed:
            return None
        for _ in read():
            pass
        return digest()

    return Documents(name=name, read=read, sha256=digest, whole_sha256=whole, skipped=lambda: skipped[0])


def _filled(source: Iterator[SourceText], skipped: list[int]) -> Iterator[SourceText]:
    """The texts without the records that have none, which are counted."""
    skipped[0] = 0
    for found in source:
        if found.text is None:
            skipped[0] += 1
        else:
            yield found


def tell_skipped(model: Model, documents: Documents) -> None:
    """Says through the model how many records of what was read hold no text."""
    skipped = documents.skipped()
    if skipped:
        model.notify(f"{skipped:,} records of {documents.name} hold no text and were left out")


def longest_window(model: Model) -> int:
    """Tokens of a window, unless told otherwise: 1,024, or the model's context where that is shorter."""
    return min(WINDOW, model.atlas.n_ctx or WINDOW)


def windows_of(model: Model, documents: Iterable[Document], window: int) -> Iterator[Window]:
    """The documents' tokens in windows of at most ``window`` tokens. A text of no token gives none."""
    waiting = iter(documents)
    while group := list(islice(waiting, _AT_ONCE)):
        read = iter(_tokenised(model, [item.text for item in group if isinstance(item.text, str)]))
        for item in group:
            text = item.text
            ids = next(read) if isinstance(text, str) else _ids(text, model.atlas.d_vocab)
            lead = _lead(model, text, ids) if isinstance(text, str) and len(ids) > window else ()
            for index, piece in enumerate(_cut(ids, lead, window)):
                yield Window(document=item, index=index, ids=piece)


def first_tokens(windows: Iterable[Window], max_tokens: int | None) -> Iterator[Window]:
    """The windows up to ``max_tokens`` tokens, the last one cut; None takes them all."""
    left = max_tokens
    for window in windows:
        if left is None or len(window.ids) < left:
            yield window
            left = None if left is None else left - len(window.ids)
            continue
        if left:
            yield replace(window, ids=window.ids[:left])
        return


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
    if len(lead) >= window:
        raise UsageError(
            f"a window of {window} tokens has no room behind what the tokenizer puts in front; give {len(lead) + 1} or more"
        )
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

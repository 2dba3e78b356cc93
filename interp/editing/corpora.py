"""Texts that second moments are taken over: those of ``interp.corpora``, or text that the model writes itself."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from interp.corpora import CorpusLike, first_tokens, longest_window, open_documents, tell_skipped, windows_of
from interp.editing.sampled_text import sampled_texts
from interp.errors import UsageError
from interp.models.cache import Step
from interp.models.progress import silent
from interp.runner.model import Model

SAMPLED = "sampled"


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
        corpus: "sampled"; the path of a text file (each line that is not empty is a text), of a ``.jsonl`` file (objects with a
            ``text``) or of a ``.parquet`` file (a column ``text``); "hf:NAME", a Hugging Face dataset (split "train" and field "text"
            unless given as "hf:NAME:split:field"), streamed, so that no more is fetched than is read; or a list of texts or token ids.
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
        pieces = _first(texts, max_tokens)
        digest = hashlib.sha256(json.dumps(pieces).encode()).hexdigest()
        return Corpus(name=f"text sampled from the model (seed {seed})", sha256=digest, pieces=pieces)
    documents = open_documents(corpus)
    read = windows_of(model, documents, longest_window(model))
    pieces = tuple(window.ids for window in first_tokens(read, max_tokens))
    tell_skipped(model, documents)
    if not pieces:
        raise UsageError(f"there is no text in {documents.name}; give a corpus with at least one")
    return Corpus(name=documents.name, sha256=documents.sha256(), pieces=pieces)


def _first(pieces: Iterable[Sequence[int]], max_tokens: int) -> tuple[tuple[int, ...], ...]:
    """The first ``max_tokens`` tokens."""
    found, left = [], max_tokens
    for piece in pieces:
        found.append(tuple(piece[:left]))
        left -= len(found[-1])
        if left == 0:
            break
    return tuple(found)

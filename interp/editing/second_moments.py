"""Second moments C = E[k k^T] of the keys that an MLP's output projection sees (Meng et al. 2022, section 3.1), over a corpus."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from interp.analyzers.sweep import request_key
from interp.checkpoint import Checkpoint
from interp.corpora import CorpusLike
from interp.editing.corpora import SAMPLED, Corpus, read_corpus
from interp.editing.matrix import output_matrix
from interp.editing.second_moment_result import SecondMoment
from interp.editing.second_moment_work import Fit, token_batches
from interp.editing.stack import applied_edits, base_sha256
from interp.errors import ModelError, UsageError
from interp.models.cache import Step, locked, make_folder
from interp.models.progress import silent
from interp.runner.model import Model
from interp.sites import read_layer

__all__ = ["SecondMoment", "cached_moments", "second_moments"]

MAX_TOKENS = 100_000
BATCH_TOKENS = 2048
SAMPLED_TOKENS_PER_DIMENSION = 16
"""Sampled tokens for each dimension of the keys, unless told otherwise: the model has to write them first."""
FOLDER = "second_moments"


def second_moments(
    model: Model,
    layers: int | Sequence[int],
    corpus: CorpusLike = SAMPLED,
    *,
    max_tokens: int | None = None,
    batch_tokens: int = BATCH_TOKENS,
    seed: int = 0,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: Step | None = None,
) -> tuple[SecondMoment, ...]:
    """The second moments of the keys of some layers, all in one pass over a corpus.

    Keys are what an MLP's output projection gets (``mlp.post``). Every real token counts, also the first of a text, whose key is
    often far larger than others; padding never does. The forward ends at the highest of the layers, and no activation is kept.
    Products and sums are in float64 on the CPU (see ``SecondMomentFitter`` for other devices). Nothing is shrunk here: what is
    stored is the mean, and ``SecondMoment.shrunk`` shrinks it when it is used.

    Args:
        model: the model, with no edit applied.
        layers: one layer or several; negative ones count from the end.
        corpus: "sampled" (text that the model writes itself), a text file, a ``.jsonl`` or
            ``.parquet`` file, "hf:NAME[:split[:field]]", or texts.
            See ``interp.editing.corpora.read_corpus``.
        max_tokens: tokens to read at most; None is 100,000, and of sampled text 16 for each dimension of the keys.
        batch_tokens: positions of a batch, padding included. Texts of like length run together. Where memory runs out the batch is
            halved, and the model's listener told.
        seed: of sampled text.
        checkpoint: a file that keeps finished work when this is stopped; the same call goes on from it, to the same numbers.
        progress: called with (what, done, total), in tokens.

    Returns:
        One result for each layer, in the order asked.

    Raises:
        UsageError: an edit is applied; a layer that does not exist, or whose MLP is a mixture of experts; a corpus that cannot be
            read (see ``read_corpus``); a checkpoint of other work.
        NumericsError: the keys hold NaN or infinity.
        MemoryLimitError: the forward of one text alone does not fit in memory.

    """
    chosen = _layers(model, layers)
    if applied_edits(model):
        raise UsageError(
            "the model has an edit applied, and its keys would be those of the edited model; undo it first (edit.undo(model)), or "
            "give second moments that were made before"
        )
    if batch_tokens < 1:
        raise UsageError(f"batch_tokens is {batch_tokens}; give 1 or more")
    told = progress or silent
    limit = max_tokens if max_tokens is not None else _default_tokens(model, chosen, corpus)
    text = read_corpus(model, corpus, max_tokens=limit, seed=seed, progress=told)
    key = {} if checkpoint is None else _key(model, chosen, text, batch_tokens)
    fit = Fit(model, sorted(set(chosen)))
    with Checkpoint(checkpoint, key) as kept:
        fit.run(token_batches(text.pieces, batch_tokens), kept, told)
    found, origin = fit.results(), model.provenance(seed=seed)
    return tuple(
        SecondMoment(
            provenance=origin,
            layer=layer,
            matrix=found[layer].matrix,
            fourth_moment=found[layer].fourth,
            n_tokens=found[layer].n_rows,
            n_texts=len(text.pieces),
            corpus=text.name,
            corpus_sha256=text.sha256,
            base_sha256=base_sha256(model, layer),
        )
        for layer in chosen
    )


def cached_moments(
    model: Model,
    layers: int | Sequence[int],
    *,
    seed: int = 0,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: Step | None = None,
) -> tuple[SecondMoment, ...]:
    """The second moments over the default corpus, from the cache folder where they are there, else made now and kept there.

    Those of a model made in memory are made each time and not kept. Raises like ``second_moments``.
    """
    chosen = _layers(model, layers)
    if model.source is None:
        return second_moments(model, chosen, seed=seed, checkpoint=checkpoint, progress=progress)
    try:
        folder = make_folder(FOLDER)
    except ModelError as error:
        model.notify(f"the second moments are not kept: {error}")
        return second_moments(model, chosen, seed=seed, checkpoint=checkpoint, progress=progress)
    with locked(f"{FOLDER}-{model.source.weights_sha256[:32]}"):
        paths = {layer: folder / _file_name(model, layer, seed) for layer in chosen}
        known = {layer: _known(model, layer, path) for layer, path in paths.items()}
        missing = [layer for layer, moment in known.items() if moment is None]
        made = second_moments(model, missing, seed=seed, checkpoint=checkpoint, progress=progress) if missing else ()
        for moment in made:
            moment.save(paths[moment.layer])
    found = known | {moment.layer: moment for moment in made}
    return tuple(moment for layer in chosen if (moment := found[layer]) is not None)


def _layers(model: Model, layers: int | Sequence[int]) -> list[int]:
    """The layers from 0, each one that has a matrix to measure the keys of."""
    given = [layers] if isinstance(layers, int) else list(layers)
    if not given:
        raise UsageError(f"no layer is given; valid: 0 to {model.atlas.n_layers - 1}")
    return [output_matrix(model, read_layer(layer, model.atlas.n_layers)).layer for layer in given]


def _default_tokens(model: Model, layers: Sequence[int], corpus: CorpusLike) -> int:
    if not (isinstance(corpus, str) and corpus == SAMPLED):
        return MAX_TOKENS
    return SAMPLED_TOKENS_PER_DIMENSION * max(output_matrix(model, layer).values.shape[1] for layer in layers)


def _key(model: Model, layers: Sequence[int], text: Corpus, batch_tokens: int) -> Mapping[str, Any]:
    """What the work is, for its checkpoint."""
    pieces = hashlib.sha256(json.dumps(text.pieces).encode()).hexdigest()
    return request_key(
        model, analysis="second_moments", layers=sorted(set(layers)), pieces=pieces, batch_tokens=batch_tokens
    )


def _file_name(model: Model, layer: int, seed: int) -> str:
    assert model.source is not None, "a model made in memory has no file"
    dtype = str(model.dtype).removeprefix("torch.")
    return f"{model.source.weights_sha256[:32]}-{dtype}-layer{layer}-seed{seed}.safetensors"


def _known(model: Model, layer: int, path: Path) -> SecondMoment | None:
    """What was made before; None where there is none, or one that cannot be used."""
    if not path.is_file():
        return None
    try:
        moment = SecondMoment.load(path)
        moment.check(model, layer, min_tokens=0)
    except (ModelError, UsageError):
        return None
    return moment

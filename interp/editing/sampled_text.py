"""Text that a model writes itself: the corpus of second moments where none is given, so that nothing has to be downloaded.

Texts are drawn at temperature 1 from the model's own distribution, many side by side, in groups. Each group has a seed of its own and
is kept in the cache folder under the hash of the weights, so that it is drawn once, more tokens go on from those that are there, and
an interrupt loses one group.
"""

from pathlib import Path

import torch
from torch import Tensor

from interp.editing.cached import cached_path
from interp.files import save_tensors
from interp.models.cache import Step
from interp.runner.model import Model
from interp.runner.sampling import sample_ids, start_ids

FOLDER = "sampled_text"
_GROUPS = 1 << 20  # more groups than anybody draws, so that no two seeds share one
ROWS, LENGTH = 48, 128
"""Texts of a group, and the tokens of each: few enough that the KV cache of a group stays small beside the weights."""


def sampled_texts(model: Model, n_tokens: int, *, seed: int, progress: Step) -> list[tuple[int, ...]]:
    """Texts of about ``LENGTH`` tokens, ``n_tokens`` in all or a few more.

    Each is what the model writes behind its first token (``start_ids``). That token itself stays only where the tokenizer puts it in
    front of every text, so that the model meets these texts as it meets others. ``progress`` is called with (what, done, total), in
    tokens.
    """
    start = start_ids(model)
    kept = start if _leads(model, start) else ()
    length = LENGTH if model.atlas.n_ctx is None else min(LENGTH, model.atlas.n_ctx - len(start))
    needed = -(-n_tokens // (len(kept) + length))
    texts: list[tuple[int, ...]] = []
    while len(texts) < needed:
        drawn = len(texts)

        def told(what: str, step: int, steps: int | None, drawn: int = drawn) -> None:
            progress(what, min(drawn * length + ROWS * step, needed * length), needed * length)

        group = _group(model, start, length, seed, drawn // ROWS, told)
        texts += [(*kept, *row) for row in group.tolist()]
    return texts[:needed]


def _group(model: Model, start: tuple[int, ...], length: int, seed: int, group: int, progress: Step) -> Tensor:
    """The texts of a group [row, token], from the cache folder or drawn now."""
    path = cached_path(model, FOLDER, f"seed{seed}-{ROWS}x{length}-{group}.safetensors")
    known = None if path is None else _read(path, length)
    if known is not None:
        return known
    generator = torch.Generator().manual_seed((seed * _GROUPS + group) % 2**63)
    drawn = sample_ids(model, torch.tensor([start] * ROWS), length, generator=generator, progress=progress).cpu()
    if path is not None:
        save_tensors(path, {"ids": drawn.to(torch.int32)}, {"rows": str(ROWS)})
    return drawn


def _read(path: Path, length: int) -> Tensor | None:
    """A group that was drawn before; None where there is none, or one that cannot be read."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            ids = file.get_tensor("ids").long()
    except (SafetensorError, OSError, ValueError):
        return None
    return ids if ids.shape == (ROWS, length) else None


def _leads(model: Model, start: tuple[int, ...]) -> bool:
    """Whether the tokenizer puts ``start`` in front of every text. Without a tokenizer it does not."""
    return model.tokenizer is not None and tuple(model.tokenizer("a")["input_ids"][: len(start)]) == start

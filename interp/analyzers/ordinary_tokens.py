"""The tokens that random text may be made of: those that ordinary text is made of, with their frequency in a corpus if one is given."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import UsageError
from interp.runner.model import Model

_MARKER = re.compile(r"<.+>|\[.+\]")
"""What control, byte and reserved tokens look like: <unused7>, <0x0A>, <|reserved_special_token_3|>, [PAD]."""


def ordinary_ids(model: Model, among: Iterable[int] | None = None) -> Int[Tensor, " row"]:
    """The ids of ordinary tokens, ascending; with ``among`` those of them, in their order.

    Left out are special and added tokens, ids that the tokenizer does not use, tokens that look like a marker, that are not whole
    characters, that hold a control character or that show nothing. Without a tokenizer: all ids but those the config calls
    begin, end and padding.
    """
    size, tokenizer = model.atlas.d_vocab, model.tokenizer
    if tokenizer is None:
        left_out = _special_in_config(model.hf.config)
        return torch.tensor([index for index in (range(size) if among is None else among) if index not in left_out])
    left_out = {*tokenizer.all_special_ids, *getattr(tokenizer, "added_tokens_decoder", ())}
    used = min(size, len(tokenizer))
    asked = range(used) if among is None else (index for index in among if 0 <= index < used)
    candidates = [index for index in asked if index not in left_out]
    names = tokenizer.convert_ids_to_tokens(candidates)
    texts = tokenizer.batch_decode([[index] for index in candidates], clean_up_tokenization_spaces=False)
    kept = [
        index
        for index, name, text in zip(candidates, names, texts, strict=True)
        if name is not None and not _MARKER.fullmatch(name) and _is_plain(text)
    ]
    if not kept:
        raise UsageError("the tokenizer has no ordinary tokens to make random text of; give prompts instead")
    return torch.tensor(kept)


def _is_plain(text: str) -> bool:
    """Whether the text of one token is whole characters, something to see, and no control character."""
    return (
        bool(text.strip()) and "\ufffd" not in text and not any(unicodedata.category(c).startswith("C") for c in text)
    )


def _special_in_config(config: Any) -> set[int]:
    text_config = config.get_text_config(decoder=True)
    found: set[int] = set()
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        value = getattr(text_config, name, None)
        found.update(value if isinstance(value, list | tuple) else [value] if value is not None else [])
    return found


def frequencies(model: Model, corpus: str | Sequence[str], ordinary: Int[Tensor, " row"]) -> Float[Tensor, " row"]:
    """How often each of the ``ordinary`` tokens occurs in a corpus. Raises UsageError where none does."""
    if model.tokenizer is None:
        raise UsageError("this model has no tokenizer, so no frequencies can be counted in a corpus; leave corpus out")
    texts = [corpus] if isinstance(corpus, str) else list(corpus)
    counts = torch.zeros(model.atlas.d_vocab, dtype=torch.double)
    for text in texts:
        ids = torch.tensor(
            model.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"], dtype=torch.long
        )
        counts += torch.bincount(ids, minlength=len(counts))[: len(counts)]
    found = counts[ordinary]
    if not found.any():
        raise UsageError("the corpus holds no ordinary token; give text to count frequencies in, or leave corpus out")
    return found


def begin_of_text(model: Model, first: bool | int) -> int | None:
    """The id that texts begin with: the tokenizer's where ``first`` is True and it has one, a given id, or none.

    Raises UsageError for an id outside the vocabulary.
    """
    if first is False:
        return None
    if first is True:
        return None if model.tokenizer is None else model.tokenizer.bos_token_id
    if not 0 <= first < model.atlas.d_vocab:
        raise UsageError(f"the first token's id {first} is out of range; valid: 0 to {model.atlas.d_vocab - 1}")
    return first

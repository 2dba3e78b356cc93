"""The model's answer to a prompt, as far as the results know it."""

from collections.abc import Sequence
from typing import Any


def answer_of(results: Sequence[Any]) -> str | None:
    """The piece of the chosen next token from a residual story, else the top of a lens's last row, else None."""
    for result in results:
        if result.kind == "residual_story":
            return result.vocabulary.get(str(result.chosen_id))
    for result in results:
        if result.kind == "logit_lens":
            return result.vocabulary[str(int(result.top_ids[-1, -1, 0]))]
    return None

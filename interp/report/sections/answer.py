"""The model's answer to a prompt, as far as the results know it."""

from collections.abc import Sequence
from typing import Any

from interp.report.sections.lens import ends_in_model


def answer_of(results: Sequence[Any]) -> str | None:
    """The chosen next token from a residual story, a generation or a lens that reaches the end of model and prompt, else None."""
    by_kind = {result.kind: result for result in results}
    if story := by_kind.get("residual_story"):
        return story.vocabulary[str(story.chosen_id)]
    if generation := by_kind.get("generation"):
        return generation.pieces[0]
    lens = by_kind.get("logit_lens")
    if lens is None or not ends_in_model(lens):
        return None
    span = lens.tokens.spans[-1]
    at_end = span is not None and span[1] == len(lens.tokens.text)
    return lens.vocabulary[str(int(lens.top_ids[-1, -1, 0]))] if at_end else None

"""The tables of an evaluation that go prompt by prompt."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from interp.editing.asked_prompts import WHEN, AskedPrompts

if TYPE_CHECKING:
    from interp.editing.evaluation_result import EditScores

BYSTANDERS = ("neighbour", "locality", "unrelated")
"""Roles of the prompts that an edit should leave."""
SIDE_EFFECT_COLUMNS = (
    "case", "role", "prompt", "old_answer", "old_probability", "new_answer", "new_probability", "kl_nats",
)  # fmt: skip


def prompt_rows(scores: "EditScores") -> Iterator[dict[str, object]]:
    """One row for each prompt and state. ``case`` is the case's number; of unrelated prompts the edit's."""
    for role in AskedPrompts.ROLES:
        asked = scores.asked.get(role)
        for when in WHEN:
            found = None if asked is None else asked.at(when)
            if asked is None or found is None:
                continue
            for index, text in enumerate(asked.texts):
                yield {
                    "case": int(asked.case[index]),
                    "role": role,
                    "prompt": text,
                    "when": when,
                    "new_nats": float(found.new_nats[index]),
                    "true_nats": float(found.true_nats[index]),
                    "new_accuracy": float(found.new_accuracy[index]),
                    "true_accuracy": float(found.true_accuracy[index]),
                    "top": scores.vocabulary[str(int(found.top[index]))],
                    "top_probability": float(found.top_probability[index]),
                    "kl_nats": float("nan")
                    if when == "before" or asked.kl_nats is None
                    else float(asked.kl_nats[index]),
                }


def side_effect_rows(scores: "EditScores") -> Iterator[dict[str, object]]:
    """One row for each prompt that an edit should leave and whose first choice it changed, the greatest divergence first."""
    rows = [row for role in BYSTANDERS for row in _changed(scores, role)]
    yield from sorted(rows, key=lambda row: -float(str(row["kl_nats"])))


def _changed(scores: "EditScores", role: str) -> Iterator[dict[str, object]]:
    asked = scores.asked.get(role)
    if asked is None or asked.after is None or asked.kl_nats is None:
        return
    before, after = asked.before, asked.after
    for index in (before.top != after.top).nonzero()[:, 0].tolist():
        values = (
            int(asked.case[index]),
            role,
            asked.texts[index],
            scores.vocabulary[str(int(before.top[index]))],
            float(before.top_probability[index]),
            scores.vocabulary[str(int(after.top[index]))],
            float(after.top_probability[index]),
            float(asked.kl_nats[index]),
        )
        yield dict(zip(SIDE_EFFECT_COLUMNS, values, strict=True))

"""The scores of an edit by name: what each means, and its value for each case."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from interp.editing.asked_prompts import AskedPrompts, Readings
from interp.maths.edit_scores import magnitude, mean_within, preferred

if TYPE_CHECKING:
    from interp.editing.evaluation_result import EditScores


@dataclass(frozen=True, kw_only=True)
class EditMetric:
    """A score: its unit, what it means, the roles of the prompts that it is read from, and how.

    ``read`` takes the prompts of a role and the readings before or after; ``compares`` marks a score of the change itself, which has no
    value before.
    """

    unit: str
    meaning: str
    roles: tuple[str, ...]
    read: Callable[[AskedPrompts, Readings], Tensor | None]
    compares: bool = False


def _percent(
    *roles: str, read: Callable[[AskedPrompts, Readings], Tensor | None], meaning: str, compares: bool = False
) -> EditMetric:
    def scaled(asked: AskedPrompts, found: Readings) -> Tensor | None:
        values = read(asked, found)
        return None if values is None else 100 * values

    return EditMetric(unit="%", meaning=meaning, roles=roles, read=scaled, compares=compares)


def _new_wins(asked: AskedPrompts, found: Readings) -> Tensor:
    return preferred(found.new_nats, found.true_nats)


def _new_leads(asked: AskedPrompts, found: Readings) -> Tensor:
    return magnitude(found.new_nats, found.true_nats)


def _true_wins(asked: AskedPrompts, found: Readings) -> Tensor:
    return preferred(found.true_nats, found.new_nats)


def _true_leads(asked: AskedPrompts, found: Readings) -> Tensor:
    return magnitude(found.true_nats, found.new_nats)


def _new_first(asked: AskedPrompts, found: Readings) -> Tensor:
    whole = (found.new_accuracy == 1).double()
    return whole.masked_fill(found.new_accuracy.isnan(), float("nan"))


METRICS: dict[str, EditMetric] = {
    "efficacy_score": _percent(
        "prompt", read=_new_wins, meaning="ES: the new object is likelier than the true one after the prompt; a tie is a failure"
    ),
    "efficacy_magnitude": _percent(
        "prompt", read=_new_leads, meaning="EM: probability of the new object less that of the true one after the prompt"
    ),
    "paraphrase_score": _percent("paraphrase", read=_new_wins, meaning="PS: as ES, after the paraphrases"),
    "paraphrase_magnitude": _percent("paraphrase", read=_new_leads, meaning="PM: as EM, after the paraphrases"),
    "neighbourhood_score": _percent(
        "neighbour", read=_true_wins, meaning="NS: the true object is likelier than the new one after prompts of other subjects"
    ),
    "neighbourhood_magnitude": _percent(
        "neighbour", read=_true_leads, meaning="NM: probability of the true object less that of the new one after those"
    ),
    "prompt_argmax": _percent(
        "prompt", read=_new_first, meaning="every token of the new object ranks first in its place after the prompt"
    ),
    "paraphrase_argmax": _percent("paraphrase", read=_new_first, meaning="the same after the paraphrases"),
    "neighbours_kept": _percent(
        "neighbour", read=lambda asked, found: asked.kept, compares=True,
        meaning="the same token ranks first after a neighbour's prompt before and after the edit",
    ),
    "unrelated_kept": _percent(
        "unrelated", read=lambda asked, found: asked.kept, compares=True, meaning="the same for unrelated prompts"
    ),
    "neighbour_kl": EditMetric(
        unit="nats", roles=("neighbour",), read=lambda asked, found: asked.kl_nats, compares=True,
        meaning="KL(before || after) of the next token after the neighbours' prompts",
    ),
    "unrelated_kl": EditMetric(
        unit="nats", roles=("unrelated",), read=lambda asked, found: asked.kl_nats, compares=True,
        meaning="the same after unrelated prompts",
    ),
    "rewrite_acc": _percent(
        "prompt", read=lambda asked, found: found.new_accuracy,
        meaning="EasyEdit: share of the new object's tokens that rank first in their place after the prompt",
    ),
    "rephrase_acc": _percent(
        "paraphrase", read=lambda asked, found: found.new_accuracy, meaning="EasyEdit: the same after the paraphrases"
    ),
    "portability_acc": _percent(
        "portability", read=lambda asked, found: found.true_accuracy,
        meaning="EasyEdit: share of the answer's tokens that rank first after prompts that follow from the new fact",
    ),
    "locality_acc": _percent(
        "neighbour", "locality", read=lambda asked, found: asked.same, compares=True,
        meaning="EasyEdit: share of the places of the answer's tokens, after neighbours and locality prompts, where the same token ranks "
        "first before and after; not whether it is right",
    ),
    "neighbourhood_acc": _percent(
        "neighbour", "locality", read=lambda asked, found: found.true_accuracy,
        meaning="zsRE in the ROME code: share of the true answer's tokens that rank first after neighbours and locality prompts",
    ),
}  # fmt: skip
"""Scores that are read from prompts. Each is a mean over the prompts of a case, then over cases."""

HARMONIC = ("efficacy_score", "paraphrase_score", "neighbourhood_score")
"""The parts of S."""


def samples_of(scores: "EditScores", name: str, when: str) -> Tensor | None:
    """A score of each case, the mean over its prompts: NaN for a case without them, None where nothing was measured.

    Unrelated prompts are no case's: of one edit each prompt is a sample, of several each edit is.
    """
    metric = METRICS[name]
    values, owners = [], []
    for role in metric.roles:
        asked = scores.asked.get(role)
        found = None if asked is None else asked.at(when)
        if asked is None or found is None or (metric.compares and when == "before"):
            continue
        part = metric.read(asked, found)
        if part is not None:
            values.append(part)
            owners.append(asked.case)
    if not values:
        return None
    joined, case = torch.cat(values).double(), torch.cat(owners)
    if metric.roles == ("unrelated",):
        return joined if scores.n_edits == 1 else mean_within(joined, case, scores.n_edits)
    return mean_within(joined, case, len(scores.cases))

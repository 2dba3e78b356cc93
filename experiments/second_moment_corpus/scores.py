"""The scores of each second moment's edits, fact by fact, and their differences from those of the default."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from experiments.rome.workshop import Workshop
from experiments.second_moment_corpus.edits import Written, cosines
from experiments.second_moment_corpus.moments import DEFAULT, Tried, apart
from interp.editing.evaluation import evaluate_edit
from interp.editing.evaluation_result import EditScores
from interp.maths.estimates import Estimate
from interp.maths.statistics import mean_estimates, paired_difference

SCORES = (
    "efficacy_score", "paraphrase_score", "neighbourhood_score", "paraphrase_argmax", "neighbours_kept", "neighbour_kl", "perplexity_ratio",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class Scored:
    """One second moment: ``samples`` hold each score of each fact (NaN where it was not measured), ``before`` those that there are
    before the edit. ``apart`` is |C - C'| / |C'| from the default C', ``plain`` and ``used`` the cosines of each fact's directions.
    """

    name: str
    n_tokens: int
    apart: float
    plain: Tensor
    used: Tensor
    drift: Tensor
    samples: dict[str, Tensor]
    before: dict[str, Tensor]

    def mean(self, name: str) -> Estimate:
        """The mean of a score over facts."""
        return mean_estimates(self.samples[name][:, None]).at(0)

    def less(self, other: "Scored", name: str) -> Estimate:
        """The mean difference of a score from the same facts' with another second moment."""
        return paired_difference(self.samples[name][:, None], other.samples[name][:, None]).at(0)


def score_all(shop: Workshop, tried: Sequence[Tried], written: Sequence[Written]) -> dict[str, Scored]:
    """Every second moment's edits scored, each edit alone for its own fact."""
    default = tried[0].matrix
    found = {}
    for one in tried:
        edits = [part.edits[one.name] for part in written]
        scores = evaluate_edit(shop.model, edits, shop.singles, texts=list(shop.texts[-shop.config.held_out :]))
        found[one.name] = Scored(
            name=one.name,
            n_tokens=one.moment.n_tokens,
            apart=apart(one.matrix, default),
            plain=cosines(written, one.name, DEFAULT, plain=True),
            used=cosines(written, one.name, DEFAULT, plain=False),
            drift=scores.drift.square().sum(1).sqrt(),
            samples=_samples(scores, "after"),
            before=_samples(scores, "before"),
        )
        shop.say(_shown(found[one.name]))
    return found


def _samples(scores: EditScores, when: str) -> dict[str, Tensor]:
    found: Mapping[str, Tensor | None] = {name: scores.samples(name, when) for name in SCORES}
    return {name: part for name, part in found.items() if part is not None and not bool(part.isnan().all())}


def _shown(one: Scored) -> str:
    cells = ", ".join(f"{name} {one.mean(name).value:.3g}" for name in one.samples)
    return f"{one.name}: {cells}, drift {float(one.drift.mean()):.3g}"

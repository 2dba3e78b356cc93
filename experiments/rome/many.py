"""Many edits: after one another by the default method, and at once by MEMIT."""

from collections.abc import Sequence
from dataclasses import dataclass

from experiments.rome.workshop import Workshop
from interp.editing.edit import Edit
from interp.editing.edit_sequence_result import join_edits
from interp.editing.evaluation import evaluate_edit
from interp.editing.evaluation_result import EditScores
from interp.editing.stack import applied


@dataclass(frozen=True, kw_only=True)
class Together:
    """What so many edits together did: shares in per cent, the perplexity over that before, |dW| / |W| of the layer it moved most."""

    how: str
    edits: int
    holding: float
    efficacy: float
    paraphrase: float
    neighbourhood: float
    neighbourhood_before: float
    kept: float
    perplexity_ratio: float
    drift: float


def one_after_another(shop: Workshop) -> list[Together]:
    """Edits by ``rome``, each on the model with those before, which it keeps, measured at some of them. Raises OutOfTime."""
    made: list[Edit] = []
    found = []
    for number in range(max(shop.config.sequence)):
        earlier = [case.fact for case in shop.cases[:number]]
        with applied(shop.model, *made):
            made.append(shop.edit(f"sequence-{number}", [shop.cases[number]], "rome", earlier))
        if len(made) in shop.config.sequence:
            found.append(_measured(shop, "one after another, rome", "sequence", made))
    return found


def at_once(shop: Workshop) -> list[Together]:
    """Edits of some facts in one go by ``memit``. Raises OutOfTime."""
    return [
        _measured(shop, "at once, memit", "batch", [shop.edit(f"batch-{n}", shop.cases[:n], "memit")])
        for n in shop.config.batches
    ]


def _measured(shop: Workshop, how: str, name: str, edits: Sequence[Edit]) -> Together:
    n_facts = sum(len(edit.facts) for edit in edits)
    path = shop.folder / f"{name}-scores-{n_facts}.safetensors"
    if not path.is_file():
        shop.check_time()
        texts = list(shop.texts[-shop.config.held_out_many :])
        evaluate_edit(shop.model, join_edits(edits), shop.cases[:n_facts], texts=texts).save(path)
        shop.say(f"{how}: {n_facts} edits")
    scores = EditScores.load(path)

    def value(score: str, when: str = "after") -> float:
        estimate = scores.estimate(score, when)
        return float("nan") if estimate is None else estimate.value

    return Together(
        how=how,
        edits=n_facts,
        holding=value("prompt_argmax"),
        efficacy=value("efficacy_score"),
        paraphrase=value("paraphrase_score"),
        neighbourhood=value("neighbourhood_score"),
        neighbourhood_before=value("neighbourhood_score", "before"),
        kept=value("neighbours_kept"),
        perplexity_ratio=value("perplexity_ratio"),
        drift=float(scores.drift.max()),
    )

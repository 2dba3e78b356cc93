"""What is measured while many edits are made: whether facts hold, and what the model says of other texts."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float64
from torch import Tensor

from interp.analyzers.ablation_texts import Item
from interp.analyzers.answers import read_answer
from interp.editing.answer_scores import Probe, hear
from interp.editing.cases import EditCase
from interp.editing.edit_sequence_kept import KeptSequence
from interp.editing.perplexity import text_losses
from interp.prompts import Fact
from interp.runner.model import Model


@dataclass(kw_only=True, eq=False)
class Watch:
    """What is measured at each check, on the model as it is then. Facts that are not edited yet are NaN."""

    model: Model
    facts: tuple[Fact, ...]
    cases: tuple[EditCase, ...]
    windows: Sequence[Item]
    kept: KeptSequence
    checked: list[int] = field(default_factory=list)
    accuracy: list[list[float]] = field(default_factory=list)
    new_nats: list[list[float]] = field(default_factory=list)
    true_nats: list[list[float]] = field(default_factory=list)
    perplexities: list[float] = field(default_factory=list)

    def check(self, edited: int) -> None:
        """Measures the facts edited so far and the texts, unless that is kept."""
        accuracy, new, true, perplexity = self.kept.check(edited, lambda: self._measured(edited)).tolist()
        self.checked.append(edited)
        self.accuracy.append(accuracy)
        self.new_nats.append(new)
        self.true_nats.append(true)
        if self.windows:
            self.perplexities.append(perplexity[0])

    def _measured(self, edited: int) -> Float64[Tensor, "measure fact"]:
        """Accuracy, nats of the new object, nats of the true one, and the perplexity, which is the same for every fact."""
        model = self.model
        probes = []
        for index, fact in enumerate(self.facts[:edited]):
            objects = (fact.target, self.cases[index].true) if self.cases else (fact.target,)
            answers = tuple(read_answer(model, text) for text in objects)
            probes.append(Probe(prompt=model.tokens(fact.prompt), answers=answers))
        heard = hear(model, probes)
        later = [float("nan")] * (len(self.facts) - edited)
        right = [
            sum(chosen == index for chosen, index in zip(one.choices[0], probe.answers[0].ids, strict=True))
            / len(probe.answers[0].ids)
            for one, probe in zip(heard, probes, strict=True)
        ]
        new, true = [one.nats[0] for one in heard], [one.nats[-1] for one in heard]
        perplexity = text_losses(model, self.windows).perplexity if self.windows else float("nan")
        rows = [[*right, *later], [*new, *later], [*true, *later], [perplexity] * len(self.facts)]
        return torch.tensor(rows, dtype=torch.float64)

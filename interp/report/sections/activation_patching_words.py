"""The words for a patching result: its sites, metric, cells and effects, in sentences and tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from interp.maths.estimates import Estimate, Estimates
from interp.report.blocks import Table
from interp.report.markup import Child, Html, element, join, quoted, token

SITES = {
    "resid_pre": "residual stream",
    "resid_mid": "residual stream after the attention",
    "resid_post": "residual stream after the layer",
    "attn_out": "attention output",
    "mlp_out": "MLP output",
    "attn.z": "head outputs",
    "attn.q": "queries",
    "attn.k": "keys",
    "attn.v": "values",
    "attn.pattern": "attention patterns",
}
METRICS = {
    "probability": "probability",
    "log_prob": "log-probability",
    "logit_difference": "logit difference",
    "kl": "KL divergence from the clean run",
}
_PAIRS = 20


@dataclass(frozen=True, kw_only=True, eq=False)
class Patched:
    """A patching result with its effects, which are estimated once, and the words for what it holds."""

    result: Any
    effects: Mapping[str, Estimates]
    places: tuple[str, ...]

    @classmethod
    def of(cls, result: Any) -> "Patched":
        """The result with the effects of all its sites."""
        effects = {site: result.effects(site) for site in result.sites}
        return cls(result=result, effects=effects, places=tuple(result.position_labels()))

    @property
    def measured(self) -> tuple[str, ...]:
        """The sites of which some effect could be measured."""
        return tuple(site for site, found in self.effects.items() if bool(found.value.isfinite().any()))

    @property
    def estimated(self) -> bool:
        """Whether the effects are estimates from gradients; no patch was made then."""
        return self.result.kind == "attribution_patching"

    @property
    def denoising(self) -> bool:
        """Whether clean states were put into the corrupted run."""
        return self.result.direction == "denoising"

    @property
    def verb(self) -> str:
        """What a patch does to the metric where its effect is above 0."""
        does = "restore" if self.denoising else "take away"
        if self.estimated:
            return f"is estimated to {does}"
        return "restores" if self.denoising else "takes away"

    @property
    def metric(self) -> str:
        """The metric in words."""
        name: str = self.result.metric
        return METRICS.get(name, name.replace("_", " "))

    @property
    def metric_with_unit(self) -> str:
        """The metric in words with its unit, for the head of a column."""
        unit = self.result.metric_unit
        return f"{self.metric} ({unit})" if unit not in ("", self.result.metric) else self.metric

    def arrays(self, site: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The effects of a site with their lower and upper bounds."""
        found = self.effects[site]
        return found.value.double().numpy(), found.lower.double().numpy(), found.upper.double().numpy()

    def means(self, site: str) -> np.ndarray:
        """The metric of the patched runs, in the mean over pairs."""
        return self.result.patched[site].double().mean(0).numpy()

    def shared_heads(self, site: str) -> bool:
        """Whether the heads of a site are key/value heads that several query heads share."""
        served = self.result.query_heads(site)
        return bool(served) and len(served[0]) > 1

    def place(self, position: int) -> Html:
        """A position with its token, or both tokens where they differ."""
        return join([element("bdi", self.places[position]), f" (position {position})"])

    def head(self, site: str, layer: int, head: int) -> str:
        """A head by its name, or a key/value head with the query heads that share it."""
        if not self.shared_heads(site):
            return f"L{layer}H{head}"
        served = self.result.query_heads(site)[head]
        return f"L{layer} key/value head {head} (of heads {served[0]} to {served[-1]})"

    def cell(self, cell: Any) -> Html:
        """Where one patch was made."""
        name = f"layer {cell.layer}" if cell.head is None else self.head(cell.site, cell.layer, cell.head)
        return join([name] if cell.position is None else [name, " at ", self.place(cell.position)])


def site_name(site: str) -> str:
    """A site in words."""
    return SITES.get(site, site)


def capital(text: str) -> str:
    """``text`` with its first letter large."""
    return text[:1].upper() + text[1:]


def layers_said(layers: Sequence[int]) -> str:
    """Layers in words, as stretches: ``layers 0 to 4 and 7``."""
    stretches: list[list[int]] = []
    for layer in layers:
        if stretches and layer == stretches[-1][-1] + 1:
            stretches[-1].append(layer)
        else:
            stretches.append([layer])
    named = [str(one[0]) if len(one) == 1 else f"{one[0]} to {one[-1]}" for one in stretches]
    said = named[0] if len(named) == 1 else f"{', '.join(named[:-1])} and {named[-1]}"
    return f"layer{'s'[: len(layers) > 1]} {said}"


def listed(parts: Sequence[Child]) -> Html:
    """``a``, ``a and b`` or ``a, b and c``."""
    if len(parts) == 1:
        return join(parts)
    return join([join(parts[:-1], ", "), " and ", parts[-1]])


def share(effect: Estimate) -> str:
    """An effect with its interval, where it has one."""
    return f"{amount(effect.value, 2)}{bounds(effect)}"


def bounds(estimate: Estimate, digits: int = 2) -> str:
    """The interval of an estimate in brackets; nothing where there is none."""
    return f" ({interval(estimate, digits)})" if np.isfinite(estimate.lower) else ""


def interval(estimate: Estimate, digits: int = 3) -> str:
    """The bounds of an estimate."""
    return f"{amount(estimate.lower, digits)} to {amount(estimate.upper, digits)}"


def amount(value: float, digits: int = 3) -> str:
    """A number to ``digits`` decimals, a small one to two digits, with a minus as wide as a plus."""
    small = 0 < abs(value) < 10.0**-digits
    return f"{value:.{'2g' if small else f'{digits}f'}}".replace("-", "−")  # noqa: RUF001


def prompt_pairs(result: Any, said: str) -> Table:
    """Both prompts of each pair with their answers, and the metric before anything is patched; ``said`` goes on with the caption."""
    rows: list[list[Child]] = [
        [
            quoted(result.clean[index].text),
            quoted(result.corrupted[index].text),
            token(result.answers[index].text),
            token(result.against[index].text) if result.against else "nothing",
            amount(float(result.clean_metric[index])),
            amount(float(result.corrupted_metric[index])),
        ]
        for index in range(min(result.n_pairs, _PAIRS))
    ]
    which = f", the first {_PAIRS} of {result.n_pairs}" if result.n_pairs > _PAIRS else ""
    return Table(
        columns=("clean prompt", "corrupted prompt", "answer", "against", "clean", "corrupted"),
        rows=rows,
        numeric=frozenset({4, 5}),
        caption=f"The prompts{which}{said}",
        long=True,
    )

"""What attribution patching ends in: an estimate of the patched metric in every cell, and the exact one in some of them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.analyzers.activation_patching_result import ActivationPatchingResult
from interp.errors import UsageError, unknown
from interp.maths.attribution_patching import rank_correlation
from interp.maths.estimates import Estimate
from interp.maths.statistics import bootstrap_estimates

if TYPE_CHECKING:
    from pandas import DataFrame
    from plotly.graph_objects import Figure


@dataclass(frozen=True, kw_only=True, eq=False)
class CheckedCells:
    """Cells of single pairs whose patch was also run: what it changes, patched - base in the metric's unit, estimated and exact.

    ``site`` is the place in the result's ``sites``; ``head`` and ``position`` are -1 where a cell is not told apart by them. They were
    drawn at random out of ``n_cells``, all in which something can change.
    """

    site: Int[Tensor, " row"]
    pair: Int[Tensor, " row"]
    layer: Int[Tensor, " row"]
    head: Int[Tensor, " row"]
    position: Int[Tensor, " row"]
    estimated: Float[Tensor, " row"]
    exact: Float[Tensor, " row"]
    n_cells: int


@dataclass(frozen=True, kw_only=True, eq=False)
class AttributionPatchingResult(ActivationPatchingResult):
    """A first-order estimate of activation patching, in the form of its result: ``patched`` is the estimated metric of each cell.

    ``steps`` is 1 for the gradient at the base run, more for integrated gradients. ``checked`` holds the cells that were also patched,
    None where none were: then nothing is known of how good the estimates are. ``correlation`` is Spearman's rank correlation of
    estimated and exact changes over them, with a bootstrap interval over cells; NaN where either does not vary.
    """

    kind: ClassVar[str] = "attribution_patching"
    schema_version: ClassVar[int] = 1

    steps: int
    checked: CheckedCells | None
    correlation: Estimate | None

    @property
    def n_checked(self) -> int:
        """The number of cells that were also patched exactly."""
        return 0 if self.checked is None else len(self.checked.exact)

    def estimated(self, site: str) -> Float[Tensor, "batch layer ..."]:
        """The estimated change of the metric, patched - base in ``metric_unit``, with the axes of ``patched``."""
        patched = self._patched(site).double()
        base = self.corrupted_metric if self.direction == "denoising" else self.clean_metric
        return patched - base.double().reshape(-1, *[1] * (patched.dim() - 1))

    def correlation_of(self, site: str) -> Estimate:
        """The rank correlation over the checked cells of one site. Raises UsageError where nothing was checked."""
        if site not in self.sites:
            raise unknown("patched site", site, self.sites)
        if self.checked is None:
            raise UsageError("no cell of these estimates was checked; run again with check=100")
        own = self.checked.site == self.sites.index(site)
        return agreement(self.checked.estimated[own], self.checked.exact[own], self.confidence, self.seed)

    def to_frame(self) -> "DataFrame":
        """As for activation patching, with ``patched_estimate`` for the estimated metric; ``effect`` is estimated as well."""
        return super().to_frame().rename(columns={"patched": "patched_estimate"})

    def checked_frame(self) -> "DataFrame":
        """One line for each checked cell of one pair: estimated and exact change, patched - base in ``unit``; empty if none was."""
        import pandas as pd

        cells = self.checked
        if cells is None:
            return pd.DataFrame()
        return pd.DataFrame(
            {
                "site": [self.sites[index] for index in cells.site.tolist()],
                "pair": cells.pair.tolist(),
                "layer": cells.layer.tolist(),
                "head": [None if head < 0 else head for head in cells.head.tolist()],
                "position": [None if position < 0 else position for position in cells.position.tolist()],
                "estimated": cells.estimated.tolist(),
                "exact": cells.exact.tolist(),
                "unit": self.metric_unit,
            }
        )

    def agreement_figure(self) -> "Figure":
        """Each checked cell: exact change against estimated. Raises UsageError where nothing was checked."""
        from interp.figures.attribution_patching import agreement_plot

        if self.checked is None or self.correlation is None:
            raise UsageError("no cell of these estimates was checked; run again with check=100")
        frame = self.checked_frame()
        names = [self._cell_name(*row) for row in frame[["site", "pair", "layer", "head", "position"]].to_numpy(object)]
        return agreement_plot(
            self.checked.estimated.numpy(),
            self.checked.exact.numpy(),
            names,
            [self.sites[index] for index in self.checked.site.tolist()],
            unit=self.metric_unit,
        )

    def _cell_name(self, site: str, pair: int, layer: int, head: int | None, position: int | None) -> str:
        place = f"L{layer}" + ("" if head is None or head != head else f"H{int(head)}")
        if position is not None and position == position:
            token = self.clean[pair].labels[int(position)] if int(position) < len(self.clean[pair]) else "answer"
            place += f" at {token} ({int(position)})"
        return f"{site} {place}, pair {pair}"

    def _title(self) -> str:
        return f"{super()._title()}, estimated"


def agreement(estimated: Float[Tensor, " row"], exact: Float[Tensor, " row"], confidence: float, seed: int) -> Estimate:
    """Spearman's rank correlation with its percentile bootstrap interval over cells."""
    return bootstrap_estimates(
        torch.stack([estimated, exact], -1).double(),
        rank_correlation,
        torch.Generator().manual_seed(seed),
        confidence=confidence,
    ).at()

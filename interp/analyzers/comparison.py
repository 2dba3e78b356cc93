"""What comparing two results ends in: their quantities on shared axes, with the differences, and what could not be put side by side."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import unknown
from interp.results import Provenance, Result
from interp.tokens import Tokens

if TYPE_CHECKING:
    from pandas import DataFrame
    from plotly.graph_objects import Figure


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two results: what it is called, the text of its prompt ("" where it has none) and where it comes from.

    ``tokens`` are those that the result is about, None where it has no prompt; ``positions`` are theirs in the prompt.
    """

    name: str
    text: str
    provenance: Provenance
    tokens: Tokens | None
    positions: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Quantity:
    """One quantity of both results over rows and columns that they share.

    ``a`` and ``b`` are None for a distance between the two, which neither has alone. ``difference`` is b - a, NaN where one of them has
    no value or the two are not of the same thing; ``lower`` and ``upper`` are the bounds of its interval where both are estimated from
    samples. ``a_texts`` and ``b_texts`` say what the cells are about where that can differ, such as the likeliest token.
    ``row_layers`` are the layers of the rows, None for one that belongs to none; ``column_heads`` the numbers of the heads where
    columns are heads, else empty.
    """

    name: str
    title: str
    unit: str
    row_axis: str
    column_axis: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    row_layers: tuple[int | None, ...]
    column_heads: tuple[int, ...]
    a: Float[Tensor, "row column"] | None
    b: Float[Tensor, "row column"] | None
    difference: Float[Tensor, "row column"]
    lower: Float[Tensor, "row column"] | None
    upper: Float[Tensor, "row column"] | None
    a_texts: tuple[tuple[str, ...], ...] | None
    b_texts: tuple[tuple[str, ...], ...] | None


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A number of each whole result, which needs no shared axes; NaN where there is none. The texts say what it is of."""

    name: str
    unit: str
    a: float
    b: float
    a_text: str = ""
    b_text: str = ""

    @property
    def difference(self) -> float:
        """Side b less side a."""
        return self.b - self.a


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell of a quantity: where it is, both values, their difference and its bounds; NaN for what there is not."""

    row: str
    column: str
    a: float
    b: float
    difference: float
    lower: float
    upper: float
    a_text: str
    b_text: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison(Result):
    """Two results of one kind, ``compared``, side by side.

    ``aligned`` says how rows and columns were brought together, ``not_aligned`` what could not be and why: for that there are only the
    ``summaries``. Nothing is filled in. ``provenance`` is that of side a. ``pairs`` are the tokens that stand side by side, each as its
    place among the tokens of a and of b; columns that are tokens are these, in this order.
    """

    kind: ClassVar[str] = "comparison"
    schema_version: ClassVar[int] = 2

    compared: str
    a: Side
    b: Side
    quantities: tuple[Quantity, ...]
    summaries: tuple[Summary, ...]
    aligned: tuple[str, ...]
    not_aligned: tuple[str, ...]
    pairs: tuple[tuple[int, int], ...]

    def quantity(self, name: str | None = None) -> Quantity:
        """A quantity by its name; None: the first. Raises UsageError for an unknown one, or where there is none at all."""
        for quantity in self.quantities:
            if name in (None, quantity.name):
                return quantity
        raise unknown("quantity of this comparison", name, [quantity.name for quantity in self.quantities] or ["none"])

    def largest(self, name: str | None = None, k: int = 10) -> tuple[Cell, ...]:
        """The ``k`` cells of a quantity that differ most, the greatest difference first; cells without a difference are left out."""
        quantity = self.quantity(name)
        sizes = quantity.difference.abs().flatten().nan_to_num(nan=-1.0)
        order = torch.argsort(sizes, descending=True, stable=True)[:k].tolist()
        width = len(quantity.columns)
        return tuple(_cell(quantity, *divmod(index, width)) for index in order if float(sizes[index]) >= 0)

    def to_frame(self) -> "DataFrame":
        """One line for each cell of each quantity. ``unit`` says what a, b, difference and its bounds are in."""
        import pandas as pd

        lines = []
        for quantity in self.quantities:
            head = {"quantity": quantity.name, "unit": quantity.unit}
            for row in range(len(quantity.rows)):
                for column in range(len(quantity.columns)):
                    lines.append(head | vars(_cell(quantity, row, column)))
        return pd.DataFrame(lines)

    def summary_frame(self) -> "DataFrame":
        """One line for each summary."""
        import pandas as pd

        return pd.DataFrame([vars(summary) | {"difference": summary.difference} for summary in self.summaries])

    def figure(self, quantity: str | None = None) -> "Figure":
        """A, B and B - A side by side; ``quantity`` is the name of one of ``quantities``, by default the first."""
        from interp.figures.comparison import side_by_side

        shown = self.quantity(quantity)
        return side_by_side(
            None if shown.a is None else shown.a.double().numpy(),
            None if shown.b is None else shown.b.double().numpy(),
            shown.difference.double().numpy(),
            rows=shown.rows,
            columns=shown.columns,
            names=(self.a.name, self.b.name),
            title=shown.title,
            unit=shown.unit,
            texts=None if shown.a_texts is None or shown.b_texts is None else (shown.a_texts, shown.b_texts),
        )


def _cell(quantity: Quantity, row: int, column: int) -> Cell:
    def number(values: Tensor | None) -> float:
        return float("nan") if values is None else float(values[row, column])

    def text(texts: tuple[tuple[str, ...], ...] | None) -> str:
        return "" if texts is None else texts[row][column]

    return Cell(
        row=quantity.rows[row],
        column=quantity.columns[column],
        a=number(quantity.a),
        b=number(quantity.b),
        difference=number(quantity.difference),
        lower=number(quantity.lower),
        upper=number(quantity.upper),
        a_text=text(quantity.a_texts),
        b_text=text(quantity.b_texts),
    )

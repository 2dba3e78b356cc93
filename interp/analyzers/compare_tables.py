"""Values of two results as a quantity on the axes that they share."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.analyzers.compare_axes import Shared
from interp.analyzers.comparison import Quantity
from interp.maths.estimates import Estimates
from interp.maths.statistics import unpaired_difference


def on_shared(
    name: str,
    rows: Shared,
    columns: Shared,
    a: Float[Tensor, "..."],
    b: Float[Tensor, "..."],
    *,
    title: str,
    unit: str,
    axes: tuple[str, str],
    same: Bool[Tensor, " column"] | None = None,
    texts: tuple[Callable[[int, int], str], Callable[[int, int], str]] | None = None,
) -> Quantity:
    """``a`` and ``b``, each [row column] on the whole axes of its own result, where these are shared.

    ``same`` is False for shared columns whose values are of two different things, which have no difference. ``texts`` say what a cell is
    about, from its row and column in the result.
    """
    left, right = _taken(a, rows.a, columns.a), _taken(b, rows.b, columns.b)
    difference = right - left
    if same is not None:
        difference = difference.masked_fill(~same, float("nan"))
    written = None
    if texts is not None:
        written = tuple(
            tuple(tuple(text(row, column) for column in at_columns) for row in at_rows)
            for text, at_rows, at_columns in ((texts[0], rows.a, columns.a), (texts[1], rows.b, columns.b))
        )
    return Quantity(
        name=name,
        title=title,
        unit=unit,
        row_axis=axes[0],
        column_axis=axes[1],
        rows=rows.labels,
        columns=columns.labels,
        row_layers=rows.numbers,
        column_heads=heads_of(columns),
        a=left,
        b=right,
        difference=difference,
        lower=None,
        upper=None,
        a_texts=None if written is None else written[0],
        b_texts=None if written is None else written[1],
    )


def estimated_on_shared(
    name: str,
    rows: Shared,
    columns: Shared,
    a: Estimates,
    b: Estimates,
    *,
    confidence: float | None,
    title: str,
    unit: str,
    axes: tuple[str, str],
) -> Quantity:
    """As ``on_shared`` for estimates [row column], with Welch's interval of each difference.

    ``confidence`` is that of the intervals of both; None, where they are of two, gives no interval.
    """
    left, right = _estimates(a, rows.a, columns.a), _estimates(b, rows.b, columns.b)
    difference = None if confidence is None else unpaired_difference(right, left, confidence)
    return Quantity(
        name=name,
        title=title,
        unit=unit,
        row_axis=axes[0],
        column_axis=axes[1],
        rows=rows.labels,
        columns=columns.labels,
        row_layers=rows.numbers,
        column_heads=heads_of(columns),
        a=left.value.float(),
        b=right.value.float(),
        difference=(right.value - left.value).float(),
        lower=None if difference is None else difference.lower.float(),
        upper=None if difference is None else difference.upper.float(),
        a_texts=None,
        b_texts=None,
    )


def heads_of(columns: Shared) -> tuple[int, ...]:
    """The numbers of the heads that columns stand for; none where they are something else."""
    return tuple(number for number in columns.numbers if number is not None)


def one_column(name: str) -> Shared:
    """An axis with a single place."""
    return Shared(labels=(name,), a=(0,), b=(0,))


def _taken(values: Tensor, rows: Sequence[int], columns: Sequence[int]) -> Float[Tensor, "row column"]:
    return values.detach().cpu().float()[torch.tensor(rows)][:, torch.tensor(columns)]


def _estimates(every: Estimates, rows: Sequence[int], columns: Sequence[int]) -> Estimates:
    def taken(values: Tensor) -> Tensor:
        return values.cpu()[torch.tensor(rows)][:, torch.tensor(columns)]

    return Estimates(value=taken(every.value), lower=taken(every.lower), upper=taken(every.upper), n=taken(every.n))

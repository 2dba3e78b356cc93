"""The cells of a comparison that differ most as the rows of a table, before its numbers are written as text."""

from dataclasses import dataclass

from interp.analyzers.comparison import Cell, Comparison, Quantity


@dataclass(frozen=True, kw_only=True)
class LargestCells:
    """The cells of one quantity that differ most, and the names of the columns that say where they are and what they hold.

    A quantity with one number a row has no second place; a distance between the two has no sides; only estimates have intervals.
    """

    quantity: Quantity
    places: tuple[str, ...]
    numbers: tuple[str, ...]
    cells: tuple[Cell, ...]

    def places_of(self, cell: Cell) -> tuple[str, ...]:
        """Where a cell is: its row and, where there are several, its column."""
        return (cell.row, cell.column)[: len(self.places)]

    def sides_of(self, cell: Cell) -> tuple[tuple[str, float], ...]:
        """What each side holds there, with what it is about where the two differ in that."""
        if self.quantity.a is None:
            return ()
        texts = (cell.a_text, cell.b_text) if cell.a_text != cell.b_text else ("", "")
        return ((texts[0], cell.a), (texts[1], cell.b))

    @property
    def bounded(self) -> bool:
        """Whether the differences have intervals."""
        return self.quantity.lower is not None


def largest_cells(found: Comparison, k: int, names: tuple[str, str]) -> LargestCells:
    """The ``k`` cells of the first quantity that differ most; ``names`` are what the two sides are called."""
    quantity = found.quantity()
    places = (quantity.row_axis, quantity.column_axis)[: 1 + (len(quantity.columns) > 1)]
    sides = names if quantity.a is not None else ()
    numbers = (*sides, "difference", *(("interval",) if quantity.lower is not None else ()))
    return LargestCells(quantity=quantity, places=places, numbers=numbers, cells=found.largest(k=k))

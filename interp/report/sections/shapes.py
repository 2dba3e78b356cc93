"""Shapes as the page writes them."""

from collections.abc import Sequence


def product(sizes: Sequence[int]) -> str:
    """The sizes of a shape, such as 10 × 9 × 64."""
    return " × ".join(f"{size:,}" for size in sizes)  # noqa: RUF001

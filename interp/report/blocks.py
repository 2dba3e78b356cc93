"""What a section of the page is made of: sentences, tables, pictures and tables that follow the selection."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from interp.report.arrays import Mapped, Words
from interp.report.markup import Child
from interp.tokens import Tokens

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """The tokens that results on the page are about, with their places in the prompt."""

    tokens: Tokens
    positions: tuple[int, ...]

    @classmethod
    def of(cls, result: Any) -> "Prompt | None":
        """The prompt of a result; None for a result that has no tokens."""
        tokens = getattr(result, "tokens", None)
        if not isinstance(tokens, Tokens):
            return None
        return cls(tokens=tokens, positions=tuple(getattr(result, "positions", range(len(tokens)))))


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table, written into the page as HTML. ``numeric`` columns (by index) are set flush right."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Child]]
    numeric: frozenset[int] = frozenset()
    caption: Child | None = None
    long: bool = False
    """Whether it may be so long that it scrolls by itself."""
    follows: str | None = None
    """The prompt whose selected token marks a row, where rows are its tokens."""


@dataclass(frozen=True, kw_only=True)
class Axis:
    """What the positions on one axis of a picture stand for, so that a click selects it everywhere.

    ``of`` is ``"token"`` (the tokens of the picture's prompt) or ``"layer"``; ``layers`` then gives the layer of each position, None
    for one that is no layer, and ``labels`` what to call it.
    """

    of: str
    layers: tuple[int | None, ...] = ()
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Cells:
    """What the cells of a map say, so that the page can write it itself: the row, ``link``, the token, and the ``best`` tokens.

    ``probs`` are the probabilities of the best, in their order.
    """

    rows: Sequence[str]
    link: str
    best: Words | None = None
    probs: Sequence[np.ndarray] = ()


@dataclass(frozen=True, kw_only=True)
class Version:
    """One version of a picture.

    ``follow`` says what changes with the selected token: for each trace, properties and where to take them from, a column of a
    matrix [layer pos] or an item of a sequence [pos]. Without it the picture does not depend on the selection. ``cells`` says what
    the texts of a map are.
    """

    figure: "Figure"
    follow: Sequence[Mapping[str, Any]] = ()
    x: Axis | None = None
    y: Axis | None = None
    cells: Cells | None = None


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure in one or several versions, named by the words on the switch between them."""

    versions: Mapping[str, Version]
    caption: str
    prompt: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Line:
    """A line of a linked table: fixed text, or what matrices hold in the row that ``rows`` names for each layer of the table."""

    cells: Sequence[str | np.ndarray | Mapped | Words]
    rows: Sequence[int | None]
    """None where the line is missing at a layer."""


@dataclass(frozen=True, kw_only=True)
class LinkedTable:
    """A table for the selected layer and token."""

    columns: Sequence[str]
    lines: Sequence[Line]
    layers: tuple[int, ...]
    caption: str
    prompt: str


Block: TypeAlias = Child | Table | Picture | LinkedTable


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A measured fact in one sentence, for the head of the page; ``rank`` 0 comes first."""

    text: Child
    rank: int


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page: ``lead`` says in plain words what it is and how to read it (with ``[[terms]]`` of the glossary)."""

    name: str
    title: str
    label: str
    """The title in a word or two, for links to the section."""
    lead: str
    place: int
    blocks: Sequence[Block]
    findings: Sequence[Finding] = field(default=())

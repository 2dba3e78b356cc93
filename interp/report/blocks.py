"""What a section of the page is made of: sentences, tables, pictures, tables that follow the selection, mosaics of heads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from jaxtyping import Float, UInt8

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
    def all_of(cls, result: Any) -> "tuple[Prompt, ...]":
        """The prompt of a result, or those of both sides of a comparison; empty for a result that has none."""
        found = (cls.of(result.a), cls.of(result.b)) if result.kind == "comparison" else (cls.of(result),)
        return tuple(prompt for prompt in found if prompt is not None)

    @classmethod
    def of(cls, result: Any) -> "Prompt | None":
        """The prompt of a result, its ``tokens`` or ``prompt``; None for a result that has neither."""
        tokens = getattr(result, "tokens", getattr(result, "prompt", None))
        if not isinstance(tokens, Tokens):
            return None
        return cls(tokens=tokens, positions=tuple(getattr(result, "positions", range(len(tokens)))))

    def is_part_of(self, other: "Prompt") -> bool:
        """Whether the other has more positions of the same text, and all of these."""
        return self.tokens.text == other.tokens.text and set(self.positions) < set(other.positions)


@dataclass(frozen=True, kw_only=True)
class Place:
    """What a row of a table is about, so that it can be chosen there: any of a token (its place among the prompt's), layer and head."""

    token: int | None = None
    layer: int | None = None
    head: int | None = None


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table, written into the page as HTML. ``numeric`` columns (by index) are set flush right.

    Every table can be copied and downloaded as CSV and JSON. A cell that is nothing but a head's name, such as L5H3, chooses that head.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Child]]
    numeric: frozenset[int] = frozenset()
    caption: Child | None = None
    long: bool = False
    """Whether it may be so long that it scrolls by itself."""
    follows: str | None = None
    """The prompt whose selected token marks a row, where rows are its tokens; a click on a row chooses its token."""
    places: Sequence[Place] = ()
    """For each row what its first cell chooses; none unless given."""
    prompt: str | None = None
    """The prompt that the tokens of ``places`` belong to."""


@dataclass(frozen=True, kw_only=True)
class Axis:
    """What the positions on one axis of a picture stand for, so that a click selects it everywhere and the selection is marked.

    ``of`` is ``"token"`` (the tokens of the picture's prompt), ``"layer"`` or ``"head"``; another word names an axis that selects nothing
    and whose ``labels`` head the rows of the picture's table. For layers ``layers`` gives the layer of
    each position, None for one that is no layer, and ``labels`` what to call it. For heads ``heads`` gives the number of the head
    in its block; labels are these numbers unless given. A [layer head] map, where a click chooses the head, is thus::

        Version(figure, x=Axis(of="head", heads=tuple(range(n_heads))), y=Axis(of="layer", layers=layers, labels=labels))

    Where each position is one head of one layer (bars of the best heads), one axis says both::

        Axis(of="head", heads=(6, 3), layers=(18, 17), labels=("L18H6", "L17H3"))

    Any other word for ``of`` names what the ``labels`` are, in the table behind the picture; a click there selects nothing.

    Side by side stand the tokens of two prompts: ``of`` is then ``"pair"``, and ``pairs`` gives each place its token in the first and in
    the second of ``prompts``. A head or a pair that is None is a gap between two panels, which holds nothing.

    A page with a head axis has a control for the head; what shows the selected head is a ``LinkedTable(by="head")``.
    """

    of: str
    layers: tuple[int | None, ...] = ()
    labels: tuple[str, ...] = ()
    heads: tuple[int | None, ...] = ()
    prompts: tuple[str, ...] = ()
    pairs: tuple[tuple[int, int] | None, ...] = ()


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
    """A figure in one or several versions, named by the words on the switch between them.

    ``start`` is a layer and a token's place to be selected first, on a page whose pictures of this prompt all name one; the first
    one's is taken. Elsewhere the last layer and the last token are.
    """

    versions: Mapping[str, Version]
    caption: str
    prompt: str
    start: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Line:
    """A line of a linked table: fixed text, or what matrices hold in the row that ``rows`` names for each layer of the table."""

    cells: Sequence[str | np.ndarray | Mapped | Words]
    rows: Sequence[int | None]
    """None where the line is missing at a layer."""


@dataclass(frozen=True, kw_only=True)
class LinkedTable:
    """A table for the selected layer and token or, with ``by="head"``, for the selected head of the selected layer.

    Its matrices then are [layer head].
    """

    columns: Sequence[str]
    lines: Sequence[Line]
    layers: tuple[int, ...]
    caption: str
    prompt: str
    by: str = "token"


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadScore:
    """A number for each head, which the heads can be sorted by: the greatest first, or with ``least_first`` the least."""

    label: str
    values: Float[np.ndarray, "layer head"]
    least_first: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadMosaic:
    """Patterns of all heads as one mosaic, with the selected one beside it and the tokens that its query looks at.

    ``codes`` are the patterns in 255ths, their lower triangles query by query. ``windows`` are those of the layers, None for one that
    sees everything before it. ``norms`` are those of what each key would give, for patterns weighted by them; ``detail`` is the figure
    of one head, whose numbers the page fills in. ``start`` is the layer and head to be selected first where the page shows nothing
    but mosaics; elsewhere the last layer and head 0 are. Each row and column of a pattern stands for ``step`` tokens, the last for
    the rest.
    """

    codes: UInt8[np.ndarray, "layer head pair"]
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    kv_heads: tuple[int, ...]
    windows: tuple[int | None, ...]
    norms: Float[np.ndarray, "layer head key_pos"] | None
    scores: Sequence[HeadScore]
    start: tuple[int, int]
    detail: "Figure"
    caption: str
    prompt: str
    step: int = 1


Block: TypeAlias = Child | Table | Picture | LinkedTable | HeadMosaic


class Evidence(IntEnum):
    """What a finding stands on. At the head of a page the lower comes first; any number between two of them will do as well."""

    ANSWER = 10  # what the model says, or says after an edit
    CAUSED = 20  # what changes when something is changed: tracing, patching, ablation
    READ = 30  # what can be read off the model's states or weights
    HABIT = 40  # what is the case without being shown to matter
    CHECK = 50  # that something holds which ought to


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A measured fact in one sentence, for the head of the page.

    ``rank`` is the ``Evidence`` that it stands on. ``strength`` orders findings of one rank: how much of what could be there is there, 0 to
    1, and 0 where an interval reaches what chance gives. ``value`` is the number of the sentence in ``unit``, with its ``interval`` and
    what chance or nothing would give, its ``null``, where they were measured. ``block`` is the block of its section that shows it;
    None: the first picture.
    """

    text: Child
    rank: int
    strength: float = 0.0
    value: float | None = None
    unit: str = ""
    interval: tuple[float, float] | None = None
    null: float | None = None
    block: int | None = None


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

"""What is measured of a head, against which null, and when that gives the head a name."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.errors import UsageError
from interp.heads import Head
from interp.maths.estimates import Estimate
from interp.maths.head_profiles import CONTENT, EXPLAINED, SHAPE, position_names
from interp.maths.statistics import benjamini_hochberg, p_values

SHARE = "share of attention"
KEYS_PERMUTED = "the same row with its weights dealt to the visible keys at random (exact)"
CONTENT_SHUFFLED = "the same places in the same prompt with its tokens shuffled"
EVEN = "even attention to the visible keys, the greatest entropy there is (exact)"
ALL_SHUFFLED = "the same measure on the prompts with their tokens shuffled"

_CLASSES = {
    "previous_token": "previous-token head",
    "current_token": "current-token head",
    "first_token": "first-token (sink) head",
    "duplicate_tokens": "duplicate-token head",
    "induction_targets": "induction head candidate",
    "punctuation": "punctuation head",
    "local_window": "local head",
}


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One quantity: its ``name`` and ``unit``, what its ``null`` is, and the class of head that it names.

    A class is given where the value exceeds the null by more than ``margin``; both are None for a measure that names no class.
    """

    name: str
    unit: str
    null: str
    head_class: str | None = None
    margin: float | None = None

    @property
    def single_place(self) -> bool:
        """Whether it looks at one key at a fixed distance."""
        return self.name in ("previous_token", "current_token") or self.name.startswith("back_")


@dataclass(frozen=True, kw_only=True)
class NamedHead:
    """A head that does one thing beyond its null: the evidence for one class."""

    head: Head
    head_class: str
    measure: str
    value: Estimate
    null: Estimate
    p: float


def measures_of(n_back: int, margin: float, sink_margin: float) -> tuple[Measure, ...]:
    """What is measured, in the order of a result's first axis."""
    classes = _CLASSES | {f"back_{offset}": f"{offset}-back head" for offset in range(2, n_back + 1)}
    named = [
        Measure(
            name=name,
            unit=SHARE,
            null=CONTENT_SHUFFLED if name in CONTENT else KEYS_PERMUTED,
            head_class=classes[name],
            margin=sink_margin if name == "first_token" else margin,
        )
        for name in (*position_names(n_back), *CONTENT)
    ]
    units, nulls = ("nats", "share of the greatest", "tokens"), (EVEN, EVEN, KEYS_PERMUTED)
    shape = [Measure(name=n, unit=unit, null=null) for n, unit, null in zip(SHAPE, units, nulls, strict=True)]
    return (*named, *shape, Measure(name=EXPLAINED, unit="share of the variance", null=ALL_SHUFFLED))


def naming_p_values(
    excess: Float[Tensor, "sample measure layer head"], measures: Sequence[Measure]
) -> Float[Tensor, "measure layer head"]:
    """One-sided p values that a measure's excess over its null lies above its margin; NaN for a measure that names no class."""
    rows = [
        torch.full(excess.shape[2:], float("nan"), dtype=torch.float64)
        if measure.margin is None
        else p_values(excess[:, index], measure.margin)
        for index, measure in enumerate(measures)
    ]
    return torch.stack(rows)


def named(
    p: Float[Tensor, "measure layer head"],
    excess: Float[Tensor, "measure layer head"],
    measures: Sequence[Measure],
    rate: float,
) -> Bool[Tensor, "measure layer head"]:
    """The classes that heads get: discoveries at the false-discovery ``rate`` over all heads and classes together.

    A head gets the name of one single place only, that of the greatest excess, and is called local only where no single place names it.
    """
    found = benjamini_hochberg(p, rate)
    single = [index for index, measure in enumerate(measures) if measure.single_place]
    best = torch.where(found[single], excess[single], -torch.inf).argmax(0)
    found[single] &= torch.arange(len(single))[:, None, None] == best
    local = [measure.name for measure in measures].index("local_window")
    found[local] &= ~found[single].any(0)
    return found


def check_options(**options: int | float) -> None:
    """Raises UsageError for an option out of its range. Confidence and rate are checked where they are used."""
    least = {"n_back": 1, "local": 2, "n_shuffles": 1}
    for name, lowest in least.items():
        if options[name] < lowest:
            raise UsageError(f"{name} is {options[name]}; give {lowest} or more")
    for name in ("confidence", "rate"):
        if not 0 < options[name] < 1:
            raise UsageError(f"{name} is {options[name]}; valid: between 0 and 1, both excluded")
    for name in ("margin", "sink_margin"):
        if not 0 <= options[name] < 1:
            raise UsageError(f"{name} is {options[name]}; valid: 0 up to, not including, 1 (a share of attention)")

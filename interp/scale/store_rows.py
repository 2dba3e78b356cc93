"""Rows of a store in memory: activations, and for each row the token that they are of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from interp.errors import UsageError
from interp.sites import KINDS, parse_sites

if TYPE_CHECKING:
    from pandas import DataFrame

COLUMNS = ("document", "window", "position", "token")


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """Activations of some tokens, a tensor a site with a row a token, and which tokens they are.

    ``documents`` are the numbers of the texts in the corpus (their line, row or place), ``windows`` of the parts that a long text was
    cut into, ``positions`` the places in the window, as the model saw them, and ``tokens`` the token ids.
    """

    activations: Mapping[str, Shaped[Tensor, "row ..."]]
    documents: Int[Tensor, " row"]
    windows: Int[Tensor, " row"]
    positions: Int[Tensor, " row"]
    tokens: Int[Tensor, " row"]
    n_layers: int

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, site: str) -> Tensor:
        """The activations of one site, named as on request: "resid_post@5" or in full."""
        return self.activations[stored_site(site, self.activations, self.n_layers)]

    @property
    def columns(self) -> dict[str, Tensor]:
        """What says whose the rows are."""
        return {
            "document": self.documents,
            "window": self.windows,
            "position": self.positions,
            "token": self.tokens,
        }

    def part(self, index: "slice | Tensor") -> "Rows":
        """Some of the rows."""
        return Rows(
            activations={site: tensor[index] for site, tensor in self.activations.items()},
            documents=self.documents[index],
            windows=self.windows[index],
            positions=self.positions[index],
            tokens=self.tokens[index],
            n_layers=self.n_layers,
        )

    @classmethod
    def joined(cls, parts: "Sequence[Rows]") -> "Rows":
        """The rows of several parts, one behind the other."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            activations={site: torch.cat([part.activations[site] for part in parts]) for site in parts[0].activations},
            documents=torch.cat([part.documents for part in parts]),
            windows=torch.cat([part.windows for part in parts]),
            positions=torch.cat([part.positions for part in parts]),
            tokens=torch.cat([part.tokens for part in parts]),
            n_layers=parts[0].n_layers,
        )

    def to_frame(self) -> "DataFrame":
        """Whose each row is, without the activations."""
        from pandas import DataFrame

        return DataFrame({name: column.numpy() for name, column in self.columns.items()})


def stored_sites(
    asked: "str | Sequence[str] | None", names: "Mapping[str, object] | Sequence[str]", n_layers: int
) -> tuple[str, ...]:
    """The stored sites that ``asked`` names ("resid_post" are all layers of it), None all. Raises UsageError where none is there."""
    if asked is None:
        return tuple(names)
    every = {kind: tuple(range(n_layers)) if info.per_layer else (None,) for kind, info in KINDS.items()}
    wanted = parse_sites(asked, every, n_layers)
    found = tuple(site.name for site in wanted if site.name in names)
    if not found:
        raise UsageError(f"{wanted[0].name} is not in the store; it holds: {', '.join(names)}")
    return found


def stored_site(asked: str, names: "Mapping[str, object] | Sequence[str]", n_layers: int) -> str:
    """The one stored site that ``asked`` names."""
    if asked in names:
        return asked
    first, *others = stored_sites(asked, names, n_layers)
    if others:
        raise UsageError(f"{asked!r} names several stored sites ({', '.join([first, *others])}); name one")
    return first

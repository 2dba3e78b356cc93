"""Which rows and columns two results share: an axis is aligned where its places mean the same in both, and otherwise not at all."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from interp.tokens import Tokens, visible


@dataclass(frozen=True, kw_only=True)
class Shared:
    """An axis that two results share: labels, and the place of each in A and in B.

    ``numbers`` are those of the layers or heads that the places stand for, None for one that stands for none; empty on other axes.
    """

    labels: tuple[str, ...]
    a: tuple[int, ...]
    b: tuple[int, ...]
    numbers: tuple[int | None, ...] = ()


@dataclass(kw_only=True)
class Aligner:
    """Aligns the axes of two results, and keeps in words how, and why not; of tokens also the places in A and B that belong together."""

    a: Any
    b: Any
    aligned: list[str] = field(default_factory=list)
    not_aligned: list[str] = field(default_factory=list)
    pairs: tuple[tuple[int, int], ...] = ()

    @property
    def same_weights(self) -> bool:
        """Whether both come from the same model in the same state, as far as their provenance tells."""
        one, two = self.a.provenance, self.b.provenance
        return (one.model, one.weights_sha256) == (two.model, two.weights_sha256)

    def by_name(
        self,
        a: Sequence[str],
        b: Sequence[str],
        labels: Sequence[str],
        what: str,
        numbers: Sequence[int | None] = (),
    ) -> Shared | None:
        """Rows by their names: all where both have the same, those in common where the model is one and the same.

        Layers of models of different depth have no counterpart: layer 5 of 12 is not layer 5 of 30. ``labels`` and ``numbers`` are
        those of A's rows.
        """
        if tuple(a) == tuple(b):
            return Shared(labels=tuple(labels), a=tuple(range(len(a))), b=tuple(range(len(b))), numbers=tuple(numbers))
        if not self.same_weights:
            self.refuse(f"{what}: A has {len(a)}, B has others ({len(b)}); in another model they have no counterparts")
            return None
        common = [name for name in a if name in b]
        if not common:
            self.refuse(f"{what}: A and B have none in common")
            return None
        self.note(f"{what}: the {len(common)} that both have")
        at_a = tuple(list(a).index(name) for name in common)
        return Shared(
            labels=tuple(labels[place] for place in at_a),
            a=at_a,
            b=tuple(list(b).index(name) for name in common),
            numbers=tuple(numbers[place] for place in at_a) if numbers else (),
        )

    def layers(self, a: Sequence[int], b: Sequence[int]) -> Shared | None:
        """Layers by their numbers, as ``by_name``."""
        return self.by_name([str(n) for n in a], [str(n) for n in b], [str(n) for n in a], "layers", list(a))

    def heads(self, a: Sequence[int], b: Sequence[int]) -> Shared | None:
        """Heads by their numbers, in models of one architecture; of other weights with a warning, as then the numbers may mean nothing."""
        one, two = self.a.provenance, self.b.provenance
        if one.architecture != two.architecture:
            self.refuse(f"heads: A is a {one.architecture}, B a {two.architecture}; their heads have no counterparts")
            return None
        found = self.by_name([str(n) for n in a], [str(n) for n in b], [str(n) for n in a], "heads", list(a))
        if found is not None and not self.same_weights:
            self.note("heads by number, which means something only where one model was made from the other")
        return found

    def positions(self, a: Tokens, b: Tokens, a_at: Sequence[int], b_at: Sequence[int]) -> Shared | None:
        """Tokens by position; of prompts of different length from the end, where the answer is read, as far as the shorter goes."""
        if tuple(a_at) != tuple(b_at) and not (_whole(a_at) and _whole(b_at)):
            self.refuse("tokens: A and B hold other parts of their prompts; make both of the same positions, or of all")
            return None
        n = min(len(a), len(b))
        at_a, at_b = tuple(range(len(a) - n, len(a))), tuple(range(len(b) - n, len(b)))
        self.pairs = tuple(zip(at_a, at_b, strict=True))
        pairs = [(a.pieces[i], b.pieces[j]) for i, j in self.pairs]
        different = sum(one != two for one, two in pairs)
        if len(a) != len(b):
            longer = "A" if len(a) > len(b) else "B"
            self.note(
                f"tokens from the end: A has {len(a)}, B has {len(b)}; the first {abs(len(a) - len(b))} of {longer} are left out"
            )
        if different:
            self.note(f"tokens by position: {different} of {n} are other tokens in B than in A")
        labels = tuple(visible(one) if one == two else f"{visible(one)} | {visible(two)}" for one, two in pairs)
        return Shared(labels=labels, a=at_a, b=at_b)

    def note(self, words: str) -> None:
        """Keeps how something was aligned."""
        if words not in self.aligned:
            self.aligned.append(words)

    def refuse(self, words: str) -> None:
        """Keeps what could not be aligned, and why."""
        if words not in self.not_aligned:
            self.not_aligned.append(words)


def _whole(positions: Sequence[int]) -> bool:
    return tuple(positions) == tuple(range(len(positions)))

"""What many edits may do to a model before the caller is told, or the sequence ends."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from interp.runner.model import Model


@dataclass(kw_only=True, eq=False)
class Limits:
    """The limits, and what happens where one is passed."""

    model: Model
    norm: float | None
    perplexity: float | None
    stop: bool
    reason: str = "end"
    warnings: list[str] = field(default_factory=list)
    _said: set[str] = field(default_factory=set)

    def norm_passed(self, moved: dict[int, float], edited: int) -> bool:
        """Whether the sequence ends before the edit that moves the layers this far."""
        layer, most = max(moved.items(), key=lambda item: item[1])
        if self.norm is None or not most > self.norm:
            return False
        return self._passed(
            "drift", f"|dW|/|W| of layer {layer} is {most:.3g} with fact {edited}, over the limit of {self.norm:g}"
        )

    def perplexity_passed(self, perplexities: Sequence[float], edited: int) -> bool:
        """Whether the sequence ends at this check."""
        if self.perplexity is None or not perplexities or not perplexities[-1] > self.perplexity * perplexities[0]:
            return False
        ratio = perplexities[-1] / perplexities[0]
        return self._passed(
            "perplexity",
            f"the perplexity is {ratio:.3g} times that before, after {edited} facts, over the limit of {self.perplexity:g}",
        )

    def _passed(self, reason: str, message: str) -> bool:
        if reason not in self._said:
            self._said.add(reason)
            self.warnings.append(message)
            self.model.notify(message + ("; stopped" if self.stop else "; going on"))
        if self.stop:
            self.reason = reason
        return self.stop

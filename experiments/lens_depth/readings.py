"""The lens at every layer and token of some texts, and what it says of each token."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from experiments.lens_depth.config import Config
from interp.analyzers.logit_lens import logit_lens
from interp.errors import UsageError
from interp.runner.model import Model
from interp.tokens import Tokens

SITES = ("resid_pre@0", "resid_post")
"""The embedding, then the stream that leaves each block: depth 0 to the number of layers."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Readings:
    """What the lens says at each depth of each position, the texts stacked; the last position of a text has no next token and is left out.

    ``agrees`` says whether the lens's first token is the model's final one, ``agrees_elsewhere`` whether it is that of another position of
    the same text. ``next_rank`` is of the token that really follows, 0 the top. ``final_prob`` is the model's probability of its own first
    token, ``frequent`` whether that token is among the frequent ones.
    """

    agrees: Bool[Tensor, "sample layer pos"]
    agrees_elsewhere: Bool[Tensor, "sample layer pos"]
    kl_nats: Float[Tensor, "sample layer pos"]
    entropy_nats: Float[Tensor, "sample layer pos"]
    next_rank: Int[Tensor, "sample layer pos"]
    final_prob: Float[Tensor, "sample pos"]
    frequent: Bool[Tensor, "sample pos"]

    @property
    def settled(self) -> Int[Tensor, "sample pos"]:
        """The first depth from which on the lens's first token is the final one."""
        return settling_depth(self.agrees)


def settling_depth(agrees: Bool[Tensor, "sample layer pos"]) -> Int[Tensor, "sample pos"]:
    """The first depth from which on there is no disagreement; that of the last row is the number of layers."""
    depths = torch.arange(1, agrees.shape[1] + 1)[None, :, None]
    return torch.where(agrees, 0, depths).amax(1)


def read(model: Model, path: Path, config: Config, say: Callable[[str], None] = lambda line: None) -> Readings:
    """The readings of the first texts of a file, one a line, that have enough tokens. Raises UsageError where there are too few."""
    texts = [model.tokens(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    long = [text for text in texts if len(text) >= config.tokens][: config.texts]
    if len(long) < config.texts:
        raise UsageError(f"{path} has {len(long)} texts of {config.tokens} tokens or more; {config.texts} are needed")
    common = frequent_tokens(texts, config.frequent)
    generator = torch.Generator().manual_seed(config.seed)
    rows = []
    for number, text in enumerate(long):
        rows.append(_of_text(model, text.ids[: config.tokens], common, generator))
        if (number + 1) % 10 == 0:
            say(f"{number + 1} of {len(long)} texts")
    return Readings(**{name: torch.stack([row[name] for row in rows]) for name in rows[0]})


def frequent_tokens(texts: Sequence[Tokens], share: float) -> frozenset[int]:
    """The most frequent tokens, as many as make up this share of all."""
    counts = Counter(index for text in texts for index in text.ids)
    chosen: set[int] = set()
    left = share * counts.total()
    for index, number in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])):
        if left <= 0:
            break
        chosen.add(index)
        left -= number
    return frozenset(chosen)


def elsewhere(n: int, generator: torch.Generator) -> Int[Tensor, " pos"]:
    """Another position for each of n, all shifted by one random distance."""
    shift = int(torch.randint(1, n, (1,), generator=generator))
    return (torch.arange(n) + shift) % n


def _of_text(model: Model, ids: Sequence[int], common: frozenset[int], generator: torch.Generator) -> dict[str, Tensor]:
    lens = logit_lens(model, list(ids), sites=SITES, positions=list(range(len(ids) - 1)), top_k=1)
    top = lens.top_ids[..., 0]
    final = top[-1]
    other = final[elsewhere(len(final), generator)]
    return {
        "agrees": top == final,
        "agrees_elsewhere": top == other,
        "kl_nats": lens.kl_nats,
        "entropy_nats": lens.entropy_nats,
        "next_rank": lens.target_rank,
        "final_prob": lens.top_log_probs_nats[-1, :, 0].exp(),
        "frequent": torch.tensor([index in common for index in final.tolist()]),
    }

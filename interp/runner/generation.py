"""The generation loop, open to view: prefill once, then one token at a time with the KV cache."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.cache_utils import DynamicCache

from interp.cache import ActivationCache
from interp.errors import NumericsError, UsageError, unknown
from interp.interventions import Intervention
from interp.maths.kv_cache import CachedLayers, multi_head_bytes
from interp.maths.ranking import top_lowest_first
from interp.maths.sampling import Sampling, check_sampling, choose
from interp.prompts import PromptLike
from interp.results import Result
from interp.runner.forward import forward
from interp.runner.kv_cache import cache_bytes, cached_layers, new_cache
from interp.runner.plan import Plan, Request
from interp.runner.session import Session
from interp.tokens import Tokens, decode_pieces, visible, vocabulary

if TYPE_CHECKING:
    from pandas import DataFrame
    from plotly.graph_objects import Figure

    from interp.runner.model import Model


_LISTED = 5
"""Of the tokens at each step, how many of the likeliest are kept."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Generation(Result):
    """A prompt and how the model continued it.

    ``log_probs_nats`` and ``entropy_nats`` are of the model's own distribution, before temperature and filters. Seconds are wall time:
    prefill is the forward over the prompt; ``decode_seconds`` has one entry for each further forward, each over one token.
    ``step_cache_bytes`` is what the KV cache held after each forward, measured from its tensors; ``cached_layers`` says what that is at
    the end, kind of layer by kind of layer. ``n_heads`` and ``n_kv_heads`` are the query and the key/value heads of a layer.
    ``top_ids`` and ``top_log_probs_nats`` are what the model thought likeliest at each step; ``vocabulary`` gives their texts.
    """

    kind: ClassVar[str] = "generation"
    schema_version: ClassVar[int] = 2

    tokens: Tokens
    ids: Int[Tensor, " step"]
    pieces: tuple[str, ...]
    text: str
    log_probs_nats: Float[Tensor, " step"]
    entropy_nats: Float[Tensor, " step"]
    top_ids: Int[Tensor, "step k"]
    top_log_probs_nats: Float[Tensor, "step k"]
    vocabulary: dict[str, str]
    prefill_seconds: float
    decode_seconds: tuple[float, ...]
    step_cache_bytes: Int[Tensor, " step"]
    cached_layers: tuple[CachedLayers, ...]
    cached_tokens: int
    n_heads: int
    n_kv_heads: int
    stop_reason: str  # "length", "end" (the model ended the text) or "context" (no room is left)
    temperature: float
    top_k: int | None
    top_p: float | None

    @property
    def decode_tokens_per_second(self) -> float | None:
        """Tokens a second while decoding; None when nothing was decoded after the prefill."""
        return len(self.decode_seconds) / sum(self.decode_seconds) if self.decode_seconds else None

    @property
    def sampling(self) -> Sampling:
        """How the tokens were chosen."""
        return Sampling(temperature=self.temperature, top_k=self.top_k, top_p=self.top_p)

    @property
    def cache_bytes(self) -> int:
        """What the KV cache held at the end: the sum over layers of 2 x key/value heads x d_head x bytes x tokens kept."""
        return int(self.step_cache_bytes[-1])

    @property
    def multi_head_bytes(self) -> int:
        """What the same cache would take with a key and a value for every query head, without grouped-query attention."""
        return multi_head_bytes(self.cached_layers, self.n_heads)

    def runner_up(self, step: int) -> tuple[str, float] | None:
        """The likeliest token that was not chosen at a step, with its log-probability in nats; None in a vocabulary of one token."""
        for number, log_prob in zip(self.top_ids[step].tolist(), self.top_log_probs_nats[step].tolist(), strict=True):
            if number != int(self.ids[step]):
                return self.vocabulary[str(number)], log_prob
        return None

    def to_frame(self) -> "DataFrame":
        """One row a generated token; the cache is what it was after the forward that chose the token."""
        import pandas as pd

        seconds = [self.prefill_seconds, *self.decode_seconds]
        return pd.DataFrame(
            {
                "step": range(len(self.ids)),
                "token_id": self.ids.tolist(),
                "piece": self.pieces,
                "log_prob_nats": self.log_probs_nats.tolist(),
                "entropy_nats": self.entropy_nats.tolist(),
                "forward_seconds": seconds,
                "cache_bytes": self.step_cache_bytes.tolist(),
            }
        )

    def figure(self, measure: str = "log_prob") -> "Figure":
        """Log-probability and entropy of each token (``log_prob``), the ``time`` of each forward, or the growth of the ``cache``."""
        from interp.figures.generation import cache_growth, forward_times, generated_log_probs

        labels = [visible(piece) for piece in self.pieces]
        if measure == "log_prob":
            return generated_log_probs(self.log_probs_nats.double().numpy(), self.entropy_nats.double().numpy(), labels)
        if measure == "time":
            return forward_times((self.prefill_seconds, *self.decode_seconds), labels, n_prompt=len(self.tokens))
        if measure == "cache":
            saved = self.multi_head_bytes / self.cache_bytes
            return cache_growth(self.step_cache_bytes.tolist(), saved, labels)
        raise unknown("measure", measure, ("log_prob", "time", "cache"))


@dataclass(frozen=True, eq=False)
class Step:
    """One step of the loop: the token it chose and what its forward captured (the whole prompt at the first step)."""

    index: int
    token_id: int
    piece: str
    logits: Float[Tensor, " d_vocab"]
    cache: ActivationCache
    seconds: float


@dataclass(eq=False)
class Stream:
    """Iterating gives the ``Step``s as they are made; ``result()`` afterwards gives the ``Generation``."""

    model: "Model"
    tokens: Tokens
    max_new_tokens: int
    temperature: float
    top_k: int | None
    top_p: float | None
    seed: int
    capture: Request = ()
    interventions: tuple[Intervention, ...] = ()
    stop_at_end: bool = True
    command: str | None = None
    steps: list[tuple[int, str, float, float, float, int]] = field(default_factory=list)
    likeliest: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    stop_reason: str = "length"
    cached: tuple[CachedLayers, ...] = ()
    cached_tokens: int = 0

    def __iter__(self) -> Iterator[Step]:
        generator = torch.Generator().manual_seed(self.seed)
        # A capture or a change names keys by their place in the text, so that all of them are kept then.
        kv = new_cache(self.model.hf, whole=bool(self.capture or self.interventions))
        end = _end_ids(self.model) if self.stop_at_end else frozenset()
        ids = torch.tensor([self.tokens.ids], device=self.model.device)
        n_ctx = self.model.atlas.n_ctx
        for index in range(self.max_new_tokens):
            started = time.perf_counter()
            logits, cache = self._forward(ids, kv)
            if not bool(torch.isfinite(logits).all()):
                raise NumericsError(f"the logits at step {index} hold NaN or infinity; no token can be chosen")
            chosen = choose(
                logits, temperature=self.temperature, top_k=self.top_k, top_p=self.top_p, generator=generator
            )
            token = int(chosen[0])
            seconds = time.perf_counter() - started
            log_probs = logits[0].float().log_softmax(-1)
            piece = decode_pieces(self.model.tokenizer, [token])[0]
            entropy = float(-(log_probs.exp() * log_probs).sum())
            self.steps.append((token, piece, float(log_probs[token]), entropy, seconds, cache_bytes(kv)))
            best, ids_of_best = top_lowest_first(log_probs[None], min(_LISTED, len(log_probs)))
            self.likeliest.append((best[0].cpu(), ids_of_best[0].cpu()))
            self.cached, self.cached_tokens = cached_layers(kv), kv.get_seq_length()
            yield Step(index, token, piece, logits[0], cache, seconds)
            ids = chosen[None]
            if token in end:
                self.stop_reason = "end"
                return
            if n_ctx is not None and self.cached_tokens >= n_ctx:
                self.stop_reason = "context"
                return

    def _forward(self, ids: Tensor, kv: DynamicCache) -> tuple[Tensor, ActivationCache]:
        model, past = self.model, kv.get_seq_length()
        plan = Plan(model.sites)
        captured = plan.capture(self.capture)
        for intervention in self.interventions:
            plan.intervene(intervention, (len(self.tokens),))
        session = Session(visits=plan.visits(), n_rows=1, n_pos=ids.shape[1], offset=past)
        arguments: dict[str, Any] = {"use_cache": True, "past_key_values": kv}
        if model.separate_patterns and any(site.kind == "attn.pattern" for site in captured):
            raise UsageError(
                "this family computes patterns apart from its forward; capture them with model.run on the finished text"
            )
        columns = None if ids.shape[1] == 1 else [[ids.shape[1] - 1]]
        output = forward(model.hf, ids, session, unembed=model.atlas.unembed, logit_columns=columns, **arguments)
        return output.logits[:, -1], ActivationCache(session.captured, model.atlas.n_layers)

    def result(self) -> Generation:
        """The generation so far as a result."""
        if not self.steps:
            raise UsageError("nothing was generated yet; iterate over the stream first")
        tokens, pieces, log_probs, entropies, seconds, sizes = zip(*self.steps, strict=True)
        top_log_probs, top_ids = (torch.stack(part) for part in zip(*self.likeliest, strict=True))
        return Generation(
            provenance=self.model.provenance(seed=self.seed, command=self.command),
            tokens=self.tokens,
            ids=torch.tensor(tokens),
            pieces=pieces,
            text=_text(self.model.tokenizer, tokens, pieces),
            log_probs_nats=torch.tensor(log_probs),
            entropy_nats=torch.tensor(entropies),
            top_ids=top_ids,
            top_log_probs_nats=top_log_probs,
            vocabulary=vocabulary(self.model.tokenizer, top_ids.unique().tolist()),
            prefill_seconds=seconds[0],
            decode_seconds=seconds[1:],
            step_cache_bytes=torch.tensor(sizes),
            cached_layers=self.cached,
            cached_tokens=self.cached_tokens,
            n_heads=self.model.atlas.n_heads,
            n_kv_heads=self.model.atlas.n_kv_heads,
            stop_reason=self.stop_reason,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
        )


def stream(
    model: "Model",
    prompt: PromptLike | Tokens,
    *,
    max_new_tokens: int = 40,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    capture: Request = (),
    interventions: Intervention | Iterable[Intervention] = (),
    stop_at_end: bool = True,
) -> Stream:
    """Like ``generate``, but iterable: each ``Step`` comes as soon as it is made, with its logits and captures."""
    if max_new_tokens < 1:
        raise UsageError(f"max_new_tokens is {max_new_tokens}; valid: 1 or more")
    check_sampling(temperature, top_k, top_p)
    changes = (interventions,) if isinstance(interventions, Intervention) else tuple(interventions)
    return Stream(
        model, model.tokens(prompt), max_new_tokens, temperature, top_k, top_p, seed, capture, changes, stop_at_end
    )


def generate(model: "Model", prompt: PromptLike | Tokens, **options: Any) -> Generation:
    """Continues a prompt.

    ``max_new_tokens`` at most; ``temperature`` 0 takes the largest logit, else tokens are drawn with ``seed`` after ``top_k`` and
    ``top_p`` (Holtzman et al. 2020). Generation ends early at the model's end-of-text token unless ``stop_at_end=False``.
    ``interventions`` act at every step; their positions count from the start of the prompt, negative ones from its end, and without
    positions they act on every token, also generated ones. To see each step's logits and captures use ``stream``.
    """
    steps = stream(model, prompt, **options)
    for _ in steps:
        pass
    return steps.result()


def _end_ids(model: "Model") -> frozenset[int]:
    """Tokens that end a text, by the model's generation settings and tokenizer."""
    found: set[int] = set()
    config = getattr(model.hf, "generation_config", None)
    for value in (getattr(config, "eos_token_id", None), getattr(model.tokenizer, "eos_token_id", None)):
        found.update(value if isinstance(value, Sequence) else () if value is None else (value,))
    return frozenset(found)


def _text(tokenizer: Any, ids: Sequence[int], pieces: Sequence[str]) -> str:
    return "".join(pieces) if tokenizer is None else tokenizer.decode(list(ids), skip_special_tokens=False)

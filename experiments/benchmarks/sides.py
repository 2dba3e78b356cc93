"""The ways of doing each row's work: a plain forward, ours, and other tools'.

Every tool gets token ids that are already there, and the same weights in memory. Tools that change the model they are given get a
copy of its modules (the parameters are shared), so that the plain forward stays plain.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from experiments.benchmarks.config import PEER_EVERY
from experiments.benchmarks.harness import Side
from interp.runner.model import Model
from interp.runner.run import Run
from interp.tokens import Tokens, from_ids

OURS = "interp"
PLAIN = "plain"


@dataclass(frozen=True, kw_only=True, eq=False)
class Work:
    """A model, a batch of token ids [batch pos], and the layers at which a forward stops or starts."""

    model: Model
    ids: Tensor
    stop: int
    start: int

    @property
    def n_layers(self) -> int:
        """Layers of the model."""
        return self.model.atlas.n_layers

    @cached_property
    def prompts(self) -> list[Tokens]:
        """The batch as our runner takes it."""
        return [from_ids(self.model.tokenizer, row) for row in self.ids]


def copy_of(hf: Any, attention: str | None = None) -> Any:
    """A copy of the modules that shares the parameters, so that it costs no memory."""
    shared: dict[int, Any] = {id(tensor): tensor for tensor in hf.parameters()}
    twin = copy.deepcopy(hf, shared)
    if attention is not None:
        twin.set_attn_implementation(attention)
    return twin


def nothing(output: Any) -> Mapping[str, Tensor]:
    """For sides that are no reference and are not compared."""
    return {}


def plain(work: Work) -> Side:
    """The forward that everything is compared with: Hugging Face's own model with SDPA attention and no KV cache."""
    hf, ids = work.model.hf, work.ids
    return Side(row="plain", name=PLAIN, call=lambda: hf(ids, use_cache=False), read=lambda out: {"logits": out.logits})


def ours(work: Work) -> Iterator[Side]:
    """Our runner's sides."""
    model, prompts, stop, start = work.model, work.prompts, work.stop, work.start
    layers = range(work.n_layers)

    def stream(run: Run) -> dict[str, Tensor]:
        seen = {f"resid_post.{i}": run.cache[f"resid_post@{i}"] for i in layers}
        return {**seen, **({} if run.logits is None else {"logits": run.logits})}

    def everything(run: Run) -> dict[str, Tensor]:
        return {**stream(run), **{f"pattern.{i}": run.cache[f"attn.pattern@{i}"] for i in layers}}

    def side(row: str, call: Callable[[], Any], read: Callable[[Any], Mapping[str, Tensor]]) -> Side:
        return Side(row=row, name=OURS, call=call, read=read)

    yield side("residual", lambda: model.run(prompts, capture="resid_post"), stream)
    yield side("everything", lambda: model.run(prompts, capture="all"), everything)
    site = f"resid_post@{stop}"
    yield side("stop", lambda: model.run(prompts, capture=site, logits=False), lambda run: {"stopped": run.cache[site]})
    run = model.run(prompts, resumable=True)
    rows: list[tuple[()]] = [()] * len(prompts)
    where = list(range(len(prompts)))
    yield side(
        "restart",
        lambda: run.resume(rows, prompts=where, start=(start, 0)),
        lambda resumed: {"last": resumed.logits[:, -1]},
    )
    yield Side(
        row="restart",
        name=f"{OURS}, all logits",
        call=lambda: run.resume(rows, prompts=where, start=(start, 0), logits="all"),
        read=lambda resumed: {"last": resumed.logits[:, -1], "logits": resumed.logits},
    )


def reference(work: Work) -> dict[str, Tensor]:
    """What every side has to compute, from Hugging Face's own outputs: SDPA for logits and the stream, eager for patterns."""
    hf = work.model.hf
    streams: list[Tensor] = []
    handles = [
        hf.get_submodule(block.block).register_forward_hook(lambda _m, _a, out: streams.append(first(out)))
        for block in work.model.atlas.blocks
    ]
    try:
        logits = hf(work.ids, use_cache=False).logits
    finally:
        for handle in handles:
            handle.remove()
    patterns = copy_of(hf, "eager")(work.ids, use_cache=False, output_attentions=True).attentions
    return {
        "logits": logits,
        "last": logits[:, -1],
        "stopped": streams[work.stop],
        **{f"resid_post.{i}": stream for i, stream in enumerate(streams)},
        **{f"pattern.{i}": pattern for i, pattern in enumerate(patterns)},
    }


def first(output: Any) -> Tensor:
    """A block's stream: its output, or the first of several."""
    return output[0] if isinstance(output, tuple) else output


def hugging_face(work: Work) -> Iterator[Side]:
    """Hugging Face's own ways to see inside."""
    hf, eager = work.model.hf, copy_of(work.model.hf, "eager")

    def stream(out: Any) -> dict[str, Tensor]:
        # The last of hidden_states is after the final norm, so the last layer's stream is not among them.
        return {f"resid_post.{i}": state for i, state in enumerate(out.hidden_states[1:-1])} | {"logits": out.logits}

    def everything(out: Any) -> dict[str, Tensor]:
        return {**stream(out), **{f"pattern.{i}": pattern for i, pattern in enumerate(out.attentions)}}

    name = "Hugging Face"
    yield Side(
        row="residual",
        name=name,
        call=lambda: hf(work.ids, use_cache=False, output_hidden_states=True),
        read=stream,
        every=PEER_EVERY,
    )
    yield Side(
        row="everything",
        name=f"{name} eager",
        call=lambda: eager(work.ids, use_cache=False, output_hidden_states=True, output_attentions=True),
        read=everything,
        every=PEER_EVERY,
    )


def transformer_lens(work: Work) -> Iterator[Side]:
    """TransformerLens' bridge around a copy of the model. Raises ImportError where it is not installed."""
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    twin = copy_of(work.model.hf)
    bridge: Any = build_bridge_from_module(
        twin, work.model.atlas.architecture, hf_config=twin.config, tokenizer=work.model.tokenizer
    )
    bridge.eval()
    ids, layers = work.ids, range(work.n_layers)
    name = "TransformerLens"

    def stream(out: Any) -> dict[str, Tensor]:
        return {"logits": out[0], **{f"resid_post.{i}": out[1][f"blocks.{i}.hook_resid_post"] for i in layers}}

    def everything(out: Any) -> dict[str, Tensor]:
        return {**stream(out), **{f"pattern.{i}": out[1][f"blocks.{i}.attn.hook_pattern"] for i in layers}}

    def side(row: str, call: Callable[[], Any], read: Callable[[Any], Mapping[str, Tensor]]) -> Side:
        return Side(row=row, name=name, call=call, read=read, every=PEER_EVERY)

    names = {f"blocks.{i}.hook_resid_post" for i in layers}
    yield side("residual", lambda: bridge.run_with_cache(ids, names_filter=lambda hook: hook in names), stream)
    yield side("everything", lambda: bridge.run_with_cache(ids), everything)
    stopped = f"blocks.{work.stop}.hook_resid_post"
    yield side(
        "stop",
        lambda: bridge.run_with_cache(ids, names_filter=lambda hook: hook == stopped, stop_at_layer=work.stop + 1),
        lambda out: {"stopped": out[1][stopped]},
    )
    entering = f"blocks.{work.start}.hook_resid_pre"
    resid = bridge.run_with_cache(ids, names_filter=lambda hook: hook == entering)[1][entering]
    yield side(
        "restart",
        lambda: bridge(resid, start_at_layer=work.start),
        lambda logits: {"last": logits[:, -1], "logits": logits},
    )


def nnsight(work: Work) -> Iterator[Side]:
    """Nnsight's traces of a copy of the model. Raises ImportError where it is not installed (the ``bench`` extra has it)."""
    package = import_module("nnsight")  # by name: the type checker runs where it is not installed, too
    save: Any = package.save
    model: Any = package.NNsight(copy_of(work.model.hf))
    ids, stop, start = work.ids, work.stop, work.start
    blocks = model.model.layers

    def residual() -> Any:
        with model.trace(ids, use_cache=False):
            kept = save([block.output for block in blocks])
            logits = model.output.logits.save()
        return kept, logits

    def stopped() -> Any:
        with model.trace(ids, use_cache=False) as tracer:
            kept = blocks[stop].output.save()
            tracer.stop()
        return kept

    def restarted() -> Any:
        with model.trace(ids, use_cache=False):
            for block in blocks[:start]:
                block.skip(entering)
            logits = model.output.logits.save()
        return logits  # noqa: RET504 (it is filled in when the trace ends)

    with model.trace(ids, use_cache=False):
        entering = blocks[start].input.save()

    def side(row: str, call: Callable[[], Any], read: Callable[[Any], Mapping[str, Tensor]]) -> Side:
        return Side(row=row, name="nnsight", call=call, read=read, every=PEER_EVERY)

    yield side(
        "residual",
        residual,
        lambda out: {"logits": out[1], **{f"resid_post.{i}": first(kept) for i, kept in enumerate(out[0])}},
    )
    yield side("stop", stopped, lambda kept: {"stopped": first(kept)})
    yield side("restart", restarted, lambda logits: {"last": logits[:, -1], "logits": logits})


PEERS: dict[str, Callable[[Work], Iterator[Side]]] = {
    "Hugging Face": hugging_face,
    "TransformerLens": transformer_lens,
    "nnsight": nnsight,
}


def random_ids(model: Model, rows: int, tokens: int, seed: int) -> Tensor:
    """Token ids drawn evenly from the vocabulary: [batch pos]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(model.atlas.d_vocab, (rows, tokens), generator=generator)

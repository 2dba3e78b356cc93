"""The scan of all heads for induction: ours, other tools', and the plain forward; and the memory it needs beside the forward's own.

``python -m experiments.benchmarks.heads MODEL TOKENS THREADS`` prints that memory in MB for one prompt.
"""

import gc
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from torch import Tensor

from experiments.benchmarks.config import PEER_EVERY, SEED
from experiments.benchmarks.harness import Side
from experiments.benchmarks.sides import OURS, PLAIN, copy_of
from interp.analyzers.induction_prompts import Texts, random_texts
from interp.analyzers.induction_scan import as_tokens, scan
from interp.maths.induction import Masses
from interp.runner.model import Model, load

ROW = "induction_scan"


@dataclass(frozen=True, kw_only=True, eq=False)
class ScanWork:
    """A model and texts: ``rows`` prompts of begin-of-text and two copies of ``period`` random tokens."""

    model: Model
    texts: Texts
    period: int

    @classmethod
    def of(cls, model: Model, rows: int, tokens: int) -> "ScanWork":
        """The work for prompts of ``tokens`` tokens, an odd number."""
        period = (tokens - 1) // 2
        first = 0 if model.tokenizer is None else True
        (texts,) = random_texts(
            model,
            periods=[period],
            copies=2,
            seeds=rows,
            corpus=None,
            first_token=first,
            generator=torch.Generator().manual_seed(SEED),
        )
        return cls(model=model, texts=texts, period=period)

    @property
    def ids(self) -> Tensor:
        """The batch, [batch pos]."""
        return self.texts.ids


def plain_side(work: ScanWork) -> Side:
    """The forward that the scan is compared with: Hugging Face's own model with SDPA attention, all logits and no KV cache."""
    return Side(row=ROW, name=PLAIN, call=lambda: work.model.hf(work.ids, use_cache=False), read=lambda _: {})


def forward_side(work: ScanWork) -> Side:
    """The forward that our scan goes along with, without the scan: it ends in the last layer's attention and unembeds nothing."""
    prompts, last = as_tokens(work.model, work.ids), work.model.atlas.n_layers - 1
    return Side(
        row=ROW,
        name="the same forward without the scan",
        call=lambda: work.model.run(prompts, f"attn_out@{last}", logits=False),
        read=lambda _: {},
    )


def ours(work: ScanWork) -> Side:
    """Our scan, which ends with the last pattern and keeps none."""

    def read(found: Masses) -> dict[str, Tensor]:
        # TransformerLens divides by all the attention there is, one for each query; it comes from the targets of one copy of the block.
        detector = found.on_targets.mean(0) * work.period / work.ids.shape[1]
        return {"stripe": found.stripe.mean(0), "detector": detector}

    return Side(row=ROW, name=OURS, call=lambda: scan(work.model, work.ids, work.texts.places), read=read)


def stored_patterns(work: ScanWork) -> Side:
    """The naive scan: Hugging Face's eager attention returns every pattern, of which diagonals are then taken."""
    eager = copy_of(work.model.hf, "eager")

    def call() -> Tensor:
        patterns = eager(work.ids, use_cache=False, output_attentions=True).attentions
        diagonals = [p.diagonal(1 - work.period, -2, -1)[..., -work.period :] for p in patterns]
        return torch.stack([diagonal.mean((0, 2)) for diagonal in diagonals])

    return Side(row=ROW, name="every pattern stored", call=call, read=lambda found: {"stripe": found}, every=PEER_EVERY)


def transformer_lens(work: ScanWork) -> Iterator[Side]:
    """TransformerLens' ``detect_head``, a prompt at a time as it works, and its demo's hooks. Raises ImportError where it is absent."""
    from transformer_lens.head_detector import detect_head
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    twin, ids = copy_of(work.model.hf), work.ids
    bridge: Any = build_bridge_from_module(
        twin, work.model.atlas.architecture, hf_config=twin.config, tokenizer=work.model.tokenizer
    )
    bridge.eval()
    # Random ids have no text that gives them back: a "text" here is the number of a row, or the list of all.
    bridge.to_tokens = lambda text: ids if isinstance(text, list) else ids[int(text)][None]
    rows = [str(row) for row in range(len(ids))]
    yield _peer(
        "TransformerLens detect_head",
        lambda: detect_head(bridge, rows, "induction_head"),
        lambda found: {"detector": found},
    )

    def hooked() -> Tensor:
        found: dict[str, Tensor] = {}

        def keep(pattern: Tensor, hook: Any) -> None:
            found[hook.name] = pattern.diagonal(1 - work.period, -2, -1)[..., -work.period :].mean((0, 2))

        bridge.run_with_hooks(ids, return_type=None, fwd_hooks=[(_is_pattern, keep)])
        return torch.stack([found[f"blocks.{layer}.attn.hook_pattern"] for layer in range(work.model.atlas.n_layers)])

    yield _peer("TransformerLens hooks", hooked, lambda found: {"stripe": found})


def _peer(name: str, call: Callable[[], Any], read: Callable[[Any], Mapping[str, Tensor]]) -> Side:
    return Side(row=ROW, name=name, call=call, read=read, every=PEER_EVERY)


def _is_pattern(name: str) -> bool:
    return name.endswith("attn.hook_pattern")


def extra_memory(work: ScanWork) -> float:
    """The greatest resident memory during a scan over that of the same forward without a scan, in MB."""
    model, last = work.model, work.model.atlas.n_layers - 1
    prompts = as_tokens(model, work.ids)

    def forward() -> Any:
        return model.run(prompts, f"attn_out@{last}", logits=False)

    def scanned() -> Any:
        return scan(model, work.ids, work.texts.places)

    forward()  # buffers that come once
    scanned()
    return (_peak(scanned) - _peak(forward)) / 1e6


def _peak(call: Callable[[], Any]) -> int:
    """The greatest resident memory during a call over what there was before it, sampled every half millisecond."""
    gc.collect()
    process, done = psutil.Process(), threading.Event()
    before = peak = process.memory_info().rss

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.0005):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    call()
    done.set()
    watcher.join()
    return peak - before


def main(arguments: list[str]) -> None:
    """Prints the extra memory of a scan of one prompt."""
    name, tokens, threads = arguments
    torch.set_num_threads(int(threads))
    model = load(name, device="cpu", dtype="float32")
    with torch.no_grad():
        print(extra_memory(ScanWork.of(model, 1, int(tokens))))


if __name__ == "__main__":
    main(sys.argv[1:])

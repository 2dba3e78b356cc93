"""The tables of docs/scaling.md, from the formulas. ``PYTHONPATH=tests python -m scale.cost_page`` prints them."""

from collections.abc import Iterator

from interp.scale import cost
from interp.scale.cost import ModelSize

DEFAULT = ModelSize(n_layers=30, d_model=576, n_heads=9, n_kv_heads=3, d_head=64, d_mlp=1536, d_vocab=49_152, tied=True)
LARGE = ModelSize(
    n_layers=80, d_model=8192, n_heads=64, n_kv_heads=8, d_head=128, d_mlp=28_672, d_vocab=128_256, tied=False
)
"""A model of 70 billion parameters with the sizes of Llama 3."""

GPU_FLOPS, SHARE, GPU_BYTES = 989e12, 0.4, 80e9
"""What a GPU of the H100 class does in bfloat16 on paper, the share of it that is reached, and its memory."""


def tables() -> Iterator[str]:
    yield _sizes()
    yield _analyses()
    yield _corpus()


SCAN = (41, 81, 121)
EDITED = cost.EditShape(lengths=(12, 20, 20, 20, 25, 25, 8), positions=(4, 12, 12, 12, 17, 17, 4), targets=1, columns=2)
"""A fact whose prompt has 12 tokens, in contexts of 8 and 13 tokens, and its essence prompt."""


def _edited(size: ModelSize) -> int:
    return cost.edit_value(size, EDITED, size.n_layers // 6, 20)


def _sizes() -> str:
    rows = [
        ("parameters in matrices", lambda s: f"{s.weights / 1e9:.3g} billion"),
        ("weights in bfloat16", lambda s: in_bytes(2 * s.weights)),
        (
            "GPUs of 80 GB for the weights, a fifth of each left free",
            lambda s: f"{-(-2 * s.weights // int(0.8 * GPU_BYTES))}",
        ),
        ("KV cache of a token in bfloat16", lambda s: in_bytes(2 * s.kv_numbers)),
        ("one stream of a token in bfloat16", lambda s: in_bytes(cost.stored_bytes(s, 1, 1, 2))),
        ("operations of a token, logits included", lambda s: in_flops(cost.forward(s, 1))),
    ]
    return table(("", "default model", "70 billion"), [(name, f(DEFAULT), f(LARGE)) for name, f in rows])


def _analyses() -> str:
    n = 20
    rows = [
        ("forward, all logits", lambda s: cost.forward(s, n)),
        ("`direct_logit_attribution`", lambda s: cost.direct_logit_attribution(s, n)),
        ("`attention_patterns`", lambda s: cost.attention_patterns(s, n)),
        ("`token_losses`", lambda s: cost.token_losses(s, n)),
        ("`logit_lens`", lambda s: cost.logit_lens(s, n)),
        ("`residual_story`", lambda s: cost.residual_story(s, n)),
        ("`attribution_patching`", lambda s: cost.attribution_patching(s, n)),
        ("`activation_patching`, stream, the fourth token differs", lambda s: cost.activation_patching(s, n, 3)),
        ("`ablation`, every head", lambda s: cost.ablation_of_heads(s, n)),
        ("`causal_trace`, stream, 10 samples", lambda s: cost.causal_trace(s, n, 10)),
        ("`generate`, 40 tokens", lambda s: cost.generate(s, n, 40)),
        ("`head_profiles`, 4 shuffles", lambda s: cost.head_profiles(s, n, 4)),
        ("`path_patching`, every head, to the logits", lambda s: cost.path_patching(s, n, 3)),
        (
            "`path_patching`, to queries of the middle layer, the fourth token differs",
            lambda s: cost.path_patching(s, n, 3, receiver=s.n_layers // 2),
        ),
        (
            "`induction_heads`, the scan: 6 texts each of 41, 81 and 121 tokens",
            lambda s: cost.induction_scan(s, SCAN, 6),
        ),
        ("`edit_facts`, the value in 7 contexts at a sixth of the depth, 20 steps", _edited),
    ]
    cells = [
        (
            name,
            in_flops(f(DEFAULT)),
            times(f(DEFAULT) / cost.forward(DEFAULT, n)),
            in_flops(f(LARGE)),
            seconds(f(LARGE)),
        )
        for name, f in rows
    ]
    return table(("work on 20 tokens", "default model", "forwards", "70 billion", "on one GPU's products"), cells)


def _corpus() -> str:
    tokens, length = 10**9, 512
    cells = []
    for name, size, layer in (
        ("default model, layer 15", DEFAULT, 15),
        ("70 billion, layer 40", LARGE, 40),
        ("70 billion, layer 79", LARGE, 79),
    ):
        flops = tokens // length * cost.collect(size, length, layer)
        hours = flops / (GPU_FLOPS * SHARE) / 3600
        stored = cost.stored_bytes(size, tokens, 1, 2)
        cells.append(
            (name, in_flops(flops), f"{hours:,.2g}", in_bytes(stored), in_bytes(stored / (3600 * hours)) + "/s")
        )
    return table(("a billion tokens", "operations", "GPU hours", "one stream, bfloat16", "written by each GPU"), cells)


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def in_flops(number: float) -> str:
    for unit, name in ((1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G")):
        if number >= unit:
            return f"{number / unit:.3g} {name}FLOP"
    return f"{number / 1e6:.3g} MFLOP"


def in_bytes(number: float) -> str:
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if number >= unit:
            return f"{number / unit:.3g} {name}"
    return f"{number:.0f} B"


def times(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"


def seconds(flops: float) -> str:
    took = flops / (GPU_FLOPS * SHARE)
    return f"{took:.2g} s" if took >= 0.1 else f"{1000 * took:.2g} ms"


if __name__ == "__main__":
    print("\n\n".join(tables()))

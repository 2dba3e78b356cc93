"""Synthetic results for the page: plausible numbers, no model. Hostile text goes wherever text can come from outside."""

import torch
from torch import Tensor

from interp.analyzers.answers import Answer
from interp.analyzers.attention_patterns import AttentionPatternsResult
from interp.analyzers.causal_trace_result import CausalTraceResult
from interp.analyzers.direct_logit_attribution import AttributionResult
from interp.analyzers.logit_lens import LensResult
from interp.analyzers.residual_story import StoryResult
from interp.maths.attention import PatternFitter
from interp.maths.kv_cache import CachedLayers
from interp.results import Provenance, Result
from interp.runner.generation import Generation
from interp.tokens import Tokens

PIECES = ("The", " Eiffel", " Tower", " is", " located", " in", " the", " city", " of")
WORDS = (
    " Paris",
    " the",
    " France",
    " Rome",
    " London",
    ":",
    " a",
    "\n",
    " and",
    "_",
    " love",
    " light",
    "ville",
    " par",
)
HOSTILE = (
    "</script><script>window.harm=1</script>",
    "<img src=x onerror=window.harm=2>",
    "<s>",
    "</s>",
    "<a href='javascript:window.harm=3'>",
    "&lt;b&gt;",
    "<!--",
    "{{script}}",
    "{{data}}",
    "%{text}",
    "\u202eevil\u202c",
    "\u200b",
    "\u2028",
    "\ufeff",
    "\ud800",
    "\x00",
    "]]>",
    '" onmouseover="window.harm=4',
    "' onload='window.harm=5",
    "javascript:window.harm=6",
    "<svg onload=window.harm=7>",
    "${window.harm=8}",
    "`",
    "\\u003cscript\\u003e",
    "שלום",
    "é́",
    "<iframe srcdoc='<script>parent.harm=9</script>'>",
    "<style>body{display:none}</style>",
    "<base href='http://localhost:9/'>",
    "%3Cscript%3Ewindow.harm=10%3C/script%3E",
    "#token=0&layer=0",
    "%",
    "=HYPERLINK('javascript:window.harm=11')",
    'a,"b"\r\nc',
    "\u2066isolated\u2069",
    "{{constructor.constructor('window.harm=12')()}}",
    "</title><script>window.harm=13</script>",
    "</style><details open ontoggle=window.harm=14>",
    "%{z:.3f}<extra>window.harm=15</extra>",
    "<b>bold</b><br><span style='color:red'>",
    "__proto__",
)


def provenance(**changes) -> Provenance:
    values = {
        "model": "smollm2-135m",
        "weights_sha256": "5a13" * 16,
        "architecture": "LlamaForCausalLM",
        "dtype": "float32",
        "device": "cpu",
        "threads": 2,
        "seed": None,
        "command": "interp report 'The Eiffel Tower is located in the city of'",
        "created": "2026-01-02T03:04:05Z",
        "versions": {"interp": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0"},
        "attention": "sdpa",
    }
    return Provenance(**(values | changes))


def tokens(pieces: tuple[str, ...] = PIECES) -> Tokens:
    spans, start = [], 0
    for piece in pieces:
        spans.append((start, start + len(piece)))
        start += len(piece)
    return Tokens(text="".join(pieces), ids=tuple(range(504, 504 + len(pieces))), pieces=pieces, spans=tuple(spans))


def _vocabulary(pieces: tuple[str, ...], words: tuple[str, ...]) -> dict[str, str]:
    prompt = {str(504 + index): piece for index, piece in enumerate(pieces)}
    return prompt | {str(1000 + index): word for index, word in enumerate(words)}


def lens(pieces=PIECES, words=WORDS, *, layers: int = 30, k: int = 5, **changes) -> LensResult:
    draw = torch.Generator().manual_seed(1)
    shape = (layers, len(pieces))
    depth = torch.linspace(0, 1, layers)[:, None]
    sure = 0.15 + 0.75 * depth.pow(3) + 0.1 * torch.rand(shape, generator=draw)
    rest = torch.rand(*shape, k - 1, generator=draw).sort(dim=-1, descending=True).values
    rest = rest / rest.sum(-1, keepdim=True) * (1 - sure)[..., None] * 0.8
    probs = torch.cat([sure[..., None], torch.minimum(rest, sure[..., None])], dim=-1)
    # As in text, the n-th most frequent word is about 1/n as frequent as the first.
    weights = 1 / torch.arange(1, 1 + min(len(words), 700))
    ids = torch.multinomial(weights.expand(layers * len(pieces), -1), k, generator=draw)
    ids = 1000 + ids.reshape(*shape, k)
    ids[24:, -1, 0] = 1000
    ids[24:, -1, 1:] = torch.arange(1001, 1000 + k)
    targets = torch.tensor([*range(505, 504 + len(pieces)), 1000])
    rank = (20000 * (1 - depth).pow(4) * torch.rand(shape, generator=draw)).long()
    values = {
        "provenance": provenance(),
        "tokens": tokens(pieces),
        "positions": tuple(range(len(pieces))),
        "tuned": False,
        "sites": tuple(f"blocks.{layer}.hook_resid_post" for layer in range(layers)),
        "vocabulary": _vocabulary(pieces, words),
        "top_ids": ids,
        "top_log_probs_nats": probs.log(),
        "entropy_nats": 9 * (1 - depth) + torch.rand(shape, generator=draw),
        "kl_nats": 8 * (1 - depth).pow(2) * (0.5 + torch.rand(shape, generator=draw)),
        "target_ids": targets,
        "target_log_prob_nats": -12 * (1 - depth) - torch.rand(shape, generator=draw),
        "target_rank": rank,
    }
    return LensResult(**(values | changes))


def attribution(pieces=PIECES, *, layers: int = 30, target_piece: str = " Paris", **changes) -> AttributionResult:
    draw = torch.Generator().manual_seed(2)
    names = [f"blocks.{layer}.hook_{part}" for layer in range(layers) for part in ("attn_out", "mlp_out")]
    parts = torch.randn(1 + len(names), generator=draw) * torch.linspace(0.1, 1.6, 1 + len(names))
    values = {
        "provenance": provenance(),
        "tokens": tokens(pieces),
        "components": ("hook_embed", *names),
        "position": len(pieces) - 1,
        "target_id": 1000,
        "target_piece": target_piece,
        "against_id": None,
        "against_piece": None,
        "contributions": parts,
        "heads": None,
        "attn_bias": None,
        "total": float(parts.sum()),
        "logit": float(parts.sum()),
        "model_logit": float(parts.sum()),
        "softcap": None,
    }
    return AttributionResult(**(values | changes))


def story(pieces=PIECES, words=WORDS, *, layers: int = 30, k: int = 5, **changes) -> StoryResult:
    draw = torch.Generator().manual_seed(3)
    shape = (layers, len(pieces))
    depth = torch.linspace(0, 1, layers)[:, None]

    def some(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=draw)

    def ids() -> Tensor:
        return 999 + (len(words) ** torch.rand(*shape, k, generator=draw)).ceil().long()

    stream = (0.5 + 5 * depth).exp() * some(0.8, 1.2)
    stream[2:-1, 0] *= 40
    logits = torch.linspace(21, 14, min(10, len(words)))
    values = {
        "provenance": provenance(),
        "tokens": tokens(pieces),
        "vocabulary": _vocabulary(pieces, words),
        "embed_scale": 1.0,
        "embed_position": False,
        "embed_normed": False,
        "embed_norm": 1 + torch.rand(len(pieces), generator=draw),
        "stream_norm": stream,
        "attn_norm": stream * some(0.05, 0.4),
        "mlp_norm": stream * some(0.1, 0.6),
        "stream_cos_final": depth.expand(shape) * some(0.9, 1.0),
        "attn_cos_stream": some(-0.3, 0.5),
        "mlp_cos_stream": some(-0.5, 0.5),
        "attn_cos_final": some(-0.1, 0.4),
        "mlp_cos_final": some(-0.1, 0.5),
        "attn_promoted_ids": ids(),
        "attn_promoted_logits": torch.rand(*shape, k, generator=draw),
        "attn_suppressed_ids": ids(),
        "attn_suppressed_logits": torch.rand(*shape, k, generator=draw),
        "mlp_promoted_ids": ids(),
        "mlp_promoted_logits": torch.rand(*shape, k, generator=draw),
        "mlp_suppressed_ids": ids(),
        "mlp_suppressed_logits": torch.rand(*shape, k, generator=draw),
        "final_ids": torch.arange(1000, 1000 + len(logits)),
        "final_logits": logits,
        "final_probs": logits.softmax(0) * 0.95,
        "chosen_id": 1000,
    }
    return StoryResult(**(values | changes))


def attention(
    pieces=PIECES, *, layers: int = 6, heads: int = 4, exact: bool = True, sharpness: float = 1.5, **changes
) -> AttentionPatternsResult:
    """Random heads, two to a key/value head; the odd layers see a window of 4 tokens. L1H2 reads the previous token."""
    draw, n_pos = torch.Generator().manual_seed(4), len(pieces)
    fitter = PatternFitter(n_layers=layers, n_heads=heads, n_pos=n_pos, k=min(3, n_pos), exact=exact)
    distances = torch.arange(n_pos)[:, None] - torch.arange(n_pos)
    norms = 1 + torch.rand(layers, heads, n_pos, generator=draw)
    norms[..., 0] = 0.1
    for layer in range(layers):
        scores = sharpness * torch.randn(heads, n_pos, n_pos, generator=draw)
        scores[..., 0] += 2 * torch.rand(heads, 1, generator=draw)
        if layer == 1 and heads > 2:
            scores[2] += 8.0 * (distances == 1)
        hidden = (distances < 0) | (distances >= (4 if layer % 2 else n_pos))
        fitter.update(layer, scores.masked_fill(hidden, float("-inf")).softmax(-1), 0, norms[layer])
    written = fitter.top_written()
    assert written is not None
    values = {
        "provenance": provenance(),
        "tokens": tokens(pieces),
        "layers": tuple(range(layers)),
        "heads": tuple(range(heads)),
        "windows": tuple(4 if layer % 2 else None for layer in range(layers)),
        "kv_heads": tuple(head // 2 for head in range(heads)),
        "n_kv_heads": (heads + 1) // 2,
        "patterns": fitter.triangles,
        "scores": None,
        "value_norms": norms / 2,
        "output_norms": norms,
        "mass": fitter.statistics("mass"),
        "entropy_nats": fitter.statistics("entropy"),
        "distance_tokens": fitter.statistics("distance"),
        "first": fitter.statistics("first"),
        "previous": fitter.statistics("previous"),
        "own": fitter.statistics("own"),
        "top_keys": fitter.statistics("top_keys"),
        "top_weights": fitter.statistics("top_weights"),
        "top_written_keys": written[0],
        "top_written_norms": written[1],
    }
    return AttentionPatternsResult(**(values | changes))


def generation(pieces=PIECES, words=WORDS, **changes) -> Generation:
    logs = -torch.linspace(0.1, 4, len(words))
    values = {
        "provenance": provenance(),
        "tokens": tokens(pieces),
        "ids": torch.arange(1000, 1000 + len(words)),
        "pieces": words,
        "text": "".join(words),
        "log_probs_nats": logs,
        "entropy_nats": -logs,
        "top_ids": torch.stack([torch.arange(2)] * len(words)),
        "top_log_probs_nats": -torch.tensor([[0.5, 2.5]] * len(words)),
        "vocabulary": {"0": words[0], "1": words[-1]},
        "prefill_seconds": 0.25,
        "decode_seconds": tuple(0.05 for _ in words[1:]),
        "step_cache_bytes": torch.tensor([2 * 30 * 3 * 64 * 4 * (len(pieces) + step) for step in range(len(words))]),
        "cached_layers": (
            CachedLayers(n_layers=30, n_kv_heads=3, d_head=64, itemsize=4, n_tokens=len(pieces) + len(words) - 1),
        ),
        "cached_tokens": len(pieces) + len(words) - 1,
        "n_heads": 9,
        "n_kv_heads": 3,
        "stop_reason": "length",
        "temperature": 0.7,
        "top_k": 50,
        "top_p": None,
    }
    return Generation(**(values | changes))


def causal_trace(
    pieces=PIECES,
    *,
    subject: tuple[int, ...] = (1, 2),
    layers: int = 12,
    draws: int = 6,
    total: float = 0.6,
    kinds: tuple[str, ...] = ("resid", "mlp", "attn"),
    answer: str = " Paris",
    **changes,
) -> CausalTraceResult:
    """An early site at the subject's last token (the MLPs too), a late one at the last token (attention too), and nothing elsewhere."""
    draw = torch.Generator().manual_seed(5)
    n_pos, last = len(pieces), len(pieces) - 1
    corrupted = 0.02 + 0.02 * torch.rand(draws, generator=draw)
    depth = torch.linspace(0, 1, layers)
    early, late = 0.6 * (1 - depth) ** 2, (1 / (1 + (-20 * (depth - 0.7)).exp())).clamp(max=0.99)
    effects = torch.zeros(len(kinds), layers, n_pos, draws)
    for index, kind in enumerate(kinds):
        if kind != "attn":
            effects[index, :, subject[-1]] = early[:, None] * total
        if kind != "mlp":
            effects[index, :, last] = late[:, None] * total
    effects[..., subject[0] :, :] += 0.01 * total * torch.randn(effects[..., subject[0] :, :].shape, generator=draw)
    restored = corrupted + effects
    values = {
        "provenance": provenance(seed=0),
        "prompt": tokens(pieces),
        "subject": "".join(pieces[position] for position in subject),
        "subject_positions": subject,
        "answer": Answer(text=answer, ids=(1000,), pieces=(answer,)),
        "against": Answer(text=" the", ids=(1001,), pieces=(" the",)),
        "corruption": "noise",
        "noise": 3.0,
        "noise_std": 0.136,
        "replacements": (),
        "window": 10,
        "kinds": kinds,
        "clean_probability": 0.03 + total,
        "clean_logit_difference": 5.0,
        "corrupted_probability": corrupted,
        "corrupted_logit_difference": corrupted - 1,
        "restored_probability": restored,
        "restored_logit_difference": 8 * restored - 1,
        "confidence": 0.95,
    }
    return CausalTraceResult(**(values | changes))


def all_results(pieces=PIECES, words=WORDS, **changes) -> list[Result]:
    """A lens, an attribution and a story of one prompt."""
    return [lens(pieces, words, **changes), attribution(pieces, **changes), story(pieces, words, **changes)]

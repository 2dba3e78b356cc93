"""Captures carry TransformerLens' names, so they must be TransformerLens' numbers: compared with its bridge on the same weights."""

import pytest
import torch
from torch import Tensor

from tiny_models import build, prompt_ids

pytestmark = pytest.mark.tl

TOLERANCE = 1e-4
ABSENT = {
    "gpt2": {"attn.rot_q", "attn.rot_k"},  # nothing is rotated there; ours are the queries and keys of the dot product
    "gpt_neox": {"attn.rot_q", "attn.rot_k"},  # its fused attention component rotates without a hook
    "llama": set(),
    "gemma2": set(),
    "gemma3_text": set(),
    "qwen3": set(),
    "phi3": {"attn.rot_q", "attn.rot_k"},  # as gpt_neox
    "mixtral": set(),
}
"""The sites of ours whose hook TransformerLens does not have in that family."""


def assert_same(kind: str, ours: Tensor, theirs: Tensor, name: str) -> None:
    if kind == "mlp.router":
        theirs = theirs.view(ours.shape)  # its hook sits on the router, which works on flattened tokens
    if kind == "attn.scores":
        # What may not be seen is -inf in ours and the most negative number of the dtype in theirs.
        hidden = ours.isneginf()
        assert torch.equal(hidden, theirs < torch.finfo(theirs.dtype).min / 2), name
        ours, theirs = ours[~hidden], theirs[~hidden]
    assert ours.shape == theirs.shape, name
    scale = theirs.abs().max().item()
    torch.testing.assert_close(
        ours, theirs, rtol=0, atol=TOLERANCE * scale, msg=lambda text: f"{name}: {text}", check_dtype=False
    )


def bridge_cache(hf, ids: Tensor, tokenizer=None) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits and activations of a bridge with untouched weights. The bridge rebuilds the model in place, so it gets its own."""
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    bridge = build_bridge_from_module(hf, type(hf).__name__, hf_config=hf.config)
    bridge.enable_compatibility_mode(disable_warnings=True, no_processing=True)
    bridge.set_use_attn_result(True)
    with torch.no_grad():
        logits, cache = bridge.run_with_cache(ids)
    return logits, cache


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ABSENT)
def test_every_shared_site_has_transformer_lens_numbers(family, near, name: str) -> None:
    model = family(name)
    ids = prompt_ids(rows=2, positions=14)
    run = model.run(list(ids), capture=["*"])
    logits, theirs = bridge_cache(build(name, attn="eager"), ids)
    near(run.logits, logits, TOLERANCE)
    missing = set()
    for site in run.cache.sites:
        if site.name in theirs:
            assert_same(site.kind, run.cache[site.name], theirs[site.name], site.name)
        else:
            missing.add(site.kind)
    assert missing == ABSENT[name]


@pytest.mark.model
@pytest.mark.filterwarnings("ignore")
@pytest.mark.long
def test_the_default_model_has_transformer_lens_numbers(model) -> None:
    from copy import deepcopy

    prompt = "The Eiffel Tower is located in the city of"
    ids = torch.tensor([model.tokens(prompt).ids])
    run = model.run(prompt, capture=["*"])
    copied = deepcopy(model.hf)
    copied.set_attn_implementation("eager")
    logits, theirs = bridge_cache(copied, ids)
    torch.testing.assert_close(run.logits, logits, rtol=0, atol=1e-3)
    for site in run.cache.sites:
        assert_same(site.kind, run.cache[site.name], theirs[site.name], site.name)

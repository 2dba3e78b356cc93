"""What captures hold: the definitions of the sites, the positions and reducers that were asked for, and tensors that stay as they were."""

import pytest
import torch
from torch import Tensor

from interp.errors import UsageError
from interp.interventions import ZeroAblate
from interp.runner.plan import Capture
from interp.sites import Site
from tiny_models import FAMILIES, VARIANTS, WINDOW, prompt_ids

SUPPORTED = tuple(name for name in (*FAMILIES, *VARIANTS) if name != "opt_post_norm")
EXACT = 1e-5
NO_PATTERNS = {"falcon_rw"}  # its eager attention counts alibi twice, so it cannot show the patterns of the model's own


@pytest.fixture
def captured(family):
    """The everything-captured run of a family: its Model and its cache."""

    def run(name: str, rows: int = 2, positions: int = 14):
        model = family(name)
        return model, model.run(list(prompt_ids(rows, positions)), capture="*").cache

    return run


@pytest.mark.parametrize("name", SUPPORTED)
def test_the_residual_stream_adds_up(captured, near, name: str) -> None:
    model, cache = captured(name)
    for layer in range(model.atlas.n_layers):
        before, after = cache[f"resid_pre@{layer}"], cache[f"resid_post@{layer}"]
        near(before + cache[f"attn_out@{layer}"] + cache[f"mlp_out@{layer}"], after, EXACT)
        assert (f"resid_mid@{layer}" in cache) != model.atlas.blocks[layer].parallel
        if f"resid_mid@{layer}" in cache:
            near(before + cache[f"attn_out@{layer}"], cache[f"resid_mid@{layer}"], EXACT)
            near(cache[f"resid_mid@{layer}"] + cache[f"mlp_out@{layer}"], after, EXACT)
        if layer:
            assert torch.equal(before, cache[f"resid_post@{layer - 1}"])


@pytest.mark.parametrize("name", SUPPORTED)
def test_the_stream_begins_with_the_embeddings(captured, near, name: str) -> None:
    model, cache = captured(name)
    start = cache["embed"] * model.atlas.embed_scale
    if "pos_embed" in cache:
        start = start + cache["pos_embed"]
    if model.atlas.embed_norm:
        start = model.hf.get_submodule(model.atlas.embed_norm)(start).detach()
    near(cache["resid_pre@0"], start, EXACT)


@pytest.mark.parametrize("name", SUPPORTED)
def test_patterns_are_probabilities_over_what_may_be_seen(captured, near, name: str) -> None:
    model, cache = captured(name)
    if name in NO_PATTERNS:
        assert "attn.pattern" not in model.sites.available
        return
    distance = torch.arange(14)[:, None] - torch.arange(14)
    for layer, block in enumerate(model.atlas.blocks):
        pattern = cache[f"attn.pattern@{layer}"]
        seen = (distance >= 0) & (distance < (block.window or 99))
        assert not pattern[:, :, ~seen].any()
        assert (pattern[:, :, seen] >= 0).all()
        sums = pattern.sum(-1)
        if name == "gpt_oss":  # the learned sink takes a share
            assert (sums < 1).all()
            assert (sums > 0).all()
        else:
            near(sums, torch.ones_like(sums), EXACT)
    assert any(block.window == WINDOW for block in model.atlas.blocks) == (
        name in {"mistral", "gemma2", "gemma3_text", "olmo3", "gpt_oss", "starcoder2", "gpt_neo", "qwen2_window"}
    )


@pytest.mark.parametrize("name", SUPPORTED)
def test_z_is_the_pattern_times_the_values(captured, near, name: str) -> None:
    model, cache = captured(name)
    group = model.atlas.n_heads // model.atlas.n_kv_heads
    for layer in range(model.atlas.n_layers if name not in NO_PATTERNS else 0):
        z, v, pattern = (cache[f"attn.{kind}@{layer}"] for kind in ("z", "v", "pattern"))
        assert v.shape == (2, 14, model.atlas.n_kv_heads, model.atlas.d_head)
        for head in range(model.atlas.n_heads):
            near(z[:, :, head], pattern[:, head] @ v[:, :, head // group], EXACT)


@pytest.mark.parametrize("name", SUPPORTED)
def test_what_the_heads_write_sums_to_the_attention_update(captured, near, name: str) -> None:
    model, cache = captured(name)
    for layer, block in enumerate(model.atlas.blocks):
        total = cache[f"attn.result@{layer}"].sum(2)
        output = model.hf.get_submodule(block.o)
        bias = getattr(output, "bias", None)
        total = total if bias is None else total + bias.detach()
        near(total, output(cache[f"attn.z@{layer}"].flatten(2)).detach(), EXACT)
        if not block.ln1_post:  # a norm after attention mixes the heads
            near(total * block.attn_scale, cache[f"attn_out@{layer}"], EXACT)


@pytest.mark.parametrize("name", SUPPORTED)
def test_scores_are_dot_products_of_rotated_queries_and_keys(captured, near, name: str) -> None:
    model, cache = captured(name)
    if "attn.scores@0" not in cache:
        assert not model.atlas.routed_attention
        return
    group = model.atlas.n_heads // model.atlas.n_kv_heads
    config = model.hf.config
    for layer, block in enumerate(model.atlas.blocks):
        attention = model.hf.get_submodule(block.attn)
        scaling = getattr(attention, "scaling", None)
        scaling = model.atlas.d_head**-0.5 if scaling is None else scaling
        scaling = 1.0 if name == "opt" else scaling  # it scales the queries before they enter
        q, k = cache[f"attn.rot_q@{layer}"], cache[f"attn.rot_k@{layer}"]
        scores, pattern = cache[f"attn.scores@{layer}"], cache[f"attn.pattern@{layer}"]
        for head in range(model.atlas.n_heads):
            expected = (q[:, :, head] @ k[:, :, head // group].transpose(1, 2)) * scaling
            cap = getattr(config, "attn_logit_softcapping", None)
            expected = expected if cap is None else torch.tanh(expected / cap) * cap
            visible = ~scores[:, head].isneginf()
            near(scores[:, head][visible], expected[visible], EXACT)
        if name != "gpt_oss":
            near(scores.softmax(-1), pattern, EXACT)
        if not block.rotary and block.q_norm is None and name != "opt":
            near(q, cache[f"attn.q@{layer}"], EXACT)


def test_rotation_keeps_lengths_and_the_first_position(captured, near) -> None:
    _model, cache = captured("llama")
    q, rotated = cache["attn.q@1"], cache["attn.rot_q@1"]
    near(rotated.norm(dim=-1), q.norm(dim=-1), EXACT)
    near(rotated[:, 0], q[:, 0], EXACT)
    assert not torch.allclose(rotated[:, 1:], q[:, 1:])


@pytest.mark.parametrize("name", SUPPORTED)
def test_norms_divide_by_what_they_say(captured, near, name: str) -> None:
    model, cache = captured(name)
    for layer, block in enumerate(model.atlas.blocks):
        for norm, path, stream in (("ln1", block.ln1, "resid_pre"), ("ln2", block.ln2, "resid_mid")):
            if f"{norm}.scale@{layer}" in cache:
                inside = cache[f"{stream if not block.parallel else 'resid_pre'}@{layer}"]
                _check_norm(
                    near,
                    model.hf.get_submodule(path),
                    inside,
                    cache[f"{norm}.scale@{layer}"],
                    cache[f"{norm}.normalized@{layer}"],
                )
    if "ln_final.scale" in cache:
        norm = model.hf.get_submodule(model.atlas.ln_final)
        _check_norm(near, norm, cache["resid_post@-1"], cache["ln_final.scale"], cache["ln_final.normalized"])


def _check_norm(near, module, x: Tensor, scale: Tensor, normalized: Tensor) -> None:
    eps = next((getattr(module, key) for key in ("eps", "variance_epsilon", "norm_eps") if hasattr(module, key)), 1e-5)
    centred = x if "RMS" in type(module).__name__ else x - x.mean(-1, keepdim=True)
    expected = (centred.pow(2).mean(-1, keepdim=True) + eps).sqrt()
    near(scale, expected, EXACT)
    near(normalized, centred / expected, EXACT)


@pytest.mark.parametrize("name", SUPPORTED)
def test_the_down_projection_of_mlp_post_is_the_mlp_output(captured, near, name: str) -> None:
    model, cache = captured(name)
    for layer, block in enumerate(model.atlas.blocks):
        if block.down is None:
            assert f"mlp.post@{layer}" not in cache
            assert cache[f"mlp.router@{layer}"].shape == (2, 14, 4)
            continue
        written = model.hf.get_submodule(block.down)(cache[f"mlp.post@{layer}"]).detach()
        if block.ln2_post:
            written = model.hf.get_submodule(block.ln2_post)(written).detach()
        near(written * block.mlp_scale, cache[f"mlp_out@{layer}"], EXACT)
        assert (f"mlp.pre_linear@{layer}" in cache) == bool(block.gate or block.gate_up)
        if f"mlp.pre_linear@{layer}" in cache:
            ratio = cache[f"mlp.post@{layer}"] / cache[f"mlp.pre_linear@{layer}"]
            gate = cache[f"mlp.pre@{layer}"]
            # The activation of the gate alone: equal gates give equal ratios, and the sign of a large gate decides.
            assert (ratio[gate > 1] > 0.5).all()


@pytest.mark.parametrize("name", SUPPORTED)
def test_captures_are_not_overwritten_by_the_rest_of_the_forward(family, name: str) -> None:
    model = family(name)
    ids = list(prompt_ids())
    kept = model.run(ids, capture="*").cache
    copied = model.run(ids, capture=Capture("*", reduce=lambda x, site: x.clone())).cache
    assert set(kept) == set(copied)
    for site in kept:
        assert torch.equal(kept[site], copied[site]), site


@pytest.mark.parametrize("name", SUPPORTED)
def test_one_site_at_a_time_is_the_same_as_all_together(family, near, name: str) -> None:
    model = family(name)
    ids = list(prompt_ids(positions=9))
    together = model.run(ids, capture="*").cache
    for kind, layers in model.sites.available.items():
        site = Site(kind, layers[-1])
        alone = model.run(ids, capture=[site], logits=False).cache
        assert list(alone) == [site.name]
        if kind == "attn.pattern":  # the eager function's own where the scores are not asked for
            near(alone[site.name], together[site.name], 1e-6)
        else:
            assert torch.equal(alone[site.name], together[site.name]), site.name


def test_positions_are_sliced_as_captured(family) -> None:
    model = family("llama")
    ids = list(prompt_ids(rows=2, positions=10))
    full = model.run(ids, capture="*").cache
    for positions, columns in ((3, [3]), (-1, [9]), ([0, 9, 4], [0, 9, 4]), ([], [])):
        run = model.run(ids, capture="*", positions=positions)
        assert run.positions == (tuple(columns),) * 2
        for site in full.sites:
            expected = full[site].index_select(site.info.position_axis, torch.tensor(columns, dtype=torch.long))
            assert torch.equal(run.cache[site], expected), site.name
            # A slice must not hold on to the tensor that it was cut from.
            assert run.cache[site].untyped_storage().nbytes() == expected.nbytes, site.name


def test_reducers_see_the_site_and_only_their_result_is_kept(family) -> None:
    model = family("gemma2")
    ids = list(prompt_ids(rows=2, positions=10))
    full = model.run(ids, capture=["attn.pattern", "resid_post"]).cache
    seen: list[tuple[str, tuple[int, ...]]] = []

    def entropy(pattern: Tensor, site: Site) -> Tensor:
        seen.append((site.name, tuple(pattern.shape)))
        return -(pattern * pattern.clamp_min(1e-9).log()).sum(-1).mean(-1)

    run = model.run(ids, capture=[Capture("attn.pattern", reduce=entropy), "resid_post@1"])
    assert [name for name, _ in seen] == [f"blocks.{layer}.attn.hook_pattern" for layer in range(3)]
    assert {shape for _, shape in seen} == {(2, 4, 10, 10)}
    for layer in range(3):
        assert torch.equal(
            run.cache[f"attn.pattern@{layer}"], entropy(full[f"attn.pattern@{layer}"], Site("attn.pattern", layer))
        )
    assert run.cache.bytes == 3 * 2 * 4 * 4 + full["resid_post@1"].nbytes
    sliced = model.run(ids, Capture("attn.pattern@1", lambda x, site: x.sum(-1)), positions=[2, 5])
    assert sliced.cache["attn.pattern@1"].shape == (2, 4, 2)


def test_a_reducer_in_a_ragged_batch_sees_nan_at_padding(family) -> None:
    model = family("llama")
    rows = [prompt_ids(1, 9)[0], prompt_ids(1, 5)[0]]
    run = model.run(rows, Capture("resid_post@1", lambda x, site: x.isnan().sum((1, 2))))
    assert run.cache["resid_post@1"].tolist() == [0, 4 * model.atlas.d_model]


def test_captures_go_to_the_device_that_was_asked_for(family) -> None:
    model = family("llama")
    run = model.run(prompt_ids(1)[0], capture="all", cache_device="meta")
    assert {value.device.type for value in run.cache.values()} == {"meta"}
    assert run.logits.device.type == "cpu"
    run = model.run(prompt_ids(1)[0], capture="all", cache_device="cpu")
    assert {value.device.type for value in run.cache.values()} == {"cpu"}


def test_nothing_captured_requires_gradients_or_is_the_models_own_weight(family) -> None:
    for name in ("gpt2", "llama", "bloom"):
        model = family(name)
        weights = {parameter.untyped_storage().data_ptr() for parameter in model.hf.parameters()}
        for site, value in model.run(prompt_ids(1)[0], capture="*").cache.items():
            assert not value.requires_grad, site
            assert value.untyped_storage().data_ptr() not in weights, site


def test_a_site_that_a_family_lacks_is_named_with_those_it_has(family) -> None:
    for name, spec in (
        ("gpt_neox", "resid_mid@0"),
        ("llama", "pos_embed"),
        ("gpt2", "mlp.pre_linear@1"),
        ("bloom", "attn.scores@0"),
        ("mixtral", "mlp.post@0"),
        ("phi", "ln2.scale@0"),
    ):
        model = family(name)
        with pytest.raises(
            UsageError, match=rf"this model has no site '{spec.split('@')[0]}'.*it has: embed, .*resid_post"
        ):
            model.run(prompt_ids(1)[0], spec)


def test_stacking_and_lookup_follow_the_layers(captured) -> None:
    _model, cache = captured("qwen3")
    stacked = cache.stack("resid_post")
    assert stacked.shape == (3, 2, 14, 32)
    for layer in range(3):
        assert torch.equal(stacked[layer], cache[f"blocks.{layer}.hook_resid_post"])
    assert cache["resid_post@-1"] is cache[Site("resid_post", 2)]
    assert cache.layers("attn.z") == (0, 1, 2)


def test_the_same_request_again_after_others_gives_the_same(family) -> None:
    """A request by name is compiled once; runs that add changes, reducers or gradients to the same names leave it alone."""
    model = family("gpt2")
    ids = prompt_ids(1, 9)[0]
    first = model.run(ids, capture="all").cache
    changed = model.run(ids, capture="all", interventions=ZeroAblate("resid_pre@0")).cache
    assert not torch.equal(changed["resid_post@0"], first["resid_post@0"])
    model.run(ids, capture=[Capture("all", reduce=lambda value, site: value.sum())])
    again = model.run(ids, capture=["all"]).cache
    assert list(again) == list(first)
    assert all(torch.equal(again[name], first[name]) for name in first)


def test_patterns_seen_in_inference_mode_first_have_gradients_later(family) -> None:
    model = family("llama")
    ids = prompt_ids(1, 7)[0]
    with torch.inference_mode():
        model.run(ids, capture="attn.pattern")
    gradients = model.gradients(ids, lambda logits: logits[0, -1, 3], wrt="attn.pattern@0")
    assert gradients.gradients["attn.pattern@0"].abs().sum() > 0

"""Interventions against plain torch hooks at places written down by hand (tests/oracles/runner.py)."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from interp.errors import UsageError
from interp.interventions import Apply, Intervention, MeanAblate, Patch, Scale, Steer, ZeroAblate
from interp.runner.plan import Capture
from oracles.runner import LAYOUTS, edited_logits, pattern_logits, plain_logits
from tiny_models import FAMILIES, build, prompt_ids

KINDS = (
    *("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "mlp.pre", "mlp.post"),
    *("attn.q", "attn.k", "attn.v", "attn.z"),
)
PAIRS = [
    (name, kind)
    for name, layout in LAYOUTS.items()
    for kind in KINDS
    if not (kind == "resid_mid" and not layout.middle) and not (kind.startswith("mlp.") and not layout.mlp_post)
]
LAYER = 1
POSITIONS = [2, 6]
HEADS = [0, 1]
NAMES = ("patch", "zero", "mean", "steer", "scale", "apply")


def make(name: str, site: str, width: int, **region: object) -> tuple[Intervention, Callable[[Tensor], Tensor]]:
    """An intervention and what it should do to its region, in plain torch."""
    vector = torch.linspace(-1, 1, width)
    table: dict[str, tuple[Intervention, Callable[[Tensor], Tensor]]] = {
        "patch": (Patch(site, vector, **region), lambda x: vector.expand(x.shape)),
        "zero": (ZeroAblate(site, **region), torch.zeros_like),
        "mean": (MeanAblate(site, vector * 2, **region), lambda x: (vector * 2).expand(x.shape)),
        "steer": (Steer(site, vector, scale=1.5, **region), lambda x: x + 1.5 * vector),
        "scale": (Scale(site, -2.0, **region), lambda x: -2.0 * x),
        "apply": (Apply(site, lambda x: x.flip(-1), **region), lambda x: x.flip(-1)),
    }
    return table[name]


def on_region(change: Callable[[Tensor], Tensor], heads: bool) -> Callable[[Tensor], Tensor]:
    """``change`` at the chosen positions and heads of a whole tensor [batch pos (head) width], by a loop."""

    def edit(x: Tensor) -> Tensor:
        out = x.clone()
        for position in POSITIONS:
            if heads:
                for head in HEADS:
                    out[:, position, head] = change(x[:, position, head])
            else:
                out[:, position] = change(x[:, position])
        return out

    return edit


@pytest.mark.parametrize(("name", "kind"), PAIRS, ids=[f"{name}-{kind}" for name, kind in PAIRS])
def test_every_kind_of_change_equals_a_plain_hook(family, near, name: str, kind: str) -> None:
    model = family(name)
    ids = prompt_ids(rows=2, positions=9)
    site = f"{kind}@{LAYER}"
    base = model.run(list(ids), capture=site)
    before = base.cache[site].clone()
    heads = kind.startswith("attn.")
    region = {"positions": POSITIONS, **({"heads": HEADS} if heads else {})}
    for change in NAMES:
        intervention, plain = make(change, site, before.shape[-1], **region)
        changed = model.run(list(ids), capture=site, interventions=intervention)
        expected = edited_logits(name, model.hf, ids, kind, LAYER, on_region(plain, heads))
        near(changed.logits, expected, 1e-5)
        near(changed.cache[site], on_region(plain, heads)(before), 1e-5)
        assert not torch.allclose(changed.logits, base.logits, atol=1e-3), change
        whole, plain = make(change, site, before.shape[-1])
        near(
            model.run(list(ids), interventions=whole).logits,
            edited_logits(name, model.hf, ids, kind, LAYER, plain),
            1e-5,
        )
    assert torch.equal(base.cache[site], before)
    assert torch.equal(model.run(list(ids)).logits, base.logits)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "gpt_neox", "mixtral"])
def test_a_replaced_pattern_is_multiplied_out(family, near, name: str) -> None:
    model = family(name)
    ids = prompt_ids(rows=2, positions=8)
    eager = build(name, attn="eager")
    uniform = torch.ones(8, 8).tril()
    uniform = uniform / uniform.sum(-1, keepdim=True)

    def replace(pattern: Tensor) -> Tensor:
        out = pattern.clone()
        out[:, 2] = uniform
        return out

    expected = pattern_logits(name, eager, ids, LAYER, replace)
    changed = model.run(list(ids), "attn.pattern@1", Patch("attn.pattern@1", uniform, heads=2))
    near(changed.logits, expected, 1e-5)
    near(changed.cache["attn.pattern@1"][:, 2], uniform.expand(2, 8, 8), 1e-6)

    def one_row(pattern: Tensor) -> Tensor:
        out = pattern.clone()
        out[:, 1, 5] = 0
        return out

    expected = pattern_logits(name, eager, ids, LAYER, one_row)
    near(model.run(list(ids), (), ZeroAblate("attn.pattern@1", heads=1, positions=5)).logits, expected, 1e-5)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gpt_neox", "mixtral"])
def test_changed_scores_and_rotated_queries_change_the_softmax(family, near, name: str) -> None:
    """Scores times c are log-probabilities times c, up to a constant of the row; so are queries times c without a softcap."""
    model = family(name)
    ids = prompt_ids(rows=2, positions=8)
    eager = build(name, attn="eager")

    def sharpen(pattern: Tensor) -> Tensor:
        out = pattern.clone()
        out[:, 3] = (pattern[:, 3].log() * 2.5).softmax(-1)
        return out

    expected = pattern_logits(name, eager, ids, LAYER, sharpen)
    near(model.run(list(ids), (), Scale("attn.scores@1", 2.5, heads=3)).logits, expected, 1e-5)
    near(model.run(list(ids), (), Scale("attn.rot_q@1", 2.5, heads=3)).logits, expected, 1e-5)


def test_rotated_keys_are_changed_for_every_query_of_their_group(family, near) -> None:
    model = family("llama")
    ids = prompt_ids(rows=1, positions=8)
    eager = build("llama", attn="eager")

    def sharpen(pattern: Tensor) -> Tensor:
        out = pattern.clone()
        out[:, 2:] = (pattern[:, 2:].log() * 2.5).softmax(-1)  # the two query heads of key head 1
        return out

    expected = pattern_logits("llama", eager, ids, LAYER, sharpen)
    near(model.run(ids[0], (), Scale("attn.rot_k@1", 2.5, heads=1)).logits, expected, 1e-5)
    near(model.run(ids[0], (), Scale("attn.rot_k@1", 2.5, heads=-1)).logits, expected, 1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_patching_a_site_with_itself_changes_nothing(family, near, name: str) -> None:
    model = family(name)
    ids = prompt_ids(rows=2, positions=9)
    base = model.run(list(ids), capture="*")
    before = {site: value.clone() for site, value in base.cache.items()}
    for kind, layers in model.sites.available.items():
        site = model.sites.sites(kind)[0] if layers[0] is None else model.sites.sites(f"{kind}@{layers[-1]}")[0]
        if model.sites.bindings[site].computed and kind != "resid_mid":
            with pytest.raises(UsageError, match="can be captured but not changed"):
                model.run(list(ids), (), Patch(site.name, base.cache[site]))
            continue
        same = model.run(list(ids), (), Patch(site.name, base.cache[site]))
        if kind in ("resid_mid", "attn.pattern", "attn.scores") or name == "granite":
            near(same.logits, base.logits, 1e-5)  # computed another way round
        else:
            assert torch.equal(same.logits, base.logits), kind
    for site, value in base.cache.items():
        assert torch.equal(value, before[site]), site
    assert torch.equal(plain_logits(model.hf, ids), base.logits)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_change_is_seen_where_it_is_made_and_behind_it_only(family, near, name: str) -> None:
    model = family(name)
    ids = prompt_ids(rows=1, positions=9)[0]
    base = model.run(ids, capture="resid")
    for kind in ("attn_out", "mlp_out", "attn.z", "attn.v", "mlp.post", "mlp.pre"):
        if kind not in model.sites.available:
            continue
        change = Apply(f"{kind}@1", lambda x: 2 * x.flip(-1), positions=4)
        changed = model.run(ids, ["resid_pre", "resid_post", kind], change)
        whole = model.run(ids, kind)
        near(changed.cache[f"{kind}@1"][0, 4], 2 * whole.cache[f"{kind}@1"][0, 4].flip(-1), 1e-5)
        assert torch.equal(changed.cache["resid_pre@1"], base.cache["resid_pre@1"])
        after, was = changed.cache["resid_post@1"][0], base.cache["resid_post@1"][0]
        near(after[:4], was[:4], 1e-5)
        assert not torch.allclose(after[4], was[4], atol=1e-3), kind


@pytest.mark.parametrize("name", FAMILIES)
def test_no_tensor_of_the_model_is_written_to(family, near, name: str) -> None:
    """The tensor that enters a block is the one that left the block before: only the copy behind it may change."""
    model = family(name)
    ids = prompt_ids(rows=1, positions=9)[0]
    base = model.run(ids, capture="resid")
    for change in (
        Scale("resid_pre@1", 3.0, positions=4),
        ZeroAblate("resid_pre@1"),
        Patch("resid_pre@1", torch.ones(32)),
    ):
        changed = model.run(ids, ["resid_post", "resid_pre"], change)
        assert torch.equal(changed.cache["resid_post@0"], base.cache["resid_post@0"])
        assert not torch.equal(changed.cache["resid_pre@1"], base.cache["resid_pre@1"])
    if model.atlas.ln_final and "resid_mid" in model.sites.available:
        changed = model.run(ids, ["resid_pre@1", "attn_out@1"], Scale("resid_mid@1", 2.0, positions=4))
        assert torch.equal(changed.cache["resid_pre@1"], base.cache["resid_pre@1"])


def test_interventions_act_in_order_and_together(family, near) -> None:
    model = family("gpt2")
    ids = prompt_ids(rows=2, positions=7)
    v = torch.linspace(-1, 1, 32)
    changes = [
        Scale("resid_pre@1", 2.0, positions=3),
        Steer("resid_pre@1", v, positions=[3, 4]),
        Scale("resid_pre@1", 0.5),
    ]

    def edit(x: Tensor) -> Tensor:
        out = x.clone()
        out[:, 3] *= 2
        out[:, 3:5] += v
        return out * 0.5

    near(model.run(list(ids), (), changes).logits, edited_logits("gpt2", model.hf, ids, "resid_pre", 1, edit), 1e-5)
    backwards = model.run(list(ids), (), changes[::-1]).logits
    assert not torch.allclose(backwards, model.run(list(ids), (), changes).logits, atol=1e-3)


def test_several_layers_at_once_with_a_mapping(family) -> None:
    model = family("llama")
    ids = prompt_ids(rows=2, positions=7)
    other = model.run(list(prompt_ids(rows=2, positions=7, seed=9)), capture="attn.z")
    change = Patch("attn.z", other.cache, positions=[1, 2, 3, 4, 5, 6, 0])
    with pytest.raises(UsageError, match="holds no value for blocks.1.attn.hook_z"):
        model.run(list(ids), (), Patch("attn.z", {"blocks.0.attn.hook_z": other.cache["attn.z@0"]}))
    whole = model.run(list(ids), "attn.z", Patch("attn.z", other.cache))
    for layer in range(3):
        assert torch.equal(whole.cache[f"attn.z@{layer}"], other.cache[f"attn.z@{layer}"])
    run = model.run(list(ids), "attn.z@0", change)
    assert torch.equal(
        run.cache["attn.z@0"][:, 1], other.cache["attn.z@0"][:, 0]
    )  # values follow the order of the positions
    means = {name: value.mean((0, 1))[3] for name, value in other.cache.items()}
    run = model.run(list(ids), "attn.z", MeanAblate("attn.z", means, heads=[3]))
    for layer in range(3):
        expected = means[f"blocks.{layer}.attn.hook_z"].expand(2, 7, -1)
        assert torch.equal(run.cache[f"attn.z@{layer}"][:, :, 3], expected)


def test_a_mean_of_the_selected_heads_fits_the_region(family) -> None:
    model = family("llama")
    ids = prompt_ids(rows=2, positions=7)
    mean = torch.arange(8.0)
    run = model.run(list(ids), "attn.z@2", MeanAblate("attn.z@2", mean, heads=[3], positions=[0, -1]))
    assert torch.equal(run.cache["attn.z@2"][:, [0, 6], 3], mean.expand(2, 2, 8))
    assert not torch.equal(run.cache["attn.z@2"][:, 1, 3], mean.expand(2, 8))


def test_a_value_that_does_not_fit_is_refused_with_both_shapes(family) -> None:
    model = family("llama")
    ids = prompt_ids(rows=1, positions=7)[0]
    with pytest.raises(UsageError, match=r"shape \(31,\) does not fit .*blocks.1.hook_resid_pre, shape \(1, 2, 32\)"):
        model.run(ids, (), Patch("resid_pre@1", torch.zeros(31), positions=[0, 1]))
    with pytest.raises(UsageError, match=r"shape \(1, 1, 7, 32\) does not fit"):
        model.run(ids, (), Apply("resid_pre@1", lambda x: x[None]))
    with pytest.raises(UsageError, match="has no heads"):
        model.run(ids, (), ZeroAblate("resid_pre@1", heads=0))
    with pytest.raises(UsageError, match="has no heads"):
        model.run(ids, (), ZeroAblate("mlp.post@1", heads=[0]))


def test_sites_that_cannot_be_changed_say_what_to_change_instead(family) -> None:
    ids = prompt_ids(rows=1, positions=7)[0]
    for name, site, instead in (
        ("llama", "attn.result@1", "change attn.z, which it follows from"),
        ("bloom", "attn.pattern@1", "computes attention inside its own module; change attn.z"),
        ("llama", "ln1.normalized@1", "change resid_pre"),
        ("llama", "ln_final.scale", "can be captured but not changed"),
    ):
        with pytest.raises(UsageError, match=instead):
            family(name).run(ids, (), ZeroAblate(site))


def test_an_intervention_in_bf16_keeps_the_dtype(family) -> None:
    model = family("llama", dtype=torch.bfloat16)
    ids = prompt_ids(rows=1, positions=7)[0]
    for change in (
        Steer("resid_pre@1", torch.ones(32)),
        Patch("attn.pattern@1", torch.eye(7), heads=1),
        Scale("attn.scores@1", 0.5),
        MeanAblate("attn.z@1", torch.ones(8, dtype=torch.float64), heads=2),
        Scale("resid_mid@1", 0.5),
    ):
        assert model.run(ids, "resid_post", change).logits.dtype == torch.bfloat16


def test_a_reduced_capture_sees_the_changed_tensor(family) -> None:
    model = family("llama")
    ids = prompt_ids(rows=1, positions=7)[0]
    run = model.run(ids, Capture("attn_out@1", lambda x, site: x.abs().sum()), ZeroAblate("attn_out@1"), logits=False)
    assert float(run.cache["attn_out@1"]) == 0

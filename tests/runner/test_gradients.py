"""Gradients with respect to sites against central differences through interventions, in float64."""

import pytest
import torch
from torch import Tensor

from interp.errors import UsageError
from interp.interventions import Scale, Steer
from oracles.runner import plain_logits, slope
from tiny_models import FAMILIES, build, prompt_ids

SITES = (
    *("embed", "resid_pre@1", "resid_mid@1", "resid_post@1", "attn_out@1", "mlp_out@1", "mlp.pre@1", "mlp.post@1"),
    *(
        "attn.q@1",
        "attn.k@1",
        "attn.v@1",
        "attn.z@1",
        "attn.rot_q@1",
        "attn.rot_k@1",
        "attn.pattern@1",
        "attn.scores@1",
    ),
)


def metric(logits: Tensor) -> Tensor:
    """A smooth number of all logits."""
    weights = torch.linspace(-1, 1, logits.shape[-1], dtype=logits.dtype)
    return (logits.tanh() * weights).sum() + logits[0, -1, 5]


@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_are_slopes(family, name: str) -> None:
    model = family(name, dtype=torch.float64)
    if any(block.experts for block in model.atlas.blocks):
        model.hf.set_experts_implementation("eager")  # the grouped one has no float64
    ids = prompt_ids(1, 6)[0]
    specs = [spec for spec in SITES if _changeable(model, spec)]
    found = model.gradients(ids, metric, specs)
    assert found.value == pytest.approx(float(metric(model.run(ids).logits)), rel=1e-6)
    generator = torch.Generator().manual_seed(0)
    for spec in specs:
        site = model.sites.sites(spec)[0]
        value, gradient = found.cache[site], found.gradients[site]
        assert value.shape == gradient.shape, spec
        direction = torch.randn(value.shape, generator=generator, dtype=torch.float64)
        if site.kind == "attn.scores":
            direction = direction.masked_fill(value.isneginf(), 0.0)
            value = value.masked_fill(value.isneginf(), -1e9)
            gradient = gradient.masked_fill(direction == 0, 0.0)

        def shifted(x: Tensor, at: str = spec, was: Tensor = value) -> float:
            return float(metric(model.run(ids, (), Steer(at, x - was)).logits))

        # Some functions compute in fp32 whatever the model's dtype, so the difference cannot be finer than that.
        measured = slope(shifted, value, direction, step=1e-3 if _computes_in_fp32(name) else 1e-5)
        assert measured == pytest.approx(float((gradient * direction).sum()), rel=2e-2, abs=2e-2), spec
        assert gradient.abs().max() > 0, spec


def _changeable(model, spec: str) -> bool:
    kind = spec.split("@")[0]
    if kind not in model.sites.available:
        return False
    binding = model.sites.bindings[model.sites.sites(spec)[0]]
    return not binding.computed or kind == "resid_mid"


def _computes_in_fp32(name: str) -> bool:
    return name not in ("gpt2", "gpt_bigcode", "opt")


@pytest.mark.parametrize("name", ["gpt2", "llama", "gpt_neox", "mixtral", "bloom", "granite", "falcon"])
def test_frozen_parameters_change_nothing(family, near, name: str) -> None:
    from interp.runner.model import Model

    ids = prompt_ids(1, 6)[0]
    free = family(name).gradients(ids, metric, ["resid_post", "attn.z"])
    frozen = build(name).requires_grad_(False)
    found = Model(frozen).gradients(ids, metric, ["resid_post", "attn.z"])
    for site in free.gradients:
        near(found.gradients[site], free.gradients[site], 1e-5)
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    assert all(parameter.grad is None for parameter in family(name).hf.parameters())


def test_gradients_of_wanted_logits_and_of_a_changed_run(family, near) -> None:
    model = family("llama")
    ids = prompt_ids(1, 6)[0]
    last = model.gradients(ids, lambda logits: logits[0, -1, 7], "resid_pre", logits="last")
    every = model.gradients(ids, lambda logits: logits[0, -1, 7], "resid_pre")
    assert last.logits.shape == (1, 1, 97)
    for site in every.gradients:
        near(last.gradients[site], every.gradients[site], 1e-5)
    near(every.logits, plain_logits(model.hf, ids[None]), 1e-5)
    cut = model.gradients(ids, lambda logits: logits[0, -1, 7], "resid_pre@0", interventions=Scale("resid_post@1", 0.0))
    assert not cut.gradients["resid_pre@0"].any()
    early = model.gradients(ids, lambda logits: logits[0, 2, 7], "resid_pre@0")
    assert not early.gradients["resid_pre@0"][:, 3:].any()
    with torch.no_grad():
        inside = model.gradients(ids, lambda logits: logits[0, -1, 7], "resid_pre")
    near(inside.gradients["resid_pre@0"], every.gradients["resid_pre@0"], 1e-6)
    assert not every.gradients["resid_pre@0"].requires_grad
    assert not every.cache["resid_pre@0"].requires_grad


def test_a_metric_over_a_batch(family, near) -> None:
    model = family("gpt2")
    rows = [prompt_ids(1, 6)[0], prompt_ids(1, 4, seed=3)[0]]
    both = model.gradients(rows, lambda logits: logits[:, 0, 7].sum(), "resid_pre@1", logits="last")
    for i, row in enumerate(rows):
        alone = model.gradients(row, lambda logits: logits[:, 0, 7].sum(), "resid_pre@1", logits="last")
        near(both.gradients["resid_pre@1"][i, : len(row)], alone.gradients["resid_pre@1"][0])


def test_what_has_no_gradient_says_so(family) -> None:
    model = family("llama")
    ids = prompt_ids(1, 6)[0]
    for spec in ("ln1.scale@1", "attn.result@0", "ln_final.normalized"):
        with pytest.raises(UsageError, match="is computed beside the forward"):
            model.gradients(ids, metric, spec)
    for bad in (lambda logits: logits, lambda logits: 3.0, lambda logits: torch.tensor(1.0)):
        with pytest.raises(UsageError, match="the metric must return one number"):
            model.gradients(ids, bad, "resid_pre")

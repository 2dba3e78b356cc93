"""Resuming re-executes only what a change reaches and gives the numbers of a full forward."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.errors import UsageError
from interp.interventions import Apply, Patch, Scale, Steer, ZeroAblate
from interp.runner.model import Model
from interp.runner.plan import Capture
from oracles.runner import counted_calls, plain_logits
from tiny_models import FAMILIES, VARIANTS, build, prompt_ids

SUPPORTED = tuple(name for name in (*FAMILIES, *VARIANTS) if name != "opt_post_norm")
LENGTH = 11
HEADED = {
    "attn.q": 4,
    "attn.k": 1,
    "attn.v": 1,
    "attn.z": 4,
    "attn.rot_q": 4,
    "attn.rot_k": 1,
    "attn.pattern": 4,
    "attn.scores": 4,
}
"""Sites with heads, and how many heads every family has of them."""


def changeable(model) -> list[str]:
    """The specs of every site of the model that can be changed."""
    return [
        site.name for site, binding in model.sites.bindings.items() if not binding.computed or site.kind == "resid_mid"
    ]


def change_at(model, site: str, position: int):
    """A change at one site and position that later positions can see."""
    kind = model.sites.sites(site)[0].kind
    heads = range(HEADED[kind]) if kind in HEADED else None
    if kind == "attn.pattern":
        return Scale(site, 0.5, positions=position, heads=heads)
    return Apply(
        site, lambda x: x.flip(-1) * 1.5 + 0.1 if kind != "attn.scores" else x * 1.5, positions=position, heads=heads
    )


@pytest.mark.parametrize("name", SUPPORTED)
def test_a_plain_restart_from_every_layer_and_position_is_the_full_forward(family, near, name: str) -> None:
    model = family(name)
    ids = prompt_ids(1, LENGTH)
    plain = plain_logits(model.hf, ids)
    base = model.run(ids[0], resumable=True)
    for layer in range(model.atlas.n_layers + 1):
        for position in range(LENGTH):
            resumed = base.resume([[]], start=(layer, position))
            near(resumed.logits[0, 0], plain[0, -1])
            if position in (0, 4):
                near(base.resume([[]], start=(layer, position), logits="all").logits[0], plain[0, position:])


@pytest.mark.parametrize("name", SUPPORTED)
def test_changes_at_every_site_resume_to_the_full_forward(family, near, name: str) -> None:
    model = family(name)
    ids = prompt_ids(1, LENGTH)[0]
    base = model.run(ids, resumable=True)
    sites = changeable(model)
    draw = random.Random(0)
    rows = [change_at(model, site, draw.randrange(LENGTH)) for site in sites]
    draw.shuffle(rows)  # rows of one call start at many layers and positions
    resumed = base.resume(rows)
    assert resumed.logits.shape == (len(rows), 1, 97)
    unlike = 0
    for row, logits in zip(rows, resumed.logits[:, 0], strict=True):
        full = model.run(ids, (), row).last_logits[0]
        near(logits, full)
        unlike += not torch.allclose(full, base.last_logits[0], atol=1e-4)
    assert unlike > len(rows) / 2


@pytest.mark.parametrize(
    "name", ["gpt2", "llama", "gemma3_text", "bloom", "gpt_neox", "mixtral", "falcon", "gpt_bigcode"]
)
def test_ragged_prompts_logits_and_captures(family, near, name: str) -> None:
    model = family(name)
    lengths = (7, LENGTH, 4)
    prompts = [prompt_ids(1, length, seed=length)[0] for length in lengths]
    base = model.run(prompts, resumable=True)
    rows = [
        [Scale("resid_pre@1", 2.0, positions=-2), ZeroAblate("attn.z@2", heads=1, positions=-1)],
        Scale("mlp_out@0", -1.0, positions=2),
        Steer("resid_post@1", torch.ones(32), positions=3) if model.atlas.n_layers > 1 else [],
        [],
        Scale("embed", 1.5, positions=1),
    ]
    origin = [0, 1, 2, 1, 2]
    fulls = [model.run(prompts[i], ["resid_post", "attn.z"], row) for i, row in zip(origin, rows, strict=True)]
    last = base.resume(rows, prompts=origin)
    for i, full in enumerate(fulls):
        near(last.logits[i, 0], full.last_logits[0])
    every = base.resume(rows, prompts=origin, logits="all", capture=["resid_post", "attn.z@0"])
    first = every.first_position
    assert first == 1
    assert every.logits.shape == (5, LENGTH - first, 97)
    for i, full in enumerate(fulls):
        length = lengths[origin[i]]
        near(every.logits[i, : length - first], full.logits[0, first:])
        assert every.logits[i, length - first :].isnan().all()
        for site in ("resid_post@0", "resid_post@-1", "attn.z@0"):
            near(every.cache[site][i, : length - first], full.cache[site][0, first:])
            assert every.cache[site][i, length - first :].isnan().all()
    chosen = base.resume(rows, prompts=origin, logits=[-1, 3], start=(3, 2))
    for i, full in enumerate(fulls):
        near(chosen.logits[i], full.logits[0, [lengths[origin[i]] - 1, 3]])
    assert base.resume(rows, prompts=origin, logits=False).logits is None
    reduced = base.resume(rows, prompts=origin, capture=Capture("resid_post@1", lambda x, site: x[..., 0]))
    near(reduced.cache["resid_post@1"], every.cache["resid_post@1"][..., 0])


def test_the_budget_cuts_the_work_and_not_the_numbers(family, near) -> None:
    model = family("llama")
    ids = prompt_ids(1, LENGTH)[0]
    base = model.run(ids, resumable=True)
    rows = [Scale(f"resid_pre@{layer}", 2.0, positions=position) for layer in range(3) for position in range(LENGTH)]
    whole = base.resume(rows)
    with counted_calls([model.hf]) as calls:
        small = base.resume(rows, token_budget=1)
    assert calls == [len(rows)]
    near(small.logits, whole.logits, 1e-5)
    with counted_calls([model.hf]) as calls:
        base.resume(rows, token_budget=10**6)
    assert calls == [LENGTH]  # rows that start at one position run together


def test_only_the_layers_and_positions_behind_a_change_are_computed(family) -> None:
    model = family("llama")
    ids = prompt_ids(1, LENGTH)[0]
    base = model.run(ids, resumable=True)
    seen: dict[int, tuple[int, ...]] = {}
    handles = [
        block.self_attn.q_proj.register_forward_hook(
            lambda module, args, output, layer=layer: seen.__setitem__(layer, tuple(output.shape[:2]))
        )
        for layer, block in enumerate(model.hf.model.layers)
    ]
    shapes = []
    handles.append(model.hf.lm_head.register_forward_hook(lambda m, args, output: shapes.append(tuple(output.shape))))
    try:
        base.resume([Scale("resid_pre@2", 2.0, positions=8), Scale("resid_post@0", 2.0, positions=8)])
    finally:
        for handle in handles:
            handle.remove()
    assert seen == {1: (1, 3), 2: (2, 3)}  # a row joins at its own layer; three positions are left
    assert shapes == [(2, 1, 97)]


def test_a_resumable_run_may_hold_changes_below_the_rows(family, near) -> None:
    """Causal tracing corrupts the embeddings once and restores states above them."""
    model = family("llama")
    ids = prompt_ids(1, LENGTH)[0]
    noise = Steer("embed", torch.randn(2, 32, generator=torch.Generator().manual_seed(0)), positions=[1, 2])
    base = model.run(ids, (), noise, resumable=True)
    clean = model.run(ids, "resid_post").cache
    rows = [
        Patch(f"resid_post@{layer}", clean[f"resid_post@{layer}"][:, position], positions=position)
        for layer in range(3)
        for position in (1, 5)
    ]
    for row, logits in zip(rows, base.resume(rows).logits, strict=True):
        near(logits[0], model.run(ids, (), [noise, row]).last_logits[0])
    lower = model.run(ids, (), Scale("attn.z@1", 2.0), resumable=True)
    for row in (Scale("resid_pre@1", 2.0, positions=3), Scale("embed", 2.0, positions=3), ZeroAblate("mlp_out@0")):
        with pytest.raises(UsageError, match="intervention in layer 1, which resuming from layer .* would undo"):
            lower.resume([row])
    near(lower.resume([[]], start=(2, 4)).logits[0], lower.logits[0, -1:])


def test_the_base_run_is_unchanged_by_resuming(family) -> None:
    for name in ("gpt2", "llama", "falcon", "bloom", "opt"):
        model = family(name)
        base = model.run(prompt_ids(1, LENGTH)[0], "all", resumable=True)
        kept = [t.clone() for t in base.snapshot.stream]
        cached = {site: value.clone() for site, value in base.cache.items()}
        base.resume([change_at(model, site, 3) for site in changeable(model)], capture="resid")
        assert all(torch.equal(a, b) for a, b in zip(base.snapshot.stream, kept, strict=True))
        assert all(torch.equal(base.cache[site], value) for site, value in cached.items())


@settings(max_examples=35)
@given(data=st.data())
@pytest.mark.long
def test_any_change_anywhere_resumes_to_the_full_forward(family, near, data: st.DataObject) -> None:
    model = family(data.draw(st.sampled_from(SUPPORTED), label="family"))
    length = data.draw(st.integers(1, 16), label="length")
    ids = prompt_ids(1, length, seed=length)[0]
    sites = st.sampled_from(changeable(model))
    changes = st.lists(st.tuples(sites, st.integers(-length, length - 1)), max_size=3)
    rows = [
        [change_at(model, *change) for change in row] for row in data.draw(st.lists(changes, min_size=1, max_size=4))
    ]
    resumed = model.run(ids, resumable=True, logits=False).resume(rows)
    for row, logits in zip(rows, resumed.logits, strict=True):
        near(logits[0], model.run(ids, (), row).last_logits[0])


@settings(max_examples=12)
@given(data=st.data())
def test_a_model_of_any_size_resumes_a_patch_anywhere(near, data: st.DataObject) -> None:
    heads, groups = data.draw(st.sampled_from([(1, 1), (2, 1), (4, 2), (3, 3)]), label="heads")
    sizes = {
        "hidden_size": heads * data.draw(st.sampled_from([4, 8, 12]), label="d_head"),
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "intermediate_size": data.draw(st.integers(3, 40), label="d_mlp"),
        "num_hidden_layers": data.draw(st.integers(1, 5), label="layers"),
    }
    seed = data.draw(st.integers(0, 1000), label="seed")
    model = Model(build(data.draw(st.sampled_from(["llama", "qwen2", "olmo2"])), seed=seed, **sizes))
    length = data.draw(st.integers(2, 12), label="length")
    site = data.draw(st.sampled_from(["resid_pre", "attn_out", "mlp_out", "resid_post"]), label="site")
    layer = data.draw(st.integers(0, sizes["num_hidden_layers"] - 1), label="layer")
    position = data.draw(st.integers(0, length - 1), label="position")
    clean, corrupted = prompt_ids(2, length, seed=seed)
    value = model.run(corrupted, site).cache[f"{site}@{layer}"][:, position]
    patch = Patch(f"{site}@{layer}", value, positions=position)
    resumed = model.run(clean, resumable=True, logits=False).resume([patch])
    near(resumed.logits[0, 0], model.run(clean, (), patch).last_logits[0])


def test_what_cannot_be_resumed_says_why(family) -> None:
    model = family("llama")
    ids = prompt_ids(1, LENGTH)[0]
    with pytest.raises(UsageError, match=r"resumable=True"):
        model.run(ids).resume([[]])
    base = model.run(ids, resumable=True)
    for start in ((4, 0), (0, LENGTH), (-1, 0), (0, -1)):
        with pytest.raises(UsageError, match="is out of range; valid: layers 0 to 3, positions 0 to 10"):
            base.resume([[]], start=start)
    with pytest.raises(UsageError, match="prompts must give one of 0 to 0 for each of the 2 rows"):
        base.resume([[], []], prompts=[0, 1])
    with pytest.raises(UsageError, match="prompts must give"):
        base.resume([[], []], prompts=[0])
    with pytest.raises(UsageError, match="logits before position 5 are not re-executed"):
        base.resume([[]], start=(0, 5), logits=[3])
    with pytest.raises(UsageError, match="a resumed row is one prompt"):
        base.resume([Scale("resid_pre@1", 2.0, prompts=0)])
    with pytest.raises(UsageError, match="position 40 is out of range; valid: 0 to 10"):
        base.resume([Scale("resid_pre@1", 2.0, positions=40)])


def test_no_rows_and_no_logits(family) -> None:
    model = family("llama")
    base = model.run(prompt_ids(1, LENGTH)[0], resumable=True, logits=False)
    assert base.logits is None
    assert base.snapshot.bytes > 0
    empty = base.resume([])
    assert empty.logits is None
    assert len(empty.cache) == 0


@pytest.mark.model
def test_the_default_model_resumes(model, near) -> None:
    prompt = "The Eiffel Tower is located in the city of"
    base = model.run(prompt, resumable=True)
    plain = base.last_logits[0]
    rows = [
        Scale("resid_pre@25", 1.5, positions=-1),
        ZeroAblate("mlp_out@3", positions=4),
        Scale("attn.z@10", 0.0, heads=[0, 5], positions=-1),
        Scale("resid_post@29", 2.0, positions=-1),
        [],
    ]
    resumed = base.resume(rows)
    for row, logits in zip(rows, resumed.logits, strict=True):
        near(logits[0], model.run(prompt, (), row).last_logits[0])
    near(resumed.logits[-1, 0], plain)
    for start in ((0, 0), (29, 9), (30, 5), (15, 3)):
        near(base.resume([[]], start=start).logits[0, 0], plain)

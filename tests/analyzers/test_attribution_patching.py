"""Attribution patching on tiny models: plain autograd gives the same, linear parts are exact, integrated gradients add up."""

import math

import pytest
import torch
from torch import nn

import hand_made
import interp
from interp.analyzers import attribution_patching_work
from interp.analyzers.activation_patching import activation_patching
from interp.analyzers.attribution_patching import attribution_patching
from interp.analyzers.attribution_patching_result import AttributionPatchingResult
from interp.errors import NumericsError, UsageError
from interp.interventions import Patch
from interp.results import load_result
from interp.runner.model import Model
from oracles import attribution_patching as oracle
from tiny_models import build

CLEAN = [[5, 9, 33, 71, 12, 44, 8, 90], [5, 60, 33, 71, 61, 44, 8, 3]]
CORRUPTED = [[5, 9, 34, 71, 12, 44, 60, 90], [5, 60, 33, 71, 62, 44, 8, 4]]
ANSWER, RIVAL = 7, 8
ASKED = {"target": ANSWER, "against": RIVAL}
FAMILIES = ["gpt2", "llama", "gemma2", "gpt_neox", "bloom"]
"""Absolute positions, grouped queries, post-norms, parallel blocks, and one outside the AttentionInterface."""


def difference(logits):
    return logits[ANSWER] - logits[RIVAL]


def expected(family_name, hf, direction, kind, steps=1):
    """The oracle's product of change and gradient for both pairs, [batch layer pos ...]."""
    sides = zip(CLEAN, CORRUPTED, strict=True)
    both = [(clean, corrupted) if direction == "noising" else (corrupted, clean) for clean, corrupted in sides]
    return torch.stack(
        [
            oracle.estimates(family_name, hf, torch.tensor(base), torch.tensor(source), difference, kind, steps)
            for base, source in both
        ]
    )


def near(actual, wanted, tolerance=1e-4):
    scale = max(1.0, float(wanted.abs().max()))
    torch.testing.assert_close(actual.double(), wanted.double(), atol=tolerance * scale, rtol=0, equal_nan=True)


@pytest.mark.parametrize("direction", ["denoising", "noising"])
@pytest.mark.parametrize("family_name", FAMILIES)
def test_estimates_are_plain_autograds(family, family_name, direction):
    model = family(family_name)
    sites = ("resid_pre", "attn_out", "mlp_out", "attn.z")
    for steps in (1, 3):
        options = {**ASKED, "direction": direction, "steps": steps, "check": 0}
        by_position = attribution_patching(model, CLEAN, CORRUPTED, sites=sites, **options)
        want = {kind: expected(family_name, model.hf, direction, kind, steps) for kind in sites}
        for kind in sites:
            near(by_position.estimated(kind), want[kind].flatten(3).sum(-1))
        for by, axes in (("head", (2, 4)), ("head_position", (4,)), ("layer", (2, 3, 4))):
            found = attribution_patching(model, CLEAN, CORRUPTED, sites="attn.z", by=by, **options)
            cells = want["attn.z"].sum(axes)
            near(found.estimated("attn.z"), cells.transpose(2, 3) if by == "head_position" else cells)
        assert float(by_position.estimated("resid_pre").abs().max()) > 1e-2
    assert all(parameter.grad is None for parameter in model.hf.parameters())


@pytest.mark.parametrize(
    ("family_name", "site", "by"),
    [
        ("gpt2", "resid_mid", "position"),
        ("llama", "resid_post", "layer"),
        ("llama", "attn.q", "head_position"),
        ("llama", "attn.k", "head"),
        ("gpt_neox", "attn.v", "head"),
        ("gemma2", "attn.pattern", "head"),
        ("gpt2", "attn.pattern", "position"),
        ("gpt_oss", "attn.z", "head"),
    ],
)
def test_estimates_are_the_slope_of_a_small_step_towards_the_source(family_name, site, by):
    model = Model(build(family_name).double())
    if family_name == "gpt_oss":
        model.hf.set_experts_implementation("eager")  # the grouped one has no float64
    found = attribution_patching(model, CLEAN[0], CORRUPTED[0], sites=site, by=by, layers=1, check=0, **ASKED)
    name = f"{site}@1"
    base, source = (model.run(ids, name) for ids in (CORRUPTED[0], CLEAN[0]))
    step = 1e-3
    for head in range(found.patched[site].shape[2]) if "head" in by else [None]:
        for position in [2, 6, 7] if "position" in by else [None]:
            ends = []
            for sign in (1, -1):
                moved = base.cache[name] + sign * step * (source.cache[name] - base.cache[name])
                axes = {
                    model.sites.sites(name)[0].info.head_axis: head,
                    model.sites.sites(name)[0].info.position_axis: position,
                }
                for axis, index in axes.items():
                    moved = moved if axis is None or index is None else moved.narrow(axis, index, 1)
                logits = model.run(CORRUPTED[0], (), Patch(name, moved, heads=head, positions=position)).last_logits[0]
                ends.append(float(difference(logits)))
            slope = (ends[0] - ends[1]) / (2 * step)
            cell = tuple(index for index in (head, position) if index is not None)
            assert float(found.estimated(site)[(0, 0, *cell)]) == pytest.approx(slope, rel=2e-2, abs=1e-3)


def test_checked_cells_hold_what_activation_patching_finds(family):
    model = family("llama")
    for by, sites in (
        ("position", ("resid_pre", "mlp_out")),
        ("head", ("attn.z", "attn.k")),
        ("head_position", ("attn.v",)),
    ):
        options = {**ASKED, "sites": sites, "by": by, "direction": "noising"}
        found = attribution_patching(model, CLEAN, CORRUPTED, check=12, seed=1, **options)
        exact = activation_patching(model, CLEAN, CORRUPTED, **options)
        cells = found.checked
        assert found.n_checked == 12 < cells.n_cells
        for row in range(12):
            site = sites[int(cells.site[row])]
            place = [int(index) for index in (cells.head[row], cells.position[row]) if index >= 0]
            at = (int(cells.pair[row]), int(cells.layer[row]), *place)
            want = float(exact.patched[site][at]) - float(exact.clean_metric[at[0]])
            assert float(cells.exact[row]) == pytest.approx(want, abs=1e-4)
            assert float(cells.estimated[row]) == pytest.approx(float(found.estimated(site)[at]), abs=1e-12)
        assert found.correlation.n == 12
        want = oracle.rank_correlation(cells.estimated.tolist(), cells.exact.tolist())
        assert found.correlation.value == pytest.approx(want)
        assert found.correlation.lower <= found.correlation.value <= found.correlation.upper


def test_what_the_metric_is_linear_in_is_estimated_exactly():
    """No norm before the unembedding: the last block's stream and what it adds to it reach the logits by a matrix alone."""
    hf = build("gpt2")
    hf.transformer.ln_f = nn.Identity()
    options = {**ASKED, "sites": ("resid_post", "mlp_out"), "layers": 2}
    found = attribution_patching(Model(hf), CLEAN, CORRUPTED, **options)
    exact = activation_patching(Model(hf), CLEAN, CORRUPTED, **options)
    for site in ("resid_post", "mlp_out"):
        near(found.patched[site], exact.patched[site], 1e-5)
    assert float(found.effects("resid_post").value[0, -1]) == pytest.approx(1.0, abs=1e-5)
    with_norm = attribution_patching(Model(build("gpt2")), CLEAN, CORRUPTED, **options)
    assert not math.isclose(float(with_norm.effects("resid_post").value[0, -1]), 1.0, abs_tol=1e-2)


def test_heads_that_write_the_logits_are_estimated_exactly():
    """Nothing lies behind the last heads of the hand-made circuit, whose norms return their input."""
    model = Model(hand_made.build())
    clean, corrupted = hand_made.repeated(12).tolist(), hand_made.repeated(12).tolist()
    corrupted[13] = clean[14]  # another token after begin-of-text repeats the block
    target = clean[14]
    clean, corrupted = clean[:14], corrupted[:14]
    asked = {"target": target, "against": clean[3], "sites": "attn.z", "by": "head", "layers": 1}
    found = attribution_patching(model, clean, corrupted, **asked)
    exact = activation_patching(model, clean, corrupted, **asked)
    near(found.patched["attn.z"], exact.patched["attn.z"])
    (strongest, *_) = found.strongest("attn.z", 1)
    assert (strongest.layer, strongest.head) == hand_made.INDUCTION
    assert abs(float(found.estimated("attn.z")[0, 0, 0])) > 1.0


@pytest.mark.parametrize("family_name", ["gpt2", "llama", "gemma2", "gpt_neox", "bloom"])
def test_integrated_gradients_add_up_to_the_whole_difference(family, family_name):
    model = family(family_name)
    errors = []
    for steps in (1, 4, 16):
        found = attribution_patching(model, CLEAN, CORRUPTED, layers=0, steps=steps, check=0, **ASKED)
        whole = (found.clean_metric - found.corrupted_metric).double()
        errors.append(float((found.estimated("resid_pre").sum((1, 2)) - whole).abs().max()))
    assert errors[2] < 2e-2
    assert errors[2] < 0.3 * errors[1] + 1e-4
    assert errors[0] > 10 * errors[2]


@pytest.mark.parametrize("metric", ["log_prob", "probability", "kl"])
def test_answers_of_several_tokens_and_other_metrics_add_up(family, metric):
    model = family("llama")
    asked = {"target": [7, 20], "metric": metric, "direction": "noising", "by": "layer", "layers": 0}
    found = attribution_patching(model, CLEAN[0], CORRUPTED[0], steps=64, check=2, **asked)
    whole = float(found.corrupted_metric[0] - found.clean_metric[0])
    assert abs(whole) > 1e-5
    assert float(found.estimated("resid_pre")[0, 0]) == pytest.approx(whole, rel=1e-2)
    assert float(found.checked.exact[0]) == pytest.approx(whole, rel=1e-3, abs=1e-6)
    assert found.checked.n_cells == 1


def test_a_function_as_metric(family):
    model = family("gpt2")
    named = attribution_patching(model, CLEAN, CORRUPTED, check=5, **ASKED)
    custom = attribution_patching(
        model, CLEAN, CORRUPTED, check=5, metric=lambda logits: logits[:, ANSWER] - logits[:, RIVAL], target=ANSWER
    )
    near(custom.patched["resid_pre"], named.patched["resid_pre"], 1e-6)
    assert custom.metric_unit == ""
    with pytest.raises(UsageError, match="the metric must return one number that depends on the logits"):
        attribution_patching(model, CLEAN, CORRUPTED, metric=lambda logits: torch.ones(len(logits)), target=ANSWER)


def test_kl_has_no_slope_at_the_clean_run(family):
    model = family("llama")
    with pytest.raises(UsageError, match="the gradient of 'kl' is zero at the clean run.*give steps=10"):
        attribution_patching(model, CLEAN, CORRUPTED, metric="kl", direction="noising")
    found = attribution_patching(model, CLEAN, CORRUPTED, metric="kl", check=4)
    assert not found.clean_metric.abs().max() > 1e-6
    assert float(found.estimated("resid_pre").abs().max()) > 1e-3


@pytest.mark.long
def test_nothing_depends_on_how_pairs_are_run_together(family, monkeypatch):
    model = family("gemma2")
    for steps in (1, 2):
        options = {**ASKED, "sites": ("resid_pre", "attn.z"), "steps": steps, "check": 20, "seed": 3}
        together = attribution_patching(model, CLEAN, CORRUPTED, **options)
        with monkeypatch.context() as patched:
            patched.setattr(attribution_patching_work, "_MOST_TOKENS", 1)
            alone = attribution_patching(model, CLEAN, CORRUPTED, **options)
        for site in ("resid_pre", "attn.z"):
            near(alone.patched[site], together.patched[site])
        near(alone.checked.exact, together.checked.exact)


def test_pairs_of_several_lengths(family):
    model = family("llama")
    options = {**ASKED, "sites": "attn.z", "by": "head", "check": 10}
    both = attribution_patching(model, [CLEAN[0], CLEAN[1][1:]], [CORRUPTED[0], CORRUPTED[1][1:]], **options)
    one = attribution_patching(model, CLEAN[1][1:], CORRUPTED[1][1:], **options)
    near(both.patched["attn.z"][1:], one.patched["attn.z"])
    assert set(both.checked.pair.tolist()) == {0, 1}


@pytest.mark.long
def test_the_seed_chooses_the_checked_cells(family):
    model = family("llama")
    first, again, other = (
        attribution_patching(model, CLEAN, CORRUPTED, check=6, seed=seed, **ASKED) for seed in (1, 1, 2)
    )
    assert first.checked_frame().equals(again.checked_frame())
    assert not first.checked_frame()[["layer", "position"]].equals(other.checked_frame()[["layer", "position"]])
    every = attribution_patching(model, CLEAN, CORRUPTED, check=10_000, **ASKED)
    assert every.n_checked == every.checked.n_cells
    frame = every.checked_frame()
    assert not frame.duplicated(["pair", "layer", "position"]).any()
    assert frame["position"].min() == 2  # the first token that differs
    assert not (frame["exact"] == 0.0).any()


def test_unchecked_estimates_say_so(family):
    found = attribution_patching(family("llama"), CLEAN, CORRUPTED, check=0, **ASKED)
    assert found.checked is None
    assert found.correlation is None
    assert found.n_checked == 0
    assert found.checked_frame().empty
    for call in (lambda: found.correlation_of("resid_pre"), found.agreement_figure):
        with pytest.raises(UsageError, match="no cell of these estimates was checked; run again with check=100"):
            call()


def test_effects_are_normalised_as_those_of_activation_patching(family):
    found = attribution_patching(family("llama"), CLEAN, CORRUPTED, check=0, **ASKED)
    whole = (found.clean_metric - found.corrupted_metric).mean()
    torch.testing.assert_close(found.effects("resid_pre").value, found.estimated("resid_pre").mean(0) / whole.double())
    noising = attribution_patching(family("llama"), CLEAN, CORRUPTED, check=0, direction="noising", **ASKED)
    torch.testing.assert_close(
        noising.effects("resid_pre").value,
        -noising.estimated("resid_pre").mean(0) / whole.double(),
        atol=1e-5,
        rtol=1e-4,
    )


@pytest.mark.long
def test_round_trip_tables_and_figures(family, tmp_path):
    for by, sites in (("head", ("attn.z", "attn.k")), ("position", ("resid_pre",)), ("layer", ("mlp_out",))):
        found = attribution_patching(family("llama"), CLEAN, CORRUPTED, sites=sites, by=by, check=8, steps=2, **ASKED)
        found.save(tmp_path / "estimates.safetensors")
        again = load_result(tmp_path / "estimates.safetensors")
        assert isinstance(again, AttributionPatchingResult)
        assert again.to_json() == found.to_json()
        frame = again.to_frame()
        assert {"site", "layer", "effect", "patched_estimate", "unit"} <= set(frame)
        assert "patched" not in frame
        assert len(again.checked_frame()) == again.n_checked
        assert "estimated" in str(again.figure().to_json())
        assert again.agreement_figure().data
        assert again.correlation_of(sites[0]).n <= again.n_checked
    unchecked = attribution_patching(family("llama"), CLEAN, CORRUPTED, check=0, **ASKED)
    unchecked.save(tmp_path / "unchecked.safetensors")
    assert load_result(tmp_path / "unchecked.safetensors").correlation is None
    with pytest.raises(UsageError, match="unknown patched site 'mlp'"):
        found.correlation_of("mlp")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps is 0; give 1 .* or more"),
        ({"check": -1}, "check is -1; give 0 .* or more"),
        ({"direction": "forwards"}, "unknown direction 'forwards'; valid: denoising, noising"),
        ({"confidence": 95.0}, "confidence is 95.0; valid: between 0 and 1"),
        ({"metric": "accuracy"}, "unknown metric 'accuracy'"),
        ({"sites": "attn.scores"}, "unknown site to patch"),
        ({"by": "head"}, "'resid_pre' has no heads"),
        ({"layers": 9}, "layer 9 is out of range; valid: 0 to 2"),
        ({"corrupted": CLEAN}, "are the same 8 tokens"),
        ({"corrupted": [[5, 6], [7, 8]]}, "has 8 tokens and the corrupted one 2"),
        ({"target": [7, 7], "against": [7, 9]}, "begin with the same token"),
    ],
)
def test_bad_arguments_name_the_valid_values(family, options, message):
    arguments = {"clean": CLEAN, "corrupted": CORRUPTED, **ASKED, **options}
    with pytest.raises(UsageError, match=message) as caught:
        attribution_patching(family("llama"), **arguments)
    assert "\n" not in str(caught.value)


def test_weights_that_are_not_finite_are_an_error():
    hf = build("llama")
    with torch.no_grad():
        hf.model.layers[1].mlp.down_proj.weight[0, 0] = math.nan
    with pytest.raises(NumericsError, match="NaN"):
        attribution_patching(Model(hf), CLEAN, CORRUPTED, metric=lambda logits: logits[:, 7], target=7)


def test_progress_counts_pairs_and_checked_cells(family):
    told = []
    attribution_patching(family("llama"), CLEAN, CORRUPTED, check=5, progress=lambda *step: told.append(step), **ASKED)
    assert told[0] == ("gradients", 0, 2)
    assert told[-1] == ("gradients", 2, 2)
    assert ("exact check", 5, 5) in told


def test_it_is_public():
    assert interp.attribution_patching is attribution_patching


def indirect_object_pairs(model, path, n_pairs):
    """Prompts with two names, the one that comes twice exchanged for the other in its second place: the answer changes sides."""
    import json
    import re

    found = []
    for row in json.loads(path.read_text()):
        names = re.findall(r"[A-Z][a-z]+", row["prompt"])
        repeated = {name for name in names if names.count(name) == 2} - {row["answer"]}
        if len(repeated) != 1:
            continue
        (subject,) = repeated
        at = row["prompt"].rindex(subject)
        corrupted = row["prompt"][:at] + row["answer"] + row["prompt"][at + len(subject) :]
        ids = [model.tokenizer(f" {name}", add_special_tokens=False)["input_ids"] for name in (row["answer"], subject)]
        if len(ids[0]) != 1 or len(ids[1]) != 1 or len(model.tokens(row["prompt"])) != len(model.tokens(corrupted)):
            continue
        chosen = [int(model.run(prompt, logits="last").last_logits.argmax()) for prompt in (row["prompt"], corrupted)]
        if chosen == [ids[0][0], ids[1][0]]:
            found.append((row["prompt"], corrupted, f" {row['answer']}", f" {subject}"))
        if len(found) == n_pairs:
            return [list(column) for column in zip(*found, strict=True)]
    raise AssertionError(f"only {len(found)} pairs that the model answers")


@pytest.mark.model
@pytest.mark.slow
def test_indirect_objects_on_the_default_model(model, shared_data):
    """Estimates of heads rank like the exact patches, and the strongest by either are among each other's strongest."""
    path = shared_data / "ioi.json"
    if not path.is_file():
        pytest.skip(f"no {path}")
    clean, corrupted, target, against = indirect_object_pairs(model, path, 6)
    options = {"target": target, "against": against, "sites": "attn.z", "by": "head", "direction": "noising"}
    found = attribution_patching(model, clean, corrupted, check=150, **options)
    exact = activation_patching(model, clean, corrupted, layers=range(15, 30), **options)
    assert found.correlation.n == 150
    assert found.correlation.lower > 0.6
    strongest = [{(cell.layer, cell.head) for cell in one.strongest("attn.z", 10)} for one in (found, exact)]
    assert len(strongest[0] & strongest[1]) >= 6

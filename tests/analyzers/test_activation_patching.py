"""Activation patching: every cell is the one-forward-per-cell loop's, identities hold, stopped work goes on, errors are clear."""

import itertools
from functools import cache

import pytest
import torch

import interp
from interp.analyzers import activation_patching_sweep as sweeping
from interp.analyzers.activation_patching import HEAD_SITES, SITES, STREAM_SITES, activation_patching
from interp.analyzers.activation_patching_result import AXES_BY, ActivationPatchingResult
from interp.analyzers.activation_patching_sweep import Cut, Exchange, Group, captures_of, patched_metric
from interp.analyzers.answers import Answer, Question
from interp.analyzers.metrics import metric_of
from interp.checkpoint import Checkpoint
from interp.errors import MemoryLimitError, NumericsError, UsageError
from interp.results import load_result
from interp.runner.model import Model
from oracles import activation_patching as oracle
from tiny_models import build

CLEAN = [5, 9, 33, 71, 12, 44, 8]
CORRUPTED = [5, 9, 34, 71, 12, 45, 8]
SHORT, SHORT_CORRUPTED = [5, 9, 33, 71, 12], [5, 9, 34, 71, 13]
LONG, LONG_CORRUPTED = (
    [5, 9, 33, 71, 12, 44, 8, 90, 17, 3],
    [5, 9, 34, 71, 12, 45, 8, 90, 17, 3],
)  # longer than a window
SECOND = ([7, 60, 61, 62, 9, 8, 77], [7, 60, 61, 20, 9, 8, 77])
ANSWER, RIVAL = 7, 8
FAMILIES = ["gpt2", "llama", "gemma2", "gpt_neox", "mixtral", "bloom", "gpt_neo"]
"""Absolute positions, grouped queries, post-norms and windows, parallel blocks, experts, and two outside the AttentionInterface."""
SLOW = {"gpt_neox", "mixtral", "gpt_neo"}
EVERY = [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in FAMILIES]
LACKS = {"gpt_neox": {"resid_mid"}, "bloom": {"attn.pattern"}, "gpt_neo": {"attn.pattern"}}
BYS = tuple(AXES_BY)


@cache
def eager_model(name):
    return build(name, "eager")


def sites_for(name, by):
    return [site for site in (HEAD_SITES if "head" in by else SITES) if site not in LACKS.get(name, ())]


def cells(values):
    """The indices of a tensor's cells."""
    return itertools.product(*map(range, values.shape))


def expected(name, model, source, base, site, by, values, score, layers=(0, 1, 2)):
    """What the plain loops find for each cell of one pair, [layer ...]."""
    hf = eager_model(name) if site == "attn.pattern" else model.hf
    want = torch.full(values.shape, torch.nan)
    for row, layer in enumerate(layers[: len(values)]):
        value = oracle.activation(name, hf, source, site, layer)
        for index in cells(values[row]):
            place = dict(zip(AXES_BY[by], index, strict=True))
            want[(row, *index)] = oracle.patched(name, hf, value, base, site, layer, score, **place)
    return want


def near(actual, wanted, tolerance=1e-5):
    """Equal to ``tolerance`` of the largest expected number."""
    scale = float(wanted.abs().max())
    torch.testing.assert_close(actual, wanted, rtol=0, atol=tolerance * scale, check_dtype=False)


@pytest.mark.parametrize("by", BYS)
@pytest.mark.parametrize("name", EVERY)
def test_every_cell_is_the_plain_loops(family, name, by):
    model = family(name)
    sites = sites_for(name, by)
    clean, corrupted = (SHORT, SHORT_CORRUPTED) if "position" in by else (LONG, LONG_CORRUPTED)
    result = activation_patching(model, clean, corrupted, target=ANSWER, against=RIVAL, sites=sites, by=by)
    score = oracle.logit_difference(-1, ANSWER, RIVAL)
    unpatched = score(oracle.logits_of(model.hf, corrupted))
    assert float(result.clean_metric) == pytest.approx(score(oracle.logits_of(model.hf, clean)), abs=1e-5)
    assert float(result.corrupted_metric) == pytest.approx(unpatched, abs=1e-5)
    assert result.sites == tuple(sites)
    for site in sites:
        values = result.patched[site][0]
        want = expected(name, model, clean, corrupted, site, by, values, score)
        near(values, want)
        assert (want - unpatched).abs().max() > 1e-3, site


@pytest.mark.parametrize("by", BYS)
def test_noising_is_the_plain_loops(family, by):
    model = family("llama")
    sites = sites_for("llama", by)
    settings = {"target": ANSWER, "against": RIVAL, "sites": sites, "by": by, "layers": [0, -1]}
    result = activation_patching(model, SHORT, SHORT_CORRUPTED, direction="noising", **settings)
    assert result.layers == (0, 2)
    score = oracle.logit_difference(-1, ANSWER, RIVAL)
    for site in sites:
        values = result.patched[site][0]
        near(values, expected("llama", model, SHORT_CORRUPTED, SHORT, site, by, values, score, layers=(0, 2)))


@pytest.mark.parametrize("metric", ["probability", "log_prob", "kl", "logit_difference"])
def test_metrics_of_answers_of_several_tokens(family, metric):
    """The answer's earlier tokens are given; positions are those of the prompt, all positions include the answer's."""
    model = family("llama")
    answer = [7, 40, 22]
    settings = {"target": answer, "against": RIVAL if metric == "logit_difference" else None, "metric": metric}
    clean, corrupted = [*CLEAN, *answer[:-1]], [*CORRUPTED, *answer[:-1]]
    last = len(CLEAN) - 1
    log_prob = oracle.log_prob(last, answer)
    score = {
        "probability": lambda logits: torch.tensor(log_prob(logits)).exp().item(),
        "log_prob": log_prob,
        "kl": oracle.kl(oracle.logits_of(model.hf, clean), range(last, last + 3)),
        "logit_difference": oracle.logit_difference(last, 7, RIVAL),
    }[metric]
    units = {"probability": "probability", "log_prob": "nats", "kl": "nats", "logit_difference": "logits"}
    for by, site in (("position", "resid_mid"), ("position", "attn.k"), ("head", "attn.z"), ("layer", "attn_out")):
        result = activation_patching(model, CLEAN, CORRUPTED, sites=site, by=by, **settings)
        assert (result.metric, result.metric_unit) == (metric, units[metric])
        assert result.answers[0].ids == (7, 40, 22)
        assert len(result.clean[0]) == len(CLEAN)
        values = result.patched[site][0]
        near(values, expected("llama", model, clean, corrupted, site, by, values, score), 2e-5)
        assert float(result.corrupted_metric) == pytest.approx(score(oracle.logits_of(model.hf, corrupted)), rel=1e-4)


def test_a_custom_metric(family):
    model = family("gpt2")

    def entropy(logits):
        return torch.distributions.Categorical(logits=logits).entropy()

    result = activation_patching(model, CLEAN, CORRUPTED, metric=entropy, sites="resid_pre")
    assert (result.metric, result.metric_unit) == ("entropy", "")
    values = result.patched["resid_pre"][0]
    score = lambda logits: float(entropy(logits[-1:]))  # noqa: E731
    near(values, expected("gpt2", model, CLEAN, CORRUPTED, "resid_pre", "position", values, score))
    with pytest.raises(UsageError, match="a custom metric takes logits .* and returns one number a row"):
        activation_patching(model, CLEAN, CORRUPTED, metric=lambda logits: logits.mean())


@pytest.mark.parametrize("by", BYS)
@pytest.mark.long
def test_pairs_side_by_side_are_the_pairs_alone(family, by):
    """Pairs that differ from other positions on, each with its own answer; every cell and the effects over them."""
    model = family("llama")
    sites = sites_for("llama", by)
    pairs = [(CLEAN, CORRUPTED), SECOND, (CLEAN, [5, 9, 33, 71, 12, 44, 20])]
    answers, rivals = [7, 30, 31], [8, 33, 32]
    clean, corrupted = ([pair[side] for pair in pairs] for side in (0, 1))
    together = activation_patching(model, clean, corrupted, target=answers, against=rivals, sites=sites, by=by)
    alone = [
        activation_patching(model, *pair, target=answer, against=rival, sites=sites, by=by)
        for pair, answer, rival in zip(pairs, answers, rivals, strict=True)
    ]
    for site in sites:
        near(together.patched[site], torch.cat([one.patched[site] for one in alone]))
        effects = together.effects(site)
        at = tuple(size - 1 for size in effects.value.shape)
        column = [float(one.patched[site][(0, *at)]) for one in alone]
        sides = [[float(getattr(one, name)) for one in alone] for name in ("clean_metric", "corrupted_metric")]
        assert effects.at(*at).value == pytest.approx(oracle.normalised(column, *sides, "denoising"), abs=2e-5)
        assert effects.at(*at).n == 3
        assert not effects.lower.isnan().any()
    assert together.n_pairs == 3


@pytest.mark.parametrize("by", ["head", "layer"])
def test_pairs_of_several_lengths(family, by):
    model = family("gpt2")
    pairs = [(CLEAN, CORRUPTED), (CLEAN[1:], CORRUPTED[1:]), SECOND]
    clean, corrupted = ([pair[side] for pair in pairs] for side in (0, 1))
    together = activation_patching(model, clean, corrupted, target=7, against=8, sites="attn.z", by=by)
    for index, pair in enumerate(pairs):
        alone = activation_patching(model, *pair, target=7, against=8, sites="attn.z", by=by)
        near(together.patched["attn.z"][index], alone.patched["attn.z"][0])
    assert together.to_frame().n_pairs.unique().tolist() == [3]


@pytest.mark.parametrize("name", EVERY[:-1])
@pytest.mark.parametrize("by", BYS)
def test_clean_into_clean_changes_nothing(family, name, by):
    """Every cell is run, nothing left out: the clean prompt's activations in the clean run."""
    model = family(name)
    sites = sites_for(name, by)
    answer = Answer(text="", ids=(7,), pieces=("",))
    tokens = model.tokens(CLEAN)
    metric = metric_of("log_prob", [Question(prompt=tokens, answer=answer, against=None, asked=tokens)])
    group = Group(pairs=(0,), differs=((True,) * len(CLEAN),), n_prompt=len(CLEAN), first_read=0)
    cuts = [Cut.of(model, site, by, (0, 1, 2)) for site in sites]
    of_source, of_base = captures_of(cuts)
    source = model.run([tokens], of_source, logits="last")
    base = model.run([tokens], of_base, logits="last", resumable=True)
    told = []
    exchange = Exchange(group=group, source=source, base=base)
    with Checkpoint(None, {}) as kept:
        found = patched_metric(exchange, cuts, metric, (0, 1, 2), kept, lambda *step: told.append(step))
    assert told[-1][1] == told[-1][2] == sum(values.numel() for values in found.values())
    clean = oracle.log_prob(-1, [7])(oracle.logits_of(model.hf, CLEAN))
    for values in found.values():
        near(values, torch.full(values.shape, clean))


@pytest.mark.parametrize("name", EVERY)
def test_everything_restored_is_the_clean_run(family, name):
    model = family(name)
    settings = {"target": 7, "against": 8, "sites": ["resid_pre", "resid_post"]}
    whole = activation_patching(model, CLEAN, CORRUPTED, by="layer", **settings)
    for site in whole.sites:
        near(whole.patched[site], whole.clean_metric.expand(whole.patched[site].shape))
    placed = activation_patching(model, CLEAN, CORRUPTED, **settings)
    near(placed.patched["resid_post"][0, -1, -1], whole.clean_metric[0])
    last = placed.effects("resid_post").at(model.atlas.n_layers - 1, len(CLEAN) - 1)
    assert last.value == pytest.approx(1.0, abs=1e-5)
    near(placed.patched["resid_post"][:, :-1], placed.patched["resid_pre"][:, 1:])
    # Nothing behind the last block moves between positions, and nothing before the first difference is changed.
    assert (placed.patched["resid_post"][0, -1, :-1] == placed.corrupted_metric[0]).all()
    assert (placed.patched["resid_pre"][0, :, :2] == placed.corrupted_metric[0]).all()
    assert (placed.patched["resid_pre"][0, 0, [3, 4, 6]] == placed.corrupted_metric[0]).all()


def test_denoising_and_noising_whole_layers_of_the_stream_are_complements(family):
    results = {
        direction: activation_patching(
            family("gemma2"), CLEAN, CORRUPTED, target=7, against=8, sites=STREAM_SITES, by="layer", direction=direction
        )
        for direction in ("denoising", "noising")
    }
    for site in ("resid_pre", "resid_mid", "resid_post"):
        for result in results.values():
            torch.testing.assert_close(result.effects(site).value, torch.ones(3).double(), atol=1e-5, rtol=0)
    there, back = results["denoising"], results["noising"]
    near(there.patched["resid_pre"], there.clean_metric.expand(1, 3))
    near(back.patched["resid_pre"], back.corrupted_metric.expand(1, 3))
    mlp = there.effects("mlp_out").value, back.effects("mlp_out").value
    assert (mlp[0] - mlp[1]).abs().max() > 1e-3  # parts of the stream are not


def test_a_key_value_head_serves_its_group_of_query_heads(family):
    """Patching a shared value head (and the patterns left as they are) is patching z of its whole group to pattern times that value."""
    model = family("llama")
    result = activation_patching(
        model, CLEAN, CORRUPTED, target=7, against=8, sites=["attn.k", "attn.v", "attn.z"], by="head", layers=[1]
    )
    assert result.patched["attn.v"].shape == (1, 1, 2)
    assert result.query_heads("attn.v") == ((0, 1), (2, 3))
    assert result.query_heads("attn.z") == ((0,), (1,), (2,), (3,))
    frame = result.to_frame()
    assert frame[frame.site == "attn.k"].query_heads.tolist() == ["0,1", "2,3"]
    base = model.run(CORRUPTED, ["attn.pattern@1", "attn.v@1", "attn.z@1"])
    value = model.run(CLEAN, "attn.v@1").cache["attn.v@1"]
    for kv_head in range(2):
        rows = [base.cache["attn.pattern@1"][:, h] @ value[:, :, kv_head] for h in (2 * kv_head, 2 * kv_head + 1)]
        patch = interp.Patch("attn.z@1", torch.stack(rows, 2), heads=[2 * kv_head, 2 * kv_head + 1])
        logits = model.run(CORRUPTED, (), patch).last_logits[0]
        near(result.patched["attn.v"][0, 0, kv_head], logits[7] - logits[8])


def test_streams_of_many_heads_are_prepared_some_at_a_time(family, monkeypatch):
    settings = {"target": 7, "against": 8, "sites": "attn.z", "by": "head_position"}
    whole = activation_patching(family("llama"), CLEAN, CORRUPTED, **settings)
    monkeypatch.setattr(sweeping, "_STREAM_BYTES", 1)
    monkeypatch.setattr(sweeping, "_ROWS_A_PART", 3)
    told = []
    parts = activation_patching(family("llama"), CLEAN, CORRUPTED, **settings, progress=lambda *step: told.append(step))
    near(parts.patched["attn.z"], whole.patched["attn.z"])
    done = [step[1] for step in told]
    assert done == sorted(done)
    assert done[-1] == told[-1][2]
    assert {step[2] for step in told} == {done[-1]}


def test_pairs_that_do_not_fit_are_halved_and_said(monkeypatch):
    said = []
    model = Model(build("llama"), notify=said.append)
    clean, corrupted = [CLEAN, SECOND[0], CLEAN], [CORRUPTED, SECOND[1], [5, 9, 33, 71, 12, 44, 20]]
    settings = {"target": 31, "against": 8, "sites": ["resid_pre", "attn.v"]}
    whole = activation_patching(model, clean, corrupted, **settings)
    run = Model.run

    def tight(self, prompts, *rest, **options):
        if options.get("resumable") and len(prompts) > 1:
            raise MemoryLimitError("too much")
        return run(self, prompts, *rest, **options)

    monkeypatch.setattr(Model, "run", tight)
    halved = activation_patching(model, clean, corrupted, **settings)
    near(halved.patched["attn.v"], whole.patched["attn.v"])
    near(halved.clean_metric, whole.clean_metric)
    assert any("3 pairs do not fit in memory; going on with 1 at once" in line for line in said)


class Stopped(BaseException):
    """What Ctrl-C does."""


@pytest.mark.parametrize("by", ["position", "head_position"])
def test_stopped_work_goes_on_to_the_same_result(family, tmp_path, by):
    model, path = family("llama"), tmp_path / "kept.safetensors"
    settings = {"target": 7, "against": 8, "by": by, "sites": ["attn.z", "attn.q"]}
    whole = activation_patching(model, CLEAN, CORRUPTED, **settings)
    total, seen = [], []

    def stopping(what, done, n):
        total.append(n)
        if done > n // 2:
            raise Stopped

    with pytest.raises(Stopped):
        activation_patching(model, CLEAN, CORRUPTED, **settings, checkpoint=path, progress=stopping)
    assert path.exists()
    again = activation_patching(
        model, CLEAN, CORRUPTED, **settings, checkpoint=path, progress=lambda *step: seen.append(step[1])
    )
    assert not path.exists()
    assert seen[-1] == total[0]
    for site in whole.sites:
        assert torch.equal(again.patched[site], whole.patched[site])
    again_json, whole_json = again.to_json(), whole.to_json()
    again_json.pop("provenance")
    whole_json.pop("provenance")
    assert again_json == whole_json


def test_finished_parts_are_not_run_again(family, tmp_path, monkeypatch):
    model, path = family("llama"), tmp_path / "kept.safetensors"
    settings = {"target": 7, "against": 8, "checkpoint": path}

    def stopping(what, done, n):
        if done > n // 2:
            raise Stopped

    with pytest.raises(Stopped):
        activation_patching(model, CLEAN, CORRUPTED, **settings, progress=stopping)
    ran = []
    from interp.analyzers import sweep as shared

    part = shared.Part
    monkeypatch.setattr(sweeping, "Part", lambda **of: ran.append(of["rows"]) or part(**of))
    activation_patching(model, CLEAN, CORRUPTED, **settings)
    empty = [not row for rows in ran for row in rows]
    assert any(empty)
    assert not all(empty)


def test_a_checkpoint_of_other_work_is_refused(family, tmp_path):
    path = tmp_path / "kept.safetensors"

    def stopping(what, done, n):
        if done > n // 2:
            raise Stopped

    settings = {"target": 7, "against": 8, "checkpoint": path}
    with pytest.raises(Stopped):
        activation_patching(
            family("llama"), CLEAN, CORRUPTED, sites=["attn.q", "attn.k"], **settings, progress=stopping
        )
    for other in (
        {"sites": "attn.k"},
        {"direction": "noising"},
        {"layers": 1},
        {"metric": "log_prob"},
        {"by": "layer"},
    ):
        with pytest.raises(UsageError, match="is not a checkpoint of this work"):
            activation_patching(
                family("llama"), CLEAN, CORRUPTED, **({"sites": ["attn.q", "attn.k"]} | settings | other)
            )


def test_the_seed_is_of_the_intervals(family):
    clean, corrupted = (
        [CLEAN, SECOND[0]] * 4,
        [CORRUPTED, SECOND[1], [5, 9, 33, 71, 12, 44, 20], [7, 60, 61, 62, 9, 9, 77]] * 2,
    )
    first, again, other = (
        activation_patching(family("llama"), clean, corrupted, target=31, against=8, seed=seed) for seed in (1, 1, 2)
    )
    assert torch.equal(first.effects("resid_pre").lower, again.effects("resid_pre").lower)
    assert torch.equal(first.patched["resid_pre"], other.patched["resid_pre"])
    assert not torch.equal(first.effects("resid_pre").lower, other.effects("resid_pre").lower)


@pytest.mark.parametrize("by", BYS)
def test_round_trip_table_and_figure(family, tmp_path, by):
    result = activation_patching(
        family("llama"), CLEAN, CORRUPTED, target=7, against=8, sites=["attn.z", "attn.k"], by=by
    )
    result.save(tmp_path / "patching.safetensors")
    again = load_result(tmp_path / "patching.safetensors")
    assert isinstance(again, ActivationPatchingResult)
    assert again.to_json() == result.to_json()
    frame = again.to_frame()
    assert len(frame) == sum(values[0].numel() for values in result.patched.values())
    assert {"site", "layer", "effect", "effect_lower", "effect_upper", "n_pairs", "metric", "unit", "patched"} <= set(
        frame
    )
    assert ("position" in frame) == ("position" in by)
    assert ("head" in frame) == ("head" in by)
    for line in frame.sample(10, random_state=0, replace=True).to_dict("records"):
        at = [result.layers.index(line["layer"])]
        at += [int(line[axis]) for axis in AXES_BY[by]]
        assert line["patched"] == pytest.approx(float(result.patched[line["site"]][(0, *at)]))
        assert line["effect"] == result.effects(line["site"]).at(*at).value
        assert (line["clean"], line["corrupted"]) == (float(result.clean_metric), float(result.corrupted_metric))
        if "position" in by:
            assert line["clean_token"] == f"<{CLEAN[line['position']]}>"
            assert line["corrupted_token"] == f"<{CORRUPTED[line['position']]}>"
    assert result.figure().data
    assert result.figure("attn.k").data
    with pytest.raises(UsageError, match="unknown patched site 'attn.q'.*valid: attn.z, attn.k"):
        result.figure("attn.q")


def test_strongest_cells(family):
    result = activation_patching(
        family("llama"), CLEAN, CORRUPTED, target=7, against=8, sites=["resid_pre", "attn.z"], by="position"
    )
    cells = result.strongest("attn.z", 4)
    sizes = [abs(cell.effect.value) for cell in cells]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == pytest.approx(float(result.effects("attn.z").value.abs().max()))
    first = cells[0]
    assert first.effect == pytest.approx(first.effect)
    assert first.effect.value == result.effects("attn.z").at(first.layer, first.position).value
    assert str(first) == f"attn.z L{first.layer} at position {first.position}"
    assert len(result.strongest("resid_pre", 1000)) == 3 * len(CLEAN)
    heads = activation_patching(family("llama"), CLEAN, CORRUPTED, target=7, against=8, sites="z", by="head")
    assert str(heads.strongest("attn.z", 1)[0]).startswith("attn.z L")
    assert heads.strongest("attn.z", 1)[0].position is None
    with pytest.raises(UsageError, match="k is 0; give 1 or more"):
        result.strongest("attn.z", 0)


def test_labels_of_positions(family):
    one = activation_patching(family("llama"), CLEAN, CORRUPTED, target=7, against=8)
    assert one.position_labels()[:3] == ("<5>", "<9>", "<33> → <34>")
    two = activation_patching(family("llama"), [CLEAN, SECOND[0]], [CORRUPTED, SECOND[1]], target=31, against=8)
    assert two.position_labels()[0] == "…"
    whole = activation_patching(family("llama"), CLEAN, CORRUPTED, target=7, against=8, by="layer")
    assert whole.position_labels() == ()


def test_what_is_not_given_is_the_models_own(family):
    model = family("llama")
    pair = (
        CLEAN,
        next(ids for ids in ([*CLEAN[:-1], x] for x in range(3, 97)) if _own(model, ids) != _own(model, CLEAN)),
    )
    own = [_own(model, ids) for ids in pair]
    weighed = activation_patching(model, *pair, metric="logit_difference")
    assert weighed.answers[0].ids == (own[0],)
    assert weighed.against[0].ids == (own[1],)
    assert weighed.metric == "logit_difference"
    scored = activation_patching(model, *pair)
    assert (scored.metric, scored.against) == ("probability", ())
    assert scored.total_effect().value == pytest.approx(float(scored.clean_metric - scored.corrupted_metric))
    assert activation_patching(model, *pair, against=own[1]).metric == "logit_difference"


def test_no_difference_is_nan_and_said():
    said = []
    model = Model(build("llama"), notify=said.append)
    result = activation_patching(model, CLEAN, CORRUPTED, metric=lambda logits: torch.ones(len(logits)))
    assert result.effects("resid_pre").value.isnan().all()
    assert not result.patched["resid_pre"].isnan().any()
    assert result.strongest("resid_pre") == ()
    assert any("do not differ on average; effects are NaN" in line for line in said)
    assert result.figure().data


@pytest.mark.parametrize(
    ("clean", "corrupted", "options", "message"),
    [
        (CLEAN, CORRUPTED[:-1], {}, r"pair 0: the clean prompt has 7 tokens and the corrupted one 6.*clean \['<5>', .*corrupted \["),
        ([CLEAN, CLEAN], [CORRUPTED, [*CORRUPTED, 9]], {}, "pair 1: the clean prompt has 7 tokens and the corrupted one 8"),
        (CLEAN, CLEAN, {}, "pair 0: the clean and the corrupted prompt are the same 7 tokens"),
        ([CLEAN, CLEAN], [CORRUPTED], {}, "got 2 prompts as clean and 1 prompts as corrupted"),
        (CLEAN, [CORRUPTED], {}, "got one prompt as clean and 1 prompts as corrupted"),
        ([], [], {}, "one prompt each, or lists of as many prompts"),
        ([CLEAN, CLEAN[1:]], [CORRUPTED, CORRUPTED[1:]], {}, "by='position' needs pairs of one length.*6 to 7 tokens .pair 0 7, pair 1 6"),
        ([CLEAN, SECOND[0]], [CORRUPTED, SECOND[1]], {"target": [7, 8, 9]}, "target gives 3 answers for 2 pairs"),
        (CLEAN, CORRUPTED, {"against": 7}, "begin with the same token"),
        ([CLEAN, CLEAN], [CORRUPTED, CORRUPTED], {"against": 7}, "pair 0: the target .* begin with the same token"),
        (CLEAN, CORRUPTED, {"target": ""}, "the target is empty"),
        (CLEAN, CORRUPTED, {"target": " Paris"}, "no tokenizer; give the target as a token id"),
        (CLEAN, CORRUPTED, {"target": 99}, "token id 99 is out of range; valid: 0 to 96"),
        (CLEAN, CORRUPTED, {"sites": "resid_prea"}, "unknown site to patch 'resid_prea' .*mean 'resid_pre'.*valid: resid_pre, resid_mid"),
        (CLEAN, CORRUPTED, {"sites": "mlp.post"}, "unknown site to patch 'mlp.post'"),
        (CLEAN, CORRUPTED, {"sites": ()}, "no sites given; valid: resid_pre"),
        (CLEAN, CORRUPTED, {"sites": "resid_pre", "by": "head"}, "'resid_pre' has no heads, .* valid for it: by='position' or 'layer'"),
        (CLEAN, CORRUPTED, {"sites": ["attn.z", "mlp_out"], "by": "head_position"}, "'mlp_out' has no heads"),
        (CLEAN, CORRUPTED, {"by": "token"}, "unknown way of cutting a site 'token'.*valid: position, layer, head, head_position"),
        (CLEAN, CORRUPTED, {"direction": "denoise"}, "unknown direction 'denoise' .*valid: denoising, noising"),
        (CLEAN, CORRUPTED, {"metric": "loss"}, "unknown metric 'loss'; valid: probability, log_prob, logit_difference, kl"),
        (CLEAN, CORRUPTED, {"layers": 3}, "layer 3 is out of range; valid: 0 to 2"),
        (CLEAN, CORRUPTED, {"layers": []}, "no layers given; valid: 0 to 2"),
        (CLEAN, CORRUPTED, {"confidence": 95.0}, "confidence is 95.0; valid: between 0 and 1"),
        ([5, 999], [5, 9], {}, "token id 999 is outside the vocabulary"),
    ],
)  # fmt: skip
def test_bad_arguments_say_what_to_do(family, clean, corrupted, options, message):
    with pytest.raises(UsageError, match=message) as caught:
        activation_patching(family("llama"), clean, corrupted, **({"target": 7} | options))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("direction", ["denoising", "noising"])
@pytest.mark.parametrize("metric", ["probability", "log_prob", "logit_difference"])
def test_an_answer_that_is_the_corrupted_runs_own_is_refused(family, direction, metric):
    model = family("llama")
    own = int(oracle.logits_of(model.hf, CORRUPTED)[-1].argmax())
    settings = {"metric": metric, "direction": direction}
    said = "is also what the model ranks first after the corrupted prompt, so there is nothing to restore .denoising. and nothing"
    with pytest.raises(UsageError, match=f"the target .'<{own}>'. {said}"):
        activation_patching(model, CLEAN, CORRUPTED, target=own, **settings)
    with pytest.raises(UsageError, match=f"the target of pair 1 .'<{own}>'. {said}"):
        activation_patching(model, [SECOND[0], CLEAN], [SECOND[1], CORRUPTED], target=[7, own], **settings)
    clean = next(
        ids
        for ids in ([x, *CLEAN[1:]] for x in range(3, 97))
        if _own(model, ids) == _own(model, [ids[0], *CORRUPTED[1:]])
    )
    with pytest.raises(UsageError, match="the model's own after the clean prompt.* is also what the model ranks first"):
        activation_patching(model, clean, [clean[0], *CORRUPTED[1:]], **settings)
    # Distances to the clean distribution score no answer.
    assert activation_patching(model, CLEAN, CORRUPTED, target=own, metric="kl", direction=direction).metric == "kl"


def _own(model, ids):
    return int(oracle.logits_of(model.hf, ids)[-1].argmax())


def test_an_answer_of_several_tokens_is_compared_as_a_whole(family):
    model = family("llama")
    first = _own(model, CORRUPTED)
    second = _own(model, [*CORRUPTED, first])
    with pytest.raises(UsageError, match="is also what the model ranks first"):
        activation_patching(model, CLEAN, CORRUPTED, target=[first, second])
    other = (second + 1) % 97
    assert activation_patching(model, CLEAN, CORRUPTED, target=[first, other]).answers[0].ids == (first, other)


@pytest.mark.parametrize(
    ("name", "site", "message"),
    [
        ("gpt_neox", "resid_mid", "this model has no site 'resid_mid'"),
        ("bloom", "attn.pattern", "'attn.pattern' can be captured but not changed; .*change attn.z"),
        ("falcon_rw", "attn.pattern", "this model has no site 'attn.pattern'"),
    ],
)
def test_sites_that_a_model_lacks(family, name, site, message):
    with pytest.raises(UsageError, match=message):
        activation_patching(family(name), CLEAN, CORRUPTED, target=7, sites=["resid_pre", site])


def test_infinite_logits_are_refused():
    model = Model(build("llama"))
    with torch.no_grad():
        model.hf.lm_head.weight[3] = float("nan")
    with pytest.raises(NumericsError, match="NaN or infinity"):
        activation_patching(model, CLEAN, CORRUPTED, target=7)


EIFFEL, COLOSSEUM = (f"The {place} is located in the city of" for place in ("Eiffel Tower", "Colosseum"))


@pytest.mark.slow
@pytest.mark.model
def test_cells_of_the_default_model_are_the_plain_loops(model):
    clean, corrupted = (model.tokens(text).ids for text in (EIFFEL, COLOSSEUM))
    answer, rival = (model.tokenizer(text)["input_ids"][0] for text in (" Paris", " Rome"))
    score = oracle.logit_difference(-1, answer, rival)
    settings = {"target": " Paris", "against": " Rome", "layers": [2, 20]}
    for by, sites in (
        ("position", ("resid_pre", "resid_mid", "mlp_out", "attn.k")),
        ("head", ("attn.z", "attn.v")),
        ("layer", ("attn_out",)),
    ):
        result = activation_patching(model, EIFFEL, COLOSSEUM, sites=sites, by=by, **settings)
        scale = float(torch.stack([result.clean_metric, result.corrupted_metric]).abs().max())
        for number, site in enumerate(sites):
            values = result.patched[site][0]
            place = {} if by == "layer" else {by: (2 + number) % values.shape[1]}
            cell = (number % 2, *place.values())
            layer = (2, 20)[number % 2]
            value = oracle.activation("smollm2-135m", model.hf, clean, site, layer)
            want = oracle.patched("smollm2-135m", model.hf, value, corrupted, site, layer, score, **place)
            assert float(values[cell]) == pytest.approx(want, abs=1e-5 * scale), (by, site, cell)


@pytest.mark.model
@pytest.mark.long
def test_the_fact_of_the_default_model_moves_from_the_subject_to_the_last_token(model):
    result = activation_patching(model, EIFFEL, COLOSSEUM, target=" Paris", against=" Rome", layers=[3, 29])
    early, late = result.effects("resid_pre").value
    subject = list(result.clean[0].positions_of("Eiffel Tower"))
    assert early[subject].max() > 0.5
    assert abs(float(early[-1])) < 0.2
    assert late[-1] > 0.8
    assert late[subject].abs().max() < 0.05

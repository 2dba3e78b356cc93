"""Induction heads on a circuit set by hand, where every score is known, and on tiny models; errors; files."""

import math

import pytest
import torch

import hand_made
from interp.analyzers.induction_ablation import Ablator, drawn_groups, drawn_peers
from interp.analyzers.induction_heads import induction_heads
from interp.analyzers.induction_prompts import given_texts, random_texts
from interp.analyzers.induction_result import InductionResult
from interp.analyzers.induction_scan import scan
from interp.errors import UsageError
from interp.heads import Head
from interp.maths.induction import OFFSETS
from interp.models.atlas import build_atlas
from interp.results import load_result
from interp.runner.model import Model
from oracles import induction as oracle
from tiny_models import build

INDUCTION = Head(*hand_made.INDUCTION)
QUICK = {"periods": (6, 9), "seeds": 3, "draws": 2, "first_token": hand_made.BOS}


@pytest.fixture(scope="module")
def circuit() -> Model:
    return Model(hand_made.build())


@pytest.fixture(scope="module")
def found(circuit) -> InductionResult:
    return induction_heads(circuit, **QUICK)


def texts_of(model, **options):
    settings = {"periods": (5,), "copies": 2, "seeds": 2, "corpus": None, "first_token": 1}
    return random_texts(model, **(settings | options), generator=torch.Generator().manual_seed(0))


@pytest.mark.long
def test_the_circuit_is_called_with_its_known_scores(found):
    assert found.called == (INDUCTION,)
    (verdict,) = found.verdicts
    seen = verdict.behaviour
    for estimate in (seen.stripe, seen.prefix_matching):
        assert (estimate.value, estimate.lower, estimate.upper) == pytest.approx((1.0, 1.0, 1.0), abs=1e-5)
    assert seen.peak == 1
    assert (verdict.mechanism.eigenvalue_score, verdict.mechanism.copying.value) == pytest.approx((1.0, 1.0), abs=1e-4)
    partner = verdict.mechanism.partner
    assert (partner.head, partner.place) == (Head(*hand_made.PREVIOUS), 1)
    assert partner.composition == pytest.approx(hand_made.K_COMPOSITION, abs=1e-4)
    size, attention = hand_made.VOCABULARY, 1.0
    knows = math.log(1 + (size - 1) * math.exp(-hand_made.LOGIT_SCALE * attention))
    assert found.losses.first.value == pytest.approx(math.log(size), abs=1e-4)
    assert found.losses.second.value == pytest.approx(knows, abs=1e-4)
    assert found.together.heads == (INDUCTION,)
    assert all(abs(group.second.value) < 1e-4 for group in found.matched)
    assert len(found.matched) == 2


@pytest.mark.long
def test_without_the_head_the_repeats_are_not_known(found):
    """The mean of its z over text without repeats is zero here: it rests on BOS, which has no value."""
    (verdict,) = found.verdicts
    lost = math.log(hand_made.VOCABULARY) - found.losses.second.value
    assert verdict.cause.second.value == pytest.approx(lost, abs=1e-3)
    assert verdict.cause.restored.value == pytest.approx(lost, abs=1e-3)
    assert verdict.cause.late_less_early.value > 1
    assert verdict.cause.peers_second.value == pytest.approx(0, abs=1e-4)
    assert INDUCTION not in verdict.cause.peers


def test_scores_of_the_other_heads(found):
    for layer, head in hand_made.SINK:
        assert float(found.on_first.value[layer, head]) == pytest.approx(1.0, abs=1e-5)
        assert math.isnan(float(found.prefix_matching.value[layer, head]))
    assert float(found.previous[hand_made.PREVIOUS]) == pytest.approx(1.0, abs=1e-4)
    where = {**{at: OFFSETS.index(0) for at in (hand_made.DUPLICATE,)}, hand_made.INDUCTION: OFFSETS.index(1)}
    for at, place in where.items():
        assert int(found.around[at].argmax()) == place


@pytest.mark.parametrize("kind", ["cut", "positional"])
def test_a_circuit_that_only_looks_like_one_is_not_called(kind):
    offset = hand_made.POSITIONAL_OFFSET
    model = Model(hand_made.build(kind))
    got = induction_heads(model, **(QUICK | {"periods": (8, offset + 1), "copies": 2}))
    assert got.called == ()
    if kind == "positional":
        alone = induction_heads(model, **(QUICK | {"periods": (offset + 1,)}), scan_only=True)
        assert float(alone.stripe.value[hand_made.INDUCTION]) == pytest.approx(1.0, abs=1e-4)
        assert float(alone.p[hand_made.INDUCTION]) > 0.05  # it attends there on text without repeats as well
        assert alone.verdicts == ()


@pytest.mark.long
def test_a_sink_is_corrected_for():
    got = induction_heads(Model(hand_made.build(sink=0.4)), **QUICK)
    (verdict,) = got.verdicts
    assert verdict.called
    assert verdict.behaviour.stripe.value == pytest.approx(0.6, abs=1e-3)
    assert verdict.behaviour.prefix_matching.value == pytest.approx(1.0, abs=1e-3)
    assert verdict.behaviour.on_first.value == pytest.approx(0.4, abs=1e-3)


@pytest.mark.long
def test_a_head_that_rests_on_the_first_token_is_not_judged():
    got = induction_heads(Model(hand_made.build(sink=0.98)), heads=INDUCTION, **QUICK)
    (verdict,) = got.verdicts
    assert not verdict.called
    assert math.isnan(verdict.behaviour.prefix_matching.value)
    assert "rests on the first token with 98%" in verdict.reason


@pytest.mark.long
def test_verdicts_on_chosen_heads_say_why_not(circuit):
    got = induction_heads(circuit, heads=["L1H1", INDUCTION, "1.3"], **QUICK)
    assert [verdict.called for verdict in got.verdicts] == [False, True, False]
    reasons = [verdict.reason for verdict in got.verdicts]
    assert "of its attention off the first token" in reasons[0] or "no more than" in reasons[0]
    assert "the loss on repeats rises by" in reasons[1]
    assert got.verdicts[1].cause.peers == (Head(1, 2),)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gptj", "gemma2", "gpt_oss"])
def test_the_scan_is_the_plain_loops(family, name):
    model = family(name)
    (texts,) = texts_of(model)
    got = scan(model, texts.ids, texts.places)
    run = model.run(list(texts.ids), "attn.pattern")
    for layer in range(model.atlas.n_layers):
        for head in range(model.atlas.n_heads):
            for row, text in enumerate(texts.ids.tolist()):
                rows = run.cache[f"attn.pattern@{layer}"][row, head].tolist()
                at = (row, layer, head)
                assert float(got.stripe[at]) == pytest.approx(oracle.stripe(rows, 5, 1), rel=1e-4, abs=1e-6)
                assert float(got.diagonal[at]) == pytest.approx(oracle.diagonal(rows, 5), rel=1e-4, abs=1e-6)
                assert float(got.on_targets[at]) == pytest.approx(oracle.on_targets(rows, text), rel=1e-4, abs=1e-6)
                assert float(got.previous[at]) == pytest.approx(oracle.previous(rows), rel=1e-4, abs=1e-6)
                if name != "gpt_oss":  # its learned sink counts as the first token, and rows sum to less than 1
                    assert float(got.off_first[at]) == pytest.approx(oracle.off_first(rows, text), rel=1e-4)


@pytest.mark.parametrize("name", ["llama", "gpt2", "bloom", "gemma2"])
def test_ablation_is_a_full_forward_with_the_mean(family, name):
    from interp.interventions import MeanAblate

    model = family(name)
    texts = texts_of(model)
    ablator = Ablator(model, texts, [0, 1])
    heads = [Head(0, 1), Head(1, 0), Head(1, 2)]
    (text,) = texts
    z = model.run(list(text.reference), "attn.z").cache
    row = []
    for head in heads:
        mean = z[f"attn.z@{head.layer}"][:, :, head.head]
        by_position = mean[:, 1:].mean((0, 1)).expand(text.n_pos, -1).clone()
        by_position[0] = mean[:, 0].mean(0)
        row.append(MeanAblate(f"attn.z@{head.layer}", by_position[:, None], heads=head.head))
    want = []
    for changes in ([], row):
        logits = model.run(list(text.ids), interventions=changes).logits
        by_token = [oracle.losses(one.tolist(), ids) for one, ids in zip(logits, text.ids.tolist(), strict=True)]
        pairs = [oracle.first_and_second(one, ids) for one, ids in zip(by_token, text.ids.tolist(), strict=True)]
        want.append((torch.tensor([p[1] for p in pairs]), torch.tensor([oracle.late_less_early(o) for o in by_token])))
    got = ablator.without(heads)
    torch.testing.assert_close(ablator.whole.second, want[0][0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(got.second, want[1][0] - want[0][0], atol=2e-4, rtol=1e-3)
    torch.testing.assert_close(got.late_less_early, want[1][1] - want[0][1], atol=2e-4, rtol=1e-3)


def test_ablating_nothing_changes_nothing(family):
    ablator = Ablator(family("llama"), texts_of(family("llama")), [])
    change = ablator.without([])
    assert (change.second == 0).all()
    assert (change.late_less_early == 0).all()


def test_controls_are_of_the_same_layers_and_no_candidates():
    candidates = [Head(1, 0), Head(1, 3), Head(2, 1)]
    generator = torch.Generator().manual_seed(0)
    drawn = drawn_peers(candidates, 6, 3, generator)
    assert {layer: len(set(heads)) for layer, heads in drawn.items()} == {1: 3, 2: 3}
    groups = drawn_groups(candidates[:2], candidates, 6, 5, generator)
    assert all([head.layer for head in group] == [1, 1] and len(set(group)) == 2 for group in groups)
    assert len(set(groups)) > 1
    for heads in (*drawn.values(), *groups):
        assert not set(heads) & set(candidates)


@pytest.mark.long
def test_given_prompts(circuit):
    model = circuit
    prompts = [hand_made.repeated(7, 2, seed=seed).tolist() for seed in range(3)]
    got = induction_heads(model, prompts, draws=2, first_token=hand_made.BOS)
    assert (got.random, got.samples, got.periods) == (False, 3, (7, 7, 7))
    assert got.called == (INDUCTION,)
    natural = [[3, 4, 5, 3, 4, 9], [1, 2, 3, 9, 2, 3], [8, 7, 6, 8, 7, 5]]
    other = induction_heads(model, natural, draws=1)
    assert float(other.prefix_matching.value[hand_made.INDUCTION]) == pytest.approx(1.0, abs=1e-4)
    assert math.isnan(float(other.stripe.value[hand_made.INDUCTION]))


def test_the_period_of_a_given_repeat_is_found(circuit):
    model = circuit
    (texts,) = given_texts(model, [5, 6, 7, 8, 5, 6, 7, 8, 5], True, torch.Generator().manual_seed(0))
    assert texts.period == 4
    assert texts.reference.shape == (4, 9)


def test_round_trip_table_and_figures(found, tmp_path):
    found.save(tmp_path / "induction.safetensors")
    again = load_result(tmp_path / "induction.safetensors")
    assert isinstance(again, InductionResult)
    assert again.to_json() == found.to_json()
    assert again.called == found.called
    frame = found.to_frame()
    assert len(frame) == 8
    row = frame[frame["head"] == str(INDUCTION)].iloc[0]
    assert row["called"]
    assert row["loss_change_nats"] == pytest.approx(found.verdicts[0].cause.second.value)
    for what in ("stripe", "prefix_matching", "on_first", "ablation", "shift"):
        assert found.figure(what).data
    with pytest.raises(UsageError, match="valid: stripe, prefix_matching"):
        found.figure("loss")


@pytest.mark.long
def test_the_same_seed_gives_the_same_result(found, circuit):
    again = induction_heads(circuit, **QUICK)
    one, two = found.to_json(), again.to_json()
    for result in (one, two):
        result.pop("provenance")
    assert one == two


def test_a_scan_alone_calls_nothing(circuit):
    got = induction_heads(circuit, **QUICK, scan_only=True)
    (verdict,) = got.verdicts
    assert (verdict.head, verdict.called, verdict.cause, verdict.mechanism) == (INDUCTION, False, None, None)
    assert "not tested by ablation" in verdict.reason
    assert (got.losses, got.together, got.matched) == (None, None, ())
    assert got.not_measured


@pytest.mark.long
def test_one_text_gives_no_verdict(circuit):
    got = induction_heads(circuit, **(QUICK | {"seeds": 1}), heads=INDUCTION)
    (verdict,) = got.verdicts
    assert not verdict.called
    assert "one text gives no interval" in verdict.reason


@pytest.mark.long
def test_progress_is_told(circuit):
    said = []
    induction_heads(circuit, **QUICK, progress=lambda what, done, total: said.append((what, done, total)))
    assert {what for what, _, _ in said} == {"attention", "ablation", "circuits", "ablation together"}
    for what in {what for what, _, _ in said}:
        assert [done for name, done, _ in said if name == what][-1] == [t for name, _, t in said if name == what][-1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompts": [5]}, "prompt 0 has 1 token; .*give 3 or more"),
        ({"prompts": [[5, 6, 5, 7], [5, 6]]}, "prompt 1 has 2 tokens"),
        ({"prompts": [5, 6, 7, 8]}, "no token of prompt 0 comes again .* repeat some of its text"),
        ({"prompts": []}, "empty|no prompt"),
        ({"heads": "L9H0"}, "head L9H0 is out of range; valid: L0H0 to L2H3"),
        ({"heads": "L0H9"}, "head L0H9 is out of range; valid: L0H0 to L2H3"),
        ({"heads": "zero"}, "'zero' names no head; write L5H3 or 5.3"),
        ({"periods": (1,)}, "the period 1 is out of range; valid: 2 to 32, so that 2 copies fit the context of 64"),
        ({"periods": (33,)}, "the period 33 is out of range; valid: 2 to 32"),
        ({"periods": (40,), "copies": 3}, "valid: 2 to 21, so that 3 copies"),
        ({"periods": ()}, "no period given"),
        ({"copies": 1}, "copies is 1; a repeat needs 2 or more"),
        ({"seeds": 0}, "seeds is 0; valid: 1 or more"),
        ({"draws": 0}, "draws is 0; valid: 1 or more"),
        ({"threshold": 0.0}, "the threshold is 0.0; valid: above 0, up to 1"),
        ({"rate": 1.5}, "rate is 1.5; valid: between 0 and 1"),
        ({"first_token": 97}, "the first token's id 97 is out of range; valid: 0 to 96"),
        ({"corpus": "some text"}, "no tokenizer"),
    ],
)
def test_bad_arguments_name_the_valid_values(family, options, message):
    with pytest.raises(UsageError, match=message) as caught:
        induction_heads(family("llama"), **({"periods": (5,), "seeds": 2} | options))
    assert "\n" not in str(caught.value)


def test_a_model_without_patterns_is_refused():
    hf = build("falcon_rw")
    assert build_atlas(hf).architecture == "FalconForCausalLM"
    with pytest.raises(UsageError, match="shows no attention patterns .* attn_implementation='eager'"):
        induction_heads(Model(hf), periods=(5,), seeds=2)

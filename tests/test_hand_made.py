"""The hand-made circuit is what its description says: patterns, logits and scores, by plain loops over what a run captured."""

import math

import pytest
import torch

import hand_made
from hand_made import KINDS, VOCABULARY
from interp.interventions import ZeroAblate
from interp.runner.model import Model

HEADS = [(layer, head) for layer in range(2) for head in range(hand_made.N_HEADS)]
SINK = 0.25
PERIOD = 12
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def made():
    found = {}

    def make(kind="induction", sink=0.0):
        if (kind, sink) not in found:
            found[kind, sink] = Model(hand_made.build(kind, sink))
        return found[kind, sink]

    return make


def patterns(model, ids):
    run = model.run(ids, capture="attn.pattern")
    return {(layer, head): run.cache[f"attn.pattern@{layer}"][0, head].tolist() for layer, head in HEADS}


def measured_losses(run, ids):
    log_probs = run.logits[0].log_softmax(-1)
    return [-log_probs[i, ids[i + 1]].item() for i in range(len(ids) - 1)]


def mean_over_later_copies(pattern, ids, period, keys):
    queries = range(1 + period, len(ids))
    return sum(sum(pattern[i][j] for j in keys(i)) for i in queries) / len(queries)


def prompts():
    drawn = torch.randint(1, VOCABULARY, (60,), generator=torch.Generator().manual_seed(3))
    return {"two": hand_made.repeated(PERIOD, 2), "four": hand_made.repeated(PERIOD, 4), "no BOS": drawn}


@pytest.mark.parametrize("name", prompts())
@pytest.mark.parametrize("sink", [0.0, SINK])
@pytest.mark.parametrize("kind", KINDS)
def test_every_head_attends_and_every_logit_is_as_described(made, kind, sink, name):
    model, ids = made(kind, sink), prompts()[name]
    found, listed = patterns(model, ids), ids.tolist()
    for layer, head in HEADS:
        expected = hand_made.attention(listed, layer, head, kind, sink)
        torch.testing.assert_close(
            torch.tensor(found[layer, head]), torch.tensor(expected), rtol=0, atol=TOLERANCE, msg=f"L{layer}H{head}"
        )
    expected = torch.tensor(hand_made.logits(listed, kind, sink))
    torch.testing.assert_close(model.run(ids).logits[0], expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("repeats", [2, 4])
@pytest.mark.parametrize("sink", [0.0, SINK])
def test_closed_forms_of_the_induction_head(made, sink, repeats):
    ids = hand_made.repeated(PERIOD, repeats).tolist()
    pattern = patterns(made("induction", sink), ids)[hand_made.INDUCTION]
    stripe = mean_over_later_copies(pattern, ids, PERIOD, lambda i: [i - PERIOD + 1])
    matching = mean_over_later_copies(
        pattern, ids, PERIOD, lambda i: [j for j in range(1, i + 1) if ids[j - 1] == ids[i]]
    )
    first = mean_over_later_copies(pattern, ids, PERIOD, lambda i: [0])
    assert stripe == pytest.approx(hand_made.stripe(repeats, sink), abs=TOLERANCE)
    assert matching == pytest.approx(hand_made.prefix_matching(repeats, sink), abs=TOLERANCE)
    assert first == pytest.approx(1 - hand_made.prefix_matching(repeats, sink), abs=TOLERANCE)
    if repeats == 2:
        assert (stripe, matching, first) == pytest.approx((1 - sink, 1 - sink, sink), abs=TOLERANCE)


def test_closed_forms_of_the_other_heads(made):
    ids = hand_made.repeated(PERIOD, 2).tolist()
    found = patterns(made(), ids)
    for i in range(1, len(ids)):
        assert found[hand_made.PREVIOUS][i][i - 1] == pytest.approx(1, abs=TOLERANCE)
        assert found[hand_made.CURRENT][i][i] == pytest.approx(1, abs=TOLERANCE)
        for head in hand_made.UNIFORM:
            assert found[head][i][0] == pytest.approx(1 / (i + 1), abs=TOLERANCE)
        for head in hand_made.SINK:
            assert found[head][i][0] == pytest.approx(1, abs=TOLERANCE)


@pytest.mark.parametrize("repeats", [2, 4])
@pytest.mark.parametrize("sink", [0.0, SINK])
def test_losses_are_those_of_the_formula(made, sink, repeats):
    ids = hand_made.repeated(PERIOD, repeats).tolist()
    found = measured_losses(made("induction", sink).run(ids), ids)
    assert found == pytest.approx(hand_made.losses(ids, "induction", sink), abs=TOLERANCE)
    for i, loss in enumerate(found):
        copy = (i - 1) // PERIOD if i else 0
        known = hand_made.predicted_loss(copy, sink) if copy else hand_made.UNPREDICTED_LOSS
        assert loss == pytest.approx(known, abs=TOLERANCE)
    assert math.log(VOCABULARY) == hand_made.UNPREDICTED_LOSS == pytest.approx(hand_made.predicted_loss(0))


def test_where_the_composition_is_cut_nothing_is_known_and_nothing_matches(made):
    ids = hand_made.repeated(PERIOD, 3).tolist()
    model = made("cut")
    assert measured_losses(model.run(ids), ids) == pytest.approx([hand_made.UNPREDICTED_LOSS] * (len(ids) - 1))
    pattern = patterns(model, ids)
    assert mean_over_later_copies(
        pattern[hand_made.INDUCTION], ids, PERIOD, lambda i: range(1, i + 1)
    ) == pytest.approx(0, abs=TOLERANCE)
    assert all(pattern[hand_made.PREVIOUS][i][i - 1] == pytest.approx(1) for i in range(1, len(ids)))


def test_the_positional_twin_has_the_stripe_of_one_period_only(made):
    for period, expected in ((hand_made.POSITIONAL_OFFSET + 1, 1.0), (PERIOD, 0.0)):
        ids = hand_made.repeated(period, 2).tolist()
        pattern = patterns(made("positional"), ids)[hand_made.INDUCTION]
        found = mean_over_later_copies(pattern, ids, period, lambda i, period=period: [i - period + 1])
        assert found == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.parametrize("site", ["attn.z@0", "attn.z@1"])
def test_only_the_two_heads_of_the_circuit_matter(made, site):
    ids = hand_made.repeated(PERIOD, 2).tolist()
    whole = hand_made.losses(ids)
    for head in range(hand_made.N_HEADS):
        run = made().run(ids, interventions=ZeroAblate(site, heads=head))
        expected = whole if head else [hand_made.UNPREDICTED_LOSS] * len(whole)
        assert measured_losses(run, ids) == pytest.approx(expected, abs=TOLERANCE)


def weights(model, layer, head):
    """W_Q, W_K, W_V [d_model d_head] and W_O [d_head d_model] read from GPT-2's fused map, the norm being the identity."""
    attention = model.hf.transformer.h[layer].attn
    at = slice(head * hand_made.D_HEAD, (head + 1) * hand_made.D_HEAD)
    parts = attention.c_attn.weight.detach().double().split(hand_made.D_MODEL, 1)
    return *(part[:, at] for part in parts), attention.c_proj.weight.detach().double()[at]


def test_eigenvalues_of_the_copying_maps(made):
    model = made()
    W_E, W_U = model.hf.transformer.wte.weight.detach().double(), model.hf.lm_head.weight.detach().double().T
    for layer, head in HEADS:
        *_, W_V, W_O = weights(model, layer, head)
        full = W_E @ W_V @ W_O @ W_U
        if (layer, head) not in hand_made.EIGENVALUE_SCORE:
            assert not full.abs().max()
            continue
        values = torch.linalg.eigvals(full)
        score = (values.sum().real / values.abs().sum()).item()
        assert score == pytest.approx(hand_made.EIGENVALUE_SCORE[layer, head], abs=TOLERANCE)


@pytest.mark.parametrize("kind", KINDS)
def test_k_composition(made, kind):
    model = made(kind)
    W_Q, W_K, *_ = weights(model, *hand_made.INDUCTION)
    W_QK = W_Q @ W_K.T
    for head in range(hand_made.N_HEADS):
        *_, W_V, W_O = weights(model, 0, head)
        W_OV = W_V @ W_O
        score = ((W_OV @ W_QK.T).norm() / (W_OV.norm() * W_QK.norm())).item()
        expected = hand_made.K_COMPOSITION if (kind, head) == ("induction", 0) else 0.0
        assert score == pytest.approx(expected, abs=TOLERANCE)


def test_norms_return_their_input_and_mlps_write_nothing(made):
    run = made().run(hand_made.repeated(PERIOD, 2), capture=["resid_pre", "ln1.normalized", "mlp_out", "resid_post"])
    for layer in range(2):
        assert not run.cache[f"mlp_out@{layer}"].abs().max()
        stream = run.cache[f"resid_pre@{layer}"]
        assert stream.mean(-1).abs().max() < 1e-6
        normed = made().hf.transformer.h[layer].ln_1(stream)
        torch.testing.assert_close(normed, stream, rtol=0, atol=1e-5)


def test_another_circuit_fails_the_comparison(made):
    """The comparison above can fail: the cut circuit is not the induction circuit."""
    ids = hand_made.repeated(PERIOD, 2)
    found = torch.tensor(patterns(made("cut"), ids)[hand_made.INDUCTION])
    expected = torch.tensor(hand_made.attention(ids.tolist(), *hand_made.INDUCTION))
    assert (found - expected).abs().max() > 0.9

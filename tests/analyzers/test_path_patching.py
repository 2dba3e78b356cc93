"""Path patching on tiny models: each path is the plain hooks', direct paths are direct logit attribution, errors are clear."""

import pytest
import torch

import hand_made
import interp
import tiny_models
from interp.analyzers.activation_patching import activation_patching
from interp.analyzers.direct_logit_attribution import direct_logit_attribution
from interp.analyzers.path_patching import path_patching
from interp.analyzers.path_patching_result import PathPatchingResult, Receiver
from interp.errors import MemoryLimitError, UsageError
from interp.heads import Head
from interp.interventions import Patch
from interp.results import load_result
from interp.runner.model import Model
from interp.runner.run import Run
from oracles import path_patching as oracle

CLEAN = [[5, 9, 33, 71, 12, 44, 8, 90], [5, 60, 33, 71, 61, 44, 8, 3]]
CORRUPTED = [[5, 9, 34, 71, 12, 44, 60, 90], [5, 60, 33, 71, 62, 44, 8, 4]]
ANSWER, RIVAL = 7, 8
ASKED = {"target": ANSWER, "against": RIVAL}
FAMILIES = ["gpt2", "llama", "gemma2", "gpt_neox", "bloom", "mixtral"]
"""Fused projections, grouped queries, post-norms, parallel blocks, one outside the AttentionInterface, experts."""
OTHERS = [name for name in tiny_models.FAMILIES if name not in FAMILIES]
FAMILIES_ALL = [*FAMILIES, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]
RECEIVERS = {
    "logits": (),
    "L2H3.q": ((2, 3, "q"),),
    "L2H2.k,L1H1.v": ((2, 2, "k"), (1, 1, "v")),
}


def expected(family_name, hf, pair, sender, receivers, direction="noising", **options):
    clean, corrupted = torch.tensor(CLEAN[pair]), torch.tensor(CORRUPTED[pair])
    base, source = (clean, corrupted) if direction == "noising" else (corrupted, clean)
    logits = oracle.path_patched_logits(family_name, hf, base, source, sender, receivers, **options)
    return float(logits[-1, ANSWER] - logits[-1, RIVAL])


@pytest.mark.parametrize("receiver", RECEIVERS)
@pytest.mark.parametrize("family_name", FAMILIES)
def test_every_path_is_the_plain_hooks(family, family_name, receiver):
    model = family(family_name)
    ways = [{}, {"freeze_mlps": True}, {"positions": [4, 7]}, {"direction": "denoising"}]
    for index, options in enumerate(ways):
        found = path_patching(model, CLEAN, CORRUPTED, receiver=receiver, **options, **ASKED)
        base = found.corrupted_metric if found.direction == "denoising" else found.clean_metric
        for sender in found.senders[index::3]:
            for pair in range(2):
                at = sender.layer, sender.head
                want = expected(family_name, model.hf, pair, at, RECEIVERS[receiver], **options)
                assert float(found.patched[(pair, *at)]) == pytest.approx(want, abs=2e-5), (str(sender), pair)
        assert float((found.patched - base[:, None, None]).nan_to_num().abs().max()) > 1e-4


def test_all_heads_before_the_last_receiver_send_by_default(family):
    model = family("llama")
    heads = model.atlas.n_heads
    whole = path_patching(model, CLEAN, CORRUPTED, **ASKED)
    assert len(whole.senders) == 3 * heads
    assert not whole.patched.isnan().any()
    early = path_patching(model, CLEAN, CORRUPTED, receiver=[("L2H0", "q"), (Head(1, 0), "v")], **ASKED)
    assert early.senders == tuple(Head(layer, head) for layer in range(2) for head in range(heads))
    assert early.patched[:, 2].isnan().all()
    assert early.changes().value[2].isnan().all()
    chosen = path_patching(model, CLEAN, CORRUPTED, sender=["L1H2", (0, 3)], receiver=("L2H0", "q"), **ASKED)
    assert chosen.senders == (Head(0, 3), Head(1, 2))
    torch.testing.assert_close(chosen.patched[:, 1, 2], _one(model, "L1H2", "L2H0.q"))
    assert int((~chosen.patched.isnan()).sum()) == 4


def _one(model, sender, receiver):
    found = path_patching(model, CLEAN, CORRUPTED, sender=sender, receiver=receiver, **ASKED)
    head = found.senders[0]
    return found.patched[:, head.layer, head.head]


def test_a_sender_behind_some_receivers_reaches_the_others(family):
    """L1H1 lies behind L1H0 and before L2H0: only the path to the latter is there."""
    model = family("gpt2")
    both = path_patching(model, CLEAN, CORRUPTED, sender="L1H1", receiver="L1H0.q,L2H0.q", **ASKED)
    torch.testing.assert_close(both.patched[:, 1, 1], _one(model, "L1H1", "L2H0.q"), atol=1e-5, rtol=1e-5)


def test_heads_of_the_last_layer_have_only_the_direct_path(family):
    """Nothing lies between them and the logits but the last MLP, so patching the path is patching the head."""
    model = family("llama")
    paths = path_patching(model, CLEAN, CORRUPTED, **ASKED)
    heads = activation_patching(model, CLEAN, CORRUPTED, sites="attn.z", by="head", direction="noising", **ASKED)
    torch.testing.assert_close(paths.patched[:, 2], heads.patched["attn.z"][:, 2], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(paths.patched[:, 0], heads.patched["attn.z"][:, 0], atol=1e-3)
    torch.testing.assert_close(paths.effects().value[2], heads.effects("attn.z").value[2], atol=1e-4, rtol=1e-4)


def test_a_sender_that_is_the_same_in_both_runs_changes_nothing(family):
    model = family("llama")
    elsewhere = path_patching(
        model, CLEAN[0], CORRUPTED[0], positions=1, receiver="L2H3.k", **ASKED
    )  # before they differ
    for patched in elsewhere.patched[0, :2].flatten():
        assert float(patched) == pytest.approx(float(elsewhere.clean_metric[0]), abs=1e-5)
    unread = path_patching(model, CLEAN[0], CORRUPTED[0], positions=[2, 6], **ASKED)
    assert (unread.patched == unread.clean_metric[:, None, None]).all()


def test_the_direct_path_to_the_logits_is_direct_logit_attribution():
    """In the hand-made circuit norms return their input and MLPs write nothing, so what a head writes is what it adds to a logit."""
    model = Model(hand_made.build())
    clean = hand_made.repeated(12).tolist()[:16]
    corrupted = list(clean)
    corrupted[15] = clean[5]
    answer, rival = clean[4], clean[6]
    found = path_patching(model, clean, corrupted, target=answer, against=rival)
    heads = [
        direct_logit_attribution(model, ids, target=answer, against=rival, by="head").heads
        for ids in (clean, corrupted)
    ]
    change = heads[1] - heads[0]
    torch.testing.assert_close(found.changes().value, change.double(), atol=2e-4, rtol=1e-4)
    assert float(found.changes().value[hand_made.INDUCTION]) == pytest.approx(-2 * hand_made.LOGIT_SCALE, rel=1e-3)
    whole = path_patching(model, clean, corrupted, target=answer, against=rival, freeze_mlps=True)
    torch.testing.assert_close(whole.patched, found.patched, atol=1e-4, rtol=1e-4)


def test_an_induction_head_is_reached_through_its_keys():
    """The previous-token head sends what the induction head's keys hold, and nothing to its queries or values."""
    model = Model(hand_made.build())
    clean = hand_made.repeated(12).tolist()[:16]
    corrupted = list(clean)
    corrupted[3] = next(token for token in range(1, hand_made.VOCABULARY) if token not in clean)
    asked = {"target": clean[4], "against": clean[6]}
    through = {
        name: path_patching(model, clean, corrupted, receiver=("L1H0", name), **asked).changes().value[0]
        for name in ("q", "k", "v")
    }
    base = path_patching(model, clean, corrupted, **asked).clean_metric
    assert float(base[0]) == pytest.approx(hand_made.LOGIT_SCALE, rel=1e-2)
    assert float(through["k"][0]) == pytest.approx(-float(base[0]), rel=5e-2)
    assert float(through["k"][1:].abs().max()) < 1e-3
    assert max(float(through[name].abs().max()) for name in "qv") < 1e-3


def test_keys_and_values_are_those_of_the_group(family):
    model = family("llama")
    share = model.atlas.n_heads // model.atlas.n_kv_heads
    assert share == 2
    found = path_patching(model, CLEAN, CORRUPTED, receiver="L2H3.k", **ASKED)
    assert found.receivers == (Receiver(head=Head(2, 3), input="k", shared_with=(Head(2, 2),)),)
    other = path_patching(model, CLEAN, CORRUPTED, receiver="L2H2.k", **ASKED)
    torch.testing.assert_close(found.patched, other.patched, equal_nan=True)
    twice = path_patching(model, CLEAN, CORRUPTED, receiver="L2H2.k,L2H3.k", **ASKED)
    torch.testing.assert_close(found.patched, twice.patched, equal_nan=True)
    queries = path_patching(model, CLEAN, CORRUPTED, receiver="L2H3.q", **ASKED)
    assert queries.receivers[0].shared_with == ()
    assert path_patching(family("gpt2"), CLEAN, CORRUPTED, receiver="L2H3.k", **ASKED).receivers[0].shared_with == ()


def test_answers_of_several_tokens_and_pairs_of_several_lengths(family):
    model = family("llama")
    pairs = [CLEAN[0], CLEAN[1][1:]], [CORRUPTED[0], CORRUPTED[1][1:]]
    both = path_patching(model, *pairs, target=[[7, 20], [7, 20]], metric="log_prob")
    alone = path_patching(model, pairs[0][1], pairs[1][1], target=[7, 20], metric="log_prob")
    torch.testing.assert_close(both.patched[1:], alone.patched, atol=1e-5, rtol=1e-5)
    for sender in ((0, 1), (2, 3)):
        ids = [torch.tensor([*prompt, 7]) for prompt in (CLEAN[0], CORRUPTED[0])]
        logits = oracle.path_patched_logits("llama", model.hf, *ids, sender).log_softmax(-1)
        want = float(logits[-2, 7] + logits[-1, 20])
        assert float(both.patched[(0, *sender)]) == pytest.approx(want, abs=5e-5)


def test_a_function_as_metric_and_kl(family):
    model = family("gpt2")
    named = path_patching(model, CLEAN, CORRUPTED, **ASKED)
    custom = path_patching(
        model, CLEAN, CORRUPTED, metric=lambda logits: logits[:, ANSWER] - logits[:, RIVAL], target=ANSWER
    )
    torch.testing.assert_close(custom.patched, named.patched)
    kl = path_patching(model, CLEAN, CORRUPTED, metric="kl")
    assert kl.metric_unit == "nats"
    assert (kl.patched > -1e-6).all()
    assert float(kl.clean_metric.abs().max()) < 1e-6 < float(kl.patched.max())


def test_intervals_are_over_pairs(family):
    model = family("llama")
    two, one = path_patching(model, CLEAN, CORRUPTED, **ASKED), path_patching(model, CLEAN[0], CORRUPTED[0], **ASKED)
    for found, n in ((two, 2), (one, 1)):
        changes, effects = found.changes(), found.effects()
        assert set(changes.n.flatten().tolist()) == {n}
        base = found.clean_metric.double()[:, None, None]
        torch.testing.assert_close(changes.value, (found.patched.double() - base).mean(0))
        share = -changes.value / (found.clean_metric - found.corrupted_metric).double().mean()
        torch.testing.assert_close(effects.value, share, atol=1e-6, rtol=1e-5)
        assert bool(changes.lower.isnan().all()) == (n == 1)
    assert (two.changes().lower <= two.changes().value).all()
    strongest = two.strongest(3)
    assert [abs(sent.change.value) for sent in strongest] == sorted(two.changes().value.abs().flatten().tolist())[
        :-4:-1
    ]


def test_groups_that_do_not_fit_are_halved_and_said(family, monkeypatch):
    told = []
    model = Model(family("llama").hf, notify=told.append)
    whole = path_patching(model, CLEAN, CORRUPTED, receiver="L2H3.q", **ASKED)
    run = Model.run

    def tight(self, prompts, *rest, **options):
        if len(prompts) > 1 and options.get("resumable"):
            raise MemoryLimitError("too much")
        return run(self, prompts, *rest, **options)

    monkeypatch.setattr(Model, "run", tight)
    halved = path_patching(model, CLEAN, CORRUPTED, receiver="L2H3.q", **ASKED)
    torch.testing.assert_close(halved.patched, whole.patched, atol=1e-5, rtol=1e-5, equal_nan=True)
    assert told == ["2 pairs do not fit in memory; going on with 1 at once"]


def test_stopped_work_goes_on_to_the_same_result(family, tmp_path, monkeypatch):
    model = family("llama")
    path = tmp_path / "paths.safetensors"
    options = {"receiver": "L2H3.q", **ASKED}
    whole = path_patching(model, CLEAN, CORRUPTED, **options)
    resume, calls = Run.resume, []

    def stopped(self, rows, **more):
        calls.append(len(rows))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return resume(self, rows, **more)

    with monkeypatch.context() as patched:
        patched.setattr(Run, "resume", stopped)
        with pytest.raises(KeyboardInterrupt):
            path_patching(model, CLEAN, CORRUPTED, checkpoint=path, **options)
    assert path.exists()
    with pytest.raises(UsageError, match="is not a checkpoint of this work"):
        path_patching(model, CLEAN, CORRUPTED, checkpoint=path, receiver="L2H3.k", **ASKED)
    calls.clear()
    with monkeypatch.context() as patched:
        patched.setattr(Run, "resume", lambda self, rows, **more: (calls.append(rows), resume(self, rows, **more))[1])
        again = path_patching(model, CLEAN, CORRUPTED, checkpoint=path, **options)
    assert len(calls) == 2  # two passes of the second layer; the first was kept
    assert torch.equal(again.patched.nan_to_num(), whole.patched.nan_to_num())
    assert not path.exists()


def test_progress_counts_senders_times_pairs(family):
    told = []
    path_patching(family("llama"), CLEAN, CORRUPTED, progress=lambda *step: told.append(step), **ASKED)
    assert told == [("paths", done, 24) for done in (0, 8, 16, 24)]


def test_interventions_are_shared_by_the_rows_of_a_layer(family, monkeypatch):
    """What later heads are held at is one object for all senders and pairs, so that it is applied once."""
    seen = []
    resume = Run.resume
    monkeypatch.setattr(Run, "resume", lambda self, rows, **more: (seen.append(rows), resume(self, rows, **more))[1])
    path_patching(family("llama"), CLEAN, CORRUPTED, **ASKED)
    assert [len(rows) for rows in seen] == [8, 8, 8]
    held = [
        change for rows in seen for row in rows for change in row if isinstance(change, Patch) and change.heads is None
    ]
    assert len({id(change) for change in held}) == 2


def test_round_trip_table_and_figure(family, tmp_path):
    for receiver in ("logits", "L2H3.k,L1H1.v"):
        found = path_patching(family("llama"), CLEAN, CORRUPTED, receiver=receiver, positions=-1, **ASKED)
        found.save(tmp_path / "paths.safetensors")
        again = load_result(tmp_path / "paths.safetensors")
        assert isinstance(again, PathPatchingResult)
        assert again.to_json() == found.to_json()
        assert again.receiver == receiver.replace(",", ", ")
        frame = again.to_frame()
        assert len(frame) == len(found.senders)
        assert {"sender", "receiver", "effect", "effect_lower", "change", "unit", "n_pairs"} <= set(frame)
        figure = again.figure()
        assert len(figure.data) == (1 if receiver == "logits" else 2)
        assert again.n_pairs == 2
    assert found.total_effect().n == 2
    with pytest.raises(UsageError, match="k is 0; give 1 or more"):
        found.strongest(0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sender": "L2H0", "receiver": "L2H1.q"}, "the sender L2H0 does not lie before L2H1.q; valid: L0H0 to L1H3"),
        ({"sender": "L7H0"}, "head L7H0 is out of range; valid: L0H0 to L2H3"),
        ({"sender": []}, "no heads given"),
        (
            {"receiver": "L0H1.q"},
            "L0H1 is in the first layer, so no head lies before it; valid: heads of layers 1 to 2",
        ),
        ({"receiver": "L2H1"}, "'L2H1' names no receiver; write 'logits', or a head with its input, such as 'L9H6.q'"),
        ({"receiver": "L2H1.z"}, "unknown input of a head 'z'; valid: q, k, v"),
        ({"receiver": ("L2H9", "q")}, "head L2H9 is out of range"),
        ({"receiver": []}, "no receiver given"),
        ({"receiver": "logit"}, "'logit' names no receiver"),
        ({"direction": "up"}, "unknown direction 'up'"),
        ({"confidence": 1.5}, "confidence is 1.5"),
        ({"metric": "accuracy"}, "unknown metric 'accuracy'"),
        ({"positions": 8}, "position 8 is out of range; valid: 0 to 7"),
        ({"positions": []}, "no positions given"),
        ({"corrupted": CLEAN}, "are the same 8 tokens"),
        ({"corrupted": [[5, 6], [7, 8]]}, "has 8 tokens and the corrupted one 2"),
    ],
)
def test_bad_arguments_name_the_valid_values(family, options, message):
    arguments = {"clean": CLEAN, "corrupted": CORRUPTED, **ASKED, **options}
    with pytest.raises(UsageError, match=message) as caught:
        path_patching(family("llama"), **arguments)
    assert "\n" not in str(caught.value)


def test_it_is_public():
    assert interp.path_patching is path_patching


@pytest.mark.parametrize("family_name", FAMILIES_ALL)
def test_every_family_gives_the_numbers_of_full_forwards(family, family_name):
    """Two whole forwards for a path, nothing resumed, with the runner's own interventions."""
    model = family(family_name)
    base, source = (model.run(ids, ["attn.z", "mlp_out"]) for ids in (CLEAN[0], CORRUPTED[0]))
    last = model.atlas.n_layers - 1
    for receiver in ("logits", f"L{last}H1.q", f"L{last}H1.v"):
        if receiver != "logits" and f"attn.{receiver[-1]}" not in model.sites.available:
            continue
        for freeze in (False, True):
            found = path_patching(model, CLEAN[0], CORRUPTED[0], receiver=receiver, freeze_mlps=freeze, **ASKED)
            sender = Head(0, 2)
            held = [Patch(f"attn.z@{layer}", base.cache[f"attn.z@{layer}"]) for layer in range(1, last + 1)]
            held += [Patch("mlp_out", {name: base.cache[name] for name in base.cache if "mlp_out" in name})] * freeze
            first = [Patch("attn.z@0", source.cache["attn.z@0"][:, :, 2:3], heads=2), *held]
            if receiver == "logits":
                logits = model.run(CLEAN[0], (), first).last_logits[0]
            else:
                name = f"attn.{receiver[-1]}@{last}"
                seen = model.run(CLEAN[0], name, first).cache[name]
                head = 1 if receiver[-1] == "q" else 1 * model.atlas.n_kv_heads // model.atlas.n_heads
                change = Patch(name, seen[:, :, head : head + 1], heads=head)
                logits = model.run(CLEAN[0], (), change).last_logits[0]
            want = float(logits[ANSWER] - logits[RIVAL])
            got = float(found.patched[0, sender.layer, sender.head])
            assert got == pytest.approx(want, abs=1e-4 * max(1.0, float(logits.abs().max()))), (receiver, freeze)

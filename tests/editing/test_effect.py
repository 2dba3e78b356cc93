"""What an edit changes is what weights written by hand change, and the undo is measured, not assumed."""

import copy
import hashlib
import json
from contextlib import contextmanager

import pytest
import torch

import word_model
from interp.editing import effect as effect_module
from interp.editing.effect import edit_effect
from interp.editing.effect_result import EditEffect
from interp.editing.stack import applied_edits
from interp.errors import ModelError, NumericsError, UsageError
from interp.prompts import Fact
from interp.results import load_result
from random_edit import random_edit

CORE = ("gpt2", "llama", "gemma2", "gpt_neox", "phi3")
FACT = Fact("tower of Pisa", "After lunch Ann and Bob went to the {} in city", "Carl")
LONG = Fact("tower of Pisa", "After lunch Ann and Bob went to the {} in city", "Carl Dora Eve")
PARAPHRASES = ("Bob and Ann wanted the tower of Pisa near", "the tower of Pisa is")
NEIGHBOURS = ("the bridge is in city", "one two three four five six seven lake is in")


def made(name="llama", fact=FACT, layers=(1,), size=0.6, **options):
    model = word_model.build(name)
    return model, random_edit(model, list(layers), size=size, facts=(fact,), **options)


def by_hand(model, edit):
    """The Hugging Face model with W + left @ right in place of W."""
    hf = copy.deepcopy(model.hf)
    for change in edit.layers:
        module = hf.get_submodule(change.path)
        update = change.left @ change.right
        with torch.no_grad():
            module.weight += update.T if change.transposed else update
    return hf


def log_probs(hf, model, text, extra=()):
    ids = [*model.tokenizer(text)["input_ids"], *extra]
    with torch.no_grad():
        return hf(torch.tensor([ids])).logits[0].log_softmax(-1)


def bytes_of(model):
    return {
        name: hashlib.sha256(value.detach().contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()
        for name, value in model.hf.named_parameters()
    }


@pytest.mark.parametrize("fact", [FACT, LONG], ids=["one token", "three tokens"])
@pytest.mark.parametrize("name", CORE)
def test_answers_are_those_of_weights_written_by_hand(name: str, fact: Fact) -> None:
    model, edit = made(name, fact, layers=(0, 1))
    found = edit_effect(model, edit, paraphrases=PARAPHRASES, neighbours=NEIGHBOURS, top_k=4, max_new_tokens=6)
    target = [int(i) for i in model.tokenizer(fact.target)["input_ids"]]
    texts = (fact.prompt, *PARAPHRASES, *NEIGHBOURS)
    for hf, predictions, when in ((model.hf, found.before, "before"), (by_hand(model, edit), found.after, "after")):
        for row, text in enumerate(texts):
            last = log_probs(hf, model, text)[-1]
            best = last.topk(4)
            torch.testing.assert_close(predictions.top_log_probs_nats[row], best.values, atol=1e-4, rtol=0)
            assert predictions.top_ids[row].tolist() == best.indices.tolist()
            assert int(predictions.target_rank[row]) == int((last > last[target[0]]).sum())
            forced = log_probs(hf, model, text, target[:-1])[-len(target) :]
            expected = sum(float(forced[step, token]) for step, token in enumerate(target))
            assert float(predictions.target_log_prob_nats[row]) == pytest.approx(expected, abs=2e-4)
            old = float(last[found.old.ids[0]])
            assert float(predictions.old_log_prob_nats[row]) == pytest.approx(old, abs=1e-4)
            assert found.top(when, row)[0][1] == pytest.approx(float(best.values[0].exp()), abs=1e-5)
    assert found.old.ids == (int(found.before.top_ids[0, 0]),)
    assert [row.role for row in found.rows] == ["prompt", "paraphrase", "paraphrase", "neighbour", "neighbour"]
    for row, text in zip(found.rows, texts, strict=True):
        assert row.tokens.text == text
        assert row.changed == (row.before_token != row.after_token)


@pytest.mark.parametrize("name", CORE)
def test_the_lens_is_that_of_weights_written_by_hand(name: str) -> None:
    model, edit = made(name)
    found = edit_effect(model, edit, max_new_tokens=0)
    ids = torch.tensor([found.prompt.ids])
    for hf, lens in ((model.hf, found.lens_before_nats), (by_hand(model, edit), found.lens_after_nats)):
        *streams, _ = _streams(hf, [block.block for block in model.atlas.blocks], ids)
        with torch.no_grad():
            read = [*(_read(model, stream[0]) for stream in streams), hf(ids).logits[0].log_softmax(-1)]
        expected = torch.stack(read)[..., found.target.ids[0]]
        torch.testing.assert_close(lens, expected, atol=2e-4, rtol=0)
    assert torch.equal(found.lens_before_nats[0], found.lens_after_nats[0]), "below the edited layer nothing changes"
    assert not torch.equal(found.lens_before_nats[1], found.lens_after_nats[1])


def _streams(hf, paths, ids):
    """What leaves each block."""
    streams = []

    def keep(module, arguments, output):
        streams.append(output if torch.is_tensor(output) else output[0])

    hooks = [hf.get_submodule(path).register_forward_hook(keep) for path in paths]
    with torch.no_grad():
        hf(ids)
    for hook in hooks:
        hook.remove()
    return streams


def _read(model, stream):
    """The model's own final norm, unembedding and softcap."""
    parts = model.unembedding
    logits = model.final_norm(stream) @ parts.weight.T * parts.scale
    logits = logits if parts.bias is None else logits + parts.bias
    if parts.softcap is not None:
        logits = parts.softcap * (logits / parts.softcap).tanh()
    return logits.log_softmax(-1)


def test_continuations_are_the_models_own_before_and_after() -> None:
    model, edit = made()
    found = edit_effect(model, edit, max_new_tokens=8)
    assert found.continuation_before is not None
    assert found.continuation_after is not None
    assert found.continuation_before.ids.tolist() == model.generate(FACT.prompt, max_new_tokens=8).ids.tolist()
    with edit.applied(model):
        assert found.continuation_after.ids.tolist() == model.generate(FACT.prompt, max_new_tokens=8).ids.tolist()
    none = edit_effect(model, edit, max_new_tokens=0)
    assert none.continuation_before is None
    assert none.continuation_after is None


def test_an_edit_of_nothing_changes_nothing_and_the_hashes_say_so() -> None:
    model, edit = made(size=0.0)
    found = edit_effect(model, edit, paraphrases=PARAPHRASES, neighbours=NEIGHBOURS)
    for name in ("top_ids", "top_log_probs_nats", "target_log_prob_nats", "target_rank", "old_log_prob_nats"):
        assert torch.equal(getattr(found.before, name), getattr(found.after, name)), name
    assert torch.equal(found.lens_before_nats, found.lens_after_nats)
    assert not any(row.changed for row in found.rows)
    assert [(proof.changed, proof.exact) for proof in found.proofs] == [(False, True)]


def test_the_hashes_are_of_the_stored_bytes_and_the_model_is_left_as_it_was() -> None:
    model, edit = made("gpt2", layers=(0, 2))
    other = random_edit(model, [2], seed=5, size=0.3)
    other.apply(model)
    before, logits = bytes_of(model), model.hf(torch.tensor([[3, 4, 5]])).logits
    found = edit_effect(model, edit, max_new_tokens=2)
    assert bytes_of(model) == before
    assert torch.equal(model.hf(torch.tensor([[3, 4, 5]])).logits, logits)
    assert applied_edits(model) == (other,)
    with edit.applied(model):
        within = bytes_of(model)
    for proof in found.proofs:
        path = f"{proof.path}.weight"
        assert (proof.before_sha256, proof.applied_sha256, proof.undone_sha256) == (
            before[path],
            within[path],
            before[path],
        )
        assert proof.exact
        assert proof.changed
    assert found.undo_exact
    assert [proof.layer for proof in found.proofs] == [0, 2]


def test_an_undo_that_leaves_a_bit_is_seen(monkeypatch) -> None:
    """The claim is measured: an undo that does not give the bytes back is not called exact."""
    model, edit = made()

    @contextmanager
    def sloppy(opened, made, **_):
        weight = opened.hf.get_submodule(made.layers[0].path).weight
        with made.applied(opened):
            yield
        with torch.no_grad():
            weight[0, 0] += 1e-3

    monkeypatch.setattr(effect_module, "applied", sloppy)
    found = edit_effect(model, edit, max_new_tokens=1)
    assert not found.undo_exact
    assert found.proofs[0].before_sha256 != found.proofs[0].undone_sha256


def test_one_of_several_facts_is_asked_about_and_another_old_answer_can_be_named() -> None:
    model = word_model.build()
    second = Fact("bridge", "the {} is in city near", "Dora")
    edit = random_edit(model, [1], facts=(FACT, second))
    found = edit_effect(model, edit, fact=-1, old="Fred", max_new_tokens=0)
    assert found.fact == second
    assert found.prompt.text == "the bridge is in city near"
    assert found.prompt.pieces[found.subject_position] == "bridge"
    assert (found.target.text, found.old.text) == ("Dora", "Fred")
    assert edit_effect(model, edit, max_new_tokens=0).prompt.pieces[10] == "Pisa"
    assert edit_effect(model, edit, max_new_tokens=0).subject_position == 10


def test_verdicts() -> None:
    """All four, with the target that the model happens to give before or after."""
    model, edit = made(size=1.5)
    probe = edit_effect(model, edit, neighbours=NEIGHBOURS, paraphrases=PARAPHRASES, max_new_tokens=0)
    assert any(row.changed for row in probe.rows)
    seen = set()
    for row in probe.rows:
        for target in (row.before_token, row.after_token):
            fact = Fact(FACT.subject, FACT.template, target)
            again = edit_effect(
                model, random_edit(model, [1], size=1.5, facts=(fact,)), max_new_tokens=0, neighbours=NEIGHBOURS
            )
            for asked in again.rows:
                seen.add(asked.verdict)
                by_words = {
                    (False, True): "kept" if asked.role == "neighbour" else "the target already",
                    (False, False): "kept",
                    (True, True): "now the target",
                    (True, False): "changed",
                }
                assert asked.verdict == by_words[asked.changed, asked.after_token == target]
    assert {"now the target", "changed"} <= seen


def test_round_trip_table_and_figures(tmp_path) -> None:
    model, edit = made()
    found = edit_effect(model, edit, paraphrases=PARAPHRASES, neighbours=NEIGHBOURS, max_new_tokens=3)
    path = tmp_path / "effect.safetensors"
    found.save(path)
    again = load_result(path)
    assert isinstance(again, EditEffect)
    again.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()
    assert json.dumps(again.to_json(), allow_nan=False)
    frame = again.to_frame()
    assert frame.equals(found.to_frame())
    assert frame["text"].tolist() == [FACT.prompt, *PARAPHRASES, *NEIGHBOURS]
    words, before, after = zip(*found.answers, strict=True)
    assert set(found.top("before")) <= {*zip(words, before, strict=True)}
    assert set(found.top("after")) <= {*zip(words, after, strict=True)}
    assert [max(pair) for pair in zip(before, after, strict=True)] == sorted(
        map(max, zip(before, after, strict=True)), reverse=True
    )
    assert found.figure().data[0].type == "heatmap"
    assert [trace.name for trace in found.figure("answers").data] == ["before", "after"]
    assert found.figure("curve").to_json() == edit.figure().to_json()
    assert len(found.of("neighbour")) == 2


def test_progress_is_told() -> None:
    model, edit = made()
    told = []
    edit_effect(model, edit, max_new_tokens=1, progress=lambda *call: told.append(call))
    assert told == [("measuring the edit", done, 6) for done in range(1, 7)]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"fact": 1}, "fact 1 is out of range; valid: 0 to 0"),
        ({"top_k": 0}, "top_k is 0; valid: 1 or more"),
        ({"max_new_tokens": -1}, "max_new_tokens is -1; valid: 0 or more"),
        ({"old": ""}, "the target is empty"),
        ({"paraphrases": [""]}, "the prompt is empty"),
    ],
)
def test_bad_arguments_leave_the_model_alone(options: dict, said: str) -> None:
    model, edit = made()
    before = bytes_of(model)
    with pytest.raises(UsageError, match=said):
        edit_effect(model, edit, **options)
    assert bytes_of(model) == before


def test_names_of_figures_roles_and_times() -> None:
    model, edit = made()
    found = edit_effect(model, edit, max_new_tokens=0)
    with pytest.raises(UsageError, match="unknown figure 'lense' .*valid: lens, answers, curve"):
        found.figure("lense")
    with pytest.raises(UsageError, match="unknown role 'neighbor' .*valid: prompt, paraphrase, neighbour"):
        found.of("neighbor")
    with pytest.raises(UsageError, match="unknown time 'now'; valid: before, after"):
        found.top("now")


def test_an_applied_edit_has_no_before_and_another_model_is_refused() -> None:
    model, edit = made()
    with edit.applied(model), pytest.raises(UsageError, match="applied already, so there is no before; undo it first"):
        edit_effect(model, edit)
    other = word_model.build(seed=1)
    with pytest.raises(ModelError, match="made for other weights"):
        edit_effect(other, edit)
    assert edit_effect(other, edit, other_base=True, max_new_tokens=0).undo_exact


def test_weights_that_break_the_model_are_an_error_and_the_model_is_as_before() -> None:
    model, edit = made(size=1e38)
    before = bytes_of(model)
    with pytest.raises(NumericsError):
        edit_effect(model, edit)
    assert bytes_of(model) == before
    assert applied_edits(model) == ()

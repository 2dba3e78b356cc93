"""Editing facts: u, v and the update against plain full forwards, the theorems they rest on, and what bad input leaves behind."""

import hashlib
import random
from dataclasses import replace

import pytest
import torch

import word_model
from interp.editing.edit_facts import edit_facts
from interp.editing.matrix import output_matrix
from interp.editing.near_misses import AUDIBLE, CANDIDATES, near_misses
from interp.editing.rewrite import rewrite_of
from interp.editing.second_moments import second_moments
from interp.editing.settings import METHODS, EditSettings, settings_of
from interp.editing.stack import applied, applied_edits
from interp.editing.value import LIKELY, PARTS
from interp.errors import ModelError, NumericsError, UsageError
from interp.maths.rank_one import null_space
from interp.prompts import Fact
from oracles import rome as oracle

CORE = ("gpt2", "gpt_neox", "llama", "gemma2", "phi3")
MORE = (
    "gpt_neox_seq", "gptj", "gpt_neo", "mistral", "qwen2", "qwen3", "gemma", "gemma3_text", "phi", "opt", "bloom", "falcon", "mpt",
    "olmo", "olmo2", "olmo3", "stablelm", "starcoder2", "granite", "cohere", "smollm3", "glm4", "gpt_bigcode", "codegen",
)  # fmt: skip
NOT_PLAIN = ("gemma2", "gemma3_text", "olmo2", "olmo3", "glm4", "granite")
"""A norm or a factor stands between the MLP's output projection and the stream, so that MEMIT's residual cannot be added as it is."""
EVERY = [*CORE, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)]
PREFIX = {
    "gpt2": "transformer.h", "gptj": "transformer.h", "gpt_neo": "transformer.h", "gpt_bigcode": "transformer.h",
    "codegen": "transformer.h", "bloom": "transformer.h", "falcon": "transformer.h", "mpt": "transformer.blocks",
    "gpt_neox": "gpt_neox.layers", "gpt_neox_seq": "gpt_neox.layers", "opt": "model.decoder.layers",
}  # fmt: skip
DOWN = {
    "gpt2": "mlp.c_proj", "gpt_neo": "mlp.c_proj", "gpt_bigcode": "mlp.c_proj", "starcoder2": "mlp.c_proj", "gptj": "mlp.fc_out",
    "codegen": "mlp.fc_out", "bloom": "mlp.dense_4h_to_h", "falcon": "mlp.dense_4h_to_h", "mpt": "ffn.down_proj",
    "gpt_neox": "mlp.dense_4h_to_h", "gpt_neox_seq": "mlp.dense_4h_to_h", "opt": "fc2", "phi": "mlp.fc2",
}  # fmt: skip
LAYER = 1
CONTEXTS = ("", "one two ", "Then Carl gave Dora three red ", "near lake ")
TOWER = Fact("tower of Pisa", "the {} is in the city of", " Ann")
BRIDGE = Fact("bridge", "{} lies near the", " Carl Dora Eve")
"""The subject stands first, and the target has three tokens."""
RIVER = Fact("old river", "who saw the {} near", " Eve")
PLAIN = {
    "context_weight": 0.0,
    "near_misses": 0,
    "as_heard": False,
    "overhearers": 0,
    "noise": 0.0,
    "quiet_steps": 0,
    "subject_contexts": False,
    "value_contexts": None,
}
"""The papers' recipe, without what the defaults of ``rome`` add."""
SETTINGS = EditSettings(min_tokens=1, shrinkage=0.01, **PLAIN)


@pytest.fixture(scope="module")
def small():
    made = {}

    def make(name):
        if name not in made:
            made[name] = word_model.build(name)
        return made[name]

    return make


@pytest.fixture(scope="module")
def moments(small):
    """The second moments of layers 0 to 2 on random words, made once for each family."""
    made = {}

    def make(name):
        if name not in made:
            chance = random.Random(0)
            texts = [" ".join(chance.choices(word_model.WORDS, k=20)) for _ in range(40)]
            model = small(name)
            made[name] = second_moments(model, range(model.atlas.n_layers), texts)
        return made[name]

    return make


def middle(model):
    """The last layer whose MLP at the subject can reach the answer: attention of a later one must carry it there."""
    return model.atlas.n_layers - 2


def module_of(model, name, layer=None):
    layer = middle(model) if layer is None else layer
    return model.hf.get_submodule(f"{PREFIX.get(name, 'model.layers')}.{layer}.{DOWN.get(name, 'mlp.down_proj')}")


def block_of(model, name, layer):
    return model.hf.get_submodule(f"{PREFIX.get(name, 'model.layers')}.{layer}")


def plain(model, fact, contexts=CONTEXTS):
    """The fact as the oracle takes it."""
    found = rewrite_of(model, fact, contexts)
    return oracle.Fact(
        prompts=[list(tokens.ids) for tokens in found.prompts],
        positions=list(found.positions),
        target=list(found.target.ids),
        essence=list(found.essence.ids),
        essence_position=found.essence_position,
        more=[(list(tokens.ids), at) for tokens, at in zip(found.subjects, found.subject_positions, strict=True)],
    )


def kept_in(model, *facts):
    """Facts to be kept as the oracle takes them: (ids, position of the subject's last token)."""
    found = [plain(model, fact, ("",)) for fact in facts]
    return [(fact.prompts[0], fact.positions[0]) for fact in found]


def value_settings(settings):
    return {
        "steps": settings.steps,
        "learning_rate": settings.learning_rate,
        "kl_weight": settings.kl_weight,
        "decay": settings.decay,
        "clamp": settings.clamp,
        "stop_loss": settings.stop_loss_nats,
    }


def change(edit, layer=None):
    """The change of a layer's matrix, [d_model d_mlp]; of the only one there is."""
    (found,) = [one for one in edit.layers if layer in (one.layer, None)]
    return found.left.double() @ found.right.double()


def close(got, want, tolerance=1e-4, floor=0.0):
    """Equal to ``tolerance`` of the largest number there is, or to ``floor``, the rounding of what the numbers are differences of."""
    room = max(floor, tolerance * float(want.abs().max()))
    torch.testing.assert_close(got.double(), want.double(), rtol=0, atol=room)


def state(model):
    """Everything of a model that an edit could leave behind."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.hf.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    hooks = sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.hf.modules())
    grads = [(parameter.requires_grad, parameter.grad is None) for parameter in model.hf.parameters()]
    own = sum("forward" in module.__dict__ for module in model.hf.modules())
    return digest.hexdigest(), hooks, grads, own, model.hf.training, torch.is_grad_enabled(), applied_edits(model)


def make(model, moments, fact=TOWER, method="rome", **given):
    arguments = {
        "layers": middle(model),
        "contexts": CONTEXTS,
        "settings": SETTINGS,
        "allow_known": True,
        "moments": moments,
    }
    return edit_facts(model, fact, method, **{**arguments, **given})


# The oracle


@pytest.mark.parametrize("fact", [TOWER, BRIDGE], ids=["one token", "three tokens, subject first"])
@pytest.mark.parametrize("method", ["rome", "rome-original"])
@pytest.mark.parametrize("name", EVERY)
def test_rome_is_that_of_full_forwards(small, moments, name, method, fact):
    model, original = small(name), method == "rome-original"
    settings = replace(settings_of(method), min_tokens=1, shrinkage=0.01, **PLAIN)
    edit = make(model, moments(name), fact, method, settings=settings)
    module, moment = module_of(model, name), moments(name)[middle(model)].shrunk(0.01)
    u, value, update, curve = oracle.rome(
        model.hf, module, plain(model, fact), moment, original=original, **value_settings(settings)
    )
    (layer,) = edit.layers
    direction = layer.right[0] / layer.right[0].norm()
    close(direction * torch.sign(direction.double() @ u), u)
    close(change(edit), update)
    key = oracle.average_key(model.hf, module, plain(model, fact).prompts, plain(model, fact).positions)
    if original:
        key = oracle.key(model.hf, module, plain(model, fact).prompts[0], plain(model, fact).positions[0])
    bias = getattr(module, "bias", None)
    got = (oracle.matrix(module).double() + change(edit)) @ key.double()
    close(got if bias is None else got + bias.double(), value)
    (found,) = edit.curves
    want = torch.tensor(curve)
    parts = (found.loss_nats, found.target_nats, found.essence_nats, found.decay_nats, found.delta_norm)
    for i, part in enumerate(parts):
        close(part, want[:, i], floor=1e-6)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.long
def test_the_default_method_is_that_of_full_forwards(small, moments, name):
    """Four of ten contexts optimise under noise, all and those of the subject alone make the key; its covariance over contexts and the
    keys of near misses and of kept facts join the second moment. Each prompt is told what it will hear, and so are near misses that hear
    the edit.
    """
    model = small(name)
    settings = replace(settings_of("rome"), min_tokens=1, shrinkage=0.01, keep_weight=2.0)
    assert settings.context_weight > 0
    assert settings.subject_contexts
    assert settings.noise > 0
    assert settings.quiet_steps > 0
    assert settings.near_misses > 0 < settings.near_miss_weight
    assert settings.overhearers > 0 < settings.overhearing_weight
    assert settings.as_heard
    contexts = (*CONTEXTS, "blue ", "red bridge ", "what then ", "three four five ", "gave ", "is it six ")
    edit = make(model, moments(name), TOWER, settings=settings, contexts=contexts, keep=[BRIDGE, RIVER])
    fact, module = plain(model, TOWER, contexts), module_of(model, name)
    moment = moments(name)[middle(model)].shrunk(0.01)
    misses = near_misses(rewrite_of(model, TOWER, contexts), model, settings.near_misses)
    weighed = {"context_weight": settings.context_weight, "miss_weight": settings.near_miss_weight, "keep_weight": 2.0}
    keys = {
        "misses": [(list(ids), fact.positions[0]) for ids in misses],
        "kept": kept_in(model, BRIDGE, RIVER),
        **weighed,
    }
    u, _ = oracle.even_insertion(model.hf, module, fact, moment, torch.zeros(1), **keys)
    close(edit.layers[0].right[0] / edit.layers[0].right[0].norm(), u)

    assert settings.value_contexts == 4
    chosen = [0, 1, 5, 9]  # the bare prompt, and three spread from the first of the others to the last
    start = oracle.average_value(
        model.hf, module, [fact.prompts[i] for i in chosen], [fact.positions[i] for i in chosen]
    )
    value, curve = oracle.optimise(
        model.hf,
        module,
        fact,
        averaged=True,
        chosen=chosen,
        block=block_of(model, name, middle(model)),
        noise=settings.noise,
        quiet_steps=settings.quiet_steps,
        likely=LIKELY,
        shares=[share(model, module, fact, u, fact.prompts[i], fact.positions[i]) for i in chosen]
        + [share(model, module, fact, u, fact.essence, fact.essence_position)],
        overhearers=loudest(model, module, fact, u, settings.overhearers),
        overhearing_weight=settings.overhearing_weight,
        **value_settings(settings),
    )
    _, update = oracle.even_insertion(model.hf, module, fact, moment, value - start, **keys)
    close(change(edit), update)
    close(edit.curves[0].loss_nats, torch.tensor(curve)[:, 0])


def share(model, module, fact, u, ids, position):
    """The part of an edit in the direction u that a key hears: of the answer of the key averaged over all contexts."""
    keys = [oracle.key(model.hf, module, *one) for one in zip(fact.prompts, fact.positions, strict=True)]
    keys += [oracle.key(model.hf, module, *one) for one in fact.more]
    return float(oracle.key(model.hf, module, ids, position).double() @ u) / (float(sum(keys).double() @ u) / len(keys))


def loudest(model, module, fact, u, n):
    """The near misses of TOWER that hear most of an edit in the direction u, as the oracle takes them; there are some."""
    heard = []
    for ids in near_misses(rewrite_of(model, TOWER, ("",)), model, CANDIDATES, seed=1).tolist():
        heard.append((ids, fact.positions[0], share(model, module, fact, u, ids, fact.positions[0])))
    heard.sort(key=lambda one: -one[2])
    found = [one for one in heard[:n] if one[2] > AUDIBLE]
    assert found
    return found


@pytest.mark.parametrize("method", ["memit", "alphaedit"])
@pytest.mark.parametrize("name", [name for name in EVERY if getattr(name, "values", [name])[0] not in NOT_PLAIN])
def test_facts_spread_over_layers_as_by_full_forwards(small, moments, name, method):
    model = small(name)
    layers = list(range(middle(model) + 1))[-2:]
    chosen = [moments(name)[layer] for layer in layers]
    matrices = [moment.shrunk(0.01) for moment in chosen]
    threshold = float(torch.linalg.eigvalsh(torch.stack(matrices)).median())
    settings = replace(
        settings_of(method),
        min_tokens=1,
        shrinkage=0.01,
        moment_weight=5.0,
        null_threshold=threshold,
        ridge=0.3,
        steps=6,
    )
    edit = make(model, chosen, [TOWER, BRIDGE], method, layers=layers, settings=settings, keep=[RIVER])
    modules = [module_of(model, name, layer) for layer in layers]
    facts = [plain(model, fact) for fact in (TOWER, BRIDGE)]
    block = block_of(model, name, layers[-1])
    plain_settings = {"kept": kept_in(model, RIVER), **value_settings(settings)}
    want = (
        oracle.memit(model.hf, modules, block, facts, matrices, weight=5.0, **plain_settings)
        if method == "memit"
        else oracle.alphaedit(
            model.hf, modules, block, facts, matrices, threshold=threshold, ridge=0.3, **plain_settings
        )
    )
    assert [one.layer for one in edit.layers] == layers
    for layer, update in zip(layers, want, strict=True):
        close(change(edit, layer), update)


# Identities


@pytest.mark.parametrize("name", CORE)
@pytest.mark.parametrize("method", ["rome", "rome-original"])
def test_the_edited_matrix_maps_the_key_to_the_value(small, moments, name, method):
    """W k grows by exactly the delta that was found; the averaged key's, or the bare prompt's."""
    model, settings = small(name), replace(settings_of(method), min_tokens=1, **PLAIN)
    edit = make(model, moments(name), BRIDGE, method, settings=settings)
    module, fact = module_of(model, name), plain(model, BRIDGE)
    key = oracle.average_key(model.hf, module, fact.prompts, fact.positions)
    if method == "rome-original":
        key = oracle.key(model.hf, module, fact.prompts[0], fact.positions[0])
    delta = change(edit) @ key.double()
    assert float(delta.norm()) == pytest.approx(float(edit.curves[0].delta_norm[-1]), rel=1e-4)
    assert edit.layers[0].right.shape[0] == 1


def test_memit_with_one_fact_one_layer_and_a_hard_constraint_is_rome(small, moments):
    """Without what measures delta's size, the MLP's output and the block's are one place in a sequential block."""
    free = replace(SETTINGS, decay=0.0, clamp=1e6, steps=8)
    model = small("llama")
    rome = make(model, moments("llama"), settings=free, contexts=("",))
    settings = replace(free, moment_weight=1e-6)
    memit = make(model, moments("llama"), method="memit", settings=settings, layers=[LAYER], contexts=("",))
    close(change(memit), change(rome), 1e-3)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_neox", pytest.param("granite", marks=pytest.mark.slow)])
def test_a_hard_constraint_brings_the_stream_to_where_it_should_be(small, moments, name):
    """Also where the MLP's update is scaled on its way into the stream, as in granite."""
    model = small(name)
    settings = replace(SETTINGS, moment_weight=1e-6)
    edit = make(model, moments(name), method="memit", settings=settings, contexts=("",))
    fact = plain(model, TOWER, ("",))
    block, where = block_of(model, name, middle(model)), (fact.prompts[0], fact.positions[0])
    before = oracle.value(model.hf, block, *where)
    with applied(model, edit):
        moved = oracle.value(model.hf, block, *where) - before
    assert float(moved.norm()) == pytest.approx(float(edit.curves[0].delta_norm[-1]), rel=1e-3)


def test_alphaedit_leaves_preserved_keys_alone(small, moments):
    model, moment = small("llama"), moments("llama")[LAYER]
    values = torch.linalg.eigvalsh(moment.shrunk(0.0))
    threshold = float(values[20] + values[21]) / 2
    settings = replace(settings_of("alphaedit"), min_tokens=1, shrinkage=0.0, null_threshold=threshold, ridge=1e-3)
    edit = make(model, moments("llama"), method="alphaedit", layers=[LAYER], settings=settings)
    free = null_space(moment.shrunk(0.0), threshold)
    kept = torch.eye(len(free), dtype=torch.float64) - free
    assert int(kept.trace().round()) == len(values) - 21
    assert float((change(edit) @ kept).abs().max()) < 1e-5 * float(change(edit).abs().max())


@pytest.mark.parametrize("name", CORE)
def test_an_edit_makes_its_target_likelier(small, moments, name):
    model = small(name)
    token = rewrite_of(model, TOWER, CONTEXTS).target.ids[0]
    before = model.run(TOWER.prompt, logits="last").last_logits.log_softmax(-1)[0, token]
    for method in METHODS:
        settings = replace(
            settings_of(method), min_tokens=1, shrinkage=0.01, moment_weight=1.0, null_threshold=1e9, ridge=1e-3
        )
        with applied(model, make(model, moments(name), method=method, settings=settings)):
            after = model.run(TOWER.prompt, logits="last").last_logits.log_softmax(-1)[0, token]
        assert float(after) > float(before), method


@pytest.mark.long
def test_facts_after_one_another_are_edits_on_top_of_one_another(small, moments):
    model = small("llama")
    both = make(model, moments("llama"), [TOWER, BRIDGE])
    first = make(model, moments("llama"), TOWER)
    with applied(model, first):
        second = make(model, moments("llama"), BRIDGE)
    close(change(both), change(first) + change(second), 1e-5)
    assert both.layers[0].right.shape[0] == 2
    assert second.layers[0].base_sha256 == first.layers[0].base_sha256
    assert [len(edit.curves) for edit in (both, first, second)] == [2, 1, 1]


def test_the_same_seed_gives_the_same_edit(small, moments):
    model = small("gpt2")
    settings = replace(SETTINGS, contexts=2, context_lengths=(3,), steps=3)
    edits = [make(model, moments("gpt2"), contexts=None, settings=settings, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(change(edits[0]), change(edits[1]))
    assert not torch.equal(change(edits[0]), change(edits[2]))


def test_optimisation_stops_early(small, moments):
    model = small("llama")
    easy = replace(SETTINGS, stop_loss_nats=1e3)
    (curve,) = make(model, moments("llama"), settings=easy).curves
    assert (len(curve.loss_nats), curve.stop_reason) == (1, "loss")
    (curve,) = make(model, moments("llama"), settings=replace(SETTINGS, steps=4, stop_loss_nats=1e-6)).curves
    assert (len(curve.loss_nats), curve.stop_reason) == (4, "steps")


def test_steps_without_noise_follow_until_the_target_is_likely(small, moments, monkeypatch):
    model, settings = small("llama"), replace(SETTINGS, noise=0.8, steps=4, clamp=50.0)
    made = {
        quiet: make(model, moments("llama"), settings=replace(settings, quiet_steps=quiet)).curves[0]
        for quiet in (0, 6)
    }
    assert [(len(one.loss_nats), one.stop_reason) for one in made.values()] == [(4, "steps"), (11, "steps")]
    assert torch.equal(made[6].loss_nats[:4], made[0].loss_nats)
    close(made[6].delta_norm[4], made[0].delta_norm[3])
    bare, contexts = made[6].bare_probability[4:], made[6].probability[4:]
    quiet = bare.minimum(contexts).tolist()
    assert quiet == sorted(quiet)
    lags = int((contexts - bare)[:6].argmax())  # here the contexts have what the bare prompt has not
    between = (bare[lags] + min(contexts[lags], bare[lags + 1])).item() / 2
    assert bare[lags] < between < contexts[lags]
    for wanted, steps in ((quiet[2] + quiet[3]) / 2, 8), (quiet[0] / 2, 5), (between, 4 + lags + 2):
        monkeypatch.setattr("interp.editing.value.LIKELY", wanted)
        (curve,) = make(model, moments("llama"), settings=replace(settings, quiet_steps=6)).curves
        assert (len(curve.loss_nats), curve.stop_reason) == (steps, "likely" if steps > 5 else "steps")
        assert torch.equal(curve.loss_nats, made[6].loss_nats[:steps])


def test_delta_is_held_within_the_clamp(small, moments):
    tight = replace(SETTINGS, clamp=0.2)
    (curve,) = make(small("llama"), moments("llama"), settings=tight).curves
    assert float(curve.delta_norm.max()) <= 0.2 * curve.start_norm * (1 + 1e-5)


@pytest.mark.parametrize("noise", [0.0, 0.8])
def test_delta_is_shortened_to_what_is_enough(small, moments, noise):
    """The least of the parts of delta under which plain forwards give the target the probability that is asked for."""
    model, settings = small("llama"), replace(SETTINGS, noise=noise)
    fact, module = plain(model, BRIDGE), module_of(model, "llama")
    whole = make(model, moments("llama"), BRIDGE, settings=settings)
    key = oracle.average_key(model.hf, module, fact.prompts, fact.positions)
    delta = (change(whole) @ key.double()).float()
    found = [oracle.target_probability(model.hf, module, fact, share * delta) for share in (*PARTS, 1.0)]
    assert found == sorted(found)
    cases = [(found[0] - 1e-3, 0.5), (sum(found[:2]) / 2, 0.6), (sum(found[2:4]) / 2, 0.8), (sum(found[4:]) / 2, 1.0)]
    for enough, share in (*cases, ((1 + found[-1]) / 2, 1.0)):
        short = make(model, moments("llama"), BRIDGE, settings=replace(settings, enough_probability=enough))
        close(change(short), share * change(whole))
        (before,), (curve,) = whole.curves, short.curves
        assert curve.stop_reason == ("enough" if share < 1 else before.stop_reason)
        if share < 1:
            close(curve.delta_norm[-1], share * before.delta_norm[-1])
            close(curve.probability[-1], torch.tensor(dict(zip((*PARTS, 1.0), found, strict=True))[share]))


@pytest.mark.parametrize("method", METHODS)
def test_the_model_is_left_as_it_was(small, moments, method):
    model = small("llama")
    before = state(model)
    chance = torch.get_rng_state()
    edit = make(
        model, moments("llama"), method=method, settings=replace(settings_of(method), min_tokens=1, null_threshold=1e9)
    )
    assert state(model) == before
    assert torch.equal(torch.get_rng_state(), chance)
    assert edit.layer_source == "given"
    assert edit.method == method


def test_facts_one_after_another_keep_those_before(small, moments):
    """Several facts in one call are those of several calls, each with the earlier ones applied and kept."""
    model, settings = small("llama"), replace(SETTINGS, keep_weight=2.0)
    together = make(model, moments("llama"), [TOWER, BRIDGE], settings=settings)
    first = make(model, moments("llama"), TOWER, settings=settings)
    with applied(model, first):
        second = make(model, moments("llama"), BRIDGE, settings=settings, keep=[TOWER])
    close(change(together), change(first) + change(second))


@pytest.mark.parametrize("method", ["rome", "memit"])
def test_a_fact_of_the_edited_subject_is_not_kept(small, moments, method):
    """Its key is the one that is to change: keeping it would leave the edit no direction."""
    model, settings = small("llama"), replace(settings_of(method), min_tokens=1, keep_weight=2.0, steps=4)
    same = replace(RIVER, subject=TOWER.subject)
    plain = make(model, moments("llama"), TOWER, method, settings=settings)
    close(change(make(model, moments("llama"), TOWER, method, settings=settings, keep=[same])), change(plain), 1e-7)
    two = make(model, moments("llama"), [same, TOWER], method, settings=settings)
    assert torch.isfinite(change(two)).all()
    if method == "rome":
        first = make(model, moments("llama"), same, settings=settings)
        with applied(model, first):
            second = make(model, moments("llama"), TOWER, settings=settings)
        close(change(two), change(first) + change(second))


def test_applied_edits_stay_applied(small, moments):
    model = small("llama")
    first = make(model, moments("llama"))
    with applied(model, first):
        before = state(model)
        make(model, moments("llama"), [BRIDGE, TOWER], "memit", layers=[0, 1])
        assert state(model) == before


# Errors


def fails(model, error, message, call):
    before = state(model)
    with pytest.raises(error, match=message) as found:
        call()
    assert "\n" not in str(found.value)
    assert state(model) == before


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"fact": replace(TOWER, target="")}, UsageError, "target is empty"),
        ({"fact": ()}, UsageError, "no fact"),
        ({"layers": 3}, UsageError, "layer 3.*0 to 2"),
        ({"layers": -4}, UsageError, "layer -4.*0 to 2"),
        ({"layers": 2}, UsageError, "layer 2 is the last.*0 to 1"),
        ({"layers": []}, UsageError, "no layer"),
        ({"layers": [0, 1]}, UsageError, "rome edits one layer.*memit"),
        ({"method": "romee"}, UsageError, "rome, rome-original, memit, alphaedit"),
        ({"moments": ()}, UsageError, "no second moment of layer 1"),
        ({"keep": [BRIDGE]}, UsageError, "keep_weight above 0.*rome has 0"),
        ({"settings": replace(SETTINGS, min_tokens=10**6)}, UsageError, "1,?000,?000"),
        ({"method": "alphaedit", "settings": replace(SETTINGS, null_threshold=1e-12)}, NumericsError, "null_threshold"),
    ],
)
def test_bad_input_is_told_and_changes_nothing(small, moments, given, error, message):
    model = small("llama")
    arguments = {"moments": moments("llama"), **given}
    fails(model, error, message, lambda: make(model, **arguments))


def test_a_target_that_the_model_gives_already(small, moments):
    model = small("llama")
    said = word_model.WORDS[int(model.run(TOWER.prompt, logits="last").last_logits.argmax())]
    known = replace(TOWER, target=f" {said}")
    fails(
        model, UsageError, "already.*allow_known=True", lambda: make(model, moments("llama"), known, allow_known=False)
    )
    assert make(model, moments("llama"), known, settings=replace(SETTINGS, steps=2)).facts == (known,)


def test_second_moments_of_another_model_or_layer(small, moments):
    model = small("llama")
    stranger = second_moments(word_model.build("llama", seed=1), LAYER, [" ".join(word_model.WORDS[:60])])
    fails(model, ModelError, "model", lambda: make(model, stranger))
    other = moments("llama")[0]
    fails(model, UsageError, "no second moment of layer 1", lambda: make(model, other))


def test_a_mixture_of_experts_is_refused(small, moments):
    model = small("mixtral")
    fails(model, UsageError, "mixtures? of experts", lambda: make(model, moments("llama")))
    fails(model, UsageError, "mixtures? of experts", lambda: make(model, None, layers="auto", method="memit"))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_in_the_weights_above(moments, method, bad):
    """The layers below and their second moments are fine, so only the optimisation meets it."""
    model = word_model.build("llama")
    module_of(model, "llama", 2).weight.data[0, 0] = bad
    settings = replace(SETTINGS, null_threshold=1e9)
    fails(
        model,
        NumericsError,
        "NaN|infinit|finite",
        lambda: make(model, moments("llama"), method=method, settings=settings),
    )


def test_an_interruption_in_the_middle_leaves_the_model(small, moments):
    model = small("llama")

    def stop(what, done, total):
        if what.startswith("editing"):
            raise KeyboardInterrupt

    before = state(model)
    for method in ("rome", "memit"):
        with pytest.raises(KeyboardInterrupt):
            make(model, moments("llama"), [TOWER, BRIDGE], method, progress=stop)
        assert state(model) == before


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("contexts", -1),
        ("steps", 0),
        ("learning_rate", 0.0),
        ("clamp", 0.0),
        ("shrinkage", 1.5),
        ("moment_weight", 0.0),
        ("ridge", 0.0),
        ("quiet_steps", -1),
        ("enough_probability", 1.0),
        ("enough_probability", 0.0),
    ],
)
def test_settings_out_of_range(name, value):
    with pytest.raises(UsageError, match=f"{name} is .*valid: "):
        EditSettings(**{name: value})


def test_the_matrix_of_each_family(small):
    for name in CORE:
        model = small(name)
        assert torch.equal(output_matrix(model, LAYER).values, oracle.matrix(module_of(model, name)))

"""Ablation gives the numbers of plain hooks, one forward a component, on every kind of family; identities; files; errors."""

import math

import pytest
import torch

from interp.analyzers import ablation_work
from interp.analyzers.ablation import ablation
from interp.analyzers.ablation_result import AblationResult
from interp.analyzers.ablation_texts import pieces
from interp.analyzers.ablation_units import SITES, UNITS, Component, components_of, without
from interp.errors import ModelError, NumericsError, UsageError
from interp.interventions import Patch
from interp.maths.ablation import drawn_sources
from interp.results import load_result
from interp.runner.model import Model
from interp.sites import Site
from interp.tokens import Tokens, from_ids
from oracles import ablation as oracle
from tiny_models import build

FAMILIES = ("llama", "gemma2", "gpt_neox", "mixtral", "gpt2", "bloom", "gptj", "mpt")
"""Grouped queries, norms behind the parts, parallel, experts, Conv1D; the last three outside the AttentionInterface."""
PROMPTS = [
    [5, 9, 33, 71, 12, 44, 8, 90, 17, 3],
    [7, 21, 60, 4, 88, 13, 52],
    [3, 20, 41, 22, 63, 24, 85, 26, 47, 28],
]
NEAR = {"atol": 1e-4, "rtol": 1e-4}


def each(result, unit):
    """The components of a kind with their place in ``ablated``."""
    for component in components_of(unit, result.layers, result.n_heads):
        row = result.layers.index(component.layer)
        yield component, (row,) if component.head is None else (row, component.head)


def plain(family_name, hf, ids, component, values, positions=None):
    return oracle.logits_without(
        family_name, hf, ids, component.unit, component.layer, component.head, values, positions
    )


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("method", ["zero", "mean"])
def test_every_component_is_a_plain_forward_with_hooks(family, name: str, method: str) -> None:
    model = family(name)
    result = ablation(model, PROMPTS, units=UNITS, method=method)
    whole = [oracle.mean_loss(oracle.logits_of(model.hf, ids), ids) for ids in PROMPTS]
    torch.testing.assert_close(result.whole, torch.tensor(whole), **NEAR)
    moved = 0
    for unit in UNITS:
        for component, at in each(result, unit):
            means = {
                part: oracle.mean_outputs(name, model.hf, PROMPTS, part, component.layer) for part in oracle.PARTS[unit]
            }
            for index, ids in enumerate(PROMPTS):
                values = (
                    None
                    if method == "zero"
                    else {part: [first] + [later] * len(ids) for part, (first, later) in means.items()}
                )
                want = oracle.mean_loss(plain(name, model.hf, ids, component, values), ids)
                got = float(result.ablated[unit][index][at][0])
                assert got == pytest.approx(want, abs=1e-4), (component, index)
                moved += abs(got - whole[index]) > 1e-3
    assert moved > 40


@pytest.mark.parametrize("name", ["llama", "gpt_neox", "mixtral", "bloom"])
def test_resampling_takes_the_same_positions_of_the_drawn_texts(family, name: str) -> None:
    model = family(name)
    pool = [[9, 8, 7, 6, 5, 4, 33, 2, 31, 14, 50], [40, 41, 42, 43, 44], [80, 3, 80, 4, 81, 5, 81, 6, 82, 7, 83, 11]]
    result = ablation(
        model, PROMPTS, units=UNITS, method="resample", reference=pool, target=17, metric="log_prob", samples=3, seed=4
    )
    assert result.ablated["heads"].shape == (3, 3, 4, 3)
    generator = torch.Generator().manual_seed(4)
    drawn = drawn_sources([len(ids) for ids in PROMPTS], [len(text) for text in pool], 3, generator, same=False)
    assert any(list(sources) != sorted(sources) for sources in drawn)
    for unit in UNITS:
        for component, at in each(result, unit):
            for index, ids in enumerate(PROMPTS):
                for source, got in zip(drawn[index], result.ablated[unit][index][at].tolist(), strict=True):
                    values = {
                        part: list(oracle.output_of(name, model.hf, pool[source], part, component.layer))
                        for part in oracle.PARTS[unit]
                    }
                    logits = plain(name, model.hf, ids, component, values)[-1]
                    assert got == pytest.approx(float(logits.log_softmax(-1)[17]), abs=1e-4), (component, index)


@pytest.mark.parametrize("metric", ["probability", "log_prob", "logit_difference", "kl", "custom"])
def test_metrics_of_an_answer_of_two_tokens(family, metric: str) -> None:
    model, ids = family("llama"), PROMPTS[0]
    options = {"target": (17, 40), "against": 60} if metric == "logit_difference" else {"target": (17, 40)}
    spec = (lambda logits: logits[:, 3]) if metric == "custom" else metric
    result = ablation(model, ids, units="mlps", method="zero", metric=spec, **options)
    asked = [*ids, 17]
    clean = oracle.logits_of(model.hf, asked)

    def score(logits):
        log_p = logits[-2:].log_softmax(-1)
        answer = float(log_p[0, 17] + log_p[1, 40])
        if metric == "kl":
            wanted = clean[-2:].log_softmax(-1)
            return float((wanted.exp() * (wanted - log_p)).sum(-1).mean())
        known = {
            "log_prob": answer,
            "probability": math.exp(answer),
            "logit_difference": float(logits[-2, 17] - logits[-2, 60]),
            "custom": float(logits[-1, 3]),
        }
        return known[metric]

    assert float(result.whole[0]) == pytest.approx(score(clean), abs=1e-4)
    for component, at in each(result, "mlps"):
        want = score(plain("llama", model.hf, asked, component, None))
        assert float(result.ablated["mlps"][0][at][0]) == pytest.approx(want, abs=1e-4)
    units = {"probability": "probability", "log_prob": "nats", "kl": "nats", "logit_difference": "logits", "custom": ""}
    assert result.metric_unit == units[metric]
    assert [answer.ids for answer in result.answers] == [(17, 40)]


def test_a_target_decides_the_metric_and_none_is_what_the_model_ranks_first(family) -> None:
    model = family("llama")
    assert ablation(model, PROMPTS[0], layers=0, target=5).metric == "log_prob"
    assert ablation(model, PROMPTS[0], layers=0, target=5, against=6).metric == "logit_difference"
    assert ablation(model, PROMPTS[0], layers=0).metric == "loss"
    first = ablation(model, PROMPTS, layers=0, metric="probability")
    best = [int(oracle.logits_of(model.hf, ids)[-1].argmax()) for ids in PROMPTS]
    assert [answer.ids for answer in first.answers] == [(index,) for index in best]
    each_its_own = ablation(model, PROMPTS, layers=0, target=best, metric="probability")
    assert torch.equal(each_its_own.whole, first.whole)


def test_some_positions_only(family) -> None:
    model, ids = family("gemma2"), PROMPTS[0]
    means = {part: oracle.mean_outputs("gemma2", model.hf, PROMPTS, part, 1) for part in ("z", "attn", "mlp")}
    options = {"units": UNITS, "method": "mean", "reference": PROMPTS, "layers": 1}
    for positions, places in (((-1, 0), (0, 9)), (4, (4,))):
        loss = ablation(model, ids, positions=positions, **options)
        kl = ablation(model, ids, positions=positions, metric="kl", **options)
        for unit in UNITS:
            for component, at in each(loss, unit):
                values = {part: [first] + [later] * len(ids) for part, (first, later) in means.items()}
                logits = plain("gemma2", model.hf, ids, component, values, places)
                got = float(loss.ablated[unit][0][at][0])
                assert got == pytest.approx(oracle.mean_loss(logits, ids), abs=1e-4)
                clean, changed = (x[-1].log_softmax(-1) for x in (oracle.logits_of(model.hf, ids), logits))
                want = float((clean.exp() * (clean - changed)).sum())
                assert float(kl.ablated[unit][0][at][0]) == pytest.approx(want, abs=1e-4)


def test_resampling_a_text_by_itself_changes_nothing(family) -> None:
    for name in ("llama", "gpt_neox", "mixtral", "bloom"):
        result = ablation(family(name), PROMPTS[0], units=UNITS, method="resample", reference=[PROMPTS[0]], samples=1)
        for unit in UNITS:
            assert float(result.change(unit).value.abs().max()) < 1e-5
            twin = ablation(family(name), [PROMPTS[0]] * 2, units=unit, method="resample", layers=1, samples=2)
            assert float(twin.change(unit).value.abs().max()) < 1e-5


def test_the_mean_of_a_constant_output_changes_nothing() -> None:
    """An MLP and an attention that put out a constant say nothing about the text, so their mean is themselves."""
    model = Model(build("gpt2"))
    for layer in range(3):
        block = model.hf.transformer.h[layer]
        for part in (block.mlp.c_proj, block.attn.c_proj):
            part.weight.data.zero_()
            part.bias.data.normal_(generator=torch.Generator().manual_seed(layer))
    result = ablation(model, PROMPTS, units=["attention", "mlps", "layers"], method="mean")
    zero = ablation(model, PROMPTS, units="mlps", method="zero")
    for unit in result.units:
        assert float(result.change(unit).value.abs().max()) < 1e-5
    assert float(zero.change("mlps").value.abs().max()) > 1e-3


def test_without_any_update_the_answer_is_the_lens_of_the_embedding(family) -> None:
    model = Model(build("llama", num_hidden_layers=1))
    ids = PROMPTS[0]
    result = ablation(model, ids, units="layers", method="zero", metric=lambda logits: logits[:, 11])
    hf = model.hf
    with torch.no_grad():
        lens = hf.lm_head(hf.model.norm(hf.model.embed_tokens(torch.tensor(ids))))
    assert float(result.ablated["layers"][0, 0, 0]) == pytest.approx(float(lens[-1, 11]), abs=1e-5)

    deep = family("gemma2")
    every = [change for c in components_of("layers", range(3), 4) for change in without(c, None, None)]
    stream = deep.run(ids, "resid_post@-1", every, logits=False).cache["resid_post@-1"]
    entering = deep.run(ids, "resid_pre@0", logits=False).cache["resid_pre@0"]
    torch.testing.assert_close(stream, entering, atol=0, rtol=0)


def test_a_long_text_is_cut_and_every_token_but_the_first_is_predicted_once(family) -> None:
    model = family("llama")
    text = PROMPTS[0] + PROMPTS[1] + PROMPTS[2]
    result = ablation(model, [text, PROMPTS[1]], units="mlps", method="zero", context=9)
    assert result.context == 9
    assert [prompt.ids for prompt in result.prompts] == [tuple(text), tuple(PROMPTS[1])]
    cuts = [text[start : start + 9] for start in range(0, len(text) - 1, 8)]
    assert sum(len(cut) - 1 for cut in cuts) == len(text) - 1

    def loss(component):
        by_token = []
        for cut in cuts:
            logits = (
                oracle.logits_of(model.hf, cut) if component is None else plain("llama", model.hf, cut, component, None)
            )
            by_token += oracle.losses(logits, cut)
        return sum(by_token) / len(by_token)

    assert float(result.whole[0]) == pytest.approx(loss(None), abs=1e-4)
    for component, at in each(result, "mlps"):
        assert float(result.ablated["mlps"][0][at][0]) == pytest.approx(loss(component), abs=1e-4)


def test_pieces_begin_with_what_the_tokenizer_puts_in_front() -> None:
    ids = (1, *range(10, 20))
    tokens = Tokens(text="", ids=ids, pieces=tuple(map(str, ids)), spans=(None, *[(i, i + 1) for i in range(10)]))
    found = [(part.ids, first) for part, first in pieces(tokens, 5)]
    assert found == [
        ((1, 10, 11, 12, 13), 1),
        ((1, 13, 14, 15, 16), 2),
        ((1, 16, 17, 18, 19), 2),
    ]
    scored = [token for part, first in found for token in part[first:]]
    assert scored == list(range(10, 20))
    assert pieces(tokens, 11) == [(tokens, 1)]
    plain_tokens = from_ids(None, list(range(10, 20)))
    found = [(part.ids, first) for part, first in pieces(plain_tokens, 4)]
    assert found == [((10, 11, 12, 13), 1), ((13, 14, 15, 16), 1), ((16, 17, 18, 19), 1)]


def test_change_is_without_less_whole_with_intervals_over_prompts(family) -> None:
    from interp.maths.statistics import mean_estimates

    model = family("llama")
    result = ablation(
        model,
        PROMPTS,
        units=["heads", "layers"],
        method="resample",
        reference=[PROMPTS[0], PROMPTS[2], [8] * 11],
        samples=2,
    )
    by_prompt = result.ablated["heads"].double().mean(-1) - result.whole.double()[:, None, None]
    want = mean_estimates(by_prompt)
    assert result.over == "prompts"
    torch.testing.assert_close(result.change("heads").value, want.value)
    torch.testing.assert_close(result.change("heads").upper, want.upper)
    assert result.change("heads").at(0, 0).n == 3

    one = ablation(model, PROMPTS[0], units="layers", method="zero")
    assert one.over == "draws"
    assert one.change("layers").lower.isnan().all()
    draws = ablation(model, PROMPTS[1], units="layers", method="resample", reference=PROMPTS, samples=6)
    assert draws.change("layers").at(0).n == 6
    assert not draws.change("layers").lower.isnan().any()


def test_table_strongest_and_figures(family) -> None:
    result = ablation(family("llama"), PROMPTS, units=UNITS, method="zero", layers=[2, 0])
    assert result.layers == (0, 2)
    frame = result.to_frame()
    assert len(frame) == 2 * 4 + 3 * 2
    assert {"change_nats", "lower_nats", "upper_nats", "whole_nats", "ablated_nats"} <= set(frame)
    torch.testing.assert_close(
        torch.tensor(frame.ablated_nats - frame.whole_nats), torch.tensor(frame.change_nats), atol=1e-6, rtol=0
    )
    assert list(frame.component[frame.unit != "heads"]) == [
        "L0 attention",
        "L2 attention",
        "L0 MLP",
        "L2 MLP",
        "L0 block",
        "L2 block",
    ]
    best = result.strongest(3)
    assert [abs(found.change.value) for found in best] == sorted(abs(frame.change_nats), reverse=True)[:3]
    (head,) = result.strongest(1, "heads")
    assert head.component.unit == "heads"
    assert str(Component(unit="heads", layer=2, head=3)) == "L2H3"
    assert result.figure().data[0].type == "heatmap"
    assert [bars.name for bars in ablation(family("llama"), PROMPTS, units=["mlps", "layers"]).figure().data] == [
        "MLP",
        "whole block",
    ]
    with pytest.raises(UsageError, match="unknown unit 'mlp'.*did you mean"):
        result.change("mlp")


def test_round_trip(family, tmp_path) -> None:
    options = {"units": UNITS, "method": "resample", "samples": 2, "target": 5, "against": 7}
    result = ablation(family("llama"), PROMPTS, reference=[PROMPTS[0], PROMPTS[2]], **options)
    result.save(tmp_path / "ablation.safetensors")
    again = load_result(tmp_path / "ablation.safetensors")
    assert isinstance(again, AblationResult)
    assert again.to_json() == result.to_json()
    torch.testing.assert_close(again.change("heads").value, result.change("heads").value, atol=0, rtol=0)
    assert result.tokens is None
    one = ablation(family("llama"), PROMPTS[0], layers=0)
    assert one.tokens.ids == tuple(PROMPTS[0])


def test_the_same_seed_draws_the_same(family) -> None:
    options = {"units": "mlps", "method": "resample", "samples": 4, "reference": [*PROMPTS, [9] * 12, [8] * 11]}
    first, again, other = (ablation(family("llama"), PROMPTS, seed=seed, **options) for seed in (1, 1, 2))
    assert torch.equal(first.ablated["mlps"], again.ablated["mlps"])
    assert not torch.equal(first.ablated["mlps"], other.ablated["mlps"])


@pytest.mark.parametrize("method", ["mean", "resample"])
def test_an_interrupted_ablation_goes_on_to_the_identical_result(family, tmp_path, monkeypatch, method: str) -> None:
    model, path = family("llama"), tmp_path / "kept.safetensors"
    monkeypatch.setattr(ablation_work, "_TOKENS_A_PART", 40)
    options = {"units": ["heads", "layers"], "method": method, "reference": [*PROMPTS, [8] * 11]}
    whole = ablation(model, PROMPTS, **options)
    seen = []

    def stop(what, done, total):
        seen.append((what, done, total))
        if what == "ablation" and done > 0.6 * total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ablation(model, PROMPTS, checkpoint=path, progress=stop, **options)
    assert path.exists()
    starts = []
    resumed = ablation(
        model, PROMPTS, checkpoint=path, progress=lambda what, done, total: starts.append((what, done)), **options
    )
    assert not path.exists()
    for unit in whole.units:
        assert torch.equal(resumed.ablated[unit], whole.ablated[unit])
    assert torch.equal(resumed.whole, whole.whole)
    done = [done for what, done, _ in seen if what == "ablation"]
    assert done == sorted(done)
    with pytest.raises(KeyboardInterrupt):
        ablation(model, PROMPTS, checkpoint=path, progress=stop, **options)
    with pytest.raises(UsageError, match="not a checkpoint of this work"):
        ablation(model, PROMPTS, checkpoint=path, **{**options, "units": "heads"})


@pytest.mark.parametrize("method", ["zero", "mean", "resample"])
def test_progress_ends_at_the_total(family, method: str) -> None:
    seen = []
    reference = None if method == "zero" else [PROMPTS[0], PROMPTS[2]]
    ablation(
        family("llama"),
        PROMPTS,
        method=method,
        samples=2,
        reference=reference,
        progress=lambda *step: seen.append(step),
    )
    assert seen[-1][1] == seen[-1][2]
    assert len({total for what, _, total in seen if what == "ablation"}) == 1
    done = [done for what, done, _ in seen if what == "ablation"]
    assert done == sorted(done)


def test_a_change_is_never_of_padding_or_other_prompts(family) -> None:
    together = ablation(family("gpt2"), PROMPTS, units="heads", method="zero")
    for index, ids in enumerate(PROMPTS):
        alone = ablation(family("gpt2"), ids, units="heads", method="zero")
        torch.testing.assert_close(alone.ablated["heads"][0], together.ablated["heads"][index], atol=0, rtol=0)


def test_logits_that_are_not_numbers_are_an_error() -> None:
    model = Model(build("llama"))
    model.hf.model.layers[1].mlp.down_proj.weight.data[0, 0] = float("nan")
    for options in ({}, {"target": 5}):
        with pytest.raises(NumericsError, match="NaN"):
            ablation(model, PROMPTS[0], units="mlps", **options)


def test_values_stand_at_their_own_positions() -> None:
    values = {
        Site("attn.z", 1): torch.arange(24.0).reshape(3, 4, 2),
        Site("mlp_out", 1): torch.arange(6.0).reshape(3, 2),
    }
    (patch,) = without(Component(unit="heads", layer=1, head=2), values, (2,))
    assert isinstance(patch, Patch)
    assert (patch.positions, patch.heads) == ((2,), (2,))
    torch.testing.assert_close(patch.value, torch.tensor([[[20.0, 21.0]]]))
    (patch,) = without(Component(unit="mlps", layer=1), values, None)
    assert patch.value is values[Site("mlp_out", 1)]
    assert SITES["layers"] == ("attn_out", "mlp_out")


@pytest.mark.parametrize(
    ("prompts", "options", "message"),
    [
        ([], {}, "no prompt; give at least one"),
        ([[5]], {}, "prompt 0 has one token .* give a longer one"),
        ([[5, 999]], {}, "token id 999 is outside the vocabulary; valid: 0 to 96"),
        ("text", {}, "no tokenizer"),
        (PROMPTS, {"units": "head"}, "unknown unit 'head' .did you mean 'heads'..; valid: heads, attention, mlps, layers"),
        (PROMPTS, {"units": []}, "no units given; valid: heads, attention, mlps, layers"),
        (PROMPTS, {"method": "noise"}, "unknown method 'noise'; valid: zero, mean, resample"),
        (PROMPTS, {"metric": "logprob"}, "unknown metric 'logprob' .*valid: loss, probability, log_prob, logit_difference, kl"),
        (PROMPTS, {"metric": "loss", "target": 5}, "the loss is of the text itself and has no target"),
        (PROMPTS, {"metric": "logit_difference"}, "needs an answer against the target"),
        (PROMPTS, {"target": 5, "against": 5}, "begin with the same token"),
        (PROMPTS, {"target": [5, 6]}, "target holds 2 answers for 3 prompts"),
        (PROMPTS, {"target": 500}, "token id 500 is out of range; valid: 0 to 96"),
        (PROMPTS, {"layers": 9}, "layer 9 is out of range; valid: 0 to 2"),
        (PROMPTS, {"layers": []}, "no layers given; valid: 0 to 2"),
        (PROMPTS, {"positions": 9}, "position 9 is out of range; valid: 0 to 6"),
        (PROMPTS, {"positions": []}, "no positions given"),
        (PROMPTS, {"positions": 1, "context": 4}, "a text is cut into pieces here"),
        (PROMPTS, {"context": 2}, "context is 2; valid: 3 to 64"),
        (PROMPTS, {"context": 65}, "context is 65; valid: 3 to 64"),
        (PROMPTS, {"samples": 0}, "samples is 0; give 1 or more"),
        (PROMPTS, {"confidence": 95.0}, "confidence is 95.0; valid: between 0 and 1"),
        (PROMPTS, {"method": "zero", "reference": PROMPTS}, "zero ablation takes nothing from reference texts"),
        (PROMPTS, {"reference": []}, "no reference text; give at least one"),
        (PROMPTS, {"reference": [[5], [6]]}, "every reference text has one token"),
        (PROMPTS[0], {"method": "resample"}, "as long as prompt 0, 10 tokens .the prompts have no other"),
        (PROMPTS, {"method": "resample", "reference": [[5] * 8]}, "as long as prompt 0, 10 tokens .the longest has 8"),
        (PROMPTS, {"metric": torch.sum, "checkpoint": "kept"}, "cannot tell one custom metric from another"),
        (PROMPTS, {"metric": lambda logits: logits}, "a custom metric takes logits .* and returns one number a row"),
        ([[5] * 70], {"target": 5}, "the prompt has 70 tokens, the model's context is 64"),
    ],
)  # fmt: skip
def test_bad_arguments_name_the_valid_values(family, prompts, options, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        ablation(family("llama"), prompts, **options)
    assert "\n" not in str(caught.value)


def test_a_damaged_checkpoint_is_said(family, tmp_path) -> None:
    path = tmp_path / "kept.safetensors"
    path.write_bytes(b"no")
    with pytest.raises(ModelError, match="not a readable checkpoint"):
        ablation(family("llama"), PROMPTS, checkpoint=path)


@pytest.mark.model
@pytest.mark.long
def test_parts_of_the_default_model_are_plain_forwards(model) -> None:
    """Two prompts, two reference texts; a few parts by hooks on the Hugging Face model."""
    prompts = [f"The {name} is located in the city of" for name in ("Louvre", "Colosseum")]
    texts = ["When water freezes, it grows in the crack of a rock.", "Mara kept bees behind the old mill."]
    ids, others = ([model.tokens(text).ids for text in group] for group in (prompts, texts))
    paris = model.tokenizer(" Paris")["input_ids"][0]
    options = {"units": UNITS, "layers": [23, 26]}
    mean = ablation(model, prompts, target=" Paris", reference=texts, **options)
    zero = ablation(model, prompts, method="zero", **options)
    chosen = {"heads": (23, 4), "attention": (23, None), "mlps": (26, None), "layers": (23, None)}
    for unit, (layer, head) in chosen.items():
        at = (options["layers"].index(layer), *(() if head is None else (head,)))
        component = Component(unit=unit, layer=layer, head=head)
        means = {part: oracle.mean_outputs("smollm2", model.hf, others, part, layer) for part in oracle.PARTS[unit]}
        for index, text in enumerate(ids):
            values = {part: [first] + [later] * len(text) for part, (first, later) in means.items()}
            want = plain("smollm2", model.hf, text, component, values)[-1].log_softmax(-1)[paris]
            assert float(mean.ablated[unit][index][at][0]) == pytest.approx(float(want), abs=2e-4)
            want = oracle.mean_loss(plain("smollm2", model.hf, text, component, None), text)
            assert float(zero.ablated[unit][index][at][0]) == pytest.approx(want, abs=2e-4)

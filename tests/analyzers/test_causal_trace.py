"""Causal tracing against one plain forward a cell on every family; identities; interruption; round trip; messages."""

import dataclasses

import pytest
import torch
from scipy import stats

from interp.analyzers.causal_trace import causal_trace
from interp.analyzers.causal_trace_corruption import embedding_std, foil, noise_for
from interp.analyzers.causal_trace_result import KINDS, CausalTraceResult
from interp.errors import NumericsError, UsageError
from interp.maths.tracing import PLACES
from interp.results import load_result
from oracles.causal_trace import Trace
from tiny_models import FAMILIES, build

OTHER_LAYOUTS = ("falcon_new", "falcon_rw", "gpt_bigcode_heads", "stablelm_parallel")
SUBJECT = (2, 3, 4)
EIFFEL, TOWER = "The Eiffel Tower is located in the city of", "The Eiffel Tower"


def check_cells(result, oracle, positions, layers=None):
    """Every sample's numbers are the oracle's, at these positions and layers and in every kind."""
    probability = {"atol": 1e-5, "rtol": 0}
    difference = {"atol": 1e-4, "rtol": 1e-5}
    assert result.clean_probability == pytest.approx(oracle.clean[0], abs=1e-5)
    assert result.clean_logit_difference == pytest.approx(oracle.clean[1], abs=1e-4, rel=1e-5)
    base = torch.tensor(oracle.corrupted)
    torch.testing.assert_close(result.corrupted_probability, base[:, 0], **probability)
    torch.testing.assert_close(result.corrupted_logit_difference, base[:, 1], **difference)
    for index, kind in enumerate(result.kinds):
        for layer in range(result.n_layers) if layers is None else layers:
            for position in positions:
                cell = torch.tensor(oracle.cell(kind, layer, position, result.window))
                where = f"{kind} at layer {layer}, position {position}: "
                got = result.restored_probability[index, layer, position]
                torch.testing.assert_close(got, cell[:, 0], **probability, msg=lambda text, at=where: at + text)
                got = result.restored_logit_difference[index, layer, position]
                torch.testing.assert_close(got, cell[:, 1], **difference, msg=lambda text, at=where: at + text)


@pytest.mark.parametrize("name", [*FAMILIES, *OTHER_LAYOUTS])
def test_every_family_gives_the_oracles_numbers(family, ids, name):
    model = family(name)
    result = causal_trace(model, ids, SUBJECT, noise=1.0, samples=2, window=2, kinds=KINDS)
    noise = noise_for(model, 3, noise=1.0, samples=2)
    oracle = Trace(model.hf, name, ids, result.answer.ids, result.against.ids[0], SUBJECT, noise=noise)
    check_cells(result, oracle, positions=[1, 2, 4, 9])
    assert float(result.restored_probability.std()) > 1e-5  # there is something to compare


@pytest.mark.parametrize("name", ["llama", "gpt2", "gptj", "mixtral", "gpt_bigcode"])
def test_answers_of_several_tokens_are_forced(family, ids, name):
    model = family(name)
    result = causal_trace(model, ids, [-8, -7], [7, 21, 7], against=[30, 4], samples=2, window=3, kinds=KINDS)
    noise = noise_for(model, 2, samples=2)
    assert result.subject_positions == (2, 3)
    assert result.prompt.ids == tuple(ids)
    assert result.restored_probability.shape == (5, model.atlas.n_layers, 10, 2)
    oracle = Trace(model.hf, name, [*ids, 7, 21], [7, 21, 7], 30, (2, 3), noise=noise)
    check_cells(result, oracle, positions=[2, 3, 6, 9])


@pytest.mark.parametrize("name", ["llama", "gpt_neox", "bloom"])
@pytest.mark.parametrize("answer", [[7], [7, 21]])
def test_another_subject_in_place_of_noise(family, ids, name, answer):
    model = family(name)
    others = [[50, 51, 52], [60, 33, 62]]
    result = causal_trace(model, ids, SUBJECT, answer, replacements=others, window=2, kinds=KINDS)
    forced = [*ids, *answer[:-1]]
    replaced = [[*forced[:2], *other, *forced[5:]] for other in others]
    oracle = Trace(model.hf, name, forced, answer, result.against.ids[0], SUBJECT, replaced=replaced)
    check_cells(result, oracle, positions=[1, 2, 4, 7, 9])
    mean = oracle.corrupted_last.softmax(-1).mean(0)
    mean[7] = 0
    assert result.against.ids == (int(mean.argmax()),)  # of the first token, at the prompt's end
    assert result.corruption == "tokens"
    assert result.replacements == ("<50><51><52>", "<60><33><62>")
    assert result.noise != result.noise
    assert result.noise_std != result.noise_std


def test_what_it_is_weighed_against_is_what_the_corrupted_runs_say(family, ids):
    model = family("llama")
    result = causal_trace(model, ids, SUBJECT, samples=3, kinds="resid")
    noise = noise_for(model, 3, samples=3)
    oracle = Trace(model.hf, "llama", ids, result.answer.ids, 0, SUBJECT, noise=noise)
    mean = oracle.corrupted_last.softmax(-1).mean(0)
    mean[result.answer.ids[0]] = 0
    assert result.against.ids == (int(mean.argmax()),)
    with torch.no_grad():
        assert result.answer.ids == (int(model.hf(torch.tensor([ids])).logits[0, -1].argmax()),)


def test_what_is_said_on_average_is_a_mean_of_probabilities(family):
    """One run is sure of token 5, the other of none but against 5: the mean logit is greatest for 6, the mean probability for 5."""
    logits = torch.zeros(2, 97)
    logits[0, 5], logits[1, 5], logits[:, 6], logits[:, 7] = 10.0, -20.0, 1.0, 30.0
    assert foil(family("llama"), logits, 7).ids == (5,)
    assert foil(family("llama"), logits, 5).ids == (7,)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_neo", "falcon"])
def test_the_last_state_restores_all(family, ids, name):
    result = causal_trace(family(name), ids, SUBJECT, samples=3, kinds=KINDS)
    for kind in ("resid", "resid-mlp-severed", "resid-attn-severed"):
        last = result.restored_probability[result.kinds.index(kind), -1]
        torch.testing.assert_close(last[-1], torch.full((3,), result.clean_probability), atol=1e-5, rtol=0)
        torch.testing.assert_close(last[:-1], result.corrupted_probability.expand(9, 3), atol=0, rtol=0)
    # Nothing comes after the last layer, so there is nothing to sever.
    torch.testing.assert_close(
        result.restored_probability[0, -1], result.restored_probability[3, -1], atol=1e-6, rtol=0
    )


def test_where_only_the_last_token_is_corrupted_any_layer_restores_all(family, ids):
    result = causal_trace(family("llama"), ids, 9, samples=3, kinds="resid")
    clean = torch.full((3, 3), result.clean_probability)
    torch.testing.assert_close(result.restored_probability[0, :, -1], clean, atol=1e-5, rtol=0)
    assert (result.corrupted_probability - result.clean_probability).abs().min() > 1e-4
    assert result.places[-1] == "last subject token"


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "falcon", "mpt"])
def test_all_attention_into_a_clean_token_restores_all(family, ids, name):
    """Only attention moves the corruption to the last token; what it writes there, put back in all layers, leaves nothing of it."""
    result = causal_trace(family(name), ids, SUBJECT, samples=3, window=6, kinds="attn")
    clean = torch.full((family(name).atlas.n_layers, 3), result.clean_probability)
    torch.testing.assert_close(result.restored_probability[0, :, -1], clean, atol=1e-5, rtol=0)
    assert (result.corrupted_probability - result.clean_probability).abs().max() > 1e-4


@pytest.mark.long
def test_a_subject_at_the_start_or_the_whole_prompt(family, ids):
    model = family("llama")
    for subject in ([0], range(10)):
        result = causal_trace(model, ids, subject, samples=2, window=1, kinds=KINDS)
        noise = noise_for(model, len(subject), samples=2)
        oracle = Trace(model.hf, "llama", ids, result.answer.ids, result.against.ids[0], tuple(subject), noise=noise)
        check_cells(result, oracle, positions=[0, 9])


def test_without_noise_to_speak_of_nothing_changes_and_that_is_said(ids):
    from interp.runner.model import Model

    said = []
    model = Model(build("llama"), notify=said.append)
    result = causal_trace(model, ids, SUBJECT, noise=1e-7, samples=2, kinds=KINDS)
    torch.testing.assert_close(
        result.restored_probability, torch.full((5, 3, 10, 2), result.clean_probability), atol=1e-5, rtol=0
    )
    assert result.total_effect().value == pytest.approx(0, abs=1e-5)
    assert any("there is little to restore" in line for line in said)


def test_before_the_subject_nothing_changes(family, ids):
    result = causal_trace(family("llama"), ids, [5], samples=2, kinds=KINDS)
    torch.testing.assert_close(
        result.restored_probability[:, :, :5], result.corrupted_probability.expand(5, 3, 5, 2), atol=0, rtol=0
    )
    assert result.places == ("before the subject",) * 5 + (PLACES[2], PLACES[3], PLACES[4], PLACES[4], PLACES[5])


def test_a_window_wider_than_the_model_is_run_once(family, ids):
    model = family("llama")
    seen = []
    wide = causal_trace(
        model, ids, SUBJECT, samples=2, window=99, kinds="mlp", progress=lambda *step: seen.append(step)
    )
    assert seen[-1][1:] == (16, 16)  # 8 positions x 2 samples, one window for the 3 layers
    assert torch.equal(wide.restored_probability[0, 0], wide.restored_probability[0, 2])
    six = causal_trace(model, ids, SUBJECT, samples=2, window=6, kinds="mlp")
    torch.testing.assert_close(wide.restored_probability, six.restored_probability, atol=1e-6, rtol=0)


def test_estimates_are_students_over_samples(family, ids):
    result = causal_trace(family("llama"), ids, SUBJECT, samples=5, confidence=0.9)
    for measure in ("probability", "logit_difference"):
        corrupted = getattr(result, f"corrupted_{measure}").double().numpy()
        restored = getattr(result, f"restored_{measure}").double().numpy()
        for got, samples in (
            (result.indirect_effect("mlp", measure).at(1, 4), restored[1, 1, 4] - corrupted),
            (result.restored("resid", measure).at(1, 4), restored[0, 1, 4]),
            (result.corrupted(measure), corrupted),
            (result.total_effect(measure), result.clean(measure) - corrupted),
        ):
            low, high = stats.t.interval(0.9, 4, samples.mean(), stats.sem(samples))
            assert (got.value, got.lower, got.upper) == pytest.approx((samples.mean(), low, high), rel=1e-6, abs=1e-9)
            assert got.n == 5
        layer, position, best = result.peak("resid", measure)
        effects = result.indirect_effect("resid", measure).value
        assert best.value == effects[layer, position] == effects.max()


def test_more_samples_keep_the_first_and_the_seed_makes_others(family, ids):
    model = family("llama")
    few = causal_trace(model, ids, SUBJECT, 7, against=8, samples=2, kinds="resid")
    many = causal_trace(model, ids, SUBJECT, 7, against=8, samples=4, kinds="resid")
    torch.testing.assert_close(few.restored_probability, many.restored_probability[..., :2], atol=1e-5, rtol=0)
    other = causal_trace(model, ids, SUBJECT, 7, against=8, samples=2, kinds="resid", seed=1)
    assert (other.corrupted_probability - few.corrupted_probability).abs().max() > 1e-5


@pytest.mark.parametrize(("name", "scale"), [("llama", 1.0), ("gemma", 32**0.5), ("granite", 1.0)])
def test_the_spread_of_the_embeddings_is_measured_where_noise_is_added(family, name, scale):
    model = family(name)
    weight = model.hf.get_input_embeddings().weight.detach().double()
    std = scale * float(weight.std(correction=0))
    assert embedding_std(model) == pytest.approx(std, rel=1e-5)
    assert float(noise_for(model, 5, noise=2.0, samples=200).std()) == pytest.approx(2 * std, rel=0.02)
    result = causal_trace(model, [5, 9, 33], 1, noise=2.0, samples=2, kinds="resid")
    assert (result.noise, result.noise_std) == (2.0, pytest.approx(std, rel=1e-5))


def test_the_model_is_left_as_it_was(family, ids):
    model = family("gemma2")
    before = torch.get_rng_state()
    with torch.no_grad():
        clean = model.hf(torch.tensor([ids])).logits
        causal_trace(model, ids, SUBJECT, samples=2)
        torch.testing.assert_close(model.hf(torch.tensor([ids])).logits, clean, rtol=0, atol=0)
    assert torch.equal(before, torch.get_rng_state())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.hf.modules())


class Stopped(BaseException):
    """As Ctrl-C is: no Exception."""


@pytest.mark.parametrize("after", [0.1, 0.5, 0.95])
def test_an_interrupted_trace_goes_on_to_the_same_numbers(family, ids, tmp_path, after):
    model, path = family("llama"), tmp_path / "trace.part"
    settings = {"samples": 3, "window": 2, "kinds": KINDS}
    whole = causal_trace(model, ids, SUBJECT, **settings)

    def stop(what, done, total):
        if done > after * total:
            raise Stopped

    with pytest.raises(Stopped):
        causal_trace(model, ids, SUBJECT, **settings, checkpoint=path, progress=stop)
    assert path.is_file()
    steps = []
    again = causal_trace(model, ids, SUBJECT, **settings, checkpoint=path, progress=lambda *step: steps.append(step))
    assert not path.exists()
    for field in dataclasses.fields(whole):
        if isinstance(getattr(whole, field.name), torch.Tensor):
            assert torch.equal(getattr(whole, field.name), getattr(again, field.name)), field.name
    assert steps[-1][1] == steps[-1][2]
    assert steps[0] == ("causal trace", 0, steps[-1][2])


def test_a_checkpoint_of_other_work_is_refused(family, ids, tmp_path):
    model, path = family("llama"), tmp_path / "trace.part"

    def stop(what, done, total):
        if done > total / 2:
            raise Stopped

    with pytest.raises(Stopped):
        causal_trace(model, ids, SUBJECT, checkpoint=path, progress=stop, samples=2)
    for other in ({"seed": 1}, {"window": 2}, {"noise": 2.0}, {"samples": 3}, {"target": 50}, {"against": 50}):
        with pytest.raises(UsageError, match="not a checkpoint of this work"):
            causal_trace(model, ids, SUBJECT, checkpoint=path, **{"samples": 2, **other})
    causal_trace(model, ids, SUBJECT, checkpoint=path, samples=2)


def test_table_figure_and_round_trip(family, ids, tmp_path):
    result = causal_trace(family("llama"), ids, SUBJECT, samples=2, kinds=KINDS)
    frame = result.to_frame()
    assert len(frame) == 5 * 3 * 10
    assert list(frame.columns[:5]) == ["kind", "layer", "position", "token", "place"]
    assert {"probability", "probability_lower", "probability_effect_upper", "logit_difference_effect_logits"} <= set(
        frame
    )
    line = frame[(frame.kind == "attn") & (frame.layer == 2) & (frame.position == 4)].iloc[0]
    effect = result.indirect_effect("attn").at(2, 4)
    assert (line.probability_effect, line.probability_effect_lower) == (effect.value, effect.lower)
    assert line.probability == result.restored("attn").at(2, 4).value
    assert line.logit_difference_effect_logits == result.indirect_effect("attn", "logit_difference").at(2, 4).value
    assert (line.place, line.token, line.n_samples) == ("last subject token", "<12>", 2)
    for measure in ("probability", "logit_difference"):
        assert result.figure(measure).data
    result.save(tmp_path / "trace.safetensors")
    again = load_result(tmp_path / "trace.safetensors")
    assert isinstance(again, CausalTraceResult)
    assert again.to_json() == result.to_json()
    assert torch.equal(again.restored_probability, result.restored_probability)
    replaced = causal_trace(family("llama"), ids, SUBJECT, 7, replacements=[50, 51, 52], kinds="attn")
    replaced.save(tmp_path / "trace.safetensors")
    assert load_result(tmp_path / "trace.safetensors").to_json() == replaced.to_json()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"subject": "Paris"}, r"'Paris' is not in the prompt .*; its tokens are \['<5>', '<9>'"),
        ({"subject": ""}, "the subject is empty"),
        ({"subject": "<"}, "occurs more than once"),
        ({"subject": [1, 3]}, r"positions \[1, 3\] are not one after another"),
        ({"subject": [10]}, "position 10 is out of range; valid: 0 to 9"),
        ({"subject": []}, "the subject has no position"),
        ({"noise": 0.0}, "noise is 0.0; give a number above 0"),
        ({"noise": -1.0}, "noise is -1.0; give a number above 0"),
        ({"noise": float("nan")}, "noise is nan; give a number above 0"),
        ({"samples": 0}, "samples is 0; give 1 or more"),
        ({"window": 0}, "window is 0; give 1 layer or more"),
        ({"confidence": 1.0}, "confidence is 1.0; valid: between 0 and 1"),
        ({"kinds": ["mpl"]}, "unknown kind 'mpl' .did you mean 'mlp'.*; valid: resid, mlp, attn, resid-mlp-severed"),
        ({"kinds": ()}, "no kind of state to restore; valid: resid, mlp"),
        ({"target": [7, 8], "against": [7, 9]}, "begin with the same token '<7>'; give two that differ"),
        ({"target": []}, "the target has no token"),
        ({"target": 97}, "token id 97 is out of range; valid: 0 to 96"),
        ({"replacements": []}, "there is no replacement"),
        ({"replacements": [[]]}, "there is no replacement"),
        ({"replacements": [50, 51]}, r"is 2 tokens \['<50>', '<51>'\], the subject '<33><71><12>' is 3 \['<33>'"),
        ({"replacements": [[50, 51, 52], [33, 71, 12]]}, "is the subject itself"),
    ],
)
def test_bad_arguments_say_what_is_valid(family, ids, arguments, message):
    with pytest.raises(UsageError, match=message):
        causal_trace(family("llama"), ids, **{"subject": SUBJECT, **arguments})


def test_a_replacement_with_the_same_answer_leaves_nothing_to_trace(family, ids):
    model, other = family("llama"), [50, 51, 52]
    with torch.no_grad():
        logits = model.hf(torch.tensor([[*ids[:2], *other, *ids[5:]]])).logits[0, -1]
    with pytest.raises(UsageError, match="so there is nothing to trace; give a subject with another answer"):
        causal_trace(model, ids, SUBJECT, int(logits.argmax()), replacements=other)


def test_a_bad_question_to_a_result_names_the_valid_ones(family, ids):
    result = causal_trace(family("llama"), ids, SUBJECT, samples=2, kinds="resid")
    with pytest.raises(UsageError, match="unknown kind of this trace 'mlp'; valid: resid"):
        result.indirect_effect("mlp")
    with pytest.raises(UsageError, match="unknown measure 'loss'; valid: probability, logit_difference"):
        result.total_effect("loss")
    nothing = dataclasses.replace(result, restored_probability=result.restored_probability * float("nan"))
    with pytest.raises(NumericsError, match="no cell of 'resid' was measured"):
        nothing.peak("resid")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_is_an_error_and_no_number(ids, bad):
    from interp.runner.model import Model

    hf = build("llama")
    with torch.no_grad():
        hf.model.layers[1].mlp.down_proj.weight[0, 0] = bad
    with pytest.raises(NumericsError, match="NaN or infinity"):
        causal_trace(Model(hf), ids, SUBJECT, 7, against=8, samples=2)


@pytest.mark.model
@pytest.mark.long
def test_cells_of_the_default_model_are_the_oracles(model):
    """The last two tokens alone, which is quick."""
    tokens = model.tokens(EIFFEL)
    result = causal_trace(model, EIFFEL, " city", " Paris", samples=2, kinds=KINDS)
    assert (result.answer.ids, result.subject_positions) == ((7042,), (8,))
    noise = noise_for(model, 1, samples=2)
    oracle = Trace(model.hf, "llama", list(tokens.ids), [7042], result.against.ids[0], (8,), noise=noise)
    check_cells(result, oracle, positions=[8, 9], layers=[12])


@pytest.mark.model
@pytest.mark.long
def test_text_is_found_by_its_characters(model):
    for prompt, subject, message in (
        (
            EIFFEL,
            "The Louvre",
            r"'The Louvre' is not in the prompt .*; its tokens are \['The', ' E', 'iffel', ' Tower', ' is'",
        ),
        (EIFFEL, "t", "'t' occurs more than once in"),
        ("", "x", "the prompt is empty"),
    ):
        with pytest.raises(UsageError, match=message):
            causal_trace(model, prompt, subject)
    for arguments, message in (
        ({"target": ""}, "the target is empty"),
        ({"target": " Paris", "against": " Paris"}, "begin with the same token ' Paris'"),
        (
            {"replacements": "The Louvre"},
            r"'The Louvre' is \d tokens \['The', .*\], the subject 'The Eiffel Tower' is 4 \['The', ' E', 'iffel', ' Tower'\]; "
            "give a subject of as many tokens",
        ),
        ({"replacements": [TOWER]}, "is the subject itself"),
        ({"subject": "iffel", "replacements": "v"}, "replacement 'v' (changes tokens outside|is)"),
    ):
        with pytest.raises(UsageError, match=message):
            causal_trace(model, EIFFEL, **{"subject": TOWER, **arguments})


@pytest.mark.model
@pytest.mark.long
def test_a_subject_in_a_conversation_is_replaced_there(model):
    from interp.prompts import Conversation

    asked = Conversation.of("Where is the Louvre?")
    result = causal_trace(model, asked, " Louvre", " Paris", replacements=[" Kremlin"], kinds="resid-mlp-severed")
    assert result.replacements == (" Kremlin",)
    assert result.prompt.pieces[result.subject_positions[-1] + 1] == "?"


@pytest.mark.slow
@pytest.mark.model
def test_the_eiffel_tower_has_an_early_and_a_late_site(model):
    """Meng et al. 2022, figures 1 to 3: MLPs at the subject early, attention at the last token late."""
    result = causal_trace(model, EIFFEL, TOWER, samples=4, kinds=KINDS)
    assert result.answer.text == " Paris"
    assert result.prompt.pieces[:4] == ("The", " E", "iffel", " Tower")
    assert result.clean_probability > 0.6
    assert result.corrupted().value < 0.1
    effects = {kind: result.indirect_effect(kind).value for kind in KINDS}
    assert effects["resid"][1:10].argmax(1).tolist() == [2] * 9  # the subject, in early layers
    assert effects["resid"][23:].argmax(1).tolist() == [9] * 7  # the last token, in late ones
    assert effects["resid"][1, 2] > 0.3
    assert effects["resid"][:20, 9].abs().max() < 0.05
    assert effects["resid"][24:, 2].abs().max() < 0.05
    layer, position, effect = result.peak("mlp")
    assert position == 2
    assert layer < 8
    assert effect.lower > 0
    layer, position, effect = result.peak("attn")
    assert position == 9
    assert layer > 16
    assert effect.lower > 0
    # What the subject's early states do goes through the MLPs of that token, not through its attention.
    early = slice(1, 6)
    assert (effects["resid-mlp-severed"][early, 2] < 0.3 * effects["resid"][early, 2]).all()
    assert (effects["resid-attn-severed"][2:6, 2] > 0.8 * effects["resid"][2:6, 2]).all()
    noise = noise_for(model, 4, samples=4)
    oracle = Trace(
        model.hf,
        "llama",
        list(model.tokens(EIFFEL).ids),
        result.answer.ids,
        result.against.ids[0],
        (0, 1, 2, 3),
        noise=noise,
    )
    check_cells(result, oracle, positions=[2, 9], layers=[4, 20])

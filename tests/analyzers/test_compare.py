"""Comparing results: differences are those of plain subtraction, axes are aligned only where they mean the same, nothing is filled in."""

import math

import pytest
import scipy.stats
import torch
from torch.testing import assert_close

import interp
from interp.analyzers.compare import COMPARABLE, compare
from interp.analyzers.head_profiles import head_profiles
from interp.errors import UsageError
from interp.maths.statistics import mean_estimates, unpaired_difference
from interp.results import load_result
from interp.runner.model import Model
from report import samples
from report.samples import PIECES
from tiny_models import build as tiny_model

ONE_OF_EACH = {
    "logit_lens": lambda **changes: samples.lens(layers=4, **changes),
    "residual_story": lambda **changes: samples.story(layers=4, **changes),
    "direct_logit_attribution": lambda **changes: samples.attribution(layers=4, **changes),
    "attention_patterns": lambda **changes: samples.attention(layers=4, **changes),
    "causal_trace": lambda **changes: samples.causal_trace(layers=4, **changes),
}
OTHER = {"provenance": samples.provenance(model="other", weights_sha256="b" * 64)}


@pytest.mark.parametrize("kind", ONE_OF_EACH)
def test_a_result_does_not_differ_from_itself(kind: str) -> None:
    found = compare(ONE_OF_EACH[kind](), ONE_OF_EACH[kind]())
    assert found.quantities
    assert found.not_aligned == ()
    for quantity in found.quantities:
        own = quantity.difference[~quantity.difference.isnan()]
        assert_close(own, torch.zeros_like(own), rtol=0, atol=0)
        assert quantity.difference.shape == (len(quantity.rows), len(quantity.columns))
    assert all(summary.difference == 0 for summary in found.summaries)


@pytest.mark.parametrize("kind", ONE_OF_EACH)
def test_b_less_a_and_a_less_b_are_opposite(kind: str) -> None:
    a, b = ONE_OF_EACH[kind](), ONE_OF_EACH[kind](pieces=("Now", *PIECES[1:]))
    there, back = compare(a, b), compare(b, a)
    for one, two in zip(there.quantities, back.quantities, strict=True):
        if one.a is not None:
            assert_close(one.difference, -two.difference, equal_nan=True)
            assert_close(one.a, two.b, equal_nan=True)


@pytest.mark.parametrize("kind", ONE_OF_EACH)
def test_a_comparison_is_saved_and_loaded(kind: str, tmp_path) -> None:
    found = compare(ONE_OF_EACH[kind](), ONE_OF_EACH[kind](), names=("before", "after"))
    found.save(tmp_path / "c.safetensors")
    again = load_result(tmp_path / "c.safetensors")
    assert again.to_json()["quantities"] == found.to_json()["quantities"]
    assert (again.a.name, again.b.name, again.compared) == ("before", "after", kind)
    assert len(again.to_frame()) == sum(quantity.difference.numel() for quantity in found.quantities)
    assert again.figure().data
    assert set(COMPARABLE) >= set(ONE_OF_EACH)


def changed_lens(**changes):
    lens = samples.lens(layers=4, **changes)
    return samples.lens(layers=4, entropy_nats=lens.entropy_nats + 0.5, **changes)


def test_the_difference_is_the_plain_one() -> None:
    a, b = samples.lens(layers=4), changed_lens()
    quantity = compare(a, b).quantity("entropy_nats")
    for row in range(4):
        for column in range(len(PIECES)):
            expected = float(b.entropy_nats[row, column]) - float(a.entropy_nats[row, column])
            assert float(quantity.difference[row, column]) == pytest.approx(expected, abs=1e-6)
    cell = compare(a, b).largest("entropy_nats", 1)[0]
    assert cell.difference == pytest.approx(0.5, abs=1e-6)


def test_prompts_of_different_length_are_aligned_from_the_end() -> None:
    a, b = samples.lens(layers=4), samples.lens(PIECES[2:], layers=4)
    found = compare(a, b)
    quantity = found.quantity("entropy_nats")
    assert quantity.columns == tuple(piece.replace(" ", "␣") for piece in PIECES[2:])
    assert_close(quantity.a, a.entropy_nats[:, 2:])
    assert_close(quantity.b, b.entropy_nats)
    assert found.aligned == ("tokens from the end: A has 9, B has 7; the first 2 of A are left out",)


def test_other_tokens_at_a_position_are_counted_and_shown() -> None:
    found = compare(samples.lens(layers=4), samples.lens(("The", " Louvre", *PIECES[2:]), layers=4))
    assert "tokens by position: 1 of 9 are other tokens in B than in A" in found.aligned
    assert found.quantity("entropy_nats").columns[1] == "␣Eiffel | ␣Louvre"


def test_where_the_targets_differ_there_is_no_difference() -> None:
    a = samples.lens(layers=4)
    ids = a.target_ids.clone()
    ids[-1] = 1003
    b = samples.lens(layers=4, target_ids=ids)
    found = compare(a, b)
    quantity = found.quantity("target_log_prob")
    assert quantity.difference[:, -1].isnan().all()
    assert not quantity.difference[:, :-1].isnan().any()
    assert (quantity.a_texts[0][-1], quantity.b_texts[0][-1]) == (" Paris", " Rome")
    assert "the target at 1 of 9 tokens" in found.not_aligned[0]
    assert all(cell.column != "␣of" for cell in found.largest("target_log_prob", 1000))


def test_layers_of_models_of_another_depth_have_no_counterparts() -> None:
    found = compare(samples.lens(layers=4), samples.lens(layers=6, **OTHER))
    assert found.quantities == ()
    assert found.not_aligned == ("layers: A has 4, B has others (6); in another model they have no counterparts",)
    assert len(found.summaries) == 3
    assert (found.a.name, found.b.name) == ("smollm2-135m", "other")
    with pytest.raises(UsageError, match="quantity of this comparison"):
        found.figure()


def test_layers_that_one_result_leaves_out_are_left_out() -> None:
    found = compare(samples.attention(layers=4), samples.attention(layers=2))
    assert found.quantity("first").rows == ("0", "1")
    assert "layers: the 2 that both have" in found.aligned


def test_heads_of_another_architecture_have_no_counterparts() -> None:
    other = samples.attention(layers=4, provenance=samples.provenance(model="other", architecture="GPT2LMHeadModel"))
    found = compare(samples.attention(layers=4), other)
    assert found.quantities == ()
    assert "their heads have no counterparts" in found.not_aligned[0]
    related = compare(samples.attention(layers=4), samples.attention(layers=4, **OTHER))
    assert any("where one model was made from the other" in words for words in related.aligned)


def test_the_distance_of_patterns_is_total_variation() -> None:
    a, b = samples.attention(layers=3), samples.attention(layers=3, sharpness=3.0)
    quantity = compare(a, b).quantity()
    assert (quantity.name, quantity.a) == ("pattern_distance", None)
    for layer in range(3):
        for head in range(4):
            p, q = a.pattern(layer, head), b.pattern(layer, head)
            by_query = [0.5 * sum(abs(float(p[i, j]) - float(q[i, j])) for j in range(i + 1)) for i in range(len(p))]
            expected = sum(by_query[1:]) / len(by_query[1:])
            assert float(quantity.difference[layer, head]) == pytest.approx(expected, abs=1e-5)


def test_patterns_of_prompts_of_different_length_are_compared_by_their_averages_alone() -> None:
    found = compare(samples.attention(layers=3), samples.attention(PIECES[2:], layers=3))
    assert "pattern_distance" not in [quantity.name for quantity in found.quantities]
    assert "keys have no counterparts" in found.not_aligned[0]


def test_traces_are_compared_by_the_places_of_the_prompt() -> None:
    a, b = samples.causal_trace(layers=4), samples.causal_trace((" Rome", *PIECES[3:]), subject=(0,), layers=4)
    quantity = compare(a, b).quantity("resid_by_place")
    assert quantity.columns == ("last subject token", "first subsequent token", "further tokens", "last token")
    effects = a.restored_probability[0] - a.corrupted_probability
    further = [position for position, place in enumerate(a.places) if place == "further tokens"]
    for layer in range(4):
        expected = sum(float(effects[layer, position, s]) for position in further for s in range(6)) / (
            6 * len(further)
        )
        assert float(quantity.a[layer, 2]) == pytest.approx(expected, abs=1e-6)


def test_head_profiles_are_compared_measure_by_measure_with_intervals() -> None:
    prompts = [[5, 9, 33, 5, 9, 44, 8, 33, 17], [7, 9, 9, 9, 40, 7, 41, 9], [3, 20, 21, 20, 21, 22, 3, 20]]
    a, b = (head_profiles(Model(tiny_model("llama", seed=seed)), prompts, local=4) for seed in (0, 1))
    found = compare(a, b)
    assert [quantity.name for quantity in found.quantities] == [measure.name for measure in a.measures]
    quantity = found.quantity("previous_token")
    expected = b.value.value[0] - a.value.value[0]
    assert_close(quantity.difference, expected.float())
    assert bool((quantity.lower < quantity.difference).all() and (quantity.difference < quantity.upper).all())
    assert any("Welch" in words for words in found.aligned)


def test_intervals_of_two_confidences_give_none() -> None:
    found = compare(samples.causal_trace(layers=4), samples.causal_trace(layers=4, confidence=0.9))
    assert all(quantity.lower is None for quantity in found.quantities)
    assert "intervals: those of A are of 95%, those of B of 90%" in found.not_aligned


def test_next_tokens_that_only_one_lists_have_no_value_in_the_other() -> None:
    a = samples.story(layers=2)
    b = samples.story(layers=2, final_ids=torch.arange(1004, 1014))
    quantity = compare(a, b).quantity("next_token")
    row = quantity.rows.index("␣Paris")
    assert float(quantity.a[row, 0]) == pytest.approx(float(a.final_probs[0]))
    assert quantity.b[row, 0].isnan()
    assert quantity.difference[row, 0].isnan()
    cells = compare(a, b).largest("next_token", 100)
    assert not any(math.isnan(cell.difference) for cell in cells)


def test_only_two_of_a_known_kind_are_compared() -> None:
    with pytest.raises(UsageError, match="two results of one kind"):
        interp.compare(samples.lens(layers=2), samples.story(layers=2))
    with pytest.raises(UsageError, match="unknown kind of result to compare 'generation'"):
        interp.compare(samples.generation(), samples.generation())


def test_the_interval_of_two_means_is_welchs() -> None:
    draw = torch.Generator().manual_seed(0)
    one, two = torch.randn(7, 3, generator=draw).double(), 2 + 3 * torch.randn(12, 3, generator=draw).double()
    found = unpaired_difference(mean_estimates(one), mean_estimates(two))
    for cell in range(3):
        oracle = scipy.stats.ttest_ind(one[:, cell].numpy(), two[:, cell].numpy(), equal_var=False)
        low, high = oracle.confidence_interval(0.95)
        assert (float(found.lower[cell]), float(found.upper[cell])) == pytest.approx((low, high))
    assert found.n.tolist() == [7, 7, 7]


def test_one_sample_gives_a_difference_without_an_interval() -> None:
    found = unpaired_difference(mean_estimates(torch.ones(1, 2)), mean_estimates(torch.zeros(5, 2)))
    assert found.value.tolist() == [1.0, 1.0]
    assert found.lower.isnan().all()


@pytest.mark.model
def test_two_prompts_of_a_model_differ_as_its_own_numbers_do(model) -> None:
    """The oracle is the plain model: the log-probability that it gives the target after each prompt."""
    first, second = "The capital of France is", "The capital of Italy is"
    target = model.tokenizer(" Paris")["input_ids"][0]
    found = interp.compare(*(interp.logit_lens(model, prompt, target=" Paris") for prompt in (first, second)))
    ends = []
    for prompt in (first, second):
        ids = model.tokenizer(prompt, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            ends.append(float(model.hf(ids).logits[0, -1].log_softmax(-1)[target]))
    assert float(found.quantity("target_log_prob").difference[-1, -1]) == pytest.approx(ends[1] - ends[0], abs=1e-4)

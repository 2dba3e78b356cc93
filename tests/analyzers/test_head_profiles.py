"""Head profiles on tiny models: every measure is the plain loops', masses add up, nothing depends on the batch, errors are clear."""

import dataclasses
import math

import pytest
import torch

from interp.analyzers import profile_rows
from interp.analyzers.head_measures import measures_of, named
from interp.analyzers.head_profiles import HeadProfilesResult, head_profiles
from interp.analyzers.profile_rows import is_punctuation
from interp.errors import MemoryLimitError, UsageError
from interp.heads import Head
from interp.maths.head_profiles import CONTENT, SHAPE, offset_sums, position_names
from interp.results import load_result
from oracles import head_profiles as oracle

NAMES = (*position_names(3), *CONTENT, *SHAPE)
PLACES = (*position_names(3), *SHAPE)
PROMPTS = [
    [5, 9, 33, 5, 9, 44, 8, 33, 17, 33, 9, 9, 60, 61, 5, 9],
    [7, 9, 9, 9, 40, 7, 41, 9, 40, 8, 7, 33],
    [3, 20, 21, 22, 20, 21, 22, 20, 21, 22, 20, 21, 22, 3, 20],
    [70, 71, 72, 70, 60, 70, 71, 61, 60, 60],
]
MARKS = (60, 61)
"""Token ids that stand for punctuation in these tests."""
OPTIONS = {"n_back": 3, "local": 4, "n_shuffles": 2}


@pytest.fixture
def punctuated(monkeypatch):
    """Tiny models have no tokenizer: two of their ids are punctuation."""
    monkeypatch.setattr(profile_rows, "is_punctuation", lambda piece: piece in [f"<{index}>" for index in MARKS])


def patterns(model, ids):
    """[layer][head][query][key] as lists."""
    run = model.run(ids, "attn.pattern", logits=False)
    return [run.cache[f"attn.pattern@{layer}"][0].tolist() for layer in range(model.atlas.n_layers)]


def plain(model, name, function, layer, head, every, places=PROMPTS):
    """``function`` of the oracle for each prompt's patterns in ``every``, at the places of ``places``."""
    window = model.atlas.blocks[layer].window
    return [
        function(name, own[layer][head], ids, [i in MARKS for i in ids], window, OPTIONS["local"])
        for own, ids in zip(every, places, strict=True)
    ]


def nanmean(values):
    return oracle.mean([None if math.isnan(value) else value for value in values])


@pytest.mark.parametrize("family_name", ["llama", "gpt2", "gemma2", "gemma3_text", "gpt_oss", "bloom"])
def test_every_measure_is_the_plain_loops(family, punctuated, family_name):
    model = family(family_name)
    result = head_profiles(model, PROMPTS, **OPTIONS)
    every = [patterns(model, ids) for ids in PROMPTS]
    assert [item.name for item in result.measures[:-1]] == list(NAMES)
    for layer in range(model.atlas.n_layers):
        for head in range(0, model.atlas.n_heads, 3):
            for index, name in enumerate(NAMES):
                want = plain(model, name, oracle.measure, layer, head, every)
                cell = result.value.at(index, layer, head)
                assert cell.value == pytest.approx(nanmean(want), abs=2e-5, nan_ok=True), (name, layer, head)
                assert cell.n == sum(not math.isnan(value) for value in want)
                if name in PLACES:
                    want = nanmean(plain(model, name, oracle.permuted, layer, head, every))
                    assert float(result.null.value[index, layer, head]) == pytest.approx(want, abs=2e-5, nan_ok=True), (
                        name
                    )


@pytest.mark.parametrize("family_name", ["llama", "gemma3_text"])
def test_explained_by_position_is_the_plain_loops(family, family_name):
    model = family(family_name)
    result = head_profiles(model, PROMPTS, **OPTIONS)
    index = result.index("explained_by_position")
    every = [patterns(model, ids) for ids in PROMPTS]
    for layer in range(model.atlas.n_layers):
        want = oracle.explained_by_position([part[layer][0] for part in every], model.atlas.blocks[layer].window)
        got = result.value.at(index, layer, 0)
        assert got.value == pytest.approx(nanmean(want), abs=1e-3)
        assert got.n == len(PROMPTS)


def test_the_null_of_content_is_the_same_places_of_the_shuffles(family, punctuated, monkeypatch):
    model = family("llama")
    drawn = []
    shuffles = profile_rows._shuffles

    def watched(*arguments):
        drawn.append(shuffles(*arguments))
        return drawn[-1]

    monkeypatch.setattr(profile_rows, "_shuffles", watched)
    result = head_profiles(model, PROMPTS, seed=3, **OPTIONS)
    for own, others in zip(PROMPTS, drawn, strict=True):
        for other in others:
            assert other.ids[0] == own[0]
            assert sorted(other.ids) == sorted(own)
    every = [[patterns(model, list(others[draw].ids)) for others in drawn] for draw in range(2)]
    for name in (*CONTENT, "previous_token", "entropy_nats"):
        index = result.index(name)
        runs = [plain(model, name, oracle.measure, 1, 2, patterns_drawn) for patterns_drawn in every]
        want = nanmean([sum(pair) / 2 for pair in zip(*runs, strict=True)])
        assert float(result.shuffled.value[index, 1, 2]) == pytest.approx(want, abs=2e-5)
        if name in CONTENT:
            assert float(result.null.value[index, 1, 2]) == float(result.shuffled.value[index, 1, 2])
    index, window = result.index("explained_by_position"), model.atlas.blocks[1].window
    runs = [oracle.explained_by_position([part[1][2] for part in draw], window) for draw in every]
    want = nanmean([sum(pair) / 2 for pair in zip(*runs, strict=True)])
    assert float(result.null.value[index, 1, 2]) == pytest.approx(want, abs=1e-3)
    assert result.excess.at(index, 1, 2).n == len(PROMPTS)


def test_masses_by_distance_add_up():
    """Sink apart, the mass at every distance and the mass on position 0 are all there is."""
    rows = torch.rand(2, 3, 9, 9, generator=torch.Generator().manual_seed(0)).tril()
    rows = rows / rows.sum(-1, keepdim=True)
    rows[1, :, 7:] = float("nan")
    sums = offset_sums(rows, 0)
    torch.testing.assert_close(sums.sum(-1) + rows[..., 0].nansum(-1), torch.tensor([9.0, 7.0])[:, None].expand(2, 3))
    torch.testing.assert_close(sums[0, 0, 2], rows[0, 0].diagonal(-2)[1:].sum())
    parts = offset_sums(rows[:, :, :4, :4], 0), offset_sums(rows[:, :, 4:], 4)
    torch.testing.assert_close(torch.nn.functional.pad(parts[0], (0, 5)) + parts[1], sums)


def test_position_alone_explains_a_pattern_that_is_a_function_of_position():
    from interp.maths.head_profiles import explained_by_position

    rows = torch.zeros(1, 1, 12, 12)
    for query in range(1, 12):
        rows[0, 0, query, 0], rows[0, 0, query, query - 1] = (0.3, 0.7) if query > 1 else (0.0, 1.0)
    first, sums = rows[..., 0].expand(3, 1, 12), offset_sums(rows, 0).expand(3, 1, 12)
    squares = rows.square().sum((-1, -2)).expand(3, 1)
    spread = squares - (1 / torch.arange(2, 13)).sum()
    got = explained_by_position(first, sums, squares, spread, torch.tensor([12, 12, 12]))
    torch.testing.assert_close(got, torch.ones(3, 1, dtype=torch.float64), atol=1e-6, rtol=0)
    alone = explained_by_position(first[:1], sums[:1], squares[:1], spread[:1], torch.tensor([12]))
    assert alone.isnan().all()


def test_nothing_depends_on_how_prompts_are_batched(family, monkeypatch):
    model = family("gemma3_text")
    together = head_profiles(model, PROMPTS, **OPTIONS)
    monkeypatch.setattr(profile_rows, "_NUMBERS_AT_ONCE", 1)
    alone = head_profiles(model, PROMPTS, **OPTIONS)
    for field in ("value", "null", "shuffled"):
        for part in ("value", "lower", "upper"):
            got, want = getattr(getattr(alone, field), part), getattr(getattr(together, field), part)
            torch.testing.assert_close(got, want, atol=2e-5, rtol=1e-4, equal_nan=True)


def test_a_batch_that_does_not_fit_is_halved_and_said(family, monkeypatch):
    from interp.runner.model import Model

    told = []
    model = Model(family("llama").hf, notify=told.append)
    whole = head_profiles(model, PROMPTS, **OPTIONS)
    told.clear()
    run = Model.run

    def tight(self, prompts, *rest, **options):
        if len(prompts) > 1:
            raise MemoryLimitError("too much")
        return run(self, prompts, *rest, **options)

    monkeypatch.setattr(Model, "run", tight)
    halved = head_profiles(model, PROMPTS, **OPTIONS)
    torch.testing.assert_close(halved.value.value, whole.value.value, atol=2e-5, rtol=1e-4, equal_nan=True)
    assert any("do not fit in memory; going on with" in line for line in told)


def test_text_without_repeats_is_nan_and_said(family):
    from interp.runner.model import Model

    told = []
    model = Model(family("llama").hf, notify=told.append)
    result = head_profiles(model, [list(range(5, 20)), list(range(30, 47))], **OPTIONS)
    for name in CONTENT:
        assert result.value.value[result.index(name)].isnan().all()
        assert not result.named[result.index(name)].any()
    assert result.n_with == (0, 0, 0)
    assert [line for line in told if "text without repeats" in line and "NaN" in line]


def test_one_prompt_has_values_without_intervals_and_names_no_head(family):
    from interp.runner.model import Model

    told = []
    result = head_profiles(Model(family("llama").hf, notify=told.append), PROMPTS[0], **OPTIONS)
    assert result.lengths == (16,)
    assert not result.value.value[0].isnan().any()
    assert result.value.lower.isnan().all()
    assert not result.named.any()
    assert any("one prompt gives no interval" in line for line in told)


def test_the_same_seed_gives_the_same_result(family):
    first, again, other = (head_profiles(family("llama"), PROMPTS, seed=seed, **OPTIONS) for seed in (1, 1, 2))
    assert torch.equal(first.null.value.nan_to_num(), again.null.value.nan_to_num())
    assert not torch.equal(first.null.value.nan_to_num(), other.null.value.nan_to_num())


def test_layers_are_a_selection(family):
    model = family("llama")
    whole, part = head_profiles(model, PROMPTS, **OPTIONS), head_profiles(model, PROMPTS, layers=[2, 0], **OPTIONS)
    assert part.layers == (0, 2)
    torch.testing.assert_close(part.value.value, whole.value.value[:, [0, 2]], equal_nan=True)
    with pytest.raises(UsageError, match="L1H0 is in a layer that was not measured; valid layers: 0, 2"):
        part.profile("L1H0")


def test_names_need_a_tested_excess_above_the_margin():
    """Of the single places the greatest names a head; local only where none does; chance and what is under the margin do not."""
    measures = measures_of(2, 0.15, 0.4)
    names = [item.name for item in measures]
    n = len(measures)
    p, excess = torch.full((n, 1, 4), 0.9, dtype=torch.float64), torch.zeros((n, 1, 4), dtype=torch.float64)
    p[names.index("entropy_nats")] = float("nan")
    for name, head, size in [
        ("previous_token", 0, 0.3),
        ("current_token", 0, 0.2),
        ("local_window", 0, 0.5),
        ("local_window", 1, 0.5),
        ("punctuation", 2, 0.5),
    ]:
        p[names.index(name), 0, head], excess[names.index(name), 0, head] = 1e-6, size
    found = named(p, excess, measures, 0.05)
    assert {(names[m], head) for m, _, head in found.nonzero().tolist()} == {
        ("previous_token", 0),
        ("local_window", 1),
        ("punctuation", 2),
    }


def test_round_trip_table_and_figure(family, tmp_path):
    result = head_profiles(family("llama"), PROMPTS, **OPTIONS)
    result.save(tmp_path / "heads.safetensors")
    again = load_result(tmp_path / "heads.safetensors")
    assert isinstance(again, HeadProfilesResult)
    assert again.to_json() == result.to_json()
    frame = again.to_frame()
    assert len(frame) == len(result.measures) * result.p.shape[1] * result.p.shape[2]
    assert {"head", "measure", "unit", "value", "lower", "upper", "null", "shuffled", "p", "head_class"} <= set(frame)
    for measure in result.measures:
        assert result.figure(measure.name).data
    with pytest.raises(UsageError, match="unknown measure 'previous'.*did you mean"):
        result.figure("previous")


def test_named_heads_carry_their_evidence(family):
    result = head_profiles(family("llama"), PROMPTS, margin=0.0, sink_margin=0.0, rate=0.9, **OPTIONS)
    heads = result.named_heads()
    assert heads
    assert len(heads) == int(result.named.sum())
    for found in heads:
        at = (result.index(found.measure), found.head.layer, found.head.head)
        assert found.value == result.value.at(*at)
        assert found.p == float(result.p[at])
    values = result.profile(str(heads[0].head))
    assert len(values) == len(result.measures)
    assert result.profile((0, 1))[0][1] == result.value.at(0, 0, 1)
    assert result.profile(Head(0, 1))[0][2] == result.null.at(0, 0, 1)
    for bad in ("L9H0", (0, 99)):
        with pytest.raises(UsageError, match="is out of range; valid: L0H0 to L2H"):
            result.profile(bad)


@pytest.mark.parametrize(
    ("prompts", "options", "message"),
    [
        ([], {}, "no prompt; give at least one"),
        ([[5, 6, 7], [5]], {}, "prompt 1 has one token .* give two or more"),
        ([5], {}, "prompt 0 has one token"),
        ([[5, 999]], {}, "token id 999 is outside the vocabulary"),
        (None, {}, "no tokenizer"),
        (PROMPTS, {"layers": 9}, "layer 9 is out of range; valid: 0 to 2"),
        (PROMPTS, {"layers": []}, "no layers given"),
        (PROMPTS, {"n_back": 0}, "n_back is 0; give 1 or more"),
        (PROMPTS, {"local": 1}, "local is 1; give 2 or more"),
        (PROMPTS, {"n_shuffles": 0}, "n_shuffles is 0"),
        (PROMPTS, {"margin": 1.0}, "margin is 1.0; valid: 0 up to"),
        (PROMPTS, {"rate": 0.0}, "rate is 0.0; valid: between 0 and 1"),
        (PROMPTS, {"confidence": 95.0}, "confidence is 95.0; valid: between 0 and 1"),
    ],
)
def test_bad_arguments_name_the_valid_values(family, prompts, options, message):
    with pytest.raises(UsageError, match=message) as caught:
        head_profiles(family("llama"), prompts, **options)
    assert "\n" not in str(caught.value)


def test_very_short_prompts_leave_out_what_they_cannot_show(family):
    result = head_profiles(family("llama"), [[5, 6], [7, 8]], **OPTIONS)
    assert not result.value.value[result.index("first_token")].isnan().any()
    for name in ("previous_token", "local_window", "duplicate_tokens"):
        assert result.value.value[result.index(name)].isnan().all()


@pytest.mark.parametrize(
    ("piece", "is_mark"),
    [(".", True), (" ,", True), ('."', True), ("\n\n", True), (" ", False), ("a.", False), ("<5>", False), ("…", True)],
)
def test_punctuation(piece, is_mark):
    assert is_punctuation(piece) is is_mark


def test_units_are_told(family):
    result = head_profiles(family("llama"), PROMPTS, **OPTIONS)
    units = {item.name: item.unit for item in result.measures}
    assert units["entropy_nats"] == "nats"
    assert units["mean_distance"] == "tokens"
    assert all(dataclasses.asdict(item)["null"] for item in result.measures)


@pytest.mark.model
@pytest.mark.long
def test_heads_of_the_default_model(model):
    """BOS and random tokens repeated four times: the known heads have their known values, and more is named than by chance alone."""
    generator = torch.Generator().manual_seed(0)
    prompts = [
        [model.tokenizer.bos_token_id, *torch.randint(100, 40000, (40,), generator=generator).tolist() * 4]
        for _ in range(3)
    ]
    result = head_profiles(model, prompts, layers=[11, 16, 17, 18], n_shuffles=1)
    previous, induction = result.value.value[result.index("previous_token")], result.index("induction_targets")
    assert float(previous[1, 0]) == pytest.approx(0.906, abs=0.03)  # L16H0
    assert float(previous[0, 1]) == pytest.approx(0.843, abs=0.03)  # L11H1
    candidates = {str(found.head) for found in result.named_heads() if found.measure == "induction_targets"}
    assert {"L18H6", "L17H3", "L17H4"} <= candidates
    assert float(result.null.value[induction, 3, 6]) < 0.05

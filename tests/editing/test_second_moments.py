"""Second moments: the oracle's, whatever the batches; the file; resuming; what they may be used for."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import tiny_models
from interp.editing import second_moments as module
from interp.editing.matrix import output_matrix, sha256_of
from interp.editing.second_moment_work import token_batches
from interp.editing.second_moments import SecondMoment, cached_moments, second_moments
from interp.editing.stack import applied
from interp.errors import ModelError, NumericsError, UsageError
from interp.models.loading import Source
from interp.results import load_result
from interp.runner.model import Model
from oracles.second_moment import DOWN, second_moment
from random_edit import random_edit

TEXTS = [
    [5, 9, 33, 71, 12, 44, 8, 90, 17, 3],
    [4],
    [60, 61, 62],
    *([3 + (7 * i + j) % 90 for j in range(5 + i % 9)] for i in range(20)),
]
N_TOKENS = sum(map(len, TEXTS))


@pytest.fixture(scope="module")
def moment(family) -> SecondMoment:
    return second_moments(family("llama"), 1, TEXTS)[0]


@pytest.mark.parametrize("name", DOWN)
def test_the_mean_is_the_oracles(family, name: str) -> None:
    model = family(name)
    layers = range(model.atlas.n_layers)
    for found in second_moments(model, list(layers), TEXTS):
        expected, count = second_moment(model.hf, DOWN[name].format(found.layer), TEXTS)
        torch.testing.assert_close(found.matrix, expected, rtol=0, atol=1e-5 * float(expected.diagonal().max()))
        assert found.n_tokens == count == N_TOKENS
        assert found.n_texts == len(TEXTS)


@pytest.mark.parametrize("batch_tokens", [1, 7, 40, 10_000])
def test_batches_and_padding_do_not_matter(family, moment: SecondMoment, batch_tokens: int) -> None:
    (found,) = second_moments(family("llama"), 1, TEXTS, batch_tokens=batch_tokens)
    torch.testing.assert_close(found.matrix, moment.matrix, rtol=0, atol=1e-6 * float(moment.matrix.max()))
    assert (found.n_tokens, found.corpus_sha256) == (N_TOKENS, moment.corpus_sha256)
    assert found.fourth_moment == pytest.approx(moment.fourth_moment, rel=1e-5)


def test_long_texts_are_cut_and_every_token_counts(family) -> None:
    model = family("gpt2")
    text = [3 + (5 * i) % 90 for i in range(150)]
    (found,) = second_moments(model, 2, [text])
    expected, _ = second_moment(model.hf, DOWN["gpt2"].format(2), [text[:64], text[64:128], text[128:]])
    torch.testing.assert_close(found.matrix, expected, rtol=0, atol=1e-5 * float(expected.max()))
    assert found.n_tokens == 150


def test_several_layers_in_one_pass_are_those_of_each_alone(family, moment: SecondMoment) -> None:
    found = second_moments(family("llama"), [2, -2, 0], TEXTS)
    assert [item.layer for item in found] == [2, 1, 0]
    assert torch.equal(found[1].matrix, moment.matrix)


def test_batches_hold_texts_of_like_length_and_no_more_tokens_than_told() -> None:
    pieces = [tuple(range(n)) for n in (9, 3, 3, 4, 30, 2, 5)]
    batches = token_batches(pieces, 12)
    assert [[len(piece) for piece in batch] for batch in batches] == [[2, 3, 3], [4, 5], [9], [30]]
    assert sorted(piece for batch in batches for piece in batch) == sorted(pieces)


def test_the_forward_ends_at_the_highest_layer(family, monkeypatch) -> None:
    model, called = family("llama"), []
    for index, layer in enumerate(model.hf.model.layers):
        monkeypatch.setattr(layer, "forward", _counted(layer.forward, called, index))
    second_moments(model, 1, TEXTS[:1])
    assert called == [0, 1]


def _counted(forward, called, index):
    def call(*args, **kwargs):
        called.append(index)
        return forward(*args, **kwargs)

    return call


def test_max_tokens_are_the_first_ones(family) -> None:
    (found,) = second_moments(family("llama"), 0, TEXTS, max_tokens=12)
    expected, _ = second_moment(family("llama").hf, DOWN["llama"].format(0), [*TEXTS[:2], TEXTS[2][:1]])
    torch.testing.assert_close(found.matrix, expected, rtol=0, atol=1e-5 * float(expected.max()))
    assert found.n_tokens == 12


def test_an_interrupted_pass_goes_on_to_the_same_last_digit(family, tmp_path, moment: SecondMoment) -> None:
    model, path = family("llama"), tmp_path / "kept.safetensors"
    options = {"batch_tokens": 30, "checkpoint": path}
    whole = second_moments(model, [0, 2], TEXTS, batch_tokens=30)

    def stop(what: str, done: int, total: int | None) -> None:
        if done > N_TOKENS // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        second_moments(model, [0, 2], TEXTS, **options, progress=stop)
    assert list(load_file(path)) == ["state"]
    with pytest.raises(UsageError, match="not a checkpoint of this work"):
        second_moments(model, [0, 1], TEXTS, **options)
    with pytest.raises(UsageError, match="not a checkpoint of this work"):
        second_moments(model, [0, 2], TEXTS[1:], **options)
    told = []
    resumed = second_moments(model, [0, 2], TEXTS, **options, progress=lambda *now: told.append(now))
    assert 0 < told[0][1] < N_TOKENS == told[-1][1]
    for found, expected in zip(resumed, whole, strict=True):
        assert torch.equal(found.matrix, expected.matrix)
        assert (found.n_tokens, found.fourth_moment) == (N_TOKENS, expected.fourth_moment)
    assert not path.exists()


def test_the_file_holds_everything(family, tmp_path, moment: SecondMoment) -> None:
    moment.save(tmp_path / "m.safetensors")
    found = load_result(tmp_path / "m.safetensors")
    assert isinstance(found, SecondMoment)
    assert torch.equal(found.matrix, moment.matrix)
    assert found.matrix.dtype == torch.float64
    for name in (
        "layer",
        "n_tokens",
        "n_texts",
        "corpus",
        "corpus_sha256",
        "base_sha256",
        "fourth_moment",
        "provenance",
    ):
        assert getattr(found, name) == getattr(moment, name)
    assert found.base_sha256 == sha256_of(output_matrix(family("llama"), 1).stored)
    assert found.corpus == f"{len(TEXTS)} given texts"


def test_shrinkage_is_automatic_only_where_tokens_are_few(family, moment: SecondMoment) -> None:
    assert moment.n_tokens < 32 * moment.width
    assert 0 < moment.automatic_shrinkage < 1
    mean = moment.matrix.trace() / moment.width
    for amount in (0.0, 0.25, moment.automatic_shrinkage):
        expected = (1 - amount) * moment.matrix + amount * mean * torch.eye(moment.width, dtype=torch.float64)
        torch.testing.assert_close(moment.shrunk(amount), expected, rtol=1e-12, atol=0)
    assert torch.equal(moment.shrunk(), moment.shrunk(moment.automatic_shrinkage))
    assert moment.condition_number(None) == pytest.approx(float(torch.linalg.cond(moment.shrunk())), rel=1e-6)
    assert moment.condition_number(None) < moment.condition_number()
    (many,) = second_moments(family("llama"), 1, TEXTS + [[3 + (i * j) % 90 for j in range(60)] for i in range(1, 40)])
    assert many.automatic_shrinkage == 0
    assert torch.equal(many.shrunk(), many.matrix)
    (same,) = second_moments(family("llama"), 1, TEXTS[:2] * 200)
    assert same.n_tokens > 32 * same.width
    assert (same.condition_number(), same.automatic_shrinkage > 0) == (math.inf, True)
    assert same.condition_number(None) < math.inf
    (few,) = second_moments(family("llama"), 1, TEXTS[:1])
    assert few.condition_number() == math.inf
    assert few.condition_number(None) < 1e6
    with pytest.raises(UsageError, match="shrinkage is 1.5; valid: 0"):
        few.shrunk(1.5)


def test_the_table_and_the_figure_show_the_spectrum(moment: SecondMoment) -> None:
    frame = moment.to_frame()
    assert len(frame) == moment.width
    assert frame["eigenvalue"].is_monotonic_decreasing
    assert frame["share_of_trace"].sum() == pytest.approx(1)
    assert frame["eigenvalue"].iloc[0] / frame["eigenvalue"].iloc[-1] == pytest.approx(moment.condition_number())
    figure = moment.figure()
    assert figure.layout.yaxis.type == "log"
    assert [len(trace.y) for trace in figure.data] == [moment.width] * 2
    assert "shrunk by" in figure.data[1].name


def test_a_moment_is_bound_to_its_model_and_layer(family, moment: SecondMoment) -> None:
    model = family("llama")
    moment.check(model, 1)
    moment.check(model, -2)
    with pytest.raises(
        ModelError, match=r"is of layer 1, layer 0 is needed; make one of it: interp moments .* --layer 0"
    ):
        moment.check(model, 0)
    with pytest.raises(ModelError, match="was measured with other weights in layer 1"):
        moment.check(Model(tiny_models.build("llama", seed=5)), 1)
    named = {seed: _named(f"{seed}", tiny_models.build("llama", seed=seed)) for seed in (5, 6)}
    (other,) = second_moments(named[5], 1, TEXTS)
    with pytest.raises(ModelError, match=r"is of tiny-5 \(weights SHA-256 555555555555\), the model is tiny-6"):
        other.check(named[6], 1)


def _named(digit: str, hf, path=Path()):
    return Model(
        hf,
        source=Source(name=f"tiny-{digit}", path=path, revision=None, architecture="LlamaForCausalLM",
                      format="safetensors", licence=None, known_sha256=digit * 64),
    )  # fmt: skip


def test_too_few_tokens_are_told_with_the_command(family) -> None:
    (few,) = second_moments(family("llama"), 1, TEXTS[:3])
    with pytest.raises(
        UsageError, match=r"has 14 tokens, 64 are needed; make one of more: interp moments .*--max-tokens 64"
    ):
        few.check(family("llama"), 1)
    few.check(family("llama"), 1, min_tokens=14)
    with pytest.raises(UsageError, match="15 are needed"):
        few.check(family("llama"), 1, min_tokens=15)


def test_an_edited_model_is_not_measured_and_its_moments_still_fit(moment: SecondMoment) -> None:
    model = Model(tiny_models.build("llama"))
    edit = random_edit(model, [1])
    with applied(model, edit):
        with pytest.raises(
            UsageError, match="the model has an edit applied, and its keys would be those of the edited"
        ):
            second_moments(model, 1, TEXTS)
        moment.check(model, 1)
    assert torch.equal(second_moments(model, 1, TEXTS)[0].matrix, moment.matrix)


def test_nan_in_the_weights_is_told() -> None:
    hf = tiny_models.build("llama")
    with torch.no_grad():
        hf.model.layers[1].mlp.up_proj.weight[3, 0] = math.nan
    with pytest.raises(NumericsError, match="the keys hold NaN or infinity"):
        second_moments(Model(hf), 1, TEXTS)


@pytest.mark.parametrize(
    ("name", "layers", "options", "message"),
    [
        ("llama", 3, {}, "layer 3 is out of range; valid: -3 to 2|layer 3 .* 0 to 2"),
        ("llama", [], {}, "no layer is given; valid: 0 to 2"),
        ("mixtral", 1, {}, "layer 1 .* is a mixture of experts"),
        ("llama", 1, {"max_tokens": 0}, "max_tokens is 0"),
        ("llama", 1, {"batch_tokens": 0}, "batch_tokens is 0"),
    ],
)
def test_bad_requests_are_told(family, name: str, layers, options, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        second_moments(family(name), layers, TEXTS, **options)


def test_the_default_corpus_has_sixteen_tokens_for_each_dimension(family) -> None:
    (found,) = second_moments(family("llama"), 1)
    assert found.n_tokens == 16 * found.width
    assert found.corpus == "text sampled from the model (seed 0)"
    assert torch.equal(cached_moments(family("llama"), 1)[0].matrix, found.matrix)


def test_moments_of_the_default_corpus_are_made_once_a_layer(empty_cache, monkeypatch) -> None:
    model = _named("7", tiny_models.build("llama"), path=empty_cache)
    first = cached_moments(model, [1, 2])
    files = sorted((empty_cache / "second_moments").iterdir())
    assert [path.name for path in files] == [f"{'7' * 32}-float32-layer{n}-seed0.safetensors" for n in (1, 2)]
    made = []
    real = module.second_moments
    monkeypatch.setattr(
        module, "second_moments", lambda model, layers, **o: made.append(layers) or real(model, layers, **o)
    )
    again = cached_moments(model, [2, 0, 1])
    assert made == [[0]]
    assert [item.layer for item in again] == [2, 0, 1]
    assert torch.equal(again[0].matrix, first[1].matrix)
    files[0].write_bytes(b"no")
    torch.testing.assert_close(cached_moments(model, 1)[0].matrix, first[0].matrix)
    assert made == [[0], [1]]
    assert not torch.equal(cached_moments(model, 1, seed=1)[0].matrix, first[0].matrix)


def test_without_a_cache_folder_moments_are_made_and_not_kept(tmp_path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path / "file" / "cache"))
    told = []
    model = _named("8", tiny_models.build("llama"), path=tmp_path)
    model.notify = told.append
    assert cached_moments(model, 1)[0].layer == 1
    assert "the second moments are not kept: cannot create the cache folder" in told[0]

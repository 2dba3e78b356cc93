"""Embedding geometry: the plain loops on a tiny model, theorems on matrices made for them, and the default model."""

import math

import pytest
import torch

import word_model
from interp.analyzers.embedding_geometry import EmbeddingGeometryResult, embedding_geometry
from interp.errors import UsageError
from interp.maths.embedding_geometry import (
    analogy_query,
    cosines_to_rows,
    mean_row,
    nearest_rows,
    pair_cosines,
    rank_of,
    sphere_density,
)
from interp.results import load_result
from oracles import embedding_geometry as oracle

PROMPT = "After Ann and Bob went to the shop"
WORDS = (("Ann", "Bob", "shop", "store"), ("Ann", "Bob", "shop", "Rumpelstilzchen"))


@pytest.fixture(scope="module")
def reader():
    return word_model.build()


def test_neighbours_and_analogies_are_the_plain_loops(reader):
    got = embedding_geometry(reader, PROMPT, k=4, analogies=WORDS, pairs=10)
    matrix = reader.hf.model.embed_tokens.weight.tolist()
    for position, number in enumerate(got.tokens.ids):
        want = oracle.nearest(matrix, matrix[number], 4, {number})
        assert got.neighbour_ids[position].tolist() == want
        for rank, row in enumerate(want):
            assert float(got.neighbour_cosines[position, rank]) == pytest.approx(
                oracle.cosine(matrix[row], matrix[number]), abs=1e-6
            )
    known, unknown = got.analogies
    a, b, c, expected = (word_model.WORDS.index(word) for word in WORDS[0])
    query = oracle.analogy(matrix, a, b, c)
    assert known.ids == (a, b, c, expected)
    assert known.rank == oracle.rank(matrix, query, expected, {a, b, c})
    assert known.rank_with_inputs == oracle.rank(matrix, query, expected, set())
    assert known.rank_beside_first == oracle.rank(matrix, matrix[a], expected, {a, b, c})
    assert known.cosine == pytest.approx(oracle.cosine(query, matrix[expected]), abs=1e-6)
    assert list(known.nearest_ids) == oracle.nearest(matrix, query, 4, {a, b, c})
    assert (unknown.rank, unknown.ids, unknown.not_one_token) == (None, (), ("Rumpelstilzchen",))


def test_a_planted_analogy_is_found_and_a_broken_one_is_not():
    draw = torch.Generator().manual_seed(0)
    matrix = torch.cat([torch.eye(8)[:4], torch.randn(60, 8, generator=draw) * 0.1 + torch.eye(8)[7]])
    query = analogy_query(matrix[0], matrix[1], matrix[2])
    matrix[3] = query
    cosines = cosines_to_rows(matrix, query[None])[0]
    inputs = torch.tensor([0, 1, 2])
    assert rank_of(cosines, 3, inputs) == 0
    assert rank_of(cosines, 40, inputs) > 0
    assert nearest_rows(matrix, query[None], 1, inputs[None])[1].item() == 3


def test_blocks_change_nothing(monkeypatch):
    matrix = torch.randn(97, 16, generator=torch.Generator().manual_seed(1))
    out = torch.arange(5)[:, None]
    cosines, ids = nearest_rows(matrix, matrix[:5], 7, out)
    everything = cosines_to_rows(matrix, matrix[:5])
    monkeypatch.setattr("interp.maths.embedding_geometry.BLOCK", 10)
    again, same = nearest_rows(matrix, matrix[:5], 7, out)
    assert torch.equal(ids, same)
    torch.testing.assert_close(cosines, again)
    torch.testing.assert_close(cosines_to_rows(matrix, matrix[:5]), everything)


def test_random_directions_have_the_root_mean_square_that_theory_gives():
    d = 48
    matrix = torch.randn(3000, d, generator=torch.Generator().manual_seed(2))
    rows = torch.arange(3000)
    drawn = pair_cosines(matrix, rows, 20_000, torch.Generator().manual_seed(0))
    assert drawn.root_mean_square.lower < d**-0.5 < drawn.root_mean_square.upper
    assert drawn.mean.lower < 0 < drawn.mean.upper
    assert int(drawn.counts.sum()) == drawn.mean.n == 20_000
    shifted = matrix + 3
    seen = pair_cosines(shifted, rows, 20_000, torch.Generator().manual_seed(0))
    assert seen.mean.value > 0.5
    centred = pair_cosines(shifted, rows, 20_000, torch.Generator().manual_seed(0), origin=mean_row(shifted))
    assert centred.root_mean_square.lower < d**-0.5 < centred.root_mean_square.upper


def test_pairs_are_of_two_rows():
    """With two opposite rows a pair of one row with itself would show as a cosine of 1."""
    drawn = pair_cosines(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.arange(2), 50, torch.Generator().manual_seed(0))
    assert drawn.mean.value == -1


@pytest.mark.parametrize("d", [3, 32, 576])
def test_the_density_is_one(d):
    x = torch.linspace(-1 + 1e-9, 1 - 1e-9, 20_001, dtype=torch.float64)
    density = sphere_density(x, d)
    assert float(torch.trapezoid(density, x)) == pytest.approx(1, abs=1e-3)
    assert float(torch.trapezoid(density * x.square(), x)) == pytest.approx(1 / d, abs=1e-3)


def test_table_figures_and_round_trip(reader, tmp_path):
    result = embedding_geometry(reader, PROMPT, k=3, analogies=WORDS, pairs=50)
    assert len(result.to_frame()) == 3 * len(result.tokens)
    assert result.analogies_frame()["rank"].isna().tolist() == [False, True]
    assert len(result.figure().data) == 1
    assert len(result.figure("pairs").data) == 3
    for shares in result.pair_shares().values():
        assert float(shares.sum()) == pytest.approx(1, abs=0.02)
    with pytest.raises(UsageError, match="valid: neighbours, pairs"):
        result.figure("angles")
    result.save(tmp_path / "e.safetensors")
    again = load_result(tmp_path / "e.safetensors")
    assert isinstance(again, EmbeddingGeometryResult)
    assert again.to_json() == result.to_json()


def test_a_row_of_zeros_is_never_drawn(family):
    model = family("opt")  # transformers fills the padding row; here it is zeroed for the test
    weight = model.hf.model.decoder.embed_tokens.weight
    with torch.no_grad():
        kept = weight[0].clone()
        weight[0] = 0
    try:
        result = embedding_geometry(model, [5, 9], pairs=500)
    finally:
        with torch.no_grad():
            weight[0] = kept
    assert result.n_zero_rows == 1
    assert all(analogy.rank is None for analogy in result.analogies)  # it has no tokenizer


def test_bad_arguments_name_the_valid_values(reader):
    with pytest.raises(UsageError, match="k is 97; valid: 1 to 96"):
        embedding_geometry(reader, PROMPT, k=97)
    with pytest.raises(UsageError, match="pairs is 1"):
        embedding_geometry(reader, PROMPT, pairs=1)
    with pytest.raises(UsageError, match="confidence is 1.5"):
        embedding_geometry(reader, PROMPT, confidence=1.5)


@pytest.mark.model
def test_the_default_models_rows(model):
    """The rows of the file themselves: the neighbours' cosines, tied rows, and one pair of words that belong together."""
    result = embedding_geometry(model, "The Eiffel Tower is located in the city of")
    W_E = model.hf.model.embed_tokens.weight.detach()
    assert result.tied
    assert (result.n_rows, result.d_model) == tuple(W_E.shape)
    tower = result.tokens.ids[3]
    cosines = torch.nn.functional.cosine_similarity(W_E[tower], W_E, dim=1)
    cosines[tower] = -1
    best = cosines.topk(5)
    assert result.neighbour_ids[3].tolist() == best.indices.tolist()
    torch.testing.assert_close(result.neighbour_cosines[3], best.values, atol=1e-5, rtol=0)
    king = result.analogies[0]
    unit = torch.nn.functional.normalize(W_E, dim=1)
    a, b, c, expected = king.ids
    query = unit[a] - unit[b] + unit[c]
    scores = torch.nn.functional.cosine_similarity(query, W_E, dim=1)
    scores[[a, b, c]] = -1
    assert king.rank == int((scores > scores[expected]).sum()) == 0
    assert result.random_pairs.root_mean_square.value > 5 / math.sqrt(W_E.shape[1])

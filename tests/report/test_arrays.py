"""Arrays and their text: what a reader gets back is what was given, to the digits promised."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as matrices

from interp.report import base91
from interp.report.arrays import Arrays, Mapped, Words
from interp.report.pack import compressed
from report.reading import CHARACTERS, PageData, unpacked


def read(arrays: Arrays) -> PageData:
    return PageData(*compressed({"blocks": [], "prompts": {}}, arrays))


def back(values: np.ndarray) -> np.ndarray:
    arrays = Arrays()
    reference = arrays.reference(values)
    return np.array(read(arrays).matrix(reference), dtype=float)


@given(st.binary(max_size=200))
def test_bytes_come_back_from_text(data):
    text = base91.encode(data)
    assert unpacked(text, len(data)) == data
    assert set(text) <= set(CHARACTERS)


def test_base91_is_shorter_than_base64():
    assert len(base91.encode(bytes(13_000))) == 16_000


SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 5))
NUMBERS = st.floats(-60_000, 60_000) | st.sampled_from([0.0, 0.9995, 999.5, 9_995.0, -1e-9, float("nan"), -np.inf])


@given(matrices(np.float64, SHAPES, elements=NUMBERS))
def test_numbers_keep_three_digits_or_thousandths(values):
    finite = np.isfinite(values)
    got = back(values)
    assert (np.isnan(got) == ~finite).all()
    np.testing.assert_allclose(got[finite], values[finite], rtol=5.1e-3, atol=5.1e-4)


@given(matrices(np.float64, SHAPES, elements=st.integers(-65_535, 65_535).map(float) | st.just(float("nan"))))
@pytest.mark.long
def test_whole_numbers_are_exact(values):
    np.testing.assert_array_equal(back(values), values)


def test_numbers_of_three_digits_are_exact():
    values = np.array([[0, 1, -1, 0.5, 0.123], [999, 1000, 12_300, -45_600, 0.001]])
    np.testing.assert_allclose(back(values), values, rtol=1e-12)


def test_small_numbers_keep_their_digits():
    values = np.array([[1.23e-7, -4.56e-8]])
    np.testing.assert_allclose(back(values), values, rtol=1e-2)


def length(*values: np.ndarray, prompts=()) -> int:
    arrays = Arrays(prompts)
    for one in values:
        arrays.reference(one)
    return len(arrays.packed()[1])


@pytest.mark.long
def test_what_can_be_told_from_the_cells_around_takes_little():
    rng = np.random.default_rng(0)
    smooth = np.linspace(1, 900, 64)[None, :] + np.arange(40.0)[:, None]
    noise = rng.integers(-999, 999, (40, 64)).astype(float)
    assert length(smooth) < 0.55 * length(noise)
    assert length(noise) < noise.size * 11.4 / 8  # of 11 bits each
    assert length(noise, noise + 1) < 1.5 * length(noise)
    np.testing.assert_allclose(back(smooth), smooth, rtol=5.1e-3)


@pytest.mark.long
def test_a_token_that_comes_again_is_likened_to_itself():
    rng = np.random.default_rng(0)
    ids = np.tile(np.arange(12), 20)
    values = rng.normal(size=(30, 12))[:, ids]
    assert length(values, prompts=[ids.tolist()]) < 0.85 * length(values)
    arrays = Arrays([ids.tolist()])
    reference = arrays.reference(values)
    data = PageData(*compressed({"blocks": [], "prompts": {"p0": {"ids": ids.tolist()}}}, arrays))
    np.testing.assert_allclose(np.array(data.matrix(reference), dtype=float), values, rtol=5.1e-3, atol=5.1e-4)


def test_an_array_is_held_once():
    arrays = Arrays()
    values = np.array([[1.0, 2.0]])
    assert arrays.reference(values) == arrays.reference(values.copy()) == {"matrix": 0}
    assert arrays.reference(Mapped(values, "exp")) == {"matrix": 0, "by": "exp"}
    assert arrays.reference(-values) == {"matrix": 1}
    words = Words(np.array([[7, 8]]), {7: "a", 8: "b"})
    assert arrays.words(words) == arrays.words(words) == {"words": [0]}


@pytest.mark.parametrize("count", [1, 127, 128, 129, 17_000])
def test_words_come_back_whatever_their_number(count):
    rng = np.random.default_rng(count)
    ids = rng.permutation(np.concatenate([np.arange(count), rng.integers(0, count, -count % 6)])).reshape(2, -1, 3)
    arrays = Arrays()
    reference = arrays.words(Words(ids, {index: f"w{index}" for index in range(count)}))
    data = read(arrays)
    for row in range(2):
        for column in range(0, ids.shape[1], 97):
            assert data.words(reference, row, column) == [f"w{index}" for index in ids[row, column]]


def test_words_that_stay_take_little():
    rng = np.random.default_rng(0)
    ids = np.repeat(rng.integers(0, 400, (1, 100)), 30, axis=0)
    texts = {index: f"{index:04}" for index in range(400)}
    arrays = Arrays()
    arrays.words(Words(ids, texts))
    description, binary = arrays.packed()
    assert description["words"].split("\n")[0] == f"{ids[0, 0]:04}"
    assert len(binary) < ids.size / 8
    arrays = Arrays()
    arrays.words(Words(rng.integers(0, 400, (30, 100)), texts))
    assert len(arrays.packed()[1]) < ids.size * 9.5 / 8

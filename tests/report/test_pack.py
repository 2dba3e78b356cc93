"""Packing: rounded, strict, and what is stored as a difference or a reference gives the figure back."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interp.figures import story_heatmap, story_lines
from interp.report.arrays import Arrays, Mapped
from interp.report.blocks import Cells, Version
from interp.report.pack import compact, compressed, dense, difference, pack_figure, pack_properties
from report.reading import lzma_bytes

ROWS, TOKENS = ["0", "1"], ["a", "b", "c"]
VALUES = np.linspace(0.1, 0.9, 6).reshape(2, 3)


def pack(figure, arrays, **version):
    return pack_figure(Version(figure=figure, **version), arrays)


def apply(base, patch):
    data = [{**trace, **change} for trace, change in zip(base["data"], patch.get("data", [{}] * 9), strict=False)]
    whole = {"data": data, "layout": {**base["layout"], **patch.get("layout", {})}}
    return {
        "data": [{key: value for key, value in trace.items() if value is not None} for trace in data],
        "layout": {key: value for key, value in whole["layout"].items() if value is not None},
    }


def test_a_difference_gives_the_figure_back():
    arrays = Arrays()
    base = pack(story_heatmap(VALUES, rows=ROWS, tokens=TOKENS, title="norm", log=True), arrays)
    other = pack(story_heatmap(-VALUES, rows=ROWS, tokens=TOKENS, title="cosine", signed=True), arrays)
    patch = difference(base, other)
    assert apply(base, patch) == other
    assert "hovertext" not in patch["data"][0]
    assert difference(base, base) == {}


def test_layout_differences_are_kept():
    base = pack(story_lines({"x": VALUES[:, 0]}, rows=ROWS, unit="norm"), Arrays())
    other = pack(story_lines({"x": VALUES[:, 0]}, rows=ROWS, unit="cosine", limits=(-1.0, 1.0)), Arrays())
    assert set(difference(base, other)) == {"layout"}
    assert apply(base, difference(base, other)) == other


def test_matrices_are_references():
    arrays = Arrays()
    assert pack_properties({"z": VALUES, "x": VALUES[0]}, arrays) == {"z": {"matrix": 0}, "x": compact(VALUES[0])}
    assert pack_properties({"y": Mapped(VALUES, "exp")}, arrays) == {"y": {"matrix": 0, "by": "exp"}}


def test_what_the_page_can_make_is_left_to_it():
    arrays = Arrays()
    figure = story_heatmap(VALUES, rows=ROWS, tokens=TOKENS, title="norm", log=True)
    cells = Cells(rows=ROWS, link="at")
    (trace,) = pack(figure, arrays, cells=cells)["data"]
    assert trace["z"] == trace["customdata"] | {"by": "log10(value)"}
    assert trace["cells"] == {"rows": ROWS, "link": "at"}
    assert not {"text", "hovertext"} & set(trace)


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_numbers_keep_four_digits(value):
    packed = compact(value)
    if math.isfinite(value):
        assert packed == pytest.approx(value, rel=5.1e-4, abs=0)
    else:
        assert packed is None
    json.dumps(packed, allow_nan=False)


def test_only_plain_content():
    assert compact({"a": (1, np.float32(0.5), np.int64(3), None, True, "x")}) == {"a": [1, 0.5, 3, None, True, "x"]}
    with pytest.raises(TypeError, match="object"):
        compact(object())


def test_the_same_data_gives_the_same_bytes():
    def made() -> tuple[bytes, bytes]:
        arrays = Arrays()
        arrays.reference(VALUES)
        return compressed({"b": [1], "a": "\u2028"}, arrays)

    assert made() == made()
    text, binary = made()
    assert json.loads(text) | {"arrays": None} == {"a": "\u2028", "b": [1], "arrays": None}
    assert 0 < len(binary) <= 2 * VALUES.size + 4


@given(st.binary(max_size=300))
def test_texts_come_back_from_lzma(data):
    assert lzma_bytes(dense(data)) == data
    assert dense(data) == dense(data)

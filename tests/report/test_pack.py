"""Packing: rounded, strict, and what is stored as a difference gives the figure back."""

import base64
import gzip
import json
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interp.figures import story_heatmap, story_lines
from interp.report.pack import Matrices, compact, data_script, difference, pack_figure
from report.samples import HOSTILE

ROWS, TOKENS = ["0", "1"], ["a", "b", "c"]
VALUES = np.linspace(0.1, 0.9, 6).reshape(2, 3)


def apply(base, patch):
    data = [{**trace, **change} for trace, change in zip(base["data"], patch.get("data", [{}] * 9), strict=False)]
    whole = {"data": data, "layout": {**base["layout"], **patch.get("layout", {})}}
    return {
        "data": [{key: value for key, value in trace.items() if value is not None} for trace in data],
        "layout": {key: value for key, value in whole["layout"].items() if value is not None},
    }


def test_a_difference_gives_the_figure_back():
    matrices = Matrices()
    base = pack_figure(story_heatmap(VALUES, rows=ROWS, tokens=TOKENS, title="norm", log=True), matrices)
    other = pack_figure(story_heatmap(-VALUES, rows=ROWS, tokens=TOKENS, title="cosine", signed=True), matrices)
    patch = difference(base, other)
    assert apply(base, patch) == other
    assert "hovertext" not in patch["data"][0]
    assert difference(base, base) == {}


def test_layout_differences_are_kept():
    base = pack_figure(story_lines({"x": VALUES[:, 0]}, rows=ROWS, unit="norm"), Matrices())
    other = pack_figure(story_lines({"x": VALUES[:, 0]}, rows=ROWS, unit="cosine", limits=(-1.0, 1.0)), Matrices())
    assert set(difference(base, other)) == {"layout"}
    assert apply(base, difference(base, other)) == other


def test_a_matrix_is_held_once():
    matrices = Matrices()
    assert matrices.reference(VALUES) == matrices.reference(VALUES.copy()) == {"matrix": 0}
    assert matrices.reference(-VALUES) == {"matrix": 1}
    assert matrices.packed[1] == compact(-VALUES)
    assert matrices.compact({"z": VALUES, "x": VALUES[0]}) == {"z": {"matrix": 0}, "x": compact(VALUES[0])}


def test_a_logarithm_is_left_to_the_page():
    matrices = Matrices()
    (trace,) = pack_figure(story_heatmap(VALUES, rows=ROWS, tokens=TOKENS, title="norm", log=True), matrices)["data"]
    assert "z" not in trace
    assert matrices.packed[trace["customdata"]["matrix"]] == compact(VALUES)


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


@pytest.mark.parametrize("text", HOSTILE)
def test_the_script_text_is_inert_and_whole(text):
    kind, script = data_script({"text": text})
    assert kind == "application/json"
    assert not re.search(r"[<>&\u2028\u2029]", script)
    assert script.isascii()
    assert json.loads(script) == {"text": text}


def test_large_data_is_compressed():
    data = {"numbers": list(range(50_000))}
    kind, script = data_script(data)
    assert kind == "application/gzip"
    assert json.loads(gzip.decompress(base64.b64decode(script))) == data
    assert data_script(data) == (kind, script)

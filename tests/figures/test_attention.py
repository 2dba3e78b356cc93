"""Figures of attention: what is drawn is what was given, text is literal, and a thousand heads stay one heatmap."""

import numpy as np
import pytest

from interp.errors import UsageError
from interp.figures.attention import TILE, attention_heatmap, attention_mosaic, attention_tile

TOKENS = ["<s>", "a&b", " the", " the"]
PATTERN = np.tril(np.arange(16.0).reshape(4, 4) / 16 + 0.01)


def test_queries_go_down_and_keys_after_them_are_empty():
    figure = attention_heatmap(PATTERN, tokens=TOKENS, title="L1H2")
    z = np.array(figure.data[0].z)
    np.testing.assert_array_equal(z[np.tril_indices(4)], PATTERN[np.tril_indices(4)])
    assert np.isnan(z[np.triu_indices(4, 1)]).all()
    assert list(figure.layout.yaxis.range) == [3.5, -0.5]
    assert (figure.data[0].zmin, figure.data[0].zmax) == (0, 1)
    assert list(figure.layout.xaxis.ticktext) == ["&lt;s&gt;", "a&amp;b", " the", " the"]
    assert figure.data[0].hovertext[1][0] == "a&amp;b (1) to &lt;s&gt; (0)"
    assert "<s>" not in figure.to_json().replace("\\u003c", "<").replace("\\u003e", ">")


def test_weighted_patterns_are_coloured_to_their_greatest():
    figure = attention_heatmap(PATTERN * 9, "output", tokens=TOKENS)
    assert figure.data[0].zmax == pytest.approx(PATTERN.max() * 9)


def test_long_prompts_have_no_text_for_each_cell():
    figure = attention_heatmap(np.tril(np.ones((200, 200))), tokens=["t"] * 200)
    assert figure.data[0].hovertext is None
    assert "%{x}" in figure.data[0].hovertemplate


@pytest.mark.parametrize(("n_pos", "side"), [(1, 1), (4, 4), (TILE, TILE), (TILE + 1, 13), (1000, 24)])
def test_a_tile_keeps_the_greatest_weights(n_pos, side):
    pattern = np.zeros((n_pos, n_pos))
    pattern[-1, 0] = 0.7
    tile = attention_tile(pattern)
    assert tile.shape == (side, side)
    assert tile[-1, 0] == tile.max() == 0.7


def test_every_head_is_in_the_mosaic_and_groups_are_apart():
    tiles = np.stack([np.stack([PATTERN * (1 + layer + head) / 10 for head in range(4)]) for layer in range(2)])
    figure = attention_mosaic(tiles, layers=(3, 5), heads=(0, 1, 2, 3), kv_heads=(0, 0, 1, 1))
    (trace,) = figure.data
    z = np.array(trace.z)
    assert z.shape == (2 * 4 + 1, 4 * 4 + 1 + 3 + 1)
    # Layer 5 above layer 3; within a tile the first query is on top.
    np.testing.assert_allclose(z[5:9][::-1][:, 5:9][np.tril_indices(4)], tiles[1, 1][np.tril_indices(4)])
    assert np.isnan(z[:, 9:12]).all()
    assert list(figure.layout.yaxis.ticktext) == ["3", "5"]


def test_unknown_weighting_names_the_valid_ones():
    with pytest.raises(UsageError, match=r"did you mean 'value'.*output"):
        attention_heatmap(PATTERN, "valeu", tokens=TOKENS)

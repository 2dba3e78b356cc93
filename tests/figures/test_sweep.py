"""Pictures of a sweep's means: every mean in its place, intervals where there are any, labels literal."""

import numpy as np

from interp.figures.sweep import Mean, sweep_lines, sweep_map


def test_lines_have_bands_where_there_are_intervals() -> None:
    lines = {
        "a<b>": {"0": Mean(1.0, 0.5, 1.5, 4), "2": Mean(2.0, 1.0, 3.0, 4)},
        "once": {"1": Mean(3.0, float("nan"), float("nan"), 1)},
    }
    figure = sweep_lines(lines, ["0", "1", "2"], axis="layer", words="effect")
    band, first, second = figure.data
    assert list(band.x) == [0, 2, 2, 0]
    assert list(band.y) == [1.5, 3.0, 1.0, 0.5]
    assert (list(first.x), list(first.y), first.name) == ([0, 2], [1.0, 2.0], "a&lt;b&gt;")
    assert (list(second.x), list(second.y)) == ([1], [3.0])
    assert first.hovertext[0] == "1 (0.5 to 1.5), 4 items"
    assert second.hovertext[0] == "3, 1 items"


def test_a_map_has_words_from_the_top_and_numbers_from_the_bottom() -> None:
    cells = {(layer, place): Mean(layer + ord(place), 0.0, 1.0, 2) for layer in (0, 1) for place in "ab"}
    figure = sweep_map(cells, x="layer", y="place", words="effect")
    assert figure.data[0].z.tolist() == [[97, 98], [98, 99]]
    assert figure.layout.yaxis.range == (1.5, -0.5)
    heads = {(head, layer): Mean(head + 10.0 * layer, 0.0, 1.0, 2) for layer in (3, 1) for head in (0, 1)}
    figure = sweep_map(heads, x="number", y="layer", words="score")
    assert figure.data[0].z.tolist() == [[10, 11], [30, 31]]
    assert figure.layout.yaxis.range == (-0.5, 1.5)
    assert list(figure.layout.yaxis.ticktext) == ["1", "3"]


def test_signed_values_are_coloured_around_zero_and_gaps_are_left() -> None:
    cells = {(0, "a"): Mean(-1.0, 0, 0, 2), (1, "a"): Mean(4.0, 0, 0, 2), (1, "b"): Mean(2.0, 0, 0, 2)}
    heat = sweep_map(cells, x="layer", y="place", words="effect").data[0]
    assert (heat.zmin, heat.zmax, heat.meta) == (-4.0, 4.0, {"signed": True})
    assert np.isnan(heat.z[1, 0])

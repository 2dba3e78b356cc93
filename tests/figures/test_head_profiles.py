"""The map of heads: a cell a head, its null and names at hand, text literal."""

import numpy as np
import pytest

from interp.figures.head_profiles import profile_map

VALUES = np.array([[0.1, 0.9], [0.4, np.nan], [0.2, 0.3]])
NULLS = np.array([[0.05, 0.05], [np.nan, 0.05], [0.05, 0.05]])
NAMES = [["", "<b>sink</b>"], ["", ""], ["", ""]]


def test_cells_say_which_head_and_its_null():
    figure = profile_map(VALUES, NULLS, (3, 5, 7), title="First token", unit="share of attention", names=NAMES)
    (trace,) = figure.data
    np.testing.assert_array_equal(trace.z, VALUES)
    assert (trace.zmin, trace.zmax) == (0.0, 1.0)
    assert trace.hovertext[0][1] == "<b>L3H1</b><br>null 0.050<br>&lt;b&gt;sink&lt;/b&gt;"
    assert trace.hovertext[1][0] == "<b>L5H0</b>"
    assert list(figure.layout.yaxis.ticktext) == ["3", "5", "7"]
    assert not trace.hoverongaps


@pytest.mark.parametrize("values", [VALUES * 30 - 6, np.full((3, 2), np.nan), np.zeros((3, 2))])
def test_other_units_are_coloured_over_their_own_range(values):
    (trace,) = profile_map(values, NULLS, (0, 1, 2), title="Distance", unit="tokens").data
    finite = values[np.isfinite(values)]
    assert trace.zmin < trace.zmax
    if finite.size:
        assert trace.zmin <= finite.min()
        assert trace.zmax >= finite.max()

"""The map of senders: a cell a head, none where nothing was measured, receivers outlined."""

import numpy as np

from interp.figures.path_patching import path_map

EFFECT = np.array([[0.1, -0.9], [0.4, 0.2], [np.nan, np.nan]])


def test_senders_are_cells_and_receivers_are_outlined():
    figure = path_map(EFFECT, EFFECT - 0.1, EFFECT + 0.1, [(2, 1, "L2H1.<q>")], title="share of the logit difference")
    cells, receivers = figure.data
    np.testing.assert_array_equal(cells.z, EFFECT)
    assert cells.hovertext[0][1] == "<b>L0H1</b><br>effect -0.900 (-1.000 to -0.800)"
    assert "not measured" in cells.hovertext[2][0]
    assert (list(receivers.x), list(receivers.y)) == ([1], [2])
    assert receivers.hovertext[0] == "<b>L2H1.&lt;q&gt;</b><br>receiver"


def test_paths_to_the_logits_have_no_receiver_to_outline():
    (cells,) = path_map(EFFECT, EFFECT, EFFECT, [], title="share").data
    assert cells.zmin == -cells.zmax

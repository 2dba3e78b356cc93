"""Estimated against exact: a dot a cell, the line of equality, text literal."""

import numpy as np

from interp.figures.attribution_patching import agreement_plot

ESTIMATED, EXACT = np.array([0.1, -0.4, 2.0]), np.array([0.2, -0.5, 1.0])
NAMES = ["resid_pre L3 at <b> (2)", "mlp_out L0", "resid_pre L1"]
SITES = ["resid_pre", "mlp_out", "resid_pre"]


def test_each_cell_is_a_dot_of_its_site():
    line, first, second = agreement_plot(ESTIMATED, EXACT, NAMES, SITES, unit="logits").data
    assert list(line.x) == list(line.y) == [-0.5, 2.0]
    assert list(first.x) == [0.2, 1.0]
    assert list(first.y) == [0.1, 2.0]
    assert (first.name, second.name) == ("resid_pre", "mlp_out")
    assert first.hovertext[0] == "<b>resid_pre L3 at &lt;b&gt; (2)</b>"
    assert list(second.y) == [-0.4]


def test_axes_name_the_unit_and_nothing_to_show_is_no_error():
    figure = agreement_plot(ESTIMATED[:1], EXACT[:1], NAMES[:1], SITES[:1], unit="nats")
    assert figure.layout.xaxis.title.text == "exact change, nats"
    assert figure.layout.yaxis.title.text == "estimated change, nats"
    assert not figure.layout.showlegend
    assert len(agreement_plot(ESTIMATED[:0], EXACT[:0], [], [], unit="").data) == 1

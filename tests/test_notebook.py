"""How results show themselves in a notebook: whole, small, and inert whatever their texts are."""

import base64
import re
import subprocess
import sys
import zlib
from html.parser import HTMLParser

import numpy as np
import plotly.graph_objects as go
import pytest

from interp.analyzers.compare import compare
from interp.figures.static import static
from interp.tokens import visible
from report import samples
from report.samples import HOSTILE

RESULTS = [
    *samples.all_results(layers=4),
    samples.attention(),
    samples.causal_trace(),
    samples.generation(),
    compare(samples.lens(layers=4), samples.lens(samples.PIECES[1:], layers=4)),
]
ALLOWED = {
    "div",
    "p",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "svg",
    "rect",
    "text",
    "image",
    "polyline",
    "circle",
}


class Parts(HTMLParser):
    """Tags, attributes and text of a fragment, as a browser's parser sees them."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("result", RESULTS, ids=lambda result: result.kind)
def test_a_result_shows_title_table_and_figure(result) -> None:
    shown = result._repr_html_()
    parts = Parts(shown)
    assert result.kind.replace("_", " ") in parts.text
    assert "smollm2-135m" in parts.text
    assert str(result.to_frame().columns[0]) in parts.text
    assert parts.tags.count("svg") == 1
    assert len(shown.encode()) < 60_000
    assert shown == result._repr_html_()


@pytest.mark.parametrize("result", RESULTS, ids=lambda result: result.kind)
def test_nothing_in_it_runs_or_is_fetched(result) -> None:
    parts = Parts(result._repr_html_())
    assert set(parts.tags) <= ALLOWED
    for name, value in parts.attributes:
        assert not name.startswith("on")
        assert name not in ("src", "srcdoc", "id", "class")
        if name == "href":
            assert (value or "").startswith("data:image/png;base64,")
    assert "url(" not in result._repr_html_()


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_inert_and_shown(text: str) -> None:
    pieces, words = ("The", f" {text}", text), (text, *samples.WORDS[1:])
    changes = {"layers": 2, "provenance": samples.provenance(model=text, command=text)}
    plain = samples.lens(("The", " a", "b"), layers=2)
    hostile = samples.lens(pieces, words, **changes)
    shown, usual = Parts(hostile._repr_html_()), Parts(plain._repr_html_())
    if "No table" not in shown.text:  # pandas may refuse half of a surrogate pair
        assert shown.tags == usual.tags
        assert {name for name, _ in shown.attributes} == {name for name, _ in usual.attributes}
    assert set(shown.tags) <= set(usual.tags)
    assert visible(text) in shown.text
    hostile._repr_html_().encode()  # no half of a surrogate pair is left


def pixels(svg: str) -> np.ndarray:
    """The first picture of a drawing as [row column 4]."""
    data = base64.b64decode(re.findall(r'href="data:image/png;base64,([^"]+)"', svg)[0])
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    start = data.index(b"IDAT")
    size = int.from_bytes(data[start - 4 : start], "big")
    raw = np.frombuffer(zlib.decompress(data[start + 4 : start + 4 + size]), np.uint8).reshape(height, 1 + 4 * width)
    return raw[:, 1:].reshape(height, width, 4)


def test_a_heatmap_has_a_pixel_a_cell_and_none_where_there_is_no_number() -> None:
    z = np.array([[0.0, 1.0, np.nan], [0.25, 0.5, 0.75]])
    found = pixels(static(go.Figure(go.Heatmap(z=z, zmin=0, zmax=1, colorscale="Greys_r"))))
    assert found.shape == (2, 3, 4)
    assert found[1, 2, 3] == 0  # rows go upwards
    assert (found[..., 3] == 255).sum() == 5
    assert found[1, 0, :3].tolist() == [0, 0, 0]
    assert found[1, 1, :3].tolist() == [255, 255, 255]
    down = pixels(static(go.Figure(go.Heatmap(z=z, zmin=0, zmax=1), {"yaxis": {"autorange": "reversed"}})))
    assert down[0, 2, 3] == 0


def test_bars_are_as_long_as_their_values() -> None:
    svg = static(go.Figure(go.Bar(x=[0, 1, 2], y=[1.0, 2.0, -1.0])))
    heights = [float(height) for height in re.findall(r'<rect [^>]*height="([\d.]+)" fill="#', svg)]
    assert heights[1] / heights[0] == pytest.approx(2, rel=0.02)
    assert heights[2] == pytest.approx(heights[0], rel=0.02)


def test_a_gap_in_a_line_stays_a_gap() -> None:
    svg = static(go.Figure(go.Scatter(x=[0, 1, 2, 3, 4], y=[1, 2, None, 2, 1], mode="lines")))
    assert svg.count("<polyline") == 2


def test_labels_are_text() -> None:
    figure = go.Figure(go.Bar(x=[0], y=[1]), {"xaxis": {"tickvals": [0], "ticktext": ["&lt;script&gt; <b>x</b>"]}})
    assert "&lt;script&gt;  x" in static(figure)


def test_a_trace_that_cannot_be_drawn_is_left_to_plotly() -> None:
    assert static(go.Figure(go.Pie(values=[1, 2]))) == ""
    assert static(go.Figure()) == ""


def test_a_result_without_a_figure_says_so() -> None:
    other = samples.provenance(model="other", weights_sha256="b" * 64)
    found = compare(samples.lens(layers=2), samples.lens(layers=3, provenance=other))
    assert "No figure: unknown quantity" in Parts(found._repr_html_()).text


def test_a_figure_is_plotlys_to_change() -> None:
    figure = samples.lens(layers=2).figure()
    figure.update_layout(title="mine")
    assert isinstance(figure, go.Figure)
    assert figure.layout.title.text == "mine"


@pytest.mark.long
def test_showing_is_imported_only_when_something_is_shown() -> None:
    code = "import sys, interp.results; print([m for m in ('plotly', 'pandas', 'interp.notebook') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

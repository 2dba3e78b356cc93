"""The section of a causal trace: what it says and shows is what the result holds, nothing is claimed that was not lost, text is inert."""

import re
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import torch

from interp.analyzers.answers import Answer
from interp.analyzers.causal_trace_sites import best_layers, half_back_from, lowered
from interp.report import report
from interp.report.blocks import LinkedTable, Picture, Table
from interp.report.markup import Html
from interp.report.sections.causal_trace import build
from interp.results import load_result
from interp.tokens import visible
from report import samples
from report.chromium import EXECUTABLE, Page
from report.samples import HOSTILE

LIMIT = 1_000_000
SEVERED = ("resid", "mlp", "attn", "resid-mlp-severed", "resid-attn-severed")


def words(child: str | Html) -> str:
    """A finding or cell as text."""
    return unescape(re.sub(r"<[^>]+>", "", child.text)) if isinstance(child, Html) else child


@pytest.fixture(scope="module")
def result():
    return samples.causal_trace()


@pytest.fixture(scope="module")
def section(result):
    return build(result, "p0")


def blocks_of(section, kind: type) -> list:
    return [block for block in section.blocks if isinstance(block, kind)]


def test_maps_are_the_effects_of_the_result(section, result) -> None:
    probability, lines, logits = blocks_of(section, Picture)
    assert (
        list(probability.versions) == list(lines.versions) == list(logits.versions) == ["Stream", "MLPs", "Attention"]
    )
    for picture, measure in ((probability, "probability"), (logits, "logit_difference")):
        for version, kind in zip(picture.versions.values(), result.kinds, strict=True):
            effect = result.indirect_effect(kind, measure).value.numpy()
            np.testing.assert_array_equal(np.array(version.figure.data[0].z, dtype=float), effect.T)
            assert (version.x.of, version.y.of) == ("layer", "token")


def test_lines_follow_the_token_from_the_clearest_of_the_subject(section, result) -> None:
    picture = blocks_of(section, Picture)[1]
    layer, position = picture.start
    effects = result.indirect_effect("resid").value
    assert position in result.subject_positions
    assert effects[layer, position] == effects[:, list(result.subject_positions)].max()
    for version, kind in zip(picture.versions.values(), result.kinds, strict=True):
        restored = result.restored(kind)
        np.testing.assert_array_equal(version.follow[0]["y"], restored.value.numpy())
        np.testing.assert_array_equal(np.array(version.figure.data[0].y), restored.value.numpy()[:, position])
        by_name = {trace.name: trace for trace in version.figure.data}
        assert by_name["clean"].y[0] == result.clean_probability
        assert by_name["corrupted"].y[0] == result.corrupted().value


def test_the_linked_table_has_both_measures_of_each_kind(section, result) -> None:
    (linked,) = blocks_of(section, LinkedTable)
    assert [line.cells[:2] for line in linked.lines][:2] == [("Stream", "probability"), ("Stream", "logit difference")]
    effect = result.indirect_effect("attn", "logit_difference")
    for cell, values in zip(linked.lines[5].cells[3:6], (effect.value, effect.lower, effect.upper), strict=True):
        np.testing.assert_allclose(cell, values.numpy(), rtol=1e-6)
    assert linked.lines[0].cells[-1] == "6"


def test_tables_tell_the_runs_and_the_best_layer_of_each_token(section, result) -> None:
    runs, sites = blocks_of(section, Table)
    assert [row[0] for row in runs.rows] == ["clean", "corrupted", "lost (total effect)"]
    assert runs.rows[0][1] == "0.63"
    total = result.total_effect()
    assert runs.rows[2][1:3] == [f"{total.value:.2f}", f"{total.lower:.2f} to {total.upper:.2f}"]
    assert "noise of 3 standard deviations of the embeddings (3 × 0.136)" in words(section.blocks[0])
    streams = [row for row in sites.rows if row[0] == "Stream"]
    assert [words(row[1]) for row in streams[:2]] == ["␣of (8)", "␣Tower (2)"]
    assert [row[2] for row in streams[:2]] == ["11", "0"]
    mlps = next(row for row in sites.rows if row[0] == "MLPs")
    assert (words(mlps[1]), mlps[2]) == ("␣Tower (2)", "0 to 4")


def test_findings_are_sentences_with_the_numbers_of_the_result(section, result) -> None:
    said = [words(finding.text) for finding in section.findings]
    corrupted, total = result.corrupted(), result.total_effect().value
    assert said[0] == (
        f"With noise on ␣Eiffel ␣Tower the model loses the answer ␣Paris: its probability is 0.63 without it and {corrupted.value:.2f} "
        f"(95% interval {corrupted.lower:.2f} to {corrupted.upper:.2f}) with it."
    )
    early = result.indirect_effect("resid").at(0, 2)
    assert said[1] == (
        f"Restoring the stream at ␣Tower (2) after layer 0 brings back {early.value:.2f} of the {total:.2f} lost "
        f"(95% interval {early.lower:.2f} to {early.upper:.2f}). "
        f"It was chosen as the greatest of {2 * result.n_layers} states of the subject's tokens."
    )
    assert said[2].startswith(
        "At the last token ␣of (8) the stream brings back at least half from layer 8 on: after it 0."
    )
    assert said[3].startswith("Restoring the MLPs of layers 0 to 4 at ␣Tower (2) brings back 0.3")
    assert said[4].startswith("Restoring attention of layers ")
    assert len(said) == 5


@pytest.mark.parametrize("total", [0.0, -0.2])
def test_nothing_lost_names_no_state(total: float) -> None:
    result = samples.causal_trace(total=total, clean_probability=max(0.0, 0.03 + total))
    assert not lowered(result)
    section = build(result, "p0")
    (finding,) = section.findings
    assert "is not measurably less likely" in words(finding.text)
    assert words(finding.text).endswith("so no state is named.")
    assert any(isinstance(block, Html) and "nothing to bring back" in block.text for block in section.blocks)
    assert len(blocks_of(section, Table)) == 1
    assert len(blocks_of(section, Picture)) == 3  # what was measured is still there to look at
    assert "brings back" not in report([result]).html().split('id="causal-trace"')[0]


def test_an_effect_that_may_be_none_is_not_called_one(result) -> None:
    quiet = result.restored_probability.clone()
    draws = torch.randn(quiet[1].shape, generator=torch.Generator().manual_seed(7))
    draws -= draws.mean(-1, keepdim=True)
    quiet[1] = result.corrupted_probability + 1e-3 * draws
    section = build(samples.causal_trace(restored_probability=quiet), "p0")
    (claim,) = [words(finding.text) for finding in section.findings if "MLPs" in words(finding.text)]
    assert "but not measurably more than nothing" in claim


def test_one_sample_has_no_interval_and_says_so() -> None:
    result = samples.causal_trace(draws=1, corruption="tokens", replacements=(" Colosseum in",), noise=float("nan"))
    section = build(result, "p0")
    said = [words(finding.text) for finding in section.findings]
    assert all("(one sample, so no interval)" in sentence for sentence in said)
    assert said[0].startswith("With other text in place of ␣Eiffel ␣Tower the model loses the answer")
    assert words(section.blocks[0]).endswith("the subject ␣Eiffel ␣Tower replaced by ␣Colosseum in.")
    assert "nan" not in " ".join(said)
    report([result]).html()


def test_severed_kinds_are_maps_of_their_own_and_lines_beside_the_stream() -> None:
    result = samples.causal_trace(kinds=SEVERED)
    section = build(result, "p0")
    maps, lines, _ = blocks_of(section, Picture)
    assert list(maps.versions)[3:] == ["Stream, MLPs severed", "Stream, attention severed"]
    assert list(lines.versions) == ["Stream", "MLPs", "Attention"]
    names = [trace.name for trace in lines.versions["Stream"].figure.data[:3]]
    assert names == ["stream", "stream, MLPs severed", "stream, attention severed"]
    assert "[[severed]]" in section.lead
    (said,) = [words(block) for block in section.blocks if isinstance(block, Html) and "severed" in block.text]
    for kind, cut in (("resid-mlp-severed", "MLPs"), ("resid-attn-severed", "attention")):
        effect = result.indirect_effect(kind).at(0, 2)
        assert f"with its later {cut} severed {effect.value:.2f} (95% interval {effect.lower:.2f}" in said
    assert 'id="term-severed"' in report([result]).html()


def test_some_kinds_alone(result) -> None:
    for kinds in (("mlp",), ("resid-attn-severed",)):
        section = build(samples.causal_trace(kinds=kinds), "p0")
        assert [len(picture.versions) for picture in blocks_of(section, Picture)] == [1, 1, 1]
        assert section.findings


@pytest.mark.long
def test_hostile_text_is_inert_and_shown() -> None:
    pieces = tuple(f" {text}" for text in HOSTILE)
    answer = Answer(text="".join(HOSTILE[:3]), ids=(1, 2, 3), pieces=HOSTILE[:3])
    against = Answer(text=HOSTILE[1], ids=(2,), pieces=HOSTILE[1:2])
    result = samples.causal_trace(
        pieces, subject=(0, 1, 2), corruption="tokens", replacements=HOSTILE[:6], against=against
    )
    page = report([type(result)(**{**vars(result), "answer": answer})]).html()
    markup = [piece for piece in HOSTILE if piece.startswith("<") and len(piece) > 8]
    assert len(markup) > 5
    assert [piece for piece in markup if piece in page] == []
    text = unescape(re.sub(r"<[^>]+>", "", page))
    assert all(visible(piece) in text for piece in HOSTILE[:6])


@pytest.mark.long
def test_the_page_is_small_the_same_each_time_and_from_the_file(result, tmp_path: Path) -> None:
    result = samples.causal_trace((*samples.PIECES, " the"), layers=30, draws=10, kinds=SEVERED)
    page = report([result]).html()
    assert page == report([result]).html()
    assert len(page.encode()) < LIMIT
    result.save(tmp_path / "trace.safetensors")
    assert report([load_result(tmp_path / "trace.safetensors")]).html() == page


def test_sites_are_the_best_layers_and_the_late_one_lasts_to_the_end(result) -> None:
    effects = result.indirect_effect("resid").value
    sites = best_layers(result, "resid")
    assert [site.position for site in sites[:2]] == [8, 2]
    assert all(site.effect.value == effects[:, site.position].max() for site in sites)
    assert {site.position for site in sites} == set(range(1, 9))
    first = half_back_from(result, "resid", 8)
    half = result.total_effect().value / 2
    assert first is not None
    assert (effects[first:, 8] >= half).all()
    assert effects[first - 1, 8] < half
    assert half_back_from(result, "mlp", 8) is None


@pytest.mark.skipif(EXECUTABLE is None, reason="there is no chromium on this machine")
@pytest.mark.long
def test_in_a_browser_the_peak_comes_first_and_the_table_reads_from_the_top(tmp_path: Path, result) -> None:
    path = tmp_path / "trace.html"
    report([result]).save(path)
    with Page() as page:
        page.open(path)
        page.until("typeof Plotly === 'object'")
        page.run("dispatchEvent(new Event('beforeprint'))")
        page.until("document.querySelectorAll('[data-drawn]').length === 3")
        assert page.run("document.querySelector('#select-token').value") == "p0:2"
        assert page.run("document.querySelector('#select-layer').value") == "0"
        where = page.run("document.querySelector('#causal-trace .where').textContent")
        assert where == "Layer 0, ␣Tower (position 2)"
        page.run("document.querySelector('#causal-trace details').open = true")
        page.until("!!document.querySelector('#causal-trace details table')")
        heads = page.run(
            "[...document.querySelectorAll('#causal-trace details thead th')].map(cell => cell.textContent)"
        )
        rows = page.run(
            "[...document.querySelectorAll('#causal-trace details tbody th')].map(cell => cell.textContent)"
        )
        assert heads == ["token", *map(str, range(12))]
        assert rows == [f"{position} {visible(piece)}" for position, piece in enumerate(samples.PIECES)]
        first = "document.querySelectorAll('#causal-trace .js-plotly-plot')[1].data[0].y[0]"
        before = page.run(first)
        page.run("document.querySelector('#select-token').value = 'p0:8'")
        page.run("document.querySelector('#select-token').dispatchEvent(new Event('change'))")
        page.until(f"{first} !== {before}")
        assert page.run(first) == pytest.approx(float(result.restored("resid").value[0, 8]), abs=1e-4)
        assert page.problems == []
        report([samples.lens(layers=12), result]).save(path)
        page.open(path)
        page.until("typeof Plotly === 'object'")
        assert page.run("document.querySelector('#select-token').value") == "p0:8"  # the lens is read at the last token
        assert page.run("document.querySelector('#select-layer').value") == "11"

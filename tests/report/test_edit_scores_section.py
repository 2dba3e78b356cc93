"""The sections of an evaluation and of many edits hold the result's numbers, and say nothing that was not measured."""

import dataclasses
import re

import numpy as np
import pytest
import torch

from interp.prompts import Fact
from interp.report import report
from interp.report.blocks import Picture, Section, Table
from interp.report.markup import Html
from interp.report.sections import BUILDERS
from interp.results import load_result
from report import edit_samples
from report.chromium import EXECUTABLE, Page
from report.samples import HOSTILE

PLAIN = re.compile(r"<[^>]+>")


def words(cell) -> str:
    return PLAIN.sub("", cell.text) if isinstance(cell, Html) else cell


def section_of(result) -> Section:
    (build,) = BUILDERS[result.kind]
    return build(result, "")


def blocks_of(section: Section, kind):
    return [block for block in section.blocks if isinstance(block, kind)]


def test_scores_before_and_after_with_their_intervals() -> None:
    result = edit_samples.scores()
    section = section_of(result)
    scores, effects, cases = blocks_of(section, Table)
    rows = {row[0]: row for row in scores.rows}
    for name in ("efficacy_score", "paraphrase_argmax", "neighbours_kept", "perplexity"):
        shown = rows[name.replace("_", " ")]
        after = result.estimate(name)
        assert float(shown[2].replace(",", "")) == pytest.approx(after.value, rel=5e-3, abs=1e-9), name
        assert shown[5] == str(after.n)
    assert rows["efficacy score"][1:3] == ["0", "100"]
    assert rows["S"][2] == "100"
    assert rows["neighbours kept"][1:3] == ["", "50"]
    assert rows["drift, layer 5"][2:] == ["0.061", "", "|dW| / |W|", "1", rows["drift, layer 5"][6]]
    assert (
        rows["perplexity"][3]
        == f"{result.estimate('perplexity').lower:.3g} to {result.estimate('perplexity').upper:.3g}"
    )
    assert "generation entropy" not in rows, "nothing was generated"
    assert "Side effects: 3 of 6 prompts" in effects.caption
    assert [words(cell) for cell in effects.rows[0][:1] + effects.rows[0][2:4]] == [
        "neighbour",
        f"␣Paris {float(effects_row(result)['old_probability']):.2f}",
        f"␣Venice {float(effects_row(result)['new_probability']):.2f}",
    ]
    assert [words(cell) for cell in cases.rows[0]] == ["Tower 0 is in", "Tower 0", "␣Paris", "␣Rome"]
    assert [words(finding.text) for finding in section.findings] == [
        "Of 3 cases, before → after the edit: S 0 → 100, ES 0 → 100, PS 0 → 100, NS 100 → 100 (per cent).",
        "3 of 6 prompts that should stay changed their first choice.",
    ]


def effects_row(result):
    return result.side_effects().to_dict("records")[0]


def test_the_bars_are_the_scores_in_per_cent() -> None:
    result = edit_samples.scores()
    (picture,) = blocks_of(section_of(result), Picture)
    before, after = picture.versions["Scores"].figure.data
    labels = list(picture.versions["Scores"].figure.layout.yaxis.ticktext)
    place = labels.index("efficacy magnitude")
    assert before.x[place] == pytest.approx(result.estimate("efficacy_magnitude", "before").value)
    assert after.x[place] == pytest.approx(result.estimate("efficacy_magnitude").value)
    assert np.isnan(before.x[labels.index("neighbours kept")])
    assert "neighbour kl" not in labels, "that is in nats"


def test_a_model_that_was_not_edited_has_no_after() -> None:
    section = section_of(edit_samples.scores(edited=False))
    scores, cases = blocks_of(section, Table)
    assert all(row[2] == "" for row in scores.rows)
    assert "not edited" in section.lead
    (finding,) = section.findings
    assert finding.text == "Of 3 cases, not edited: S 0, ES 0, PS 0, NS 100 (per cent)."
    assert len(cases.rows) == 3


def test_many_edits_what_holds_perplexity_and_drift() -> None:
    result = edit_samples.sequence()
    section = section_of(result)
    (picture,) = blocks_of(section, Picture)
    assert list(picture.versions) == ["What holds", "Perplexity", "Drift"]
    holds, perplexity, drift = (version.figure for version in picture.versions.values())
    np.testing.assert_allclose(np.array(holds.data[0].y)[1:], [100, 90])
    assert np.isnan(holds.data[0].y[0])
    np.testing.assert_allclose(perplexity.data[0].y, result.perplexity)
    np.testing.assert_allclose(drift.data[0].y, [0.0, float(result.drift[4, 0]), float(result.drift[9, 0])], rtol=1e-6)
    assert list(holds.layout.xaxis.ticktext) == ["0", "5", "10"]
    checks, facts = blocks_of(section, Table)
    assert [row[0] for row in checks.rows] == ["0", "5", "10"]
    assert checks.rows[2][1] == "90"
    assert [row[4] for row in checks.rows] == ["0%", f"{float(result.drift[4, 0]):.2%}", "30.00%"]
    assert "all facts were edited" in checks.caption
    assert [row[3] for row in facts.rows[:2]] == ["lost", "holds"]
    (finding,) = section.findings
    held = result.holding()
    assert finding.text == (
        f"After 10 edited facts 90% of them hold (95% interval {held.lower:.0%} to {held.upper:.0%}); "
        "the perplexity of held-out text is 1.05 times that before."
    )


def test_what_was_not_measured_is_not_there_and_warnings_are() -> None:
    result = edit_samples.sequence(perplexity=None, warnings=("|dW| / |W| passed 0.2 at edit 7",), stop_reason="drift")
    section = section_of(result)
    (picture,) = blocks_of(section, Picture)
    assert list(picture.versions) == ["What holds", "Drift"]
    assert "perplexity of" not in section.findings[0].text
    assert "passed 0.2 at edit 7" in words(section.blocks[0])
    assert "the drift passed its limit" in blocks_of(section, Table)[0].caption


@pytest.mark.long
def test_the_pages_are_rebuilt_from_the_saved_results(tmp_path) -> None:
    for result in (edit_samples.scores(), edit_samples.sequence()):
        path = tmp_path / f"{result.kind}.safetensors"
        result.save(path)
        first = report([result]).html()
        assert report([load_result(path)]).html() == first
        assert "[[" not in first.split("</script>")[-1]


def test_hostile_text_is_inert() -> None:
    fact = Fact(HOSTILE[0], "{} is", HOSTILE[1])
    scores = edit_samples.scores()
    cases = tuple(dataclasses.replace(case, fact=fact, true=HOSTILE[2]) for case in scores.cases)
    vocabulary = dict.fromkeys(scores.vocabulary, HOSTILE[4])
    sequence = edit_samples.sequence(warnings=(HOSTILE[0],), facts=(fact,) * 10, method=HOSTILE[1])
    for result in (dataclasses.replace(scores, cases=cases, vocabulary=vocabulary, method=HOSTILE[1]), sequence):
        text = report([result]).html()
        for hostile in (HOSTILE[0], HOSTILE[1], HOSTILE[4]):
            assert hostile not in text


@pytest.mark.skipif(EXECUTABLE is None, reason="there is no chromium on this machine")
@pytest.mark.long
def test_in_a_browser(browser: Page, tmp_path) -> None:
    path = tmp_path / "page.html"
    report([edit_samples.scores(), edit_samples.sequence()]).save(path)
    for width, dark in ((1280, False), (390, True)):
        browser.resize(width, 900)
        browser.dark(dark)
        browser.open_report(path)
        browser.draw_all()
        assert browser.outside() == []
        assert browser.problems == []
        assert browser.run("document.documentElement.scrollWidth") <= width
    browser.run("document.querySelectorAll('details').forEach(node => { node.open = true; })")
    browser.until("[...document.querySelectorAll('section details .scroll')].every(node => node.querySelector('td'))")
    steps = browser.run(
        "[...document.querySelectorAll('#edit-sequence details tbody tr')].map(row => row.cells[0].textContent)"
    )
    assert steps == ["0", "5", "10"]
    assert torch.isfinite(edit_samples.sequence().drift).all()

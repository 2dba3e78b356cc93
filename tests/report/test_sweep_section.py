"""The section of a sweep holds the result's numbers, says what failed, and shows every text literally."""

import dataclasses
import re

import pytest
import torch

from interp.maths.estimates import Estimates
from interp.report import report
from interp.report.blocks import Picture, Table
from interp.report.markup import Html
from interp.report.sections import BUILDERS
from interp.results import load_result
from interp.scale.sweep_analyzers import ANALYZERS
from interp.scale.sweep_result import FailedTask, SweepResult, SweepSummary
from report.chromium import DRAWN, EXECUTABLE, Page
from report.samples import HOSTILE, provenance

PLAIN = re.compile(r"<[^>]+>")


def sample(name="causal_trace", *, hostile="", failures=0) -> SweepResult:
    """A result of a sweep over a grid of two settings, whose means are 0.0, 0.1, ... in the order of the cells."""
    analyzer = ANALYZERS[name]
    groups = {
        "causal_trace": [("resid", layer, f"place {place}{hostile}") for layer in range(3) for place in "ab"],
        "logit_lens": [("resid_post", layer) for layer in range(3)],
        "edit": [("efficacy_success", when) for when in ("before", "after")],
    }[name]
    cells = tuple((f"tiny{hostile}", noise, *group) for noise in (1.0, 3.0) for group in groups)
    value = torch.arange(len(cells) * len(analyzer.measures)).double().reshape(len(cells), -1) / 10
    means = Estimates(value=value, lower=value - 1, upper=value + 1, n=torch.full_like(value, 5).long())
    failed = tuple(
        FailedTask(task=n, item=n, where=f"tiny{hostile}, 1.0", what=f"prompt {n}{hostile}", reason=f"bad{hostile}")
        for n in range(failures)
    )
    summary = SweepSummary(
        keys=("model", "noise"),
        group=analyzer.group,
        cells=cells,
        measures=tuple(analyzer.measures),
        means=means,
        n_rows=1234,
        n_failed=failures,
        failures=failed,
    )
    return SweepResult(
        provenance=provenance(),
        analyzer=name,
        folder="out",
        sources={f"tiny{hostile}": provenance()},
        settings={"samples": "2"},
        grid={"noise": ("1.0", "3.0")},
        n_items=5,
        n_tasks=10 + failures,
        summary=summary,
        words=dict(analyzer.measures),
        axis=analyzer.axis,
        across=analyzer.across,
        confidence=0.95,
    )


def words(cell) -> str:
    return PLAIN.sub("", cell.text) if isinstance(cell, Html) else cell


def section_of(result):
    (build,) = BUILDERS[result.kind]
    return build(result, "")


def blocks_of(section, kind):
    return [block for block in section.blocks if isinstance(block, kind)]


def test_maps_lines_and_the_greatest_means_are_the_results() -> None:
    section = section_of(sample())
    pictures, (peaks, about) = blocks_of(section, Picture), blocks_of(section, Table)
    assert [list(picture.versions) for picture in pictures] == [["noise 1.0", "noise 3.0"]] * 2
    z = pictures[0].versions["noise 3.0"].figure.data[0].z
    assert z.tolist() == [
        [1.2, 1.6, 2.0],
        [1.4, 1.8, 2.2],
    ]  # places by layers; the first measure is every second number
    assert [[words(cell) for cell in row] for row in peaks.rows] == [
        ["noise 1.0", "2, place b", "1", "0 to 2", "5"],
        ["noise 3.0", "2, place b", "2.2", "1.2 to 3.2", "5"],
    ]
    assert ["samples", "2"] in [[words(cell) for cell in row] for row in about.rows]
    assert "5 items, 2 choices of noise, 10 tasks in all" in section.lead
    assert "indirect effect on the probability is greatest at layer 2, place place b (noise 3.0): 2.2" in words(
        section.findings[1].text
    )


@pytest.mark.parametrize(("name", "lines"), [("logit_lens", ["noise 1.0", "noise 3.0"]), ("edit", 4)])
def test_without_a_second_axis_there_are_lines(name, lines) -> None:
    figure = sample(name).figure()
    shown = [trace.name for trace in figure.data if trace.name]
    assert shown == lines or len(shown) == lines


def test_failures_are_told_first_and_listed_by_reason() -> None:
    section = section_of(sample(failures=3))
    assert "3 of 13 tasks failed" in section.blocks[0].text
    reasons, failed = blocks_of(section, Table)[2:]
    assert [[words(cell) for cell in row] for row in reasons.rows] == [["3", "bad"]]
    assert [words(row[1]) for row in failed.rows] == ["prompt 0", "prompt 1", "prompt 2"]


def test_where_all_failed_there_is_no_picture_and_no_finding_of_one() -> None:
    whole = sample(failures=2)
    empty = Estimates(
        **{name: torch.zeros(0, 2).double() for name in ("value", "lower", "upper")}, n=torch.zeros(0, 2).long()
    )
    result = dataclasses.replace(whole, summary=dataclasses.replace(whole.summary, cells=(), means=empty))
    section = section_of(result)
    assert not blocks_of(section, Picture)
    assert len(section.findings) == 1
    assert report([result]).html()


def test_the_same_result_gives_the_same_page_also_from_its_file(tmp_path) -> None:
    result = sample(failures=2)
    result.save(tmp_path / "sweep.safetensors")
    page = report([result]).html()
    assert page == report([load_result(tmp_path / "sweep.safetensors")]).html()
    assert len(page.encode()) < 1_000_000


@pytest.mark.skipif(EXECUTABLE is None, reason="no chromium here")
@pytest.mark.long
def test_hostile_names_are_shown_literally_and_the_pictures_are_drawn(tmp_path) -> None:
    report([sample(hostile="".join(HOSTILE[:12]), failures=1)]).save(tmp_path / "page.html")
    with Page() as page:
        page.open_report(tmp_path / "page.html")
        page.draw_all()
        assert page.run(DRAWN) == 2
        assert page.run("window.harm === undefined")
        assert page.problems == []
        assert page.outside() == []

"""The findings that open a page: which, in which order, with their numbers, and linked to their pictures."""

import math
import re

import pytest

from interp.report import report
from interp.report.blocks import Evidence, Finding, Section
from interp.report.findings import OF_ONE_SECTION, SHOWN, most_notable, plain
from interp.report.markup import join, token
from interp.report.sections import BUILDERS
from interp.runner.model import Model
from report import decoding_samples, samples
from report.edit_samples import effect
from report.patching_samples import patching
from report.test_sweep_section import sample as sweep
from report.test_walkthrough import IDS, walkthrough
from tiny_models import build


def section(name: str, *findings: Finding) -> Section:
    return Section(name=name, title=name, label=name.upper(), lead="", place=1, blocks=(), findings=findings)


def test_evidence_comes_before_strength_and_strength_before_place() -> None:
    weak, strong = (Finding(text=f"read {s}", rank=Evidence.READ, strength=s) for s in (0.2, 0.9))
    first = section("a", weak, Finding(text="habit", rank=Evidence.HABIT, strength=1.0))
    second = section("b", strong, Finding(text="caused", rank=Evidence.CAUSED, strength=0.1))
    third = section("c", Finding(text="read 0.2 too", rank=Evidence.READ, strength=0.2))
    found = most_notable([first, second, third])
    assert [one.sentence for one in found] == ["caused", "read 0.9", "read 0.2", "read 0.2 too", "habit"]
    assert [one.label for one in found] == ["B", "B", "A", "C", "A"]


def test_one_section_does_not_crowd_out_the_others() -> None:
    many = section("a", *(Finding(text=str(i), rank=Evidence.ANSWER, strength=1 - i / 10) for i in range(9)))
    found = most_notable([many, section("b", Finding(text="b", rank=Evidence.CHECK))])
    assert [one.sentence for one in found] == ["0", "1", "2", "b"]
    assert OF_ONE_SECTION == 3
    sections = [section(str(i), Finding(text=str(i), rank=Evidence.READ)) for i in range(20)]
    assert len(most_notable(sections)) == SHOWN


def test_a_sentence_is_plain_text_with_its_tokens_visible() -> None:
    assert plain(join(["After ", token(" <s>&amp;"), " more"])) == "After ␣<s>&amp; more"


RESULTS = [
    *samples.all_results(),
    samples.attention(),
    samples.causal_trace(),
    effect(),
    patching(),
    samples.generation(),
    decoding_samples.decoding_choices(),
    decoding_samples.token_losses(),
    sweep(),
    *walkthrough(Model(build("mixtral")), IDS),
]


@pytest.fixture(scope="module")
def page():
    return report(RESULTS)


@pytest.mark.long
def test_the_page_opens_with_the_findings_of_the_report(page) -> None:
    assert len(page.findings) == SHOWN
    (shown,) = re.findall(r'<ul class="findings">(.*?)</ul>', page.html(), re.DOTALL)
    items = re.findall(r'<li><span>(.*?)</span><a href="#(.*?)">(.*?)</a>', shown, re.DOTALL)
    assert [(anchor, label) for _, anchor, label in items] == [(one.anchor, one.label) for one in page.findings]
    for (text, _, _), one in zip(items, page.findings, strict=True):
        assert one.sentence == plain(join([type(join([]))(text)]))


@pytest.mark.long
def test_each_links_to_a_picture_of_its_section(page) -> None:
    for one in page.findings:
        match = re.search(rf'<span id="{re.escape(one.anchor)}" class="anchor"></span><figure', page.html())
        assert match, one.anchor
        assert page.html().rindex("<section", 0, match.start()) < match.start()


@pytest.mark.parametrize("result", RESULTS, ids=lambda result: result.kind)
def test_every_finding_has_its_number_and_a_strength(result) -> None:
    sections = [made for make in BUILDERS[result.kind] if (made := make(result, "p0")) is not None]
    assert all(isinstance(one.rank, Evidence) for section in sections for one in section.findings)
    for one in report([result]).findings:
        assert 0 <= one.strength <= 1
        assert one.value is None or math.isfinite(one.value)
        assert one.value is not None or "SHA-256" in one.sentence or "paraphrase" in one.sentence
        if one.interval is not None:
            assert one.interval[0] <= one.value <= one.interval[1]


@pytest.mark.long
def test_the_numbers_are_those_of_the_result() -> None:
    trace = samples.causal_trace()
    lost, *claims = report([trace]).findings
    total = trace.total_effect()
    assert (lost.value, lost.interval, lost.null) == (total.value, (total.lower, total.upper), 0.0)
    _, _, effect = trace.peak("attn")
    assert claims[0].value == pytest.approx(effect.value)
    assert claims[0].strength == pytest.approx(min(1.0, effect.value / total.value))
    (answer, *_) = report([samples.story()]).findings
    assert answer.value == pytest.approx(float(samples.story().final_probs[0]))
    record = lost.record()
    assert record["anchor"].startswith("causal-trace.")
    assert set(record) == {"sentence", "value", "unit", "interval", "null", "strength", "anchor", "label"}


def test_where_the_last_token_brings_all_back_is_no_news() -> None:
    """The early site at the subject, which need not be there, comes before the late one, which always is."""
    lost, early = report([samples.causal_trace(kinds=("resid",))]).findings[:2]
    assert "loses the answer" in lost.sentence
    assert "Restoring the stream at ␣Tower" in early.sentence


def test_nothing_is_named_where_nothing_was_lost() -> None:
    (only,) = report([samples.causal_trace(total=0.0)]).findings
    assert only.strength == 0
    assert "no state is named" in only.sentence

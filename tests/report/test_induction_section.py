"""The section of induction heads: maps, tables and findings are those of the result."""

import dataclasses

import numpy as np
import pytest

import hand_made
from interp.analyzers.induction_heads import induction_heads
from interp.analyzers.induction_result import InductionResult
from interp.report import report
from interp.report.blocks import LinkedTable, Picture, Table
from interp.report.sections.induction import build
from interp.runner.model import Model

SMALL = {"periods": (6,), "seeds": 3, "draws": 1, "first_token": hand_made.BOS}


def fixed(result: InductionResult) -> InductionResult:
    same = dataclasses.replace(result.provenance, created="2026-01-02T03:04:05+00:00")
    return dataclasses.replace(result, provenance=same)


@pytest.fixture(scope="module")
def result() -> InductionResult:
    return fixed(induction_heads(Model(hand_made.build()), **SMALL))


@pytest.mark.long
def test_maps_and_tables_are_the_results(result):
    section = build(result, "p0")
    assert section is not None
    picture, selected = section.blocks[:2]
    assert isinstance(picture, Picture)
    assert set(picture.versions) == {"Stripe score", "Prefix matching", "First token"}
    version = picture.versions["Stripe score"]
    np.testing.assert_array_equal(np.array(version.figure.data[0].z, dtype=float), result.stripe.value.numpy())
    assert (version.x.of, version.y.of) == ("head", "layer")
    assert isinstance(selected, LinkedTable)
    assert selected.by == "head"
    tables = [block for block in section.blocks if isinstance(block, Table)]
    assert [str(table.rows[0][0]) for table in tables] == ["L1H0"] * 3
    assert tables[0].rows[0][1] == "called"
    assert tables[0].rows[0][2] == "1.00 ± 0.00"
    assert "without it the loss on repeats rises by" in tables[-1].rows[0][1]


@pytest.mark.long
def test_the_finding_has_its_number_and_its_null(result):
    (finding,) = build(result, "p0").findings
    assert finding.text.startswith(
        "1 induction head (L1H0): without it the loss on repeated tokens, 0.01 nats, changes by +3.46"
    )
    assert "without as many random heads of the same layers by" in finding.text


def test_a_scan_and_nothing_found_are_said():
    scanned = induction_heads(Model(hand_made.build()), **SMALL, scan_only=True)
    section = build(scanned, "p0")
    assert "not tested by ablation" in section.findings[0].text
    assert any("Not measured" in block for block in section.blocks if isinstance(block, str))
    nothing = induction_heads(Model(hand_made.build("cut")), **SMALL)
    section = build(nothing, "p0")
    assert "No head attends like an induction head on these texts." in section.blocks
    assert section.findings[0].text.startswith("No induction head")


def test_the_page_is_the_same_each_time(result):
    first, again = (report([result]).html() for _ in range(2))
    assert first == again
    assert "Induction heads" in first
    assert "[[" not in first.split("</script>")[-1]

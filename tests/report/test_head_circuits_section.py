"""The sections of circuits and composition: what they list is what the results hold, and text of tokens is inert."""

from dataclasses import replace
from html import unescape

import pytest

from interp.analyzers.head_circuits import HeadCircuitsResult, head_circuits
from interp.analyzers.head_composition import head_composition
from interp.report import report
from interp.report.blocks import Picture, Table
from interp.report.sections import head_circuits as section
from interp.report.sections import head_composition as pairs_section
from interp.runner.model import Model
from report.samples import HOSTILE
from tiny_models import build


@pytest.fixture(scope="module")
def tiny_model() -> Model:
    return Model(build("llama"))


@pytest.fixture(scope="module")
def result(tiny_model) -> HeadCircuitsResult:
    return head_circuits(tiny_model, "1.2", directions=2, top_k=3)


def test_tables_and_pictures_are_the_results(result) -> None:
    built = section.build(result, "")
    partners, lines = (block for block in built.blocks if isinstance(block, Picture))
    assert next(iter(partners.versions)) == "Read by its keys"
    assert len(partners.versions) == 6
    assert list(lines.versions) == ["Singular values", "Eigenvalues of W_OV", "W_QK by distance"]
    tables = [block for block in built.blocks if isinstance(block, Table)]
    assert len(tables[0].rows) == 3 * (4 + 4)
    assert len(tables[1].rows) == len(tables[2].rows) == 2 * 2
    assert tables[3].rows[0][1] == f"{result.ov.eigenvalue_score:+.3f}"
    text = unescape("".join(getattr(block, "text", "") for block in built.blocks))
    assert all(phrase in text for phrase in result.left_out)


def test_a_first_layers_head_has_only_later_partners(tiny_model) -> None:
    built = section.build(head_circuits(tiny_model, "0.0"), "")
    partners = next(block for block in built.blocks if isinstance(block, Picture))
    assert list(partners.versions) == ["Read by later keys", "Read by later queries", "Read by later values"]
    assert built.findings == ()


def test_tokens_are_inert(result) -> None:
    ids = list(result.vocabulary)
    hostile = replace(result, vocabulary={i: HOSTILE[n % len(HOSTILE)] for n, i in enumerate(ids)})
    page = report([hostile]).html()
    assert "<script>window.harm" not in page
    assert "<img src=x" not in page


def test_a_page_of_pairs_lists_the_strongest_first(tiny_model) -> None:
    result = head_composition(tiny_model, "k", draws=5)
    built = pairs_section.build(result, "")
    table = next(block for block in built.blocks if isinstance(block, Table))
    values = [float(row[2]) for row in table.rows]
    assert values == sorted(values, reverse=True)
    assert values[0] == pytest.approx(float(result.composition.nan_to_num(nan=0.0).max()), abs=6e-4)
    assert "K-composition of heads" in report([result]).html()


def test_the_same_results_give_the_same_page(result, tiny_model) -> None:
    pairs = head_composition(tiny_model, "v", draws=5)
    assert report([result, pairs]).html() == report([result, pairs]).html()

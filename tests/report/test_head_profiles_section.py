"""The section of head profiles: maps, the selected head's table and the named heads are those of the result."""

import dataclasses

import pytest
import torch

from interp.analyzers.head_profiles import HeadProfilesResult, head_profiles
from interp.report import report
from interp.report.blocks import LinkedTable, Picture, Table
from interp.report.sections.head_profiles import build
from tiny_models import build as tiny_model

PROMPTS = [
    [5, 9, 33, 5, 9, 44, 8, 33, 17, 33, 9, 9, 60],
    [7, 9, 9, 9, 40, 7, 41, 9, 40, 8],
    [3, 20, 21, 20, 21, 22, 3, 20],
]


@pytest.fixture(scope="module")
def result() -> HeadProfilesResult:
    from interp.runner.model import Model

    measured = head_profiles(Model(tiny_model("llama")), PROMPTS, local=4, margin=0.0, sink_margin=0.0, rate=0.9)
    fixed = dataclasses.replace(measured.provenance, created="2026-01-02T03:04:05+00:00")
    return dataclasses.replace(measured, provenance=fixed)


def test_maps_and_tables_are_the_results(result):
    section = build(result, "p0")
    assert section is not None
    picture, profile, table = section.blocks
    assert isinstance(picture, Picture)
    assert "Punctuation" not in picture.versions  # a model without a tokenizer has none to measure
    version = picture.versions["Previous token"]
    torch.testing.assert_close(torch.tensor(version.figure.data[0].z), result.value.value[0], check_dtype=False)
    assert version.x is not None
    assert version.x.of == "head"
    assert isinstance(profile, LinkedTable)
    assert profile.by == "head"
    assert len(profile.lines) == len(picture.versions)
    assert isinstance(table, Table)
    assert len(table.rows) == len(result.named_heads())
    assert str(table.rows[0][1]) == str(result.named_heads()[0].head)


def test_nothing_named_is_said(result):
    nothing = dataclasses.replace(result, named=torch.zeros_like(result.named))
    section = build(nothing, "p0")
    assert section is not None
    assert section.blocks[2].rows == []
    assert "none" in section.blocks[2].caption


def test_the_page_is_the_same_each_time(result):
    first, again = (report([result]).html() for _ in range(2))
    assert first == again
    assert "Head profiles" in first

"""The sections of an edit and of what it changed: in their order, with the numbers of the result, and no more than was measured."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from interp.prompts import Fact
from interp.report import report
from interp.report.blocks import Picture, Section, Table
from interp.report.markup import Html
from interp.report.sections import BUILDERS
from interp.results import load_result
from report import edit_samples, samples
from report.chromium import EXECUTABLE, Page
from report.samples import HOSTILE

PLAIN = re.compile(r"<[^>]+>")


def words(cell) -> str:
    return PLAIN.sub("", cell.text) if isinstance(cell, Html) else cell


def sections_of(result) -> dict[str, Section]:
    found = [build(result, "p0") for build in BUILDERS[result.kind]]
    return {section.name: section for section in found if section is not None}


def tables(section: Section) -> list[Table]:
    return [block for block in section.blocks if isinstance(block, Table)]


def pictures(section: Section) -> list[Picture]:
    return [block for block in section.blocks if isinstance(block, Picture)]


@pytest.fixture(scope="module")
def result():
    return edit_samples.effect()


@pytest.fixture(scope="module")
def sections(result):
    return sections_of(result)


def test_the_sections_come_in_order(sections) -> None:
    assert list(sections) == ["edit", "edit-value", "edit-lens", "edit-weights"]
    places = [section.place for section in sections.values()]
    assert places == sorted(set(places))
    assert all(section.lead.endswith((".", "?")) for section in sections.values())


def test_what_was_asked_and_what_it_says_now(result, sections) -> None:
    section = sections["edit"]
    said = words(section.blocks[0])
    assert said.startswith(
        "Asked: “The Eiffel Tower is located in the city of” → ␣Rome, of the subject The Eiffel Tower. "
    )
    assert "the target ␣Rome went from 0.006 to 0.98, that of the old answer ␣Paris from 0.70 to 0.0002." in said
    (bars,) = pictures(section)
    before, after = bars.versions["Answers"].figure.data
    assert [round(x, 4) for x in before.x][:2] == [0.006, 0.7]
    assert [round(x, 4) for x in after.x][:2] == [0.98, 0.0002]
    top = tables(section)[0]
    assert [words(cell) for cell in top.rows[0]] == ["0", "␣Paris 0.70", "␣Rome 0.98"]
    assert len(top.rows) == 5


def test_paraphrases_and_neighbours_say_changed_or_kept(sections) -> None:
    _, paraphrases, neighbours, _ = tables(sections["edit"])
    assert [[words(cell) for cell in row] for row in paraphrases.rows] == [
        ["The Tower stands in", "␣Paris 0.60", "␣Rome 0.80", "0.005 → 0.80", "now the target"],
        ["Where?", "␣the 0.40", "␣the 0.40", "0.005 → 0.30", "kept"],
    ]
    assert [[words(cell) for cell in row] for row in neighbours.rows] == [
        ["The Louvre is in", "␣Paris 0.80", "␣Venice 0.72", "0.001 → 0.01", "changed"],
        ["The Forum is in", "␣Rome 0.60", "␣Rome 0.61", "0.60 → 0.61", "kept"],
    ]


def test_the_continuation_stands_side_by_side(result, sections) -> None:
    table = tables(sections["edit"])[-1]
    assert [words(cell) for cell in table.rows[0]] == ["␣Paris.", "␣Rome, Italy"]
    assert (
        table.caption == "How the model goes on after the prompt, greedily, 2 and 3 tokens; they differ from token 1 on"
    )
    same = dataclasses.replace(result, continuation_after=result.continuation_before)
    assert "they are the same" in tables(sections_of(same)["edit"])[-1].caption
    none = dataclasses.replace(result, continuation_before=None, continuation_after=None)
    assert len(tables(sections_of(none)["edit"])) == 3


def test_findings_are_sentences_with_the_numbers_of_the_result(sections) -> None:
    assert [words(finding.text) for finding in sections["edit"].findings] == [
        "The target ␣Rome is now the first choice in place of ␣Paris: probability 0.006 before the edit, 0.98 after it.",
        "After the edit 1 of 2 paraphrases has the target as first choice, and 1 of 2 neighbours keeps the first choice.",
        "Undoing the edit is bit-exact: the bytes of the matrix had the same SHA-256 before it and after its undo.",
    ]


def test_an_edit_that_failed_is_not_called_one() -> None:
    missed = edit_samples.effect(after=[[0.6, 0.2, 0.02, 0.01, 0.1, 0.001], *edit_samples.AFTER[1:]])
    said = words(sections_of(missed)["edit"].findings[0].text)
    assert said == (
        "The target ␣Rome is not the first choice after the edit, but at rank 1 (0 is the top): "
        "probability 0.006 before the edit, 0.20 after it."
    )
    known = edit_samples.effect(before=[[0.1, 0.5, 0.02, 0.01, 0.1, 0.001], *edit_samples.BEFORE[1:]])
    assert "was the first choice already" in words(sections_of(known)["edit"].findings[0].text)


def test_bit_exact_is_said_only_where_it_was_measured(result) -> None:
    wrong = edit_samples.effect(proofs=(edit_samples.proof(), edit_samples.proof(6, undone="c" * 64)))
    found = sections_of(wrong)
    said = words(found["edit"].findings[-1].text)
    assert said == "Undoing the edit did not give back the same bytes in layer 6: the SHA-256 differs."
    assert "bit-exact" not in report([wrong]).html()
    proofs = tables(found["edit-weights"])[1]
    assert [words(row[1]) for row in proofs.rows][3:] == ["before", "applied: different", "after the undo: different"]
    assert [words(row[2]) for row in proofs.rows][5] == "c" * 64
    idle = edit_samples.effect(proofs=(edit_samples.proof(applied="a" * 64),))
    assert "the edit did not change at all" in words(sections_of(idle)["edit"].findings[-1].text)
    assert "bit-exact" not in report([result.edit]).html(), "an edit alone has no proof"


def test_the_curve_is_that_of_the_optimisation(result, sections) -> None:
    (picture,) = pictures(sections["edit-value"])
    curve = result.edit.curves[0]
    probability, loss, size = (version.figure for version in picture.versions.values())
    np.testing.assert_allclose(probability.data[0].y, curve.probability.numpy())
    np.testing.assert_allclose(probability.data[1].y, curve.bare_probability.numpy())
    assert [trace.name for trace in loss.data] == ["loss", "target", "what stays", "decay"]
    np.testing.assert_allclose(sum(np.array(trace.y) for trace in loss.data[1:]), loss.data[0].y, rtol=1e-5)
    assert [trace.name for trace in size.data] == ["|delta|", "clamp"]
    assert set(size.data[1].y) == {6.0}
    (ends,) = tables(sections["edit-value"])
    row = [words(cell) for cell in ends.rows[0]]
    assert row[:2] == ["␣Rome", "12"]
    assert row[4:] == ["6 (4 |v0|)", "6, reached", "all steps were made"]


def test_noise_and_what_stays_are_said_where_they_are() -> None:
    plain = edit_samples.edit()
    for settings, shown in (
        ({}, (False, False, False)),
        ({"noise": 1.1}, (True, False, False)),
        ({"noise": 1.1, "quiet_steps": 10}, (True, True, False)),
        ({"noise": 0.0, "quiet_steps": 10, "overhearers": 3}, (False, False, True)),
    ):
        section = sections_of(dataclasses.replace(plain, settings=plain.settings | settings))["edit-value"]
        (picture,) = pictures(section)
        said = (words(picture.caption), words(picture.caption), words(section.lead))
        terms = ("the course is ragged", "It ends without noise", "Where other subjects that end alike")
        assert tuple(term in text for term, text in zip(terms, said, strict=True)) == shown


def test_the_map_marks_where_the_edit_writes(result, sections) -> None:
    maps, lines = pictures(sections["edit-lens"])
    assert list(maps.versions) == ["Difference", "Before", "After"]
    difference, before, after = (version.figure for version in maps.versions.values())
    expected = (result.lens_after_nats - result.lens_before_nats).numpy()
    np.testing.assert_allclose(difference.data[0].z, expected, atol=1e-6)
    np.testing.assert_allclose(before.data[0].z, result.lens_before_nats.numpy(), rtol=1e-6)
    np.testing.assert_allclose(after.data[0].z, result.lens_after_nats.numpy(), rtol=1e-6)
    assert before.data[0].zmin == after.data[0].zmin
    for figure in (difference, before, after):
        assert (list(figure.data[1].x), list(figure.data[1].y)) == ([2], [5])
        assert figure.layout.xaxis.ticktext[2] == "␣Tower*"
        assert [text for text in figure.layout.yaxis.ticktext if text.endswith("*")] == ["5*"]
    version = lines.versions["Log-probability"]
    np.testing.assert_array_equal(version.follow[1]["y"], result.lens_after_nats.double().numpy())
    np.testing.assert_allclose(version.figure.data[1].y, result.lens_after_nats[:, -1].numpy())


def test_norms_and_settings(result, sections) -> None:
    norms, proofs, settings = tables(sections["edit-weights"])
    change = result.edit.layers[0]
    row = [words(cell) for cell in norms.rows[0]]
    assert row[:3] == ["5", "model.layers.5.mlp.down_proj", "1"]
    assert row[-1] == f"{float((change.left @ change.right).norm()) / 172:.2%}"
    assert [words(row[1]) for row in proofs.rows] == ["before", "applied: different", "after the undo: equal"]
    said = {words(row[0]): words(row[1]) for row in settings.rows}
    assert said["method"] == "ROME with the averaged key everywhere"
    assert said["second moment"] == "layer 5: 100,000 tokens sampled from the model"
    assert said["averaged"] == "yes"
    assert "ridge" not in said, "AlphaEdit's"
    assert "taken from interp's table" in sections["edit-weights"].lead


def test_an_edit_alone_has_facts_curves_and_norms_but_no_effect() -> None:
    second = Fact("The Louvre", "{} is in", " Oslo")
    edit = edit_samples.edit((edit_samples.FACT, second), layers=(3, 4, 5), method="memit", layer_source="given")
    found = sections_of(edit)
    assert list(found) == ["edit", "edit-value", "edit-weights"]
    (facts,) = tables(found["edit"])
    assert [[words(cell) for cell in row] for row in facts.rows][1] == [
        "The Louvre",
        "{}␣is in".replace("␣", " "),
        "␣Oslo",
    ]
    (finding,) = found["edit"].findings
    assert finding.text.startswith("The edit writes 2 facts into layers 3, 4 and 5: |dW| is ")
    (picture,) = pictures(found["edit-value"])
    assert [trace.name for trace in picture.versions["Probability"].figure.data] == ["1 ␣Rome", "2 ␣Oslo"]
    assert len(tables(found["edit-weights"])) == 2
    assert found["edit-weights"].title == "What is written"
    bare = dataclasses.replace(edit, curves=())
    assert "edit-value" not in sections_of(bare)
    assert "layers 3, 4 and 5" in report([edit]).html()


def test_the_page_is_the_same_each_time_and_links_its_terms(result) -> None:
    first, again = (report([result]).html() for _ in range(2))
    assert first == again
    for term in ("efficacy", "generalisation", "specificity", "essence", "value", "key", "second-moment"):
        assert f'id="term-{term}"' in first, term
    assert "[[" not in first.split("</script>")[-1]


def test_the_page_is_rebuilt_from_the_saved_result_without_a_model(result, tmp_path: Path) -> None:
    path = tmp_path / "effect.safetensors"
    result.save(path)
    assert report([load_result(path)]).html() == report([result]).html()


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_text_is_inert(hostile: str) -> None:
    fact = Fact(hostile, "{} is", hostile)
    pieces = (hostile, " is")
    result = edit_samples.effect(
        pieces,
        (hostile, f" {hostile}", *edit_samples.WORDS[2:]),
        fact=fact,
        subject_position=0,
        paraphrases=(samples.tokens(pieces),) * 2,
        neighbours=(samples.tokens(pieces),) * 2,
        continuation_after=samples.generation(pieces, (hostile, "x")),
        edit=edit_samples.edit((fact,), method=hostile, moments=(hostile,), layer_source=hostile),
    )
    if hostile.isprintable() and "<" in hostile:
        assert (
            hostile not in report([result]).html().split("<section", 1)[1].split('<script type="application/gzip"')[0]
        )
    report([result.edit])


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("edit") / "page.html"
    report([edit_samples.effect()]).save(path)
    return path


@pytest.mark.skipif(EXECUTABLE is None, reason="there is no chromium on this machine")
class TestInABrowser:
    @pytest.mark.long
    def test_pictures_are_drawn_without_request_or_complaint(self, browser: Page, path: Path) -> None:
        for width, dark in ((1280, False), (1280, True), (390, False)):
            browser.resize(width, 900)
            browser.dark(dark)
            browser.open_report(path)
            browser.draw_all()
            assert browser.outside() == []
            assert browser.problems == []
            assert browser.run("document.documentElement.scrollWidth") <= width

    @pytest.mark.long
    def test_the_switches_and_the_tables_behind_pictures(self, page: Page) -> None:
        page.draw_all()
        page.run("document.querySelectorAll('details').forEach(node => { node.open = true; })")
        page.until("[...document.querySelectorAll('section details .scroll')].every(node => node.querySelector('td'))")
        steps = page.run(
            "[...document.querySelectorAll('#edit-value details tbody tr')].map(row => row.cells[0].textContent)"
        )
        assert steps == [str(step) for step in range(12)]
        page.run(
            "[...document.querySelectorAll('#edit-value .switch button')].find(b => b.textContent === 'Size of delta').click()"
        )
        page.until("document.querySelector('#edit-value .plot').data.length === 2")
        page.run(
            "[...document.querySelectorAll('#edit-lens .switch button')].find(b => b.textContent === 'After').click()"
        )
        page.until("document.querySelector('#edit-lens .plot').data[0].zmax === 0")
        z = page.run("document.querySelector('#edit-lens .plot').data[0].z[11][8]")
        assert z == pytest.approx(float(edit_samples.effect().lens_after_nats[11, 8]), rel=6e-3)

    def test_choosing_a_token_moves_the_lines(self, page: Page) -> None:
        page.draw_all()
        page.run("document.querySelector('.pick:nth-child(3)').click()")
        expected = edit_samples.effect().lens_after_nats[6, 2].item()
        last = "[...document.querySelectorAll('#edit-lens .plot')].at(-1)"
        page.until(f"Math.abs({last}.data[1].y[6] - ({expected})) < 0.05")

    @pytest.mark.long
    def test_hostile_text_does_nothing(self, browser: Page, tmp_path: Path) -> None:
        pieces, path = (*HOSTILE, " is"), tmp_path / "hostile.html"
        fact = Fact("".join(HOSTILE), "{} is", HOSTILE[0])
        result = edit_samples.effect(
            pieces,
            HOSTILE[:6],
            fact=fact,
            subject_position=len(HOSTILE) - 1,
            paraphrases=(samples.tokens(HOSTILE),) * 2,
            neighbours=(samples.tokens(HOSTILE),) * 2,
            continuation_after=samples.generation(pieces, HOSTILE),
        )
        assert torch.isfinite(result.lens_after_nats).all()
        report([result]).save(path)
        browser.open_report(path)
        browser.draw_all()
        assert browser.run("typeof window.harm") == "undefined"
        assert browser.outside() == []
        assert browser.problems == []

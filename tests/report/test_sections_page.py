"""Pages of the other sections, loaded once: every version of every picture draws and is a table, and heads named in tables are chosen."""

import pytest
import torch

import hand_made
from interp.analyzers.head_circuits import head_circuits
from interp.analyzers.induction_heads import induction_heads
from interp.report import report
from interp.report.blocks import Place, Table
from interp.report.render import table
from interp.runner.model import Model
from report import edit_samples, patching_samples, samples
from report.chromium import Page
from tiny_models import build

VERSIONS = """(async () => {
  const found = [];
  for (const one of document.querySelectorAll('.picture')) {
    const menu = one.querySelector('.switch select');
    const ways = [...one.querySelectorAll('.switch button')].map((button) => () => button.click());
    if (menu) for (const option of menu.options) ways.push(() => { menu.value = option.value; menu.dispatchEvent(new Event('change')); });
    for (const go of ways.length ? ways : [() => {}]) {
      go();
      await new Promise((done) => setTimeout(done, 50));
      const { columns, rows } = one.querySelector('details .scroll').data();
      const shown = [...one.querySelectorAll('details thead th')].map((cell) => cell.textContent);
      const drawn = one.querySelector('.plot').data;
      found.push({ section: one.closest('section').id, columns, rows, shown, traces: drawn.map(({ type }) => type) });
    }
  }
  return found;
})()"""


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    small = {"periods": (6,), "seeds": 3, "draws": 1, "first_token": hand_made.BOS}
    results = [
        head_circuits(Model(build("llama")), "1.2", directions=2, top_k=3),
        induction_heads(Model(hand_made.build()), **small),
        patching_samples.patching(),
        samples.attribution(layers=3, heads=torch.randn(3, 4, generator=torch.Generator().manual_seed(0))),
        samples.generation(),
        edit_samples.edit(),
        edit_samples.effect(),
        edit_samples.scores(),
        edit_samples.sequence(),
    ]
    path = tmp_path_factory.mktemp("sections") / "page.html"
    report(results).save(path)
    return path


@pytest.fixture(scope="module")
def found(opened: Page) -> list[dict]:
    opened.run("document.querySelectorAll('details').forEach(node => { node.open = true; })")
    opened.until("[...document.querySelectorAll('details .scroll')].every(node => node.querySelector('td'))")
    return opened.run(VERSIONS)


@pytest.mark.long
def test_every_version_draws(opened, found):
    assert opened.problems == []
    assert len(found) > 25
    assert all(one["traces"] for one in found)


@pytest.mark.long
def test_every_version_is_a_table(found):
    for one in found:
        assert len(one["rows"]) >= 2, one
        assert all([*one["columns"], *one["shown"]]), one
        assert all(len(row) == len(one["columns"]) for row in one["rows"]), one


def test_versions_with_other_properties_are_themselves(found):
    names = {one["columns"][1] for one in found if one["section"] == "edit-value"}
    assert {"over the contexts", "loss", "|delta|"} <= names


def test_numbers_of_axes_and_whiskers_are_numbers(found):
    (plane,) = [one for one in found if one["columns"] == ["real part", "imaginary part"]]
    assert all(isinstance(value, float | int) for row in plane["rows"] for value in row)
    (scores,) = [one for one in found if one["section"] == "edit-scores"]
    assert scores["columns"] == [
        "row",
        "before",
        "before, lower",
        "before, upper",
        "after",
        "after, lower",
        "after, upper",
    ]
    assert all(row[2] <= row[1] <= row[3] for row in scores["rows"] if row[1] is not None)


def test_heads_named_in_tables_are_chosen(kept):
    kept.run("[...document.querySelectorAll('.choose')].find(one => one.textContent === 'L0H3').click()")
    assert kept.run("[selection.now.layer, selection.now.head]") == [0, 3]
    assert kept.run("document.querySelector('#induction .where').textContent") == "Head L0H3"


def test_a_row_has_its_place():
    places = [Place(token=2, layer=3), Place(head=1)]
    made = table(Table(columns=("a",), rows=[["x"], ["y"]], places=places, prompt="p1")).text
    assert '<tr data-pos="2" data-layer="3"><td>x<tr data-head="1"><td>y' in made
    assert 'data-of="p1"' in made
    with pytest.raises(ValueError, match="1 places were given for 2 rows"):
        table(Table(columns=("a",), rows=[["x"], ["y"]], places=places[:1]))

"""The sections of patching: sentences, maps and tables are those of the result, and text of prompts is inert."""

import re
from dataclasses import fields, replace
from html import unescape

import numpy as np
import pytest
import torch

from interp.analyzers.attribution_patching_result import AttributionPatchingResult, CheckedCells
from interp.maths.estimates import Estimate
from interp.report import report
from interp.report.blocks import LinkedTable, Picture, Table
from interp.report.sections.activation_patching import build
from interp.report.sections.activation_patching_words import amount, layers_said
from interp.report.sections.attribution_patching import build as build_estimates
from interp.results import load_result
from interp.tokens import visible
from report.patching_samples import CLEAN, CORRUPTED, patching
from report.samples import HOSTILE
from report.test_page import LIMIT, Outline, data_of


def text_of(child) -> str:
    """What is read of a sentence or a cell."""
    return child if isinstance(child, str) else unescape(re.sub("<[^>]+>", "", child.text))


def sentences(section) -> list[str]:
    return [text_of(finding.text) for finding in section.findings]


def picture_of(section) -> Picture:
    return next(block for block in section.blocks if isinstance(block, Picture))


def tables_of(section) -> list[Table]:
    return [block for block in section.blocks if isinstance(block, Table)]


def estimates(**changes) -> AttributionPatchingResult:
    """The sample as estimates, of which four patches were run."""
    whole = patching(by="head", sites=("attn.z",), **changes)
    cells = torch.arange(4)
    checked = CheckedCells(
        site=torch.zeros(4, dtype=torch.int64),
        pair=torch.zeros(4, dtype=torch.int64),
        layer=cells,
        head=cells,
        position=torch.full((4,), -1),
        estimated=torch.tensor([0.1, -0.2, 0.3, 2.0]),
        exact=torch.tensor([0.1, -0.3, 0.4, 1.0]),
        n_cells=72,
    )
    values = {field.name: getattr(whole, field.name) for field in fields(whole)}
    correlation = Estimate(value=1.0, lower=0.8, upper=1.0, n=4)
    return AttributionPatchingResult(**values, steps=1, checked=checked, correlation=correlation)


def test_the_sentences_say_where_the_stream_holds_the_difference_and_what_moves_it() -> None:
    result = patching()
    section = build(result, "p0")
    assert section is not None
    clean, corrupted = float(result.clean_metric[0]), float(result.corrupted_metric[0])
    stream = result.effects("resid_pre")
    first, last = int(stream.value[:, 2].argmax()), int(stream.value[:, 7].argmax())
    best = result.strongest("mlp_out", 1)[0]
    assert (best.layer, best.position) == (1, 2)
    assert sentences(section) == [
        f"The logit difference (logits) of ␣Paris less ␣Rome is {clean:.3f} after the clean prompt and {amount(corrupted)} after the "
        f"corrupted one, “The Colosseum is in the city of”: a difference of {clean - corrupted:+.3f}.",
        "The residual stream restores half or more of the logit difference at ␣Tower → seum (position 2) in layers 0 to 5 (up to "
        f"{float(stream.value[first, 2]):.2f} in layer {first}) and ␣of (position 7) in layers 7 to 11 (up to "
        f"{float(stream.value[last, 7]):.2f} in layer {last}).",
        "Of the MLP output patched one at a time, layer 1 at ␣Tower → seum (position 2) restores most, "
        f"{best.effect.value:.2f} of the logit difference.",
    ]


def test_several_pairs_have_their_intervals_in_sentences_and_tables() -> None:
    result = patching(by="head", sites=("attn.z", "attn.k"), pairs=8, direction="noising")
    section = build(result, "")
    best, total = result.strongest("attn.z", 1)[0], result.total_effect()
    told = sentences(section)
    assert (
        f"Over 8 pairs of prompts the logit difference (logits) is {float(result.clean_metric.mean()):.3f} clean"
        in told[0]
    )
    assert f"a difference of {total.value:+.3f} ({total.lower:.3f} to {total.upper:.3f})." in told[0]
    assert told[1] == (
        f"Of the head outputs patched one at a time, L7H3 takes away most, {best.effect.value:.2f} ({best.effect.lower:.2f} to "
        f"{best.effect.upper:.2f}) of the logit difference."
    )
    assert told[2].startswith(
        "Of the keys patched one at a time, L7 key/value head 1 (of heads 3 to 5) takes away most"
    )
    strongest, prompts = tables_of(section)
    assert strongest.columns == ("site", "head", "position", "effect", "95% interval", "logit difference (logits)")
    row = [text_of(cell) for cell in strongest.rows[0]]
    mean = float(result.patched["attn.z"][:, 7, 3].double().mean())
    assert row[:4] == ["head outputs", "L7H3", "all", f"{best.effect.value:+.3f}"]
    assert row[4:] == [f"{best.effect.lower:.3f} to {best.effect.upper:.3f}", amount(mean)]
    assert len(prompts.rows) == 8


def test_the_maps_are_the_effects() -> None:
    result = patching(pairs=3)
    picture = picture_of(build(result, ""))
    assert list(picture.versions) == ["Residual stream", "MLP output"]
    for site, version in zip(result.sites, picture.versions.values(), strict=True):
        z = np.array(version.figure.data[0].z, dtype=float)
        np.testing.assert_array_equal(z, result.effects(site).value.numpy())
        assert version.y.of == "layer"
        assert version.x is None  # several prompts: no token of the page
        assert list(version.figure.layout.xaxis.ticktext) == list(result.position_labels())
    text = picture.versions["Residual stream"].figure.data[0].hovertext[0][2]
    found, metric = result.effects("resid_pre").at(0, 2), float(result.patched["resid_pre"][:, 0, 2].double().mean())
    assert text == (
        f"<b>L0</b> at ␣Tower → seum (2)<br>effect {found.value:+.3f} ({found.lower:+.3f} to {found.upper:+.3f})<br>"
        f"logit difference (logits) {metric:.4g}"
    )


def test_one_pair_is_the_prompt_of_the_page_and_its_tokens_are_selected() -> None:
    result = patching()
    section = build(result, "p0")
    picture = picture_of(section)
    assert picture.versions["MLP output"].x.of == "token"
    best = result.strongest("resid_pre", 1)[0]
    assert picture.start == (best.layer, best.position)
    assert patching(pairs=2).prompt is None
    linked = next(block for block in section.blocks if isinstance(block, LinkedTable))
    assert (linked.by, linked.columns) == ("token", ("site", "effect", "logit difference (logits)"))
    np.testing.assert_allclose(linked.lines[0].cells[1], result.effects("resid_pre").value.numpy(), rtol=1e-6)
    outline = Outline(report([result]).html())
    assert data_of(outline).prompts["p0"]["labels"] == [visible(piece) for piece in CLEAN]


def test_heads_at_positions_show_the_strongest_and_then_each_position() -> None:
    result = patching(by="head_position", sites=("attn.z",))
    versions = picture_of(build(result, "")).versions
    assert next(iter(versions)) == "Head outputs: strongest position"
    assert "Head outputs at ␣of (7)" in versions
    effects = result.effects("attn.z").value.numpy()
    at_end = np.array(versions["Head outputs at ␣of (7)"].figure.data[0].z, dtype=float)
    np.testing.assert_array_equal(at_end, effects[..., 7])
    first = versions["Head outputs: strongest position"].figure.data[0]
    layer, head = 4, 5
    place = int(np.abs(effects[layer, head]).argmax())
    assert float(first.z[layer][head]) == effects[layer, head, place]
    assert first.hovertext[layer][head].endswith(f"at {result.position_labels()[place]} ({place})")


def test_whole_layers_are_lines() -> None:
    result = patching(by="layer", sites=("attn_out", "mlp_out"), pairs=4)
    (version,) = picture_of(build(result, "")).versions.values()
    assert [line.name for line in version.figure.data] == ["attention output", "MLP output"]
    np.testing.assert_array_equal(np.array(version.figure.data[1].y), result.effects("mlp_out").value.numpy())


def test_no_difference_is_said_and_nothing_is_drawn() -> None:
    same = torch.full((1,), 2.0)
    section = build(patching(clean_metric=same, corrupted_metric=same), "p0")
    (sentence,) = sentences(section)
    assert sentence.endswith("the prompts do not differ in it, so no effect could be measured.")
    assert [type(block) for block in section.blocks] == [Table]


def test_a_stream_without_a_strong_place_names_the_strongest() -> None:
    result = patching(sites=("resid_pre",))
    for pair in result.patched.values():
        pair.copy_(result.corrupted_metric[:, None, None] + 0.01 * torch.arange(12)[:, None])
    told = sentences(build(result, "p0"))[1]
    assert told.startswith("No one state of the residual stream restores half of the logit difference: layer 11 at")


SMALL = {"layers": 2, "sites": ("resid_pre",)}


@pytest.fixture(scope="module")
def plain() -> Outline:
    return Outline(report([patching(("a", " b", " d"), ("x", " y", " c"), **SMALL)], title="t").html())


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_inert_and_shown(text: str, plain: Outline) -> None:
    result = patching((text, " b", text), ("x", f"{text}!", " c"), target=text, against=f" {text}", **SMALL)
    outline = Outline(report([result], title="t").html())
    assert [tag for tag, _ in outline.tags] == [tag for tag, _ in plain.tags]
    assert {name for _, values in outline.tags for name in values} == {
        name for _, values in plain.tags for name in values
    }
    assert outline.scripts["code"] == plain.scripts["code"]
    assert outline.scripts["program"] == plain.scripts["program"]
    assert visible(text) in outline.text
    check_figures(outline)


def check_figures(outline: Outline) -> None:
    """What plotly reads as markup is escaped; labels of the switch enter the page as plain text."""
    for picture in data_of(outline).blocks:
        if picture["type"] == "picture":
            drawn = str([picture["base"], *({**option, "label": ""} for option in picture["options"])])
            assert not re.search(r"<(?!/?(?:b|br|extra)>)", drawn)


@pytest.mark.long
def test_hostile_text_in_a_browser(browser, tmp_path) -> None:
    texts = HOSTILE[:6]
    prompts = tuple(f" {text}" for text in texts), tuple(f" {text}?" for text in texts)
    results = [patching(*prompts, layers=2), patching(*prompts, by="head_position", sites=("attn.z",), layers=2)]
    page = report(results)
    check_figures(Outline(page.html()))
    page.save(tmp_path / "page.html")
    browser.open_report(tmp_path / "page.html")
    browser.draw_all()
    options = browser.run("[...document.querySelectorAll('.switch option')].map(option => option.textContent)")
    assert len(options) == 1 + len(texts)
    assert f"Head outputs at ␣{texts[0]} → ␣{texts[0]}? (0)" in options
    assert browser.run("typeof window.harm") == "undefined"
    assert browser.problems == []


def test_the_page_is_small_and_the_same_each_time_also_from_a_file(tmp_path) -> None:
    ten = patching(
        (*CLEAN, " x", " y"), (*CORRUPTED, " x", " y"), layers=30, sites=("resid_pre", "attn_out", "mlp_out")
    )
    page = report([ten]).html()
    assert len(page.encode()) < LIMIT
    ten.save(tmp_path / "patch.safetensors")
    assert report([load_result(tmp_path / "patch.safetensors")]).html() == page
    outline = Outline(page)
    assert [values["id"] for tag, values in outline.tags if tag == "section"] == [
        "tokens",
        "activation-patching",
        "provenance",
        "glossary",
    ]
    ids = outline.all("id")
    assert [link for link in outline.all("href") if link.startswith("#") and link[1:] not in ids] == []
    assert "[[" not in outline.text


def test_layers_are_said_as_stretches() -> None:
    assert layers_said([5]) == "layer 5"
    assert layers_said([0, 1, 2]) == "layers 0 to 2"
    assert layers_said([0, 1, 4, 7, 8]) == "layers 0 to 1, 4 and 7 to 8"
    assert [amount(-0.00012), amount(0.0), amount(-1.5, 2)] == ["−0.00012", "0.000", "−1.50"]


def test_estimates_are_called_so_and_their_agreement_comes_first() -> None:
    section = build_estimates(estimates(), "p0")
    assert section is not None
    told = sentences(section)
    assert told[0] == (
        "Over 4 of 72 patches that were run, the estimated and the exact change have a rank correlation of 1.00 (0.80 to 1.00); 1 is "
        "the same order."
    )
    assert "L7H3 is estimated to restore most" in told[2]
    checked = tables_of(section)[-1]
    assert [text_of(cell) for cell in checked.rows[0]] == ["head outputs", "L3H3", "all", "0", "+2.000", "+1.000"]
    outline = Outline(report([estimates()]).html())
    assert "share restored, estimated" in str(data_of(outline).blocks)
    assert "Attribution patching" in outline.text


def test_unchecked_estimates_say_so() -> None:
    section = build_estimates(replace(estimates(), checked=None, correlation=None), "p0")
    assert sentences(section)[0].startswith("No patch was run to check the estimates")
    assert len(tables_of(section)) == 2

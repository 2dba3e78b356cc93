"""The section of ablation: map, bars, tables and findings are those of the result."""

import dataclasses

import numpy as np
import pytest
import torch

from interp.analyzers.ablation_result import AblationResult
from interp.analyzers.answers import Answer
from interp.report import report
from interp.report.blocks import LinkedTable, Picture, Table
from interp.report.sections.ablation import build
from report.samples import HOSTILE, provenance, tokens

UNITS = ("heads", "attention", "mlps", "layers")
PARIS, ROME = (Answer(text=text, ids=(1000 + i,), pieces=(text,)) for i, text in enumerate((" Paris", " Rome")))


def ablated(
    prompts: int = 3, layers: tuple[int, ...] = (0, 2, 5), heads: int = 4, units=UNITS, **changes
) -> AblationResult:
    """Losses near 3; without L2H1 and without the MLP of layer 5 much higher."""
    draw = torch.Generator().manual_seed(0)
    whole = 3 + 0.1 * torch.randn(prompts, generator=draw)

    def around(*shape: int) -> torch.Tensor:
        return whole.reshape(-1, *[1] * len(shape), 1) + 0.05 * torch.randn(prompts, *shape, 1, generator=draw)

    found = {unit: around(len(layers), heads) if unit == "heads" else around(len(layers)) for unit in units}
    if "heads" in found:
        found["heads"][:, 1, 1] += 1.5
    if "mlps" in found:
        found["mlps"][:, 2] += 4
    values = {
        "provenance": provenance(seed=0),
        "prompts": tuple(tokens(("The", f" {index}", " sea", " is")) for index in range(prompts)),
        "units": units,
        "layers": layers,
        "n_heads": heads,
        "method": "mean",
        "metric": "loss",
        "metric_unit": "nats",
        "answers": (),
        "against": (),
        "own_reference": True,
        "n_reference": prompts,
        "at_positions": None,
        "context": 4,
        "seed": 0,
        "confidence": 0.95,
        "whole": whole,
        "ablated": found,
    }
    return AblationResult(**(values | changes))


@pytest.fixture(scope="module")
def result() -> AblationResult:
    return ablated()


def blocks_of(result, kind):
    return [block for block in build(result, "p0").blocks if isinstance(block, kind)]


def test_map_bars_and_tables_are_the_results(result) -> None:
    heads, layers = blocks_of(result, Picture)
    version = heads.versions["Heads"]
    np.testing.assert_allclose(
        np.array(version.figure.data[0].z, dtype=float), result.change("heads").value.numpy(), rtol=1e-6
    )
    trace = version.figure.data[0]
    assert (trace.meta, trace.reversescale) == (
        {"signed": True},
        None,
    )  # the page colours it by its theme, as all signed maps
    assert (version.x.of, version.y.of) == ("head", "layer")
    assert version.y.layers == (0, 2, 5)
    assert [trace.name for trace in layers.versions["Layers"].figure.data] == ["attention", "MLP", "whole block"]
    (selected,) = blocks_of(result, LinkedTable)
    assert selected.by == "head"
    assert selected.columns == ("of the selected head", "value", "lower", "upper")
    np.testing.assert_allclose(selected.lines[0].cells[1], result.change("heads").value.float().numpy())
    (table,) = blocks_of(result, Table)
    assert next(row[0] for row in table.rows if "H" in row[0]) == "L2H1"
    assert len(table.rows) == 8 + 3 * 3
    first = result.strongest(1, "heads")[0].change
    assert table.rows[0][1] == f"{first.value:+.3f}"
    assert table.rows[0][2] == f"{first.lower:+.3f} to {first.upper:+.3f}"


def test_findings_name_the_strongest_head_and_the_strongest_part_of_a_layer(result) -> None:
    heads, others = (finding.text for finding in build(result, "p0").findings)
    change = result.strongest(1, "heads")[0].change
    clear = sum(part.change.lower > 0 or part.change.upper < 0 for part in result.components("heads"))
    said = f"{clear} of 12 heads change the loss by more than the 95% interval of the change (chance alone: about 1), "
    assert heads.startswith(f"{said}most of all L2H1, by {change.value:+.2f} nats a token ({change.lower:+.2f} to")
    assert 1.3 < change.value < 1.7
    assert "of 9 attention layers, MLPs and blocks change the loss" in others
    assert "most of all L5 MLP, by +" in others


def test_one_text_has_no_intervals_and_says_so() -> None:
    one = ablated(prompts=1)
    (table,) = blocks_of(one, Table)
    assert table.columns == ("without", "change", "loss")
    assert blocks_of(one, LinkedTable)[0].columns == ("of the selected head", "value")
    assert all("there are no intervals" in picture.caption for picture in blocks_of(one, Picture))
    text = build(one, "p0").findings[0].text
    assert text.startswith("Of 12 heads, the loss changes most without L2H1, by +1.")
    assert "(" not in text.split("; next are")[0]


def test_nothing_that_stands_out_is_said() -> None:
    still = ablated(units=("layers",))
    whole = still.whole.reshape(-1, 1, 1)
    noise = torch.tensor([1.0, -1.0, 0.0]).reshape(-1, 1, 1).expand(3, 3, 1)
    nothing = dataclasses.replace(still, ablated={"layers": whole + noise})
    (finding,) = build(nothing, "p0").findings
    assert finding.text == "None of 3 blocks changes the loss by more than the 95% interval of its change."


def test_what_was_done_is_said() -> None:
    of_an_answer = {
        "metric": "logit_difference",
        "metric_unit": "logits",
        "answers": (PARIS,) * 3,
        "against": (ROME,) * 3,
        "context": 0,
    }
    lead = build(ablated(**of_an_answer), "p0").lead
    assert "set to their mean over the texts themselves (the first position by itself)" in lead
    assert "the score of the answer" in lead
    other = ablated(method="resample", own_reference=False, n_reference=7, at_positions=(-1,), **of_an_answer)
    section = build(other, "p0")
    assert "drawn from 7 reference texts, at position -1 only" in section.lead
    assert "set to zero" in build(ablated(method="zero", n_reference=0, own_reference=False), "p0").lead
    text = report([other]).html()
    assert "logit difference of" in text
    assert "against" in text


def test_only_layers_or_only_heads() -> None:
    (picture,) = blocks_of(ablated(units=("layers",)), Picture)
    assert set(picture.versions) == {"Layers"}
    assert not blocks_of(ablated(units=("mlps",)), LinkedTable)
    (picture,) = blocks_of(ablated(units=("heads",)), Picture)
    assert set(picture.versions) == {"Heads"}


def test_the_page_is_the_same_each_time_and_links_its_terms(result) -> None:
    first, again = (report([result]).html() for _ in range(2))
    assert first == again
    assert "What does the model lose without each of its parts?" in first
    assert "[[" not in first.split("</script>")[-1]


def test_hostile_text_is_inert() -> None:
    answers = tuple(Answer(text=text, ids=(5,), pieces=(text,)) for text in HOSTILE[:3])
    hostile = dataclasses.replace(ablated(), metric="probability", metric_unit="probability", answers=answers)
    assert HOSTILE[0] not in report([hostile]).html()
    assert HOSTILE[1] not in report([hostile]).html()

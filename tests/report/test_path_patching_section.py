"""The section of path patching: its sentence, map and table are those of the result, and text of prompts is inert."""

import numpy as np
import torch

from interp.analyzers.path_patching_result import PathPatchingResult, Receiver
from interp.heads import Head
from interp.report import report
from interp.report.blocks import Picture, Table
from interp.report.sections.path_patching import build
from report import samples
from report.patching_samples import CLEAN, CORRUPTED, answer
from report.samples import HOSTILE
from report.test_page import Outline

SENDERS = tuple(Head(layer, head) for layer in range(2) for head in range(3))
TO_KEYS = (Receiver(head=Head(2, 1), input="k", shared_with=(Head(2, 0), Head(2, 2))),)


def paths(pairs: int = 1, receivers=TO_KEYS, clean=CLEAN, target=" Paris", **changes) -> PathPatchingResult:
    """L1H2 carries four tenths of the difference."""
    draw = torch.Generator().manual_seed(7)
    ends = 3 + 0.1 * torch.randn(pairs, generator=draw), -2 + 0.1 * torch.randn(pairs, generator=draw)
    patched = ends[0][:, None, None] - 0.01 * torch.rand(pairs, 3, 3, generator=draw)
    patched[:, 1, 2] -= 2
    patched[:, 2] = torch.nan
    values = {
        "provenance": samples.provenance(),
        "clean": (samples.tokens(clean),) * pairs,
        "corrupted": (samples.tokens(CORRUPTED),) * pairs,
        "answers": (answer(target),) * pairs,
        "against": (answer(" Rome", 1003),) * pairs,
        "direction": "noising",
        "metric": "logit_difference",
        "metric_unit": "logits",
        "senders": SENDERS,
        "receivers": receivers,
        "positions": None,
        "freeze_mlps": False,
        "clean_metric": ends[0],
        "corrupted_metric": ends[1],
        "patched": patched,
        "confidence": 0.95,
        "seed": 0,
    }
    return PathPatchingResult(**(values | changes))


def test_the_sentence_the_map_and_the_table_are_the_result() -> None:
    result = paths(pairs=5)
    section = build(result, "")
    assert section is not None
    best = result.strongest(1)[0]
    assert str(best.head) == "L1H2"
    change, effect = best.change, best.effect
    (finding,) = section.findings
    assert finding.text.text.replace("−", "-") == (
        "Of 6 heads, L1H2 tells L2H1.k (with L2H0, L2H2, which share keys and values) most: its path changes the logit difference by "
        f"{change.value:+.3f} ({change.lower:.3f} to {change.upper:.3f}), {effect.value:.2f} ({effect.lower:.2f} to {effect.upper:.2f}) "
        "of the difference between the prompts."
    )
    picture = next(block for block in section.blocks if isinstance(block, Picture))
    (version,) = picture.versions.values()
    np.testing.assert_array_equal(np.array(version.figure.data[0].z, dtype=float), result.effects().value.numpy())
    assert (version.x.of, version.y.of) == ("head", "layer")
    assert "Squares mark the receiving heads" in picture.caption
    strongest = next(block for block in section.blocks if isinstance(block, Table))
    assert strongest.columns == ("sender", "effect", "95% interval", "change (logits)", "95% interval")
    assert strongest.rows[0][:2] == ["L1H2", f"{effect.value:+.3f}"]
    assert len(strongest.rows) == 6


def test_paths_to_the_logits_of_one_pair() -> None:
    section = build(paths(receivers=()), "")
    assert section.title == "Path patching to logits"
    assert "tells the logits most" in section.findings[0].text.text
    strongest = next(block for block in section.blocks if isinstance(block, Table))
    assert strongest.columns == ("sender", "effect", "change (logits)")


def test_no_difference_leaves_the_changes() -> None:
    same = torch.full((1,), 2.0)
    section = build(paths(clean_metric=same, corrupted_metric=same), "")
    assert [type(block) for block in section.blocks] == [Table, Table]
    assert section.blocks[0].rows[0][1] == "not measured"
    assert "of the difference" not in section.findings[0].text.text


def test_text_of_prompts_is_inert_and_the_page_the_same_each_time() -> None:
    text = HOSTILE[0]
    result = paths(clean=(text, *CLEAN[1:]), target=text)
    page = report([result]).html()
    assert report([result]).html() == page
    plain = Outline(report([paths()]).html())
    outline = Outline(page)
    assert [tag for tag, _ in outline.tags] == [tag for tag, _ in plain.tags]
    assert text in outline.text

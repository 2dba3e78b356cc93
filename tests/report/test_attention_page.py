"""The mosaic of all heads as text: the bytes are the patterns, the page is small, the same for the same result, and inert."""

import gzip

import numpy as np
import pytest

from interp.maths.attention import PACKED_ERROR
from interp.report import report
from report import samples
from report.test_page import LIMIT, Outline, data_of, packed, text_of

PAGE_LIMIT = 3_000_000


def mosaic_of(outline: Outline) -> dict:
    return next(block for block in data_of(outline).blocks if block["type"] == "heads")


def read_patterns(blob: bytes, layers: int, heads: int, n_pos: int) -> np.ndarray:
    """Plain loops from the description of the format: for each head the queries that see key 0, then those that see key 1, ..."""
    out, at = np.zeros((layers, heads, n_pos, n_pos)), 0
    for layer in range(layers):
        for head in range(heads):
            for key in range(n_pos):
                for query in range(key, n_pos):
                    out[layer, head, query, key] = blob[at] / 255
                    at += 1
    return out


def test_the_bytes_are_the_patterns_and_norms():
    result = samples.attention()
    outline = Outline(report([result]).html())
    block, blob, n_pos = mosaic_of(outline), gzip.decompress(packed(outline, "blob0")), len(samples.PIECES)
    found = read_patterns(blob, 6, 4, n_pos)
    for layer in range(6):
        for head in range(4):
            np.testing.assert_allclose(found[layer, head], result.pattern(layer, head), atol=PACKED_ERROR + 1e-7)
    norms = np.frombuffer(blob[6 * 4 * n_pos * (n_pos + 1) // 2 :], dtype=np.uint8).reshape(6, 4, n_pos) / 255
    greatest = np.array(data_of(outline).matrix(block["norms"]))
    assert result.output_norms is not None
    np.testing.assert_allclose(norms * greatest[..., None], result.output_norms.numpy(), atol=0.02)


def test_the_heads_are_described():
    block = mosaic_of(Outline(report([samples.attention()]).html()))
    assert (block["layers"], block["heads"], block["kv"]) == (list(range(6)), [0, 1, 2, 3], [0, 0, 1, 1])
    assert block["windows"] == [None, 4, None, 4, None, 4]
    data = data_of(Outline(report([samples.attention()]).html()))
    previous = next(score for score in block["scores"] if score["label"] == "Previous token")
    expected = samples.attention().means()["previous"]
    for row, shown in zip(expected.tolist(), data.matrix(previous), strict=True):
        assert shown == pytest.approx(row, rel=6e-3, abs=1e-4)
    assert [score["label"] for score in block["scores"] if score["least"]] == ["Entropy (nats)"]


def test_the_page_opens_on_the_head_that_reads_the_previous_token_most():
    assert mosaic_of(Outline(report([samples.attention()]).html()))["start"] == [1, 2]
    some = samples.attention(layers=2)
    assert mosaic_of(Outline(report([some]).html()))["start"] == list(divmod(int(some.means()["previous"].argmax()), 4))


def test_exact_and_packed_patterns_give_the_same_page():
    exact, kept = (report([samples.attention(exact=exact)]).html() for exact in (True, False))
    assert exact == kept


def test_same_result_same_bytes_and_a_saved_one_too(tmp_path):
    page = report([samples.attention()]).html()
    assert report([samples.attention()]).html() == page
    samples.attention().save(tmp_path / "a.safetensors")
    assert report([type(samples.attention()).load(tmp_path / "a.safetensors")]).html() == page


def test_a_page_without_heads_has_no_script_for_them():
    plain = Outline(report([samples.lens(layers=2)]).html())
    assert "headsView = " not in text_of(plain, "program").decode()
    assert "headsView = " in text_of(Outline(report([samples.attention()]).html()), "program").decode()


def test_what_stands_out_is_said():
    outline = Outline(report([samples.attention()]).html())
    assert "Head L1H2 reads the previous token most" in outline.text
    assert "A ~ marks layers that see only a window of 4 tokens." in outline.text
    assert "Heads that stand together share their keys and values" in outline.text
    plain = samples.attention(windows=(None,) * 6, kv_heads=(0, 1, 2, 3), n_kv_heads=4, output_norms=None)
    outline = Outline(report([plain]).html())
    assert "window of" not in outline.text
    assert "share" not in outline.text.split("Provenance")[1].split("Several heads")[0]
    assert "norms" not in mosaic_of(outline)


@pytest.mark.parametrize("pieces", [("The",), ("The", " end")])
def test_prompts_too_short_for_a_pattern(pieces):
    outline = Outline(report([samples.attention(pieces)]).html())
    assert "previous token most" not in outline.text
    assert len(mosaic_of(outline)["scores"]) == 5


@pytest.mark.long
def test_with_the_other_sections_the_page_stays_small():
    assert len(report([*samples.all_results(), samples.attention(layers=30, heads=9)]).html().encode()) < LIMIT


@pytest.mark.slow
def test_size_at_256_tokens_and_270_heads():
    """As real patterns are: most weights below a 255th (79 % on SmolLM2-135M), the rest hard to foresee."""
    pieces = tuple(f" w{index}" for index in range(256))
    result = samples.attention(pieces, layers=30, heads=9, sharpness=2.2)
    codes = (result.patterns * 255).round()
    assert 0.6 < float((codes == 0).float().mean()) < 0.85
    assert len(report([result]).html().encode()) < PAGE_LIMIT

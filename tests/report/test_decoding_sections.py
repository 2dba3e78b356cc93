"""The end of the walkthrough: logits, decoding, generation and losses say what their results hold, and text in them is inert."""

import math
import re

import pytest
import torch

import interp
from interp.maths.kv_cache import CachedLayers
from interp.maths.sampling import Sampling
from interp.report import report
from interp.report.sections import decoding_choices, generation, next_token_logits, token_losses
from interp.report.sections.glossary import TERMS
from interp.report.sections.numbers import percent
from interp.results import load_result
from interp.tokens import visible
from report import decoding_samples, samples
from report.samples import HOSTILE
from report.test_page import Outline, data_of

PROMPT = "The Eiffel Tower is located in the city of"
SECTIONS = ["next-token-logits", "logits", "decoding-choices", "generation", "token-losses"]


def results(pieces=samples.PIECES, words=samples.WORDS, **changes):
    return [
        decoding_samples.next_token_logits(pieces, words, **changes),
        decoding_samples.decoding_choices(pieces, words, **changes),
        samples.generation(pieces, words, **changes),
        decoding_samples.token_losses(pieces, words, **changes),
    ]


def text_of(cell) -> str:
    """A table's cell without its markup."""
    return re.sub("<[^>]*>", "", cell if isinstance(cell, str) else cell.text)


@pytest.mark.long
def test_the_steps_come_in_order_and_from_saved_results_alone(tmp_path) -> None:
    made = [samples.story(), *results()]
    page = report(made).html()
    ids = [values["id"] for tag, values in Outline(page).tags if tag == "section"]
    assert [name for name in ids if name in SECTIONS] == SECTIONS
    paths = [tmp_path / f"{index}.safetensors" for index in range(len(made))]
    for path, result in zip(paths, made, strict=True):
        result.save(path)
    assert report([load_result(path) for path in paths]).html() == page


def test_logits_are_shown_with_and_without_the_constant() -> None:
    result = decoding_samples.next_token_logits()
    section = next_token_logits.build(result, "p0")
    assert section is not None
    assert "from length 596 to 45" in section.lead
    assert "with 100 added to every logit, every probability stays as it is" in section.lead
    _, table, numbers = section.blocks
    first, second = table.rows[:2]
    likely = percent(float(result.top_probs[0]))
    assert [text_of(cell) for cell in first] == ["␣Paris", "9.000", "0.000", likely, "109.000", likely]
    assert float(text_of(second[2])) == pytest.approx(float(result.top_logits[0] - result.top_logits[1]), abs=1e-3)
    softmax = next(text_of(row[1]) for row in numbers.rows if "softmax" in text_of(row[0]))
    best, total = map(float, re.findall(r"[\d.]+", softmax)[:2])
    assert (best, total) == pytest.approx((float(result.top_logits[0]), result.log_sum_exp), abs=1e-3)
    assert softmax.endswith(f"= {likely}")


def test_a_softcap_and_a_scale_are_told() -> None:
    raw = torch.linspace(40, 4, 10)
    result = decoding_samples.next_token_logits(scale=0.5, softcap=30.0, top_projections=raw, norm_divisor=None)
    section = next_token_logits.build(result, "p0")
    assert section is not None
    assert "times 0.5, bent to stay within ±30 by a [[softcap]]" in section.lead
    assert "norm" not in section.lead.split("unembedding")[0]
    assert text_of(section.blocks[1].rows[0][1]) == "40.000"
    assert section.blocks[1].columns[1] == "dot product"


def test_choices_are_the_results() -> None:
    result = decoding_samples.decoding_choices()
    section = decoding_choices.build(result, "p0")
    assert section is not None
    table = section.blocks[1]
    for index, row in enumerate(table.rows):
        assert row[0] == result.choices[index].label
        assert row[1] == f"{int(result.n_kept[index]):,}"
        assert row[2:4] == [percent(float(result.kept_mass[index])), percent(float(result.probs[index, 0]))]
        assert float(row[5].replace(",", "")) == pytest.approx(math.exp(float(result.entropy_nats[index])), abs=0.06)
    (finding,) = section.findings
    kept = int(result.n_kept[result.choices.index(Sampling(top_p=0.5))])
    assert f"top-p 0.5 leaves {kept} of 2,000 tokens" in text_of(finding.text)
    without = decoding_choices.build(decoding_samples.decoding_choices(choices=[Sampling(temperature=0.0)]), "p0")
    assert without is not None
    assert without.findings == ()


def test_the_map_of_choices_is_drawn_as_it_is() -> None:
    result = decoding_samples.decoding_choices()
    data = data_of(Outline(report([result]).html()))
    (picture,) = [block for block in data.blocks if block["type"] == "picture"]
    shown = data.matrix(picture["base"]["data"][0]["z"])
    for rank, row in enumerate(result.probs.T.tolist()):
        for index, probability in enumerate(row):
            if probability == 0:
                assert shown[rank][index] is None
            else:
                assert shown[rank][index] == pytest.approx(probability, rel=6e-3, abs=6e-5)
    assert picture["options"][0]["y"]["labels"] == [*map(visible, result.pieces), "all others"]


def test_losses_are_the_results() -> None:
    result = decoding_samples.token_losses()
    section = token_losses.build(result, "p0")
    assert section is not None
    assert f"{result.mean_loss_nats:.3f} nats a token" in section.lead
    assert f"perplexity]] of {math.exp(result.mean_loss_nats):,.1f}" in section.lead
    rows = section.blocks[1].rows
    assert [text_of(cell) for cell in rows[0]] == ["1", "␣Eiffel", "9.000", percent(math.exp(-9)), "1", "␣Paris 13.5%"]
    assert "0" not in [row[4] for row in rows]
    assert "position 1, with a loss of 9.0 nats" in text_of(section.findings[0].text)
    sure = token_losses.build(decoding_samples.token_losses(ranks=torch.zeros(8, dtype=torch.int64)), "p0")
    assert sure is not None
    assert len(sure.blocks) == 1


def test_the_cache_is_told_kind_by_kind_and_what_sharing_saves() -> None:
    def cache_of(**changes) -> dict[str, list[str]]:
        section = generation.build(samples.generation(**changes), "p0")
        assert section is not None
        found: dict[str, list[str]] = {}
        for name, value in section.blocks[-1].rows:
            found.setdefault(text_of(name), []).append(text_of(value))
        return found

    def layers(count: int, heads: int, kept: int) -> CachedLayers:
        return CachedLayers(n_layers=count, n_kv_heads=heads, d_head=64, itemsize=2, n_tokens=kept)

    two = (layers(15, 3, 22), layers(15, 3, 7))
    total = 2 * 15 * 3 * 64 * 2 * (22 + 7)
    found = cache_of(cached_layers=two, step_cache_bytes=torch.full((14,), total))
    assert found["keys and values kept"] == [f"{one.formula} bytes" for one in two]
    assert found["measured"] == [f"{total:,} bytes for 22 tokens"]
    assert found["with a key and a value for each query head"] == [f"{3 * total:,} bytes"]
    assert found["query heads for each key/value head"] == ["9 / 3 = 3: sharing saves 66.7% of the cache"]
    assert "beside keys and values" not in found
    whole = (layers(30, 9, 22),)
    expanded = cache_of(cached_layers=whole, step_cache_bytes=torch.full((14,), whole[0].n_bytes + 8))
    assert "keeps a copy for each query head" in expanded["query heads for each key/value head"][0]
    assert expanded["beside keys and values"] == ["8 bytes"]
    alone = cache_of(cached_layers=whole, n_kv_heads=9)
    assert alone["query heads for each key/value head"] == ["1: nothing is shared, so nothing is saved"]


def test_times_are_those_of_the_result() -> None:
    section = generation.build(samples.generation(), "p0")
    assert section is not None
    took = {text_of(name): text_of(value) for name, value in section.blocks[2].rows}
    assert took["prefill (9 tokens at once)"] == "250.0 ms, 36.0 tokens a second"
    assert took["decoding (one token at a time)"] == "50.0 ms a token, 20.0 tokens a second"
    assert [text_of(row[5]) for row in section.blocks[1].rows] == ["250.0", *["50.0"] * 13]
    one = generation.build(samples.generation(words=(" Paris",), decode_seconds=()), "p0")
    assert one is not None
    assert one.findings == ()


def test_hostile_text_is_inert_and_shown() -> None:
    """Every hostile text as a token of the prompt and as a next token, against a page of plain words."""
    harmless = tuple(f" word{index}" for index in range(len(HOSTILE)))
    plain = Outline(report(results(harmless, harmless), title="t").html())
    for shown in (HOSTILE, HOSTILE[::-1]):
        outline = Outline(report(results(shown, shown), title=shown[0]).html())
        assert [tag for tag, _ in outline.tags] == [tag for tag, _ in plain.tags]
        assert outline.scripts["code"] == plain.scripts["code"]
        assert [text for text in HOSTILE if visible(text) not in outline.text] == []
        assert re.findall("[\u200b-\u200f\u202a-\u202e\u2028\u2029\u2066-\u2069\ufeff\x00]", outline.text) == []


def test_every_term_has_its_entry() -> None:
    outline = Outline(report([*results(), decoding_samples.next_token_logits(softcap=30.0)]).html())
    for term in ("decoding", "greedy decoding", "temperature", "top-k", "top-p", "KV cache", "prefill", "perplexity"):
        assert term in TERMS
        assert TERMS[term].split("[[")[0].split(";")[0][:20] in outline.text
    assert "term-softcap" in outline.all("id")


@pytest.mark.model
def test_the_pages_figures_are_the_models(model) -> None:
    """A probability, a loss, a number of tokens and of bytes on the page, computed again by plain Hugging Face."""
    made = [
        analyse(model, PROMPT) for analyse in (interp.next_token_logits, interp.decoding_choices, interp.token_losses)
    ]
    page = Outline(report([*made, model.generate(PROMPT, max_new_tokens=3)]).html())
    ids = torch.tensor([model.tokens(PROMPT).ids])
    with torch.no_grad():
        output = model.hf(ids, labels=ids, use_cache=True)
    logits = output.logits[0, -1].double()
    own, best = logits.softmax(-1), int(logits.argmax())
    assert f"e^({float(logits[best]):.3f} − {float(logits.logsumexp(-1)):.3f}) = {float(own[best]):.1%}" in page.text
    assert f"{float(output.loss):.3f} nats a token" in page.text
    assert f"perplexity of {math.exp(float(output.loss)):,.1f}" in page.text
    nucleus = int((own.sort(descending=True).values.cumsum(0) < 0.5).sum()) + 1
    assert f"top-p 0.5 leaves {nucleus} of 49,152 tokens" in page.text
    for _ in range(2):
        with torch.no_grad():
            token = output.logits[:, -1].argmax(-1, keepdim=True)
            output = model.hf(token, past_key_values=output.past_key_values, use_cache=True)
    kept = sum(layer.keys.nbytes + layer.values.nbytes for layer in output.past_key_values.layers)
    assert f"measured{kept:,} bytes for 12 tokens" in page.text
    assert f"with a key and a value for each query head{3 * kept:,} bytes" in page.text

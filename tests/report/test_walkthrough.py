"""The walkthrough's first half on the page: its figures are the model's, and text from outside stays text."""

from dataclasses import replace

import pytest
import torch

import interp
import word_model
from interp.report import report
from interp.results import Result
from interp.runner.model import Model
from interp.tokens import visible
from report import samples
from report.samples import HOSTILE
from report.test_page import Outline, data_of
from report.test_size import TEXT
from tiny_models import build

PROMPT = "The Eiffel Tower is located in the city of"
IDS = [5, 9, 33, 71, 12, 44, 8, 90, 17, 3]


ROOM = 80_000
"""Bytes of a page that the tokens and the walkthrough's first half may take about 256 tokens; the rest has its own limit."""


def walkthrough(model: Model, prompt) -> list[Result]:
    results = [
        interp.embedding_geometry(model, prompt, pairs=200),
        interp.position_encoding(model),
        interp.attention_summary(model, prompt),
        interp.architecture(model),
    ]
    return results + ([interp.expert_routing(model, prompt)] if model.atlas.blocks[0].router else [])


@pytest.fixture(scope="module")
def tiny_results() -> list[Result]:
    return walkthrough(Model(build("mixtral")), IDS)


@pytest.mark.parametrize("name", ["gpt2", "llama", "bloom", "gptj", "mixtral"])
def test_every_family_gives_its_sections(name):
    results = walkthrough(Model(build(name)), IDS)
    outline = Outline(report(results).html())
    ids = [values["id"] for tag, values in outline.tags if tag == "section"]
    experts = ["experts"] if name == "mixtral" else []
    walk = ["embedding-geometry", "positions", "attention-summary", *experts, "tensors"]
    assert ids == ["tokens", *walk, "provenance", "glossary"]
    how = {"gpt2": "position embedding", "bloom": "ALiBi", "gptj": "cannot be looked at on its own"}.get(name, "RoPE")
    assert how in outline.text
    pictures = [values for _, values in outline.tags if values.get("role") == "img"]
    assert all(values["aria-label"] for values in pictures)


@pytest.mark.long
def test_the_order_is_that_of_the_data(tiny_results):
    results = [samples.story(), samples.lens(), *reversed(tiny_results)]
    ids = [values["id"] for tag, values in Outline(report(results).html()).tags if tag == "section"]
    walk = ["embeddings", "embedding-geometry", "positions", "attention-summary", "experts", "story", "lens"]
    assert [name for name in ids if name in walk] == walk


def test_saved_results_give_the_same_page(tiny_results, tmp_path):
    loaded = []
    for index, result in enumerate(tiny_results):
        result.save(tmp_path / f"{index}.safetensors")
        loaded.append(interp.load_result(tmp_path / f"{index}.safetensors"))
    assert report(loaded).html() == report(tiny_results).html()


@pytest.mark.parametrize("start", range(0, len(HOSTILE), 9))
def test_hostile_text_is_inert_and_shown(tiny_results, start):
    """Nine strings at a time in the places of tokens, neighbours, words of an analogy and tensors; and the model's name."""
    texts = HOSTILE[start : start + 9]

    def with_texts(result: Result, texts: tuple[str, ...]) -> Result:
        changes = {"provenance": samples.provenance(model=texts[0])}
        if hasattr(result, "tokens"):
            pieces = (*(f" {text}" for text in texts), *([" a"] * (10 - len(texts))))
            changes["tokens"] = samples.tokens(pieces)
        if result.kind == "embedding_geometry":
            words = [(text,) * 4 for text in texts]
            asked = result.analogies[0]
            changes["analogies"] = tuple(replace(asked, words=four, not_one_token=four[:1]) for four in words)
            named = zip(result.vocabulary, [*texts, *result.vocabulary.values()], strict=False)
            changes["vocabulary"] = dict(named)
        if result.kind == "architecture":
            odd = [replace(result.tensors[0], name=text, pattern=text) for text in texts]
            changes["tensors"] = (*odd, *result.tensors[1:])
        return replace(result, **changes)

    outline, plain = (
        Outline(report([with_texts(result, shown) for result in tiny_results], title="t").html())
        for shown in (texts, tuple(f"{index:x<{len(text)}}" for index, text in enumerate(texts)))
    )
    assert [tag for tag, _ in outline.tags] == [tag for tag, _ in plain.tags]
    assert {name for _, values in outline.tags for name in values} == {
        name for _, values in plain.tags for name in values
    }
    assert outline.scripts["code"] == plain.scripts["code"]
    for text in texts:
        assert outline.text.count(visible(text)) >= 5, text


def test_words_and_bytes_are_counted():
    pieces = ("Who", " is", " Na", "omi", "?", " 漢", "\\xf0\\x9f", "\\x98\\x80")
    text = "Who is Naomi? 漢😀"
    spans = ((0, 3), (3, 6), (6, 9), (9, 12), (12, 13), (13, 15), (15, 16), (15, 16))
    tokens = samples.tokens(pieces)
    tokens = replace(tokens, text=text, spans=spans)
    assert sum(tokens.byte_counts) == len(text.encode())
    outline = Outline(report([samples.lens(pieces, layers=2, tokens=tokens)]).html())
    assert (
        "8 tokens for 4 words and 21 bytes. The word that takes most is Naomi?: 3 tokens, ␣Na + omi + ?."
        in outline.text
    )
    whole = Outline(report([samples.lens(("one", " two"), layers=2)]).html())
    assert "2 tokens for 2 words and 7 bytes. The word that takes most is one: 1 token, one." in whole.text
    long = Outline(report([samples.lens((" a", *(["bcdef"] * 20)), layers=2)]).html())
    word = ("a" + "bcdef" * 8)[:40]
    assert f"102 bytes. The word that takes most is {word}…: 21 tokens, ␣a + bcdef" in long.text
    assert "bcdef + …." in long.text
    assert "2 tokens for 0 words and 2 bytes." in Outline(report([samples.lens((" ", " "), layers=2)]).html()).text


def test_an_analogy_of_unknown_words_says_so():
    model = word_model.build()
    result = interp.embedding_geometry(model, "Ann and Bob", analogies=[("king", "Ann", "Bob", "queen")], pairs=10)
    outline = Outline(report([result]).html())
    assert "not one token: king, queen" in outline.text


@pytest.mark.model
@pytest.mark.long
def test_the_figures_on_the_page_are_the_models(model):
    """Sums, shapes and weights on the page, from the page's own data, against the Hugging Face model."""
    hf, tokens = model.hf, model.tokens(PROMPT)
    outline = Outline(report(walkthrough(model, PROMPT)).html())
    total = sum(p.numel() for p in hf.parameters())
    sizes = f"{total:,} learned numbers in {len(list(hf.parameters()))} tensors"
    assert sizes in outline.text
    for shape in ("10 × 9 × 64", "10 × 3 × 64", "9 × 10 × 10", "49,152 × 576"):
        assert shape in outline.text
    assert "10 tokens for 9 words and 42 bytes" in outline.text
    data = data_of(outline)
    pictures = {
        option["label"]: block for block in data.blocks if block["type"] == "picture" for option in block["options"]
    }
    W_E = hf.model.embed_tokens.weight.detach()
    neighbours = pictures["neighbours"]["base"]["data"][0]
    cosines = torch.nn.functional.cosine_similarity(W_E[tokens.ids[3]], W_E, dim=1)
    cosines[tokens.ids[3]] = -1
    column = [row[3] for row in data.matrix(neighbours["z"])]
    assert column == pytest.approx(cosines.topk(5).values.tolist(), abs=1e-3)
    nearest = [visible(model.tokenizer.decode(number)) for number in cosines.topk(5).indices.tolist()]
    assert [data.planes[neighbours["cells"]["best"][0]][rank][3] for rank in range(5)] == nearest
    kept = pictures["By distance"]["base"]["data"][0]
    theta = hf.config.rope_parameters["rope_theta"] ** (-torch.arange(0, 64, 2, dtype=torch.float64) / 64)
    distances = pictures["By distance"]["options"][0]["x"]["labels"]
    assert kept["x"] == list(range(len(distances)))
    for distance, value in zip(map(int, distances), kept["y"], strict=True):
        assert value == pytest.approx(float((distance * theta).cos().mean()), abs=1e-3)
    read = pictures["Read by later tokens"]["base"]["data"][0]
    hf_again = model.run(PROMPT, ["attn.pattern"]).cache
    for layer, row in enumerate(data.matrix(read["z"])):
        mean = hf_again[f"attn.pattern@{layer}"][0].mean(0)
        for key in range(9):
            assert row[key] == pytest.approx(float(mean[key + 1 :, key].mean()), abs=0.006)
        assert row[9] is None
    parts = pictures["parameters"]["base"]["data"][0]
    assert sum(parts["x"]) == pytest.approx(total, rel=1e-3)


@pytest.mark.model
@pytest.mark.slow
def test_a_long_prompt_takes_little_room(model):
    prompt = model.tokenizer.decode(model.tokenizer(TEXT)["input_ids"][:256])
    results = walkthrough(model, prompt)
    assert len(results[0].tokens) == 256
    bare = len(report([results[1]]).html().encode())
    assert len(report(results).html().encode()) - bare < ROOM

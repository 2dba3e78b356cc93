"""The page as text: complete, inert, small, and the same for the same results."""

import base64
import gzip
import hashlib
import html
import math
import re
from html.parser import HTMLParser
from importlib.resources import files

import pytest
import torch
from plotly.offline import get_plotlyjs_version

from interp.errors import UsageError
from interp.report import Report, report
from interp.report.markup import element, prose, term_anchor, terms_in
from interp.report.page import PLOTLY_BUNDLE
from interp.report.sections.glossary import TERMS
from interp.results import load_result
from interp.tokens import visible
from report import samples
from report.reading import PageData, lzma_bytes, unpacked

LIMIT = 1_000_000
WORD_PARTS = ("ba", "ce", "di", "fo", "gu", "ha", "le", "mi", "no", "pu", "ra", "se", "ti", "vo", "wy", "za", "er")


class Outline(HTMLParser):
    """Tags, ids, links and text of a page, the way a browser's parser sees them."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.scripts: dict[str, str] = {}
        self._script: str | None = None
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append((tag, values))
        self._script = (values.get("id") or "code") if tag == "script" else self._script

    def handle_endtag(self, tag):
        if tag == "script":
            self._script = None

    def handle_data(self, data):
        if self._script is None:
            self.text += data
        else:
            self.scripts[self._script] = self.scripts.get(self._script, "") + data

    def all(self, attribute: str) -> list[str]:
        return [value for _, values in self.tags if (value := values.get(attribute)) is not None]


def packed(outline: Outline, name: str, kind: str = "gzip") -> bytes:
    """The bytes of a script element that holds data of a kind."""
    values = next(values for tag, values in outline.tags if tag == "script" and values.get("id") == name)
    assert values["type"] == f"application/{kind}"
    return unpacked(outline.scripts[name], int(values["data-bytes"] or 0))


def text_of(outline: Outline, name: str) -> bytes:
    """What a script element holds as LZMA."""
    text = lzma_bytes(packed(outline, name, "x-lzma"))
    values = next(values for tag, values in outline.tags if tag == "script" and values.get("id") == name)
    assert int(values["data-size"] or 0) == len(text)
    return text


def data_of(outline: Outline) -> PageData:
    return PageData(text_of(outline, "data"), packed(outline, "arrays", "octet-stream"))


@pytest.fixture(scope="module")
def page() -> str:
    return report(samples.all_results()).html()


@pytest.fixture(scope="module")
def outline(page) -> Outline:
    return Outline(page)


@pytest.mark.long
def test_same_results_same_bytes(page):
    assert report(samples.all_results()).html() == page


@pytest.mark.long
def test_a_saved_result_gives_the_same_page(tmp_path, page):
    paths = []
    for index, result in enumerate(samples.all_results()):
        paths.append(tmp_path / f"{index}.safetensors")
        result.save(paths[-1])
    report([load_result(path) for path in paths]).save(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == page


def test_size(page):
    assert len(page.encode()) < LIMIT


@pytest.mark.slow
def test_size_of_a_long_prompt():
    words = tuple(f" {first}{second}{third}" for first in WORD_PARTS for second in WORD_PARTS for third in WORD_PARTS)
    page = report(samples.all_results(words[:256], words)).html()
    assert len(page.encode()) < LIMIT
    assert "of the 5 that the result holds, 2 up and 1 down are on this page" in Outline(page).text


def test_sections_follow_the_data(outline):
    ids = [values["id"] for tag, values in outline.tags if tag == "section"]
    assert ids == ["tokens", "embeddings", "story", "lens", "attribution", "logits", "provenance", "glossary"]


def test_every_link_has_its_target_and_every_id_is_one(outline):
    ids = outline.all("id")
    assert len(ids) == len(set(ids))
    links = outline.all("href")
    assert [link for link in links if link.startswith("#") and link[1:] not in ids] == []
    assert {link for link in links if not link.startswith("#")} == {"data:,"}


def test_nothing_is_fetched(page, outline):
    assert outline.all("src") == []
    policy = outline.all("content")[0]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy
    assert "unsafe-inline" not in policy.split("style-src")[0]
    bare = page.replace(outline.scripts["plotly"], "") + text_of(outline, "program").decode()
    assert not re.search(r"https?://|@import|url\(", bare)


@pytest.mark.long
def test_the_policy_allows_exactly_the_scripts_of_the_page(outline):
    policy = outline.all("content")[0]
    for script in (outline.scripts["code"].encode(), text_of(outline, "program"), text_of(outline, "plotly")):
        assert base64.b64encode(hashlib.sha256(script).digest()).decode() in policy
    assert policy.count("sha256-") == 3


def test_numbers_on_the_page_are_the_results(outline):
    story, attribution = samples.story(), samples.attribution()
    assert f"{float(story.final_probs[0]):.1%}" in outline.text
    assert f"{float(story.final_logits[3]):.3f}" in outline.text
    assert f"{attribution.logit:+.3f}".replace("-", "−") in outline.text
    assert story.provenance.weights_sha256 in outline.text
    assert "The logit lens has ␣Paris on top after ␣of from layer 24 to the end." in outline.text


@pytest.mark.long
def test_pictures_hold_the_results(outline):
    data = data_of(outline)
    pictures = [block for block in data.blocks if block["type"] == "picture"]
    lens = next(p for p in pictures if p["options"][0]["label"] == "Top token")
    trace = lens["base"]["data"][0]
    top = samples.lens().top_log_probs_nats[..., 0].double().exp()
    for row, shown in zip(top.tolist(), data.matrix(trace["z"]), strict=True):
        assert shown == pytest.approx(row, rel=6e-3)
    assert trace["cells"]["link"] == "after"
    linked, ranked = [block for block in data.blocks if block["type"] == "linked"]
    story = samples.story()
    part, norm, *_, up, down = linked["lines"][0]["cells"]
    assert part == "attention"
    assert data.matrix(norm)[7][3] == pytest.approx(float(story.attn_norm[7, 3]), rel=6e-3)
    for reference, ids in ((up, story.attn_promoted_ids), (down, story.attn_suppressed_ids)):
        words = [visible(story.vocabulary[str(int(number))]) for number in ids[7, 3]]
        assert data.words(reference, 7, 3) == words
    assert ranked["columns"] == ["rank", "next token", "probability"]
    assert [line["cells"][0] for line in ranked["lines"]] == ["0", "1", "2", "3", "4"]


def test_several_kinds_of_rows_are_named_by_what_they_read():
    sites = tuple(f"blocks.{layer}.hook_{kind}" for layer in range(2) for kind in ("resid_pre", "resid_post"))
    outline = Outline(report([samples.lens(layers=4, sites=sites)]).html())
    (ranked,) = [block for block in data_of(outline).blocks if block["type"] == "linked"]
    assert ranked["columns"][0] == "read from"
    assert ranked["layers"] == [0, 1]
    assert {(line["cells"][0], tuple(line["rows"])) for line in ranked["lines"]} == {
        ("resid_pre", (0, 2)),
        ("resid_post", (1, 3)),
    }


def test_every_picture_has_words_and_a_table(outline):
    pictures = [values for tag, values in outline.tags if values.get("role") == "img"]
    assert len(pictures) == 7
    assert all(values["aria-label"] for values in pictures)
    assert sum(tag == "details" for tag, _ in outline.tags) == len(pictures)


def test_kinds_and_emptiness_are_named():
    with pytest.raises(UsageError, match="at least one result"):
        report([])
    result = samples.lens()
    object.__setattr__(result, "kind", "logit_lense")
    with pytest.raises(UsageError, match="did you mean 'logit_lens'"):
        report([result])


@pytest.mark.long
def test_one_result_alone_makes_a_page():
    for result in samples.all_results():
        assert Outline(report([result]).html()).text


def test_two_prompts_stay_apart():
    other = (" Rome", " is", " old")
    outline = Outline(report([samples.lens(layers=3), samples.lens(other, layers=3)]).html())
    data = data_of(outline)
    assert list(data.prompts) == ["p0", "p1"]
    assert {block["prompt"] for block in data.blocks} == {"p0", "p1"}
    assert "Logit lens · prompt 2" in outline.text
    assert len(outline.all("id")) == len(set(outline.all("id")))


def test_positions_of_a_part_of_the_prompt_are_those_of_the_prompt():
    outline = Outline(report([samples.lens((" city", " of"), layers=2, positions=(7, 8), tuned=True)]).html())
    data = data_of(outline)
    assert data.prompts["p0"]["positions"] == [7, 8]
    lens = next(block for block in data.blocks if block["type"] == "picture")
    assert lens["base"]["data"][0]["cells"]["rows"] == ["0", "1"]
    figure = samples.lens((" city", " of"), layers=2, positions=(7, 8)).figure()
    assert figure.data[0].hovertext[0][1].startswith("<b>0</b> after ␣of (8)<br>")
    assert "Tuned lens" in outline.text


@pytest.mark.long
def test_only_a_lens_that_reaches_the_end_speaks_for_the_model():
    whole = Outline(report([samples.lens(layers=30)]).html())
    assert [values for _, values in whole.tags if values.get("class") == "answer"]
    assert "model's own prediction. The colour" in whole.text
    early = samples.lens(layers=30, kl_nats=torch.ones(30, len(samples.PIECES)))
    updates = samples.lens(layers=30, sites=tuple(f"blocks.{layer}.hook_mlp_out" for layer in range(30)))
    for lens in (early, updates):
        outline = Outline(report([lens]).html())
        assert not [values for _, values in outline.tags if values.get("class") in ("answer", "findings")]
        assert "model's own prediction. The colour" not in outline.text


def test_a_difference_of_logits_heads_and_softcap():
    heads = torch.randn(30, 9, generator=torch.Generator().manual_seed(0))
    changes = {"against_id": 1003, "against_piece": " Rome", "heads": heads, "softcap": 30.0, "position": 4}
    outline = Outline(report([samples.attribution(**changes)]).html())
    assert "What makes up the logit of ␣Paris less that of ␣Rome after ␣located (position 4)" in outline.text
    assert "after its softcap of 30" in outline.text
    (block,) = data_of(outline).blocks
    assert [option["label"] for option in block["options"]] == ["By layer", "Largest first", "Heads"]
    shown = data_of(outline).matrix(block["options"][2]["whole"]["data"][0]["z"])
    assert shown[29][8] == pytest.approx(float(heads[29, 8]), rel=6e-3)


def test_by_layer_adds_up_to_the_components():
    result = samples.attribution()
    (block,) = data_of(Outline(report([result]).html())).blocks
    drawn = sum(sum(trace["y"]) for trace in block["base"]["data"])
    assert drawn == pytest.approx(float(result.contributions[1:].sum()), abs=0.05)


def test_a_generation():
    outline = Outline(report([samples.generation()]).html())
    assert "temperature 0.7, top-k 50" in outline.text
    assert "20.0 tokens a second" in outline.text
    assert "2 x 30 layers x 3 kv heads x 64 d_head x 4 bytes x 22 tokens = 1,013,760 bytes" in outline.text
    assert "9 / 3 = 3: sharing saves 66.7% of the cache" in outline.text
    assert f"{math.exp(-0.1):.1%}" in outline.text


def test_a_result_with_missing_numbers():
    lens = samples.lens(layers=2)
    lens.kl_nats[0, 0] = float("nan")
    lens.target_log_prob_nats[:] = float("-inf")
    data = data_of(Outline(report([lens]).html()))
    kl = next(option for option in data.blocks[0]["options"] if option["label"] == "KL to the end")
    assert data.matrix(kl["patch"]["data"][0]["z"])[0][0] is None


def test_a_long_prompt_is_shortened_but_whole_below():
    pieces = tuple(f" word{index}" for index in range(60))
    outline = Outline(report([samples.lens(pieces, layers=2)]).html())
    assert " word2 word3 word4" in outline.text.split("Show the whole prompt")[0]
    assert " word30" not in outline.text.split("Show the whole prompt")[0]
    assert "".join(pieces).strip() in outline.text.split("Show the whole prompt")[1]
    assert "Show the whole prompt" not in Outline(report([samples.lens(layers=2)]).html()).text


def test_a_title_is_text():
    assert "<title>&lt;b&gt;⏎</title>" in report(samples.all_results(layers=2), title="<b>\n").html()


def test_saving_is_whole_or_not(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        Report("x").save(tmp_path / "none" / "page.html")
    (tmp_path / "page.html").write_text("old")
    Report("ü").save(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_bytes() == "ü".encode()


def test_vendored_plotly_is_the_one_of_the_package():
    bundle = (files("interp.report") / PLOTLY_BUNDLE).read_bytes()
    assert bundle[4:8] == b"\0\0\0\0"  # the time in the gzip header
    start = gzip.decompress(bundle)[:200].decode()
    assert f"plotly.js (cartesian - minified) v{get_plotlyjs_version()}\n" in start
    assert "MIT License" in (files("interp.report") / "vendor/LICENSE.plotly").read_text()


@pytest.mark.long
def test_plotly_is_the_bundle_with_its_function_in_brackets(outline):
    """Two characters more than the bundle, where its function starts and ends; nothing else is changed."""
    bundle = gzip.decompress((files("interp.report") / PLOTLY_BUNDLE).read_bytes()).decode().rstrip()
    held = text_of(outline, "plotly").decode()
    start, end = bundle.index("() => {"), len(bundle) - len("));")
    assert held == f"{bundle[:start]}({bundle[start:end]}){bundle[end:]}"


def test_glossary_knows_every_linked_term(outline):
    names = {term.lower() for term in TERMS}
    assert {term for text in TERMS.values() for term in terms_in(text)} <= names
    assert [link for link in outline.all("href") if link.startswith("#term-")]


def test_markup_escapes_all_but_its_own():
    made = element("p", "<b>", element("i", "&"), title='"x"', hidden=True, class_=None, data_pos=3)
    assert made.text == '<p title="&quot;x&quot;" hidden data-pos="3">&lt;b&gt;<i>&amp;</i></p>'
    linked = prose("a [[logit]] and [[two<|norm]]").text
    assert f'<a href="#{term_anchor("norm")}" class="term">two&lt;</a>' in linked
    assert html.unescape(re.sub("<[^>]+>", "", linked)) == "a logit and two<"

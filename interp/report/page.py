"""One HTML file from results alone: it opens offline, makes no request, and the same results give the same bytes."""

import base64
import gzip
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any

from interp.errors import UsageError, unknown
from interp.files import write_bytes
from interp.report import base91
from interp.report.arrays import Arrays
from interp.report.blocks import Finding, Prompt, Section
from interp.report.fitting import LIMIT, can_be_coarser, coarser, note_on, step_for
from interp.report.markup import Html, element, join, quoted, terms_in
from interp.report.pack import compressed, dense, squeezed
from interp.report.render import Renderer
from interp.report.sections import BUILDERS, glossary, provenance, tokens
from interp.report.sections.answer import answer_of
from interp.report.sections.glossary import TERMS
from interp.results import Result
from interp.tokens import visible

PLOTLY_BUNDLE = "vendor/plotly-cartesian.min.js.gz"
_FIRST = ("theme.js", "lzma.js", "boot.js")
"""Scripts that stand in the page as they are: what it looks like, and how to unpack the others."""
_READING = ("columns.js", "data.js", "writing.js", "selection.js", "address.js")
_SHOWING = ("figures.js", "picture-table.js", "files.js", "tables.js", "pictures.js", "controls.js", "keys.js")
_HEADS = ("patterns.js", "mosaic.js", "heads.js")
_FINDINGS = 5
_HERO = 160


@dataclass(frozen=True)
class Report:
    """A finished page."""

    content: str
    notes: tuple[str, ...] = ()
    """What the page says about itself, such as that it shows less than its results hold."""

    def html(self) -> str:
        """The whole page as text."""
        return self.content

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the page to ``path`` as UTF-8, all of it or nothing. Raises UsageError where that cannot be done."""
        write_bytes(path, self.content.encode())


def report(results: Sequence[Result], *, title: str | None = None, limit: int = LIMIT) -> Report:
    """One self-contained page about ``results``: what was found, then each step in the order the data moves.

    ``title`` stands in the browser's title bar; by default it is made from the prompt and the model. A page of more than ``limit`` bytes
    shows attention patterns in squares of several tokens, and says so at its top. Raises UsageError when there are no results, one is of
    a kind that the page has no section for, or ``limit`` is not positive.
    """
    if not results:
        raise UsageError("a report needs at least one result, such as interp.logit_lens(model, prompt)")
    if limit < 1:
        raise UsageError(f"the limit of a page is a number of bytes, got {limit}; the usual one is {LIMIT}")
    for result in results:
        if result.kind not in BUILDERS:
            raise unknown("kind of result", result.kind, BUILDERS)
    prompts = _prompts(results)
    sections = _sections(results, prompts)
    sections.append(glossary.build(_used_terms(sections)))
    name = visible(title) if title is not None else _title(results, prompts)
    top = _head(results, prompts, sections)
    step = step_for(sections, limit)
    while True:
        page = _page(prompts, coarser(sections, step, prompts), name, top, note_on(0, step, limit))
        size = len(page.encode())
        if size <= limit or not can_be_coarser(sections, step):
            break
        step *= 2
    note = note_on(size, step, limit)
    if size > limit:
        page = _page(prompts, coarser(sections, step, prompts), name, top, note)
    return Report(page, notes=() if note is None else (note,))


def _page(prompts: Mapping[str, Prompt], sections: Sequence[Section], title: str, top: Html, note: str | None) -> str:
    """The finished HTML of ``sections``, under ``top`` and ``note``."""
    renderer = Renderer(arrays=Arrays([prompts[key].tokens.ids for key in sorted(prompts)]))
    body = [renderer.section(section, number) for number, section in enumerate(sections, start=1)]
    tokens_of = {
        key: {"labels": prompt.tokens.labels, "ids": prompt.tokens.ids, "positions": prompt.positions}
        for key, prompt in prompts.items()
    }
    text, binary = compressed({"blocks": renderer.data, "prompts": tokens_of}, renderer.arrays)
    script = "".join(map(_source, _FIRST))
    program, program_digest = _program(with_heads=bool(renderer.blobs))
    blobs = [_packed(f"blob{number}", squeezed(blob), "gzip") for number, blob in enumerate(renderer.blobs)]
    plotly, plotly_digest = _plotly()
    notice = [] if note is None else [element("p", note, class_="notice", id="size")]
    parts = {
        "csp": _policy(_digest(script), program_digest, plotly_digest),
        "title": join([title]).text,
        "style": _source("style.css"),
        "head": join([top, *notice], "\n").text,
        "contents": _contents(sections).text,
        "sections": join(body, "\n").text,
        "data": "\n".join([_dense("data", text), _packed("arrays", binary, "octet-stream"), *blobs]),
        "program": program,
        "plotly": plotly,
        "script": script,
    }
    # One pass, so that text which looks like a placeholder stays text.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _asset("page.html"))


def _prompts(results: Sequence[Result]) -> dict[str, Prompt]:
    """The distinct prompts of the results, under the keys that the page knows them by."""
    distinct: list[Prompt] = []
    for result in results:
        prompt = Prompt.of(result)
        if prompt is not None and prompt not in distinct:
            distinct.append(prompt)
    return {f"p{index}": prompt for index, prompt in enumerate(distinct)}


def _sections(results: Sequence[Result], prompts: Mapping[str, Prompt]) -> list[Section]:
    """All sections in the order the data moves; those of several prompts say which, and every name is made unique."""
    found = [(key, tokens.build(prompt, key)) for key, prompt in prompts.items()]
    for result in results:
        key = next((key for key, prompt in prompts.items() if prompt == Prompt.of(result)), "")
        found += [(key, section) for build in BUILDERS[result.kind] if (section := build(result, key)) is not None]
    found.append(("", provenance.build(results)))
    found.sort(key=lambda pair: pair[1].place)
    seen: dict[str, int] = {}
    sections = []
    for key, section in found:
        seen[section.name] = seen.get(section.name, 0) + 1
        if seen[section.name] > 1:
            section = replace(section, name=f"{section.name}-{seen[section.name]}")
        if len(prompts) > 1 and key:
            section = replace(section, title=f"{section.title} · prompt {int(key[1:]) + 1}")
        sections.append(section)
    return sections


def _used_terms(sections: Sequence[Section]) -> set[str]:
    """The terms that the leads link, and those that their entries link in turn."""
    entries = {name.lower(): text for name, text in TERMS.items()}
    waiting = [term for section in sections for term in terms_in(section.lead)]
    used: set[str] = set()
    while waiting:
        term = waiting.pop()
        if term not in used:
            used.add(term)
            waiting += terms_in(entries[term])
    return used


def _head(results: Sequence[Result], prompts: Mapping[str, Prompt], sections: Sequence[Section]) -> Html:
    """The prompt with the model's answer, one line on where it comes from, and the most notable measured facts."""
    origin = results[0].provenance
    parts = [element("p", "interp", " · ", quoted(origin.model), class_="overline")]
    for key, prompt in _by_text(prompts).items():
        answer = answer_of([result for result in results if _same_text(result, prompt)])
        text = prompt.tokens.text.strip(" ")
        heading = [element("span", quoted(_shortened(text)), class_="prompt")]
        if answer is not None:
            heading += [
                " ",
                element(
                    "span", visible(answer.strip(" ")), class_="answer", title="the model's next token", dir="auto"
                ),
            ]
        parts.append(element("h1" if key == "p0" else "p", *heading, class_="hero"))
        if _shortened(text) != text:
            summary = element("summary", f"Show the whole prompt ({len(text):,} characters)")
            parts.append(element("details", summary, element("p", quoted(text), class_="whole"), class_="prompt"))
    precision = f"{origin.dtype} on {origin.device}"
    parts.append(
        element(
            "p",
            join([quoted(origin.architecture), quoted(precision), quoted(origin.created)], " · "),
            class_="byline",
        )
    )
    ranked = sorted(((finding, section) for section in sections for finding in section.findings), key=_rank)
    items = [
        element("li", element("span", finding.text), element("a", section.label, href=f"#{section.name}"))
        for finding, section in ranked[:_FINDINGS]
    ]
    return join([*parts, element("ul", *items, class_="findings")] if items else parts, "\n")


def _shortened(text: str) -> str:
    """A long prompt's start and end, which the answer follows; cut between words where there are some."""
    if len(text) <= _HERO:
        return text
    half = _HERO // 2
    start, end = text[:half], text[-half:]
    return f"{start.rpartition(' ')[0] or start} … {end.partition(' ')[2] or end}"


def _by_text(prompts: Mapping[str, Prompt]) -> dict[str, Prompt]:
    """Of prompts that differ only in the positions shown, the first."""
    texts: dict[str, str] = {}
    for key, prompt in prompts.items():
        texts.setdefault(prompt.tokens.text, key)
    return {key: prompts[key] for key in texts.values()}


def _same_text(result: Result, prompt: Prompt) -> bool:
    own = Prompt.of(result)
    return own is not None and own.tokens.text == prompt.tokens.text


def _rank(pair: tuple[Finding, Section]) -> int:
    return pair[0].rank


def _contents(sections: Sequence[Section]) -> Html:
    links = [element("li", element("a", section.label, href=f"#{section.name}")) for section in sections]
    return element("ol", *links)


def _title(results: Sequence[Result], prompts: Mapping[str, Prompt]) -> str:
    model = visible(results[0].provenance.model)
    first = next(iter(prompts.values()), None)
    if first is None:
        return f"{model} · interp"
    text = visible(first.tokens.text)
    return f"{text if len(text) <= 60 else text[:59] + '…'} · {model} · interp"


def _policy(*digests: str) -> str:
    """Nothing may be fetched, and only scripts with these digests may run.

    Styles need 'unsafe-inline' because plotly sets style attributes; images may be made in the page, for the download button.
    """
    hashes = " ".join(f"'sha256-{digest}'" for digest in digests)
    rules: dict[str, Any] = {
        "default-src": "'none'",
        "script-src": hashes,
        "style-src": "'unsafe-inline'",
        "img-src": "data: blob:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _asset(name: str) -> str:
    return (files("interp.report") / name).read_text(encoding="utf-8")


def _source(name: str) -> str:
    """A script or style without indentation and comment lines, which the reader of a page does not need."""
    lines = (line.strip() for line in _asset(name).splitlines())
    return "".join(f"{line}\n" for line in lines if line and not line.startswith(("//", "/*")))


@cache
def _program(*, with_heads: bool) -> tuple[str, str]:
    """The element that holds the page's own script, and the digest of what it unpacks to."""
    names = (*_READING, *_SHOWING, *(_HEADS if with_heads else ()), "script.js")
    code = "".join(map(_source, names))
    return _dense("program", code.encode()), _digest(code)


@cache
def _plotly() -> tuple[str, str]:
    """The element that holds plotly, and the digest of what it unpacks to."""
    code = gzip.decompress((files("interp.report") / PLOTLY_BUNDLE).read_bytes())
    return _dense("plotly", code), _digest(code.decode())


def _dense(name: str, text: bytes) -> str:
    return _packed(name, dense(text), "x-lzma", size=len(text))


def _packed(name: str, data: bytes, kind: str, size: int | None = None) -> str:
    """A script element that holds data for the page's script; browsers do not run its type. ``size`` is that of the unpacked data."""
    unpacked = "" if size is None else f' data-size="{size}"'
    start = f'<script type="application/{kind}" id="{name}" data-bytes="{len(data)}"{unpacked}>'
    return f"{start}{base91.encode(data)}</script>"

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
from interp.report.blocks import Prompt, Section
from interp.report.findings import Found, most_notable
from interp.report.fitting import LIMIT, can_be_coarser, coarser, note_on, step_for
from interp.report.head import Models, head, name_of, texts_of
from interp.report.markup import Html, element, join, terms_in
from interp.report.pack import compressed, dense, squeezed
from interp.report.render import Renderer
from interp.report.sections import BUILDERS, glossary, provenance, tokens
from interp.report.sections.glossary import TERMS
from interp.results import Result
from interp.tokens import visible

PLOTLY_BUNDLE = "vendor/plotly-cartesian.min.js.gz"
_FIRST = ("theme.js", "lzma.js", "boot.js")
"""Scripts that stand in the page as they are: what it looks like, and how to unpack the others."""
_READING = ("columns.js", "data.js", "writing.js", "selection.js", "address.js")
_SHOWING = ("figures.js", "picture-table.js", "files.js", "tables.js", "pictures.js", "controls.js", "keys.js")
_HEADS = ("patterns.js", "mosaic.js", "heads.js")


@dataclass(frozen=True)
class Report:
    """A finished page. ``findings`` are the facts that it opens with, the most notable first."""

    content: str
    findings: tuple[Found, ...] = ()
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
    prompts, models = _prompts(results), Models(results)
    paired = _paired(results, prompts)
    sections = _sections(results, prompts, models)
    found, heading = most_notable(sections), sections[0].title
    sections.append(glossary.build(_used_terms(sections)))
    name = visible(title) if title is not None else _title(results, prompts)
    top = head(results, prompts, found, heading, models)
    step = step_for(sections, limit)
    while True:
        page = _page(prompts, paired, coarser(sections, step, prompts), name, top, note_on(0, step, limit))
        size = len(page.encode())
        if size <= limit or not can_be_coarser(sections, step):
            break
        step *= 2
    note = note_on(size, step, limit)
    if size > limit:
        page = _page(prompts, paired, coarser(sections, step, prompts), name, top, note)
    return Report(page, findings=found, notes=() if note is None else (note,))


def _page(
    prompts: Mapping[str, Prompt],
    paired: Sequence[tuple[str, str, Sequence[tuple[int, int]]]],
    sections: Sequence[Section],
    title: str,
    top: Html,
    note: str | None,
) -> str:
    """The finished HTML of ``sections``, under ``top`` and ``note``; ``paired`` are the tokens of two prompts that belong together."""
    renderer = Renderer(arrays=Arrays([prompts[key].tokens.ids for key in sorted(prompts)]))
    body = [renderer.section(section, number) for number, section in enumerate(sections, start=1)]
    texts = list(texts_of(prompts))
    named = {
        key: {"name": name_of(key, prompts), "text": texts.index(prompt.tokens.text)} for key, prompt in prompts.items()
    }
    tokens_of = {
        key: {"labels": prompt.tokens.labels, "ids": prompt.tokens.ids, "positions": prompt.positions, **named[key]}
        for key, prompt in prompts.items()
    }
    for one, two, pairs in paired:
        tokens_of[one].setdefault("pairs", {})[two] = list(pairs)
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
        distinct += [prompt for prompt in Prompt.all_of(result) if prompt not in distinct]
    return {f"p{index}": prompt for index, prompt in enumerate(distinct)}


def _keys(result: Result, prompts: Mapping[str, Prompt]) -> list[str]:
    """The keys of a result's prompt, or of both sides of a comparison."""
    own = Prompt.all_of(result)
    return [next(key for key, prompt in prompts.items() if prompt == one) for one in own]


def _paired(results: Sequence[Any], prompts: Mapping[str, Prompt]) -> list[tuple[str, str, Sequence[tuple[int, int]]]]:
    """For each comparison of two prompts their keys, and which tokens stand side by side."""
    found = []
    for result in results:
        if result.kind == "comparison" and len(set(keys := _keys(result, prompts))) > 1:
            found.append((keys[0], keys[1], result.pairs))
    return found


def _sections(results: Sequence[Result], prompts: Mapping[str, Prompt], models: Models) -> list[Section]:
    """All sections in the order the data moves; of several prompts or models each says which, and every name is made unique."""
    whole = {key: prompt for key, prompt in prompts.items() if not any(map(prompt.is_part_of, prompts.values()))}
    found = [(tokens.build(prompt, key), _which(key, whole)) for key, prompt in whole.items()]
    for result in results:
        keys = _keys(result, prompts) or [""]
        compared = result.kind == "comparison"  # its title names both sides
        which = _which(keys[0], prompts) + (f" · {visible(models.of(result))}" if len(models) > 1 else "")
        built = [build(result, *keys) for build in BUILDERS[result.kind]]
        found += [(section, "" if compared else which) for section in built if section is not None]
    found.append((provenance.build(results), ""))
    found.sort(key=lambda pair: pair[0].place)
    seen: dict[str, int] = {}
    sections = []
    for section, which in found:
        seen[section.name] = seen.get(section.name, 0) + 1
        name = section.name if seen[section.name] == 1 else f"{section.name}-{seen[section.name]}"
        sections.append(replace(section, name=name, title=section.title + which, label=section.label + which))
    return sections


def _which(key: str, prompts: Mapping[str, Prompt]) -> str:
    """Which of several prompts a section is about, to stand behind its title."""
    return f" · {name_of(key, prompts)}" if key and len(prompts) > 1 else ""


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
    code = _called_at_once(gzip.decompress((files("interp.report") / PLOTLY_BUNDLE).read_bytes()).decode())
    return _dense("plotly", code.encode()), _digest(code)


def _called_at_once(bundle: str) -> str:
    """The bundle with its one function in brackets, so that browsers compile it as they read it, and not a second time to call it."""
    head, found, body = bundle.rstrip().partition("self : this, () => {")
    body, end = body[:-4], body[-4:]
    assert (found, end) == ("self : this, () => {", "}));"), "the bundle is wrapped in another way"
    return f"{head}self : this, (() => {{{body}}})));"


def _dense(name: str, text: bytes) -> str:
    return _packed(name, dense(text), "x-lzma", size=len(text))


def _packed(name: str, data: bytes, kind: str, size: int | None = None) -> str:
    """A script element that holds data for the page's script; browsers do not run its type. ``size`` is that of the unpacked data."""
    unpacked = "" if size is None else f' data-size="{size}"'
    start = f'<script type="application/{kind}" id="{name}" data-bytes="{len(data)}"{unpacked}>'
    return f"{start}{base91.encode(data)}</script>"

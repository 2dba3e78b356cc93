"""HTML made so that text cannot become markup: every string child and attribute is escaped, only ``Html`` passes as it is."""

import html
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from interp.tokens import visible


@dataclass(frozen=True)
class Html:
    """Finished HTML."""

    text: str


Child: TypeAlias = str | Html

_TERM = re.compile(r"\[\[([^\]|]+)(?:\|([^\]]+))?\]\]")
_VOID = frozenset({"br", "hr", "input", "meta"})
_ENDED_BY_THE_NEXT = frozenset({"td", "tr"})
"""Elements whose end tag HTML leaves out: a long prompt has many of them."""


def escape(text: str) -> str:
    """Text that is no markup; half of a surrogate pair, which no file can hold, as its number."""
    return html.escape(text.encode("utf-8", "backslashreplace").decode())


def element(tag: str, *children: Child, **attributes: str | int | bool | None) -> Html:
    """``<tag attributes>children</tag>``.

    In attribute names a trailing underscore is dropped and others become hyphens (``class_``, ``data_id``). True gives a bare
    attribute; False and None leave it out.
    """
    written = []
    for name, value in attributes.items():
        if value is None or value is False:
            continue
        plain = name.rstrip("_").replace("_", "-")
        written.append(f" {plain}" if value is True else f' {plain}="{escape(str(value))}"')
    opening = f"<{tag}{''.join(written)}>"
    if tag in _VOID:
        return Html(opening)
    return Html(f"{opening}{join(children).text}{'' if tag in _ENDED_BY_THE_NEXT else f'</{tag}>'}")


def join(children: Iterable[Child], separator: str = "") -> Html:
    """The children one after the other."""
    return Html(escape(separator).join(child.text if isinstance(child, Html) else escape(child) for child in children))


def token(piece: str) -> Html:
    """A token as a chip, with every character visible and its writing direction kept to itself."""
    return element("bdi", visible(piece))  # without a class: a long prompt has many


def quoted(text: str) -> Html:
    """Text from outside (a prompt, a name), with every character visible and its writing direction kept to itself."""
    return element("bdi", visible(text), class_="text")


def prose(text: str) -> Html:
    """Our own sentence, in which ``[[term]]`` or ``[[words|term]]`` becomes a link to the glossary."""
    parts: list[Child] = []
    end = 0
    for match in _TERM.finditer(text):
        words = match[1]
        anchor = term_anchor(match[2] or words)
        parts += [text[end : match.start()], element("a", words, href=f"#{anchor}", class_="term")]
        end = match.end()
    return join([*parts, text[end:]])


def terms_in(text: str) -> list[str]:
    """The glossary terms that ``prose`` would link."""
    return [(match[2] or match[1]).lower() for match in _TERM.finditer(text)]


def term_anchor(term: str) -> str:
    """The id of a glossary entry."""
    return "term-" + re.sub(r"[^a-z0-9]+", "-", term.lower()).strip("-")

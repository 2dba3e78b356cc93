"""Tokens and ids: what the model reads in place of text."""

import re
from bisect import bisect_right
from collections.abc import Sequence

from interp.report.blocks import Prompt, Section, Table
from interp.report.markup import Child, Html, element, join, quoted, token
from interp.report.sections.numbers import counted
from interp.tokens import Tokens

_SHOWN, _LONG = 12, 40
"""Of the word that takes most tokens: how many of these, and how many of its characters, are shown."""


def build(prompt: Prompt, key: str) -> Section:
    """The prompt as a strip of tokens to choose from, how its words are cut, and a table with ids, bytes and places in the text."""
    tokens, count = prompt.tokens, len(prompt.tokens)
    strip = element("div", class_="strip", data_prompt=key, role="group", aria_label="Tokens of the prompt")
    rows: list[list[Child]] = []
    for pos, (piece, number, size, span) in enumerate(
        zip(tokens.pieces, tokens.ids, tokens.byte_counts, tokens.spans, strict=True)
    ):
        place = "none of the text" if span is None else f"{span[0]} to {span[1]}"
        rows.append([str(prompt.positions[pos]), token(piece), str(number), str(size), place])
    table = Table(
        columns=("position", "token", "id", "bytes", "characters of the prompt"),
        rows=rows,
        numeric=frozenset({0, 2, 3}),
        caption=f"{counted(count, 'token')}, {len(tokens.text)} characters",
        follows=key,
        long=True,
    )
    lead = (
        "The model reads numbers. The tokenizer cuts the text into [[tokens|token]], pieces from a fixed list, and looks up the id of "
        "each: a common word is one piece, and what is not on the list is cut into smaller ones. "
        "Choose a token here, or anywhere below, and every picture follows."
    )
    return Section(
        name="tokens",
        title="Tokens and ids",
        label="Tokens",
        lead=lead,
        place=10,
        blocks=(element("p", _count(tokens)), strip, table),
    )


def _count(tokens: Tokens) -> Html:
    """How many tokens this text takes, and the word that takes most."""
    size, words = len(tokens.text.encode(errors="replace")), list(re.finditer(r"\S+", tokens.text))
    count = f"This text takes {counted(len(tokens), 'token')} for {counted(len(words), 'word')} and {counted(size, 'byte')}."
    if not words:
        return join([count])
    places = _places(tokens, words)
    most = max(range(len(words)), key=lambda index: len(places[index]))
    word, held = words[most].group(), [tokens.labels[pos] for pos in places[most]]
    name = quoted(word if len(word) <= _LONG else word[:_LONG] + "…")
    parts = " + ".join(held if len(held) <= _SHOWN else [*held[:_SHOWN], "…"])
    return join(
        [
            f"{count} The word that takes most is ",
            name,
            f": {counted(len(held), 'token')}, ",
            element("bdi", parts),
            ".",
        ]
    )


def _places(tokens: Tokens, words: Sequence[re.Match[str]]) -> list[list[int]]:
    """The tokens that hold some of each word."""
    ends = [word.end() for word in words]
    places: list[list[int]] = [[] for _ in words]
    for pos, span in enumerate(tokens.spans):
        start, end = span or (0, 0)
        index = bisect_right(ends, start)
        while index < len(words) and words[index].start() < end:
            places[index].append(pos)
            index += 1
    return places

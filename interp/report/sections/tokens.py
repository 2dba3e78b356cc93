"""Tokens and ids: what the model reads in place of text."""

from interp.report.blocks import Prompt, Section, Table
from interp.report.markup import Child, element, token


def build(prompt: Prompt, key: str) -> Section:
    """The prompt as a strip of tokens to choose from, and as a table with ids and places in the text."""
    tokens, count = prompt.tokens, len(prompt.tokens)
    strip = element("div", class_="strip", data_prompt=key, role="group", aria_label="Tokens of the prompt")
    rows: list[list[Child]] = []
    for pos, (piece, number, span) in enumerate(zip(tokens.pieces, tokens.ids, tokens.spans, strict=True)):
        place = "none of the text" if span is None else f"{span[0]} to {span[1]}"
        rows.append(
            [str(prompt.positions[pos]), token(piece), str(number), str(len(piece.encode(errors="replace"))), place]
        )
    table = Table(
        columns=("position", "token", "id", "bytes", "characters of the prompt"),
        rows=rows,
        numeric=frozenset({0, 2, 3}),
        caption=f"{count} {'token' if count == 1 else 'tokens'}, {len(tokens.text)} characters",
        follows=key,
        long=True,
    )
    lead = (
        "The model reads numbers. The tokenizer cuts the text into [[tokens|token]] and looks up the id of each. "
        "Choose a token here, or anywhere below, and every picture follows."
    )
    return Section(name="tokens", title="Tokens and ids", label="Tokens", lead=lead, place=10, blocks=(strip, table))

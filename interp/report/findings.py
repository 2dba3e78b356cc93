"""The few facts that a page and the terminal open with: which of all findings, in which order, and where each is shown.

Findings are ordered by what they stand on (``Evidence``: what the model says, what was shown by changing something, what was read off, what
is merely so, what ought to hold), then by strength, then by their place on the page. No section gives more than three, so that
one analysis does not crowd out the others.
"""

import html
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from interp.report.blocks import Finding, HeadMosaic, Picture, Section
from interp.report.markup import Child, Html

SHOWN = 7
OF_ONE_SECTION = 3

_TAG = re.compile(r"<[^>]*>")


@dataclass(frozen=True, kw_only=True)
class Found:
    """A finding in its place: the sentence as plain text, its figures as ``Finding`` has them, and the section that shows it.

    ``anchor`` is the id of the picture on the page, ``label`` the section in a word or two.
    """

    sentence: str
    value: float | None
    unit: str
    interval: tuple[float, float] | None
    null: float | None
    strength: float
    anchor: str
    label: str
    markup: Child

    def record(self) -> dict[str, Any]:
        """The finding as JSON-safe data."""
        return {name: value for name, value in asdict(self).items() if name != "markup"}


def most_notable(sections: Sequence[Section], shown: int = SHOWN) -> tuple[Found, ...]:
    """The findings of all sections that a page opens with, the most notable first."""
    every = [(finding, section) for section in sections for finding in section.findings]
    every.sort(key=lambda pair: (pair[0].rank, -pair[0].strength))
    counts: Counter[str] = Counter()
    chosen = []
    for finding, section in every:
        counts[section.name] += 1
        if counts[section.name] <= OF_ONE_SECTION:
            chosen.append(_found(finding, section))
    return tuple(chosen[:shown])


def anchored(section: Section) -> dict[int, str]:
    """The ids that findings link to, by the block of the section that each stands at."""
    blocks = {_block(finding, section) for finding in section.findings}
    return {block: _anchor(section, block) for block in sorted(found for found in blocks if found is not None)}


def plain(text: Child) -> str:
    """A sentence without its markup."""
    return html.unescape(_TAG.sub("", text.text)) if isinstance(text, Html) else text


def _found(finding: Finding, section: Section) -> Found:
    block = _block(finding, section)
    return Found(
        sentence=plain(finding.text),
        value=finding.value,
        unit=finding.unit,
        interval=finding.interval,
        null=finding.null,
        strength=finding.strength,
        anchor=section.name if block is None else _anchor(section, block),
        label=section.label,
        markup=finding.text,
    )


def _block(finding: Finding, section: Section) -> int | None:
    """The block that shows a finding: the one it names, else the first picture, if there is one."""
    if finding.block is not None:
        return finding.block
    pictures = (index for index, block in enumerate(section.blocks) if isinstance(block, Picture | HeadMosaic))
    return next(pictures, None)


def _anchor(section: Section, block: int) -> str:
    return f"{section.name}.{block}"

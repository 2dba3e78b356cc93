"""Text from models, prompts and errors, made safe to print in a terminal."""

import re

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def inert(text: str) -> str:
    r"""``text`` with control and direction-changing characters written out, such as ``\x1b``, so that a terminal obeys none.

    Line breaks and tabs stay.
    """
    return _CONTROLS.sub(_written_out, text)


def one_line(message: object) -> str:
    """``message`` on one line, inert."""
    return inert(" ".join(str(message).split()))


def _written_out(match: re.Match[str]) -> str:
    return match.group().encode("unicode_escape").decode("ascii")

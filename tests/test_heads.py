"""Names of heads: written one way, read in two, checked against the model's size."""

import pytest

from interp.errors import UsageError
from interp.heads import Head, heads_of


def test_names_are_read_as_they_are_written() -> None:
    for text in ("L5H3", "l5h3", " 5.3 ", "L 5 H 3"):
        assert Head.parse(text, 30, 9) == Head(5, 3)
    assert str(Head(5, 3)) == "L5H3"
    assert sorted([Head(2, 0), Head(1, 8)]) == [Head(1, 8), Head(2, 0)]


@pytest.mark.parametrize("text", ["", "5", "5,3", "H3L5", "L5H-1", "5.3.1", "-1.0", "L5"])
def test_another_spelling_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="write L5H3 or 5.3.*L0H0 to L29H8"):
        Head.parse(text, 30, 9)


@pytest.mark.parametrize("text", ["L30H0", "0.9"])
def test_a_head_that_is_not_there_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is out of range; valid: L0H0 to L29H8"):
        Head.parse(text, 30, 9)


def test_several_heads() -> None:
    assert heads_of(None, 2, 2) == (Head(0, 0), Head(0, 1), Head(1, 0), Head(1, 1))
    assert heads_of("1.1, L0H0,1.1", 2, 2) == (Head(1, 1), Head(0, 0))
    assert heads_of([(1, 0), Head(0, 1), "0.0"], 2, 2) == (Head(1, 0), Head(0, 1), Head(0, 0))
    assert heads_of(Head(1, 0), 2, 2) == (Head(1, 0),)
    with pytest.raises(UsageError, match="no heads given; valid: L0H0 to L1H1"):
        heads_of([], 2, 2)
    with pytest.raises(UsageError, match="head L2H0 is out of range"):
        heads_of([(2, 0)], 2, 2)

"""The words of the position filter, against Python's own slices."""

import pytest

import word_model
from interp.errors import UsageError
from interp.scale.positions import position_filter


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("all", [0, 1, 2, 3, 4]),
        ("last", [4]),
        ("0", [0]),
        ("-1", [4]),
        ("-2", [3]),
        ("7", []),
        ("1:", [1, 2, 3, 4]),
        (":2", [0, 1]),
        ("-2:", [3, 4]),
        ("::2", [0, 2, 4]),
        ("1:4:2", [1, 3]),
        (":", [0, 1, 2, 3, 4]),
        ("6:", []),
    ],
)
def test_which_positions_are_kept(small, words: str, expected: list[int]) -> None:
    kept = position_filter(small, words, skip_bos=False)
    assert list(kept.of([7, 8, 9, 10, 11])) == expected


@pytest.mark.parametrize("words", ["first", "", "1:2:0", "1:2:-1", "1;2", "::00", "1.5"])
def test_other_words_are_refused(small, words: str) -> None:
    with pytest.raises(UsageError, match=r"cannot read the positions .*; write all, last"):
        position_filter(small, words, skip_bos=False)


def test_a_begin_of_text_token_is_left_out_only_at_the_start(small) -> None:
    model = word_model.build()
    model.tokenizer.bos_token = "Ann"
    bos = model.tokenizer.bos_token_id
    kept = position_filter(model, "all", skip_bos=True)
    assert list(kept.of([bos, 5, bos, 6])) == [1, 2, 3]
    assert list(kept.of([5, bos])) == [0, 1]
    assert list(position_filter(model, "::2", skip_bos=True).of([bos, 5, 6, 7])) == [2]
    with pytest.raises(UsageError, match=r"no begin-of-text token; leave out the first token with positions '1:'"):
        position_filter(small, "all", skip_bos=True)


@pytest.mark.parametrize(
    ("positions", "words"),
    [
        *((text, "all") for text in ("all", ":", "0:", "::1", "0::1")),
        *((text, "last") for text in ("last", "-1", "-1:")),
        *((text, "0") for text in ("0", ":1", "0:1")),
        ("5:6", "5"),
        ("-3:-2", "-3"),
        ("2:5:1", "2:5"),
        ("0:16", ":16"),
        ("0::4", "::4"),
        ("-1:1", "-1:1"),
        ("-1:0", "-1:0"),
        ("1::2", "1::2"),
    ],
)
def test_spellings_of_the_same_positions_are_one(positions: str, words: str) -> None:
    from interp.scale.positions import _slice, words_of

    assert words_of(positions) == words
    assert words_of(words) == words
    for length in range(12):
        assert range(length)[_slice(words)] == range(length)[_slice(positions)]

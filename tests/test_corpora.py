"""Corpora: which record each text is, what a Parquet file gives, and the digests that tell one corpus from another."""

import hashlib
import json
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

import word_model
from interp.corpora import Documents, first_tokens, longest_window, open_documents, windows_of
from interp.errors import UsageError


def numbered(documents: Documents) -> list[tuple[int, object]]:
    return [(document.number, document.text) for document in documents]


def parquet_file(path: Path, columns: dict) -> Path:
    parquet.write_table(pyarrow.table(columns), path)
    return path


def test_a_text_is_known_by_its_line_row_or_place(tmp_path) -> None:
    (tmp_path / "a.txt").write_text("one\n\n  two \n", encoding="utf-8")
    (tmp_path / "a.jsonl").write_text('{"body": "one"}\n{"body": ""}\n\n{"body": "two"}\n', encoding="utf-8")
    rows = parquet_file(tmp_path / "a.parquet", {"id": [1, 2, 3, 4], "body": ["one", None, " ", "two"]})
    assert numbered(open_documents(tmp_path / "a.txt")) == [(0, "one"), (2, "two")]
    assert numbered(open_documents(tmp_path / "a.jsonl", field="body")) == [(0, "one"), (3, "two")]
    assert numbered(open_documents(rows, field="body")) == [(0, "one"), (3, "two")]
    assert numbered(open_documents(["one", [5, 6]])) == [(0, "one"), (1, [5, 6])]


def test_the_share_that_was_read_ends_at_the_whole(tmp_path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\nthree\n", encoding="utf-8")
    rows = parquet_file(tmp_path / "a.parquet", {"text": ["x"] * 600})
    for documents in (open_documents(tmp_path / "a.txt"), open_documents(rows), open_documents(["a", "b"])):
        shares = [document.share for document in documents]
        assert shares == sorted(shares)
        assert shares[-1] == 1


def test_the_digest_of_a_file_is_of_its_bytes_and_of_a_list_of_its_texts(tmp_path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\ntwo\n")
    documents = open_documents(tmp_path / "a.txt")
    assert documents.whole_sha256() == documents.sha256() == hashlib.sha256(b"one\ntwo\n").hexdigest()
    assert [document.before for document in documents] == [None, None]
    given = open_documents(["one", [5, 6], "two"])
    lines = [json.dumps(text).encode() + b"\n" for text in ("one", [5, 6], "two")]
    assert given.whole_sha256() == hashlib.sha256(b"".join(lines)).hexdigest()
    before = [document.before for document in given]
    assert before == [hashlib.sha256(b"".join(lines[:number])).hexdigest() for number in range(3)]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"body": ["a"]}, r"has no column 'text'; it has: body. Name one of them as the field"),
        ({"text": [1]}, r"the column 'text' of .* holds int64, not text"),
        (None, r"is not a readable Parquet file"),
    ],
)
def test_what_is_wrong_with_a_parquet_file_is_told(tmp_path, columns, message: str) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1 but not really") if columns is None else parquet_file(path, columns)
    with pytest.raises(UsageError, match=message):
        list(open_documents(path))


def test_windows_say_where_they_are_and_max_tokens_cuts_the_last() -> None:
    model = word_model.build()
    found = list(windows_of(model, open_documents([[3, 4, 5, 6, 7], "", [8, 9]]), 2))
    assert [(window.document.number, window.index, window.ids) for window in found] == [
        (0, 0, (3, 4)),
        (0, 1, (5, 6)),
        (0, 2, (7,)),
        (2, 0, (8, 9)),
    ]
    for most in (1, 3, 4, 5, 6, 7, 100, None):
        ids = [index for window in first_tokens(found, most) for index in window.ids]
        assert ids == [3, 4, 5, 6, 7, 8, 9][:most]
    assert longest_window(model) == 64


def test_records_without_a_text_are_left_out_and_counted_in_every_format(tmp_path) -> None:
    import pyarrow
    from pyarrow import parquet

    texts = ["Ann", None, " ", "Bob"]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    parquet.write_table(pyarrow.table({"text": texts}), tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.parquet"):
        documents = open_documents(tmp_path / name)
        for _ in range(2):
            assert [(found.number, found.text) for found in documents] == [(0, "Ann"), (3, "Bob")]
            assert documents.skipped() == 2
    (tmp_path / "b.jsonl").write_text('{"other": "Ann"}')
    with pytest.raises(UsageError, match="line 1 of .* has no text"):
        list(open_documents(tmp_path / "b.jsonl"))


def test_a_mark_at_the_start_of_a_file_is_no_text(tmp_path) -> None:
    for name, line in (("a.jsonl", '{"text": "Ann"}'), ("a.txt", "Ann")):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + line.encode())
        assert [found.text for found in open_documents(tmp_path / name)] == ["Ann"]


def test_a_window_that_the_leading_tokens_fill_is_refused() -> None:
    from interp.corpora import _cut

    assert list(_cut([1, 5, 6], [1], 2)) == [(1, 5), (1, 6)]
    with pytest.raises(UsageError, match="a window of 1 tokens has no room .*; give 2 or more"):
        list(_cut([1, 5, 6], [1], 1))

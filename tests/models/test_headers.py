"""Reading safetensors headers: right on good files, one clear line on every kind of broken one."""

import json
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from interp.errors import ModelError
from interp.models.headers import read_header

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.float64]


def write(path: Path, header: object, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(begin: int, end: int, shape: list[int] | None = None, dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": [(end - begin) // 4] if shape is None else shape, "data_offsets": [begin, end]}


@given(
    st.lists(
        st.tuples(st.lists(st.integers(0, 4), max_size=3), st.sampled_from(DTYPES)),
        min_size=1,
        max_size=6,
    )
)
def test_header_says_what_safetensors_wrote(tmp_path_factory, wanted) -> None:
    path = tmp_path_factory.mktemp("good") / "model.safetensors"
    tensors = {f"t{index}": torch.zeros(shape, dtype=dtype) for index, (shape, dtype) in enumerate(wanted)}
    save_file(tensors, path)
    read = {info.name: info for info in read_header(path)}
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].shape == tuple(tensor.shape)
        assert read[name].dtype == str(tensor.dtype).removeprefix("torch.")
        assert read[name].bytes == tensor.numel() * tensor.element_size()
        assert read[name].file == "model.safetensors"


BROKEN = {
    "empty": (b"", "0 bytes"),
    "seven bytes": (b"\x01" * 7, "not a safetensors file"),
    "lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "Git LFS pointer"),
    "web page": (b"<!DOCTYPE html><html><body>403</body></html>", "web page"),
    "web page after blanks": (b"\n\n <HTML lang='en'>404</HTML>", "web page"),
    "zip pickle": (b"PK\x03\x04" + b"\0" * 64, "pickle"),
    "bare pickle": (b"\x80\x02}q\x00." + b"\0" * 64, "pickle"),
    "gguf": (b"GGUF\x03\0\0\0" + b"\0" * 64, "GGUF file"),
    "noise": (bytes(range(7, 207)), "not a safetensors file"),
    "huge header length": ((1 << 60).to_bytes(8, "little") + b"{" * 64, "not a safetensors file"),
    "header longer than file": ((5000).to_bytes(8, "little") + b"{" * 64, "truncated"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_other_bytes_are_refused_in_one_line(tmp_path, case) -> None:
    content, expected = BROKEN[case]
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    start = time.perf_counter()
    with pytest.raises(ModelError, match=expected) as caught:
        read_header(path)
    assert time.perf_counter() - start < 1
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


HEADERS = {
    "no json": (b"{nonsense", b"", "no valid JSON"),
    "a name twice": (b'{"a": {}, "a": {}}', b"", "occurs twice"),
    "entry is no object": ({"a": 3}, b"", "is no object"),
    "unknown dtype": ({"a": entry(0, 4, dtype="F31")}, b"1234", "unknown dtype 'F31'"),
    "dtype is a list": ({"a": {"dtype": [], "shape": [1], "data_offsets": [0, 4]}}, b"1234", "unknown dtype"),
    "negative size": ({"a": entry(0, 4, shape=[-1])}, b"1234", "bad shape"),
    "shape of booleans": ({"a": entry(0, 4, shape=[True])}, b"1234", "bad shape"),
    "offsets backwards": ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}, b"1234", "bad offsets"),
    "size and shape differ": ({"a": entry(0, 8, shape=[3])}, b"12345678", r"float32 \[3\] but its byte range has 8"),
    "overlap": ({"a": entry(0, 8), "b": entry(4, 12)}, b"0" * 12, "'b' overlaps"),
    "gap": ({"a": entry(0, 4), "b": entry(8, 12)}, b"0" * 12, "'b' leaves a gap"),
    "truncated data": ({"a": entry(0, 400)}, b"0" * 399, "truncated: the tensors need 400 bytes and the file has 399"),
    "trailing bytes": ({"a": entry(0, 4)}, b"0" * 7, "3 bytes follow"),
}


@pytest.mark.parametrize("case", HEADERS)
def test_headers_that_contradict_themselves_are_refused(tmp_path, case) -> None:
    header, data, expected = HEADERS[case]
    path = write(tmp_path / "model.safetensors", header, data)
    with pytest.raises(ModelError, match=expected) as caught:
        read_header(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_deeply_nested_header_is_refused(tmp_path) -> None:
    with pytest.raises(ModelError, match="no valid JSON"):
        read_header(write(tmp_path / "deep.safetensors", b'{"a":' + b"[" * 200_000))


def test_missing_file_and_folder(tmp_path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        read_header(tmp_path / "absent.safetensors")
    with pytest.raises(ModelError, match="not a regular file"):
        read_header(tmp_path)


@given(cut=st.integers(0, 399), data=st.data())
def test_a_cut_file_is_always_refused(tmp_path_factory, cut, data) -> None:
    """Whatever the place, a file that ends early is an error and never a shorter list of tensors."""
    path = tmp_path_factory.mktemp("cut") / "model.safetensors"
    save_file({"a": torch.ones(40), "b": torch.ones(5, 5)}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: cut % len(whole)])
    with pytest.raises(ModelError):
        read_header(path)


@given(noise=st.binary(max_size=200))
def test_noise_never_raises_anything_else(tmp_path_factory, noise) -> None:
    path = tmp_path_factory.mktemp("noise") / "model.safetensors"
    for content in (noise, len(noise).to_bytes(8, "little") + noise, (2).to_bytes(8, "little") + b"{}" + noise):
        path.write_bytes(content)
        with suppress(ModelError):
            read_header(path)

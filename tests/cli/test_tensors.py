"""``interp tensors``: what it prints, as JSON too, and its errors."""

import json

import pytest
import torch
from safetensors.torch import save_file


@pytest.fixture
def model_folder(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    layers = {f"layers.{index}.w": torch.zeros(2, 3) for index in (0, 2, 10)}
    save_file(
        {**layers, "half": torch.zeros(5, dtype=torch.float16), "one": torch.tensor(1.0)}, folder / "model.safetensors"
    )
    return folder


def test_a_table_in_natural_order_with_totals(interp, model_folder) -> None:
    ended = interp("tensors", str(model_folder))
    assert (ended.code, ended.stderr) == (0, "")
    names = [line.split()[0] for line in ended.stdout.splitlines() if line.strip()][2:-1]
    assert names == ["half", "layers.0.w", "layers.2.w", "layers.10.w", "one"]
    assert "5 tensors, 24 parameters, 86 bytes (float16 10, float32 76)" in ended.stdout
    assert "scalar" in ended.stdout
    assert "2 x 3" in ended.stdout


def test_json(interp, model_folder) -> None:
    ended = interp("tensors", str(model_folder / "model.safetensors"), "--json")
    found = json.loads(ended.stdout)
    assert found["schema_version"] == 1
    assert found["tensors"][1] == {
        "name": "layers.0.w",
        "shape": [2, 3],
        "dtype": "float32",
        "bytes": 24,
        "file": "model.safetensors",
    }
    assert found["totals"] == {
        "tensors": 5,
        "parameters": 24,
        "bytes": 86,
        "bytes_by_dtype": {"float16": 10, "float32": 76},
    }


def test_output_file(interp, model_folder, tmp_path) -> None:
    assert interp("tensors", str(model_folder), "--json", "-o", str(tmp_path / "t.json")).stdout == ""
    assert json.loads((tmp_path / "t.json").read_text())["totals"]["tensors"] == 5


def test_names_with_markup_and_controls_are_shown_literally(interp, tmp_path) -> None:
    save_file({"[red]x\x1b[2J": torch.zeros(1)}, tmp_path / "model.safetensors")
    ended = interp("tensors", str(tmp_path))
    assert "[red]x\\x1b[2J" in ended.stdout


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "the file is empty (0 bytes)"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"<!DOCTYPE html>", "web page"),
        ((9999).to_bytes(8, "little") + b"{" * 90, "truncated"),
    ],
)
def test_damage_is_one_line_and_code_3(interp, tmp_path, content, expected) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    ended = interp("tensors", str(tmp_path))
    assert (ended.code, ended.stdout) == (3, "")
    assert len(ended.stderr.splitlines()) == 1
    assert expected in ended.stderr
    assert str(path) in ended.stderr


def test_an_unknown_name_is_code_3(interp) -> None:
    ended = interp("tensors", "smolm2-135m")
    assert ended.code == 3
    assert "did you mean 'smollm2-135m'?" in ended.stderr

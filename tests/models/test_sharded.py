"""Sharded checkpoints: listed, loaded and checked like one file; each fault is one line that names it."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from interp.errors import ModelError, NumericsError
from interp.models.loading import load_parts
from interp.models.tables import tensor_table

NAME = "model.layers.1.mlp.up_proj.weight"
INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(saved_model) -> Path:
    return saved_model(max_shard_size="20KB")


def shard_of(folder: Path, name: str = NAME) -> Path:
    return folder / json.loads((folder / INDEX).read_text())["weight_map"][name]


def change(folder: Path, edit, name: str = NAME) -> None:
    """Changes the tensors of one shard, and the index with them."""
    path = shard_of(folder, name)
    weights = load_file(path)
    edit(weights)
    save_file(weights, path, {"format": "pt"})
    index = json.loads((folder / INDEX).read_text())
    kept = {key: file for key, file in index["weight_map"].items() if file != path.name}
    (folder / INDEX).write_text(json.dumps(index | {"weight_map": kept | dict.fromkeys(weights, path.name)}))


def refused(folder: Path, kind=ModelError, **options) -> str:
    with pytest.raises(kind) as caught:
        load_parts(str(folder), **(options or {"device": "cpu"}))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_tensor_of_every_shard_is_listed_without_reading_it(folder, saved_model) -> None:
    rows = tensor_table(folder)
    whole = tensor_table(saved_model(name="whole"))
    assert [(row.name, row.shape, row.bytes) for row in rows] == [(row.name, row.shape, row.bytes) for row in whole]
    assert len({row.file for row in rows}) > 2
    assert {row.name: row.file for row in rows} == json.loads((folder / INDEX).read_text())["weight_map"]


@pytest.mark.parametrize("options", [{}, {"device_map": {"": "disk"}}, {"device": "cpu", "dtype": "bfloat16"}], ids=str)
def test_a_tensor_that_is_missing_extra_or_misshapen_is_named(saved_model, options) -> None:
    for place, (edit, words) in enumerate(
        (
            (lambda weights: weights.pop(NAME), f"missing: {NAME};"),
            (lambda weights: weights.update(extra=torch.ones(3)), "not part of the model: extra;"),
            (
                lambda weights: weights.update({NAME: torch.ones(64, 31)}),
                f"of the wrong shape: {NAME} [64, 31] instead of [64, 32];",
            ),
        )
    ):
        folder = saved_model(name=f"model{place}", max_shard_size="20KB")
        change(folder, edit)
        assert words in refused(folder, **options)


@pytest.mark.parametrize("options", [{}, {"device_map": {"": "disk"}}, {"device": "cpu", "dtype": "float16"}], ids=str)
def test_nan_in_a_shard_is_named(folder, options) -> None:
    change(folder, lambda weights: weights[NAME].view(-1)[:2].fill_(math.nan))
    assert f"{NAME} (2 NaN, 0 infinite)" in refused(folder, NumericsError, **options)


@pytest.mark.parametrize("device_map", [None, {"": "disk"}])
def test_a_shard_that_is_absent_cut_or_empty_is_said_before_anything_is_read(folder, device_map, monkeypatch) -> None:
    monkeypatch.setattr("interp.models.loading._read_model", lambda *_: pytest.fail("read the weights"))
    path = shard_of(folder)
    content = path.read_bytes()
    options = {"device_map": device_map}
    path.unlink()
    assert refused(folder, **options) == f"{path}: no such file; check the path"
    path.write_bytes(content[:-100])
    assert refused(folder, **options).startswith(f"{path}: truncated: the tensors need")
    path.write_bytes(content[:40])
    assert refused(folder, **options).startswith(f"{path}: truncated: the header alone takes")
    path.write_bytes(b"")
    assert refused(folder, **options).startswith(f"{path}: the file is empty (0 bytes)")
    with pytest.raises(ModelError, match="the file is empty"):
        tensor_table(folder)


def test_an_index_that_is_no_index_is_said(folder) -> None:
    for text, words in (("{}", "has no weight_map"), ("[1]", "not a JSON object"), ("{", "not valid JSON")):
        (folder / INDEX).write_text(text)
        assert words in refused(folder)


def test_a_tensor_in_two_shards_is_said(folder) -> None:
    first, second = sorted(folder.glob("*.safetensors"))[:2]
    weights = load_file(second)
    name = next(iter(load_file(first)))
    save_file(weights | {name: load_file(first)[name]}, second, {"format": "pt"})
    assert f"tensor {name!r} is in both {first.name} and {second.name}" in refused(folder)

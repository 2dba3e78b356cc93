"""Listing tensors from headers alone: the same for every way of naming a model, in natural order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from interp.errors import ModelError
from interp.models.catalog import ALIASES
from interp.models.tables import natural_key, tensor_table


def test_folder_shards_and_file_list_the_same(saved_model) -> None:
    whole, sharded = saved_model(name="whole"), saved_model(name="sharded", max_shard_size="20KB")
    rows = tensor_table(whole)
    assert {row.name: row.shape for row in rows} == {
        name: tuple(tensor.shape) for name, tensor in load_file(whole / "model.safetensors").items()
    }
    assert tensor_table(whole / "model.safetensors") == rows
    assert [(row.name, row.shape, row.bytes) for row in tensor_table(sharded)] == [
        (row.name, row.shape, row.bytes) for row in rows
    ]
    assert len({row.file for row in tensor_table(sharded)}) > 2


def test_order_is_natural() -> None:
    names = ["h.10.w", "h.2.w", "h.1.b", "h.1.a10", "h.1.a9", "wte"]
    assert sorted(names, key=natural_key) == ["h.1.a9", "h.1.a10", "h.1.b", "h.2.w", "h.10.w", "wte"]


@given(st.lists(st.text("a.0129٣", max_size=8), max_size=8))
def test_any_names_can_be_sorted(names) -> None:
    ordered = sorted(names, key=natural_key)
    assert sorted(ordered) == sorted(names)
    plain = [int(name) for name in ordered if name.isascii() and name.isdecimal()]
    assert plain == sorted(plain)


def test_long_digits_can_be_sorted() -> None:
    assert natural_key("a" + "9" * 10_000) > natural_key("a" + "0" * 20_000 + "8" * 9_999)


def test_an_alias_that_is_not_cached_says_what_to_run(empty_cache) -> None:
    with pytest.raises(
        ModelError, match="smollm2-135m is not cached; nothing is cached here yet; run `interp models fetch"
    ):
        tensor_table("smollm2-135m")


@pytest.mark.model
def test_the_default_model(default_model_parts) -> None:
    rows = tensor_table("smollm2-135m")
    assert len(rows) == 272
    assert sum(row.parameters for row in rows) == ALIASES["smollm2-135m"].parameters
    assert tensor_table(default_model_parts.source.path) == rows

"""Tiny models of every family and the default model, made once; a test leaves them as it found them."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tiny_models import FAMILIES, VARIANTS

if TYPE_CHECKING:
    from interp.runner.model import Model

CORE = ("gpt2", "llama", "gemma2", "gpt_neox", "phi3")
"""Conv1D and Linear, gated and not, fused gate and up, post-norms, parallel blocks; other families are ``slow``."""
TWO = ("gpt2", "llama")
ON_TWO = (
    "test_rome_is_that_of_full_forwards",
    "test_facts_spread_over_layers_as_by_full_forwards",
    "test_an_edit_makes_its_target_likelier",
)
"""Tests of which only these two families are fast; that of the default method is fast on all of CORE."""
HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what `make test` can leave to `make test-all`."""
    for item in items:
        if isinstance(item, pytest.Function) and item.path.parent == HERE and hasattr(item, "callspec"):
            names = {item.callspec.params.get("name"), item.callspec.params.get("family_name")}
            fast = TWO if item.originalname in ON_TWO else CORE
            if names & {*FAMILIES, *VARIANTS} - {*fast}:
                item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def family() -> "Callable[[str], Model]":
    """``family("llama")`` is the tiny Llama as a Model without a tokenizer, the same object in every test."""
    from interp.runner.model import Model
    from tiny_models import build

    @cache
    def make(name: str) -> Model:
        return Model(build(name))

    return make

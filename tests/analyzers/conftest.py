"""Tiny models of every family behind the runner, made once; a test leaves them as it found them."""

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from interp.runner.model import Model


@pytest.fixture(scope="session")
def family() -> "Callable[[str], Model]":
    """``family("llama")`` is the tiny Llama as a Model without a tokenizer, the same object in every test."""
    from interp.runner.model import Model
    from tiny_models import build

    @cache
    def make(name: str) -> Model:
        return Model(build(name))

    return make


@pytest.fixture
def ids() -> list[int]:
    """A prompt for a model without a tokenizer."""
    return [5, 9, 33, 71, 12, 44, 8, 90, 17, 3]

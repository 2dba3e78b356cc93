"""The tiny Llama, and what it says."""

import pytest

import tiny_models
from interp.runner.model import Model


@pytest.fixture
def told() -> list[str]:
    """What the model of the test was told to say."""
    return []


@pytest.fixture
def small(told: list[str]) -> Model:
    """The tiny Llama without a tokenizer."""
    return Model(tiny_models.build("llama"), notify=told.append)

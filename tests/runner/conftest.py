"""Tiny models of every family behind the runner, made once; a test leaves them as it found them."""

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from interp.runner.model import Model


@pytest.fixture(scope="session")
def family() -> "Callable[..., Model]":
    """``family("llama")`` is the tiny Llama as a Model, the same object in every test; ``family("llama", dtype=...)`` another."""
    from interp.runner.model import Model
    from tiny_models import build

    @cache
    def make(name: str, attn: str | None = None, dtype: torch.dtype = torch.float32) -> Model:
        return Model(build(name, attn).to(dtype))

    return make


@pytest.fixture(scope="session")
def near() -> Callable[..., None]:
    """``near(actual, expected, tolerance)``: equal to ``tolerance`` of the largest expected number; NaN only where expected."""

    def check(actual: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-4) -> None:
        scale = expected.detach().abs().nan_to_num(posinf=0.0).max().item()
        torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance * scale, equal_nan=True, check_dtype=False)

    return check

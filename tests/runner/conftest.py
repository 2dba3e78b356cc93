"""Tiny models of every family behind the runner, made once; a test leaves them as it found them."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from tiny_models import FAMILIES, VARIANTS

if TYPE_CHECKING:
    from interp.runner.model import Model


CORE = (
    *("gpt2", "gpt_neox", "gpt_bigcode", "llama", "gemma2", "phi3", "opt", "bloom", "falcon", "mixtral", "gpt_oss"),
    "granite",
)
"""The families that differ in what the runner does; the others are ``slow`` in all but the tests below."""
ON_EVERY_FAMILY = (
    "test_logits_are_bit_equal_with_everything_captured",
    "test_the_residual_stream_adds_up",
    "test_a_plain_restart_from_every_layer_and_position_is_the_full_forward",
)
HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what `make test` can leave to `make test-all`."""
    for item in items:
        if isinstance(item, pytest.Function) and item.path.parent == HERE and hasattr(item, "callspec"):
            name, dtype = item.callspec.params.get("name", "gpt2"), item.callspec.params.get("dtype", torch.float32)
            everywhere = item.originalname in ON_EVERY_FAMILY and dtype == torch.float32
            if name in (*FAMILIES, *VARIANTS) and name not in CORE and not everywhere:
                item.add_marker(pytest.mark.slow)


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

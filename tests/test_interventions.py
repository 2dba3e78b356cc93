"""Interventions are data: what each makes of a region, alone."""

import pytest
import torch
from torch import Tensor

from interp.errors import UsageError
from interp.interventions import Apply, Intervention, MeanAblate, Patch, Scale, Steer, ZeroAblate

OLD = torch.arange(12.0).reshape(2, 2, 3)
NAME = "blocks.0.hook_resid_pre"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (Patch("resid_pre@0", torch.ones(3)), torch.ones(2, 2, 3)),
        (Patch("resid_pre@0", {NAME: -OLD}), -OLD),
        (ZeroAblate("resid_pre@0"), torch.zeros(2, 2, 3)),
        (MeanAblate("resid_pre@0", torch.tensor(2.0)), torch.full((2, 2, 3), 2.0)),
        (MeanAblate("resid_pre@0", {NAME: torch.ones(2, 3)}), torch.ones(2, 2, 3)),
        (Steer("resid_pre@0", torch.ones(3), scale=0.5), OLD + 0.5),
        (Steer("resid_pre@0", torch.ones(3)), OLD + 1),
        (Scale("resid_pre@0", -2.0), OLD * -2),
        (Apply("resid_pre@0", lambda x: x**2), OLD**2),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Intervention) else "",
)
def test_new_values_of_a_region(change: Intervention, expected: Tensor) -> None:
    old = OLD.clone()
    values = change.values(old, NAME)
    torch.testing.assert_close(values, expected)
    assert values.shape == old.shape
    assert torch.equal(old, OLD)


def test_values_take_the_dtype_of_the_region() -> None:
    old = OLD.bfloat16()
    for change in (
        Patch("resid_pre@0", torch.ones(3)),
        MeanAblate("resid_pre@0", torch.ones(3, dtype=torch.float64)),
        Steer("resid_pre@0", torch.ones(3)),
        Apply("resid_pre@0", lambda x: x.double()),
    ):
        assert change.values(old, NAME).dtype == torch.bfloat16


def test_what_does_not_fit_names_both_shapes() -> None:
    for change in (
        Patch("resid_pre@0", torch.ones(4)),
        Steer("resid_pre@0", torch.ones(4)),
        MeanAblate("resid_pre@0", torch.ones(4)),
    ):
        with pytest.raises(
            UsageError,
            match=r"shape \(4,\) does not fit the selected part of blocks.0.hook_resid_pre, shape \(2, 2, 3\)",
        ):
            change.values(OLD, NAME)
    with pytest.raises(UsageError, match="holds no value for blocks.0"):
        Patch("resid_pre", {"blocks.1.hook_resid_pre": OLD}).values(OLD, NAME)
    with pytest.raises(UsageError, match="holds no mean for blocks.0"):
        MeanAblate("resid_pre", {}).values(OLD, NAME)
    with pytest.raises(TypeError, match="Intervention does not say how"):
        Intervention("resid_pre").values(OLD, NAME)


def test_interventions_are_frozen() -> None:
    with pytest.raises(AttributeError):
        Scale("resid_pre@0", 2.0).factor = 3.0

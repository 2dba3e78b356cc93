"""The public names: few, pinned here, imported lazily, and the same for people, editors and type checkers."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import interp

SOURCE = Path(interp.__file__)

SURFACE = {
    "__version__",
    "load",
    "Model",
    "Capture",
    "Patch",
    "ZeroAblate",
    "MeanAblate",
    "Steer",
    "Scale",
    "Apply",
    "Conversation",
    "Fact",
    "residual_story",
    "embedding_geometry",
    "position_encoding",
    "attention_summary",
    "expert_routing",
    "architecture",
    "logit_lens",
    "head_profiles",
    "detect_head",
    "head_circuits",
    "head_composition",
    "induction_heads",
    "attention_patterns",
    "causal_trace",
    "direct_logit_attribution",
    "next_token_logits",
    "decoding_choices",
    "token_losses",
    "Sampling",
    "ablation",
    "activation_patching",
    "attribution_patching",
    "path_patching",
    "compare",
    "fit_tuned_lens",
    "TunedLens",
    "Edit",
    "load_edit",
    "edit_facts",
    "edit_effect",
    "EditCase",
    "read_cases",
    "evaluate_edit",
    "edit_sequence",
    "second_moments",
    "SecondMoment",
    "collect",
    "open_store",
    "ActivationStore",
    "sweep",
    "report",
    "load_result",
    "InterpError",
    "UsageError",
    "ModelError",
    "NumericsError",
    "MemoryLimitError",
    "VerificationError",
}
"""A change here is a change for every user: it belongs in CHANGELOG.md."""


def test_the_names_are_pinned() -> None:
    assert len(interp.__all__) == len(SURFACE)
    assert set(interp.__all__) == SURFACE


@pytest.mark.parametrize("name", sorted(SURFACE))
def test_every_name_resolves_and_is_documented(name: str) -> None:
    value = getattr(interp, name)
    assert value is getattr(interp, name)
    assert name in dir(interp)
    if name != "__version__":
        assert value.__doc__
        assert value.__module__.split(".")[0] == "interp"


def test_type_checkers_see_what_people_get() -> None:
    """The TYPE_CHECKING block imports each lazy name from the module that the table names."""
    (block,) = [node for node in ast.parse(SOURCE.read_text()).body if isinstance(node, ast.If)]
    seen = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == interp._HOME
    assert set(interp.__all__) == {"__version__", *seen}


def test_an_unknown_name_is_an_attribute_error_that_lists_the_names() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'lode'; its names are: .*Fact"):
        _ = interp.lode
    assert not hasattr(interp, "lode")


@pytest.mark.long
def test_a_name_that_is_also_a_package_stays_what_it_is() -> None:
    """Python sets a subpackage on its parent when it is imported; a public name of that spelling must win."""
    code = "import interp, interp.{0}; assert callable(interp.{0}), interp.{0}"
    both = [name for name in interp.__all__ if (SOURCE.parent / name).is_dir()]
    for name in both:
        subprocess.run([sys.executable, "-c", code.format(name)], check=True)

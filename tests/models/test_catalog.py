"""The table of short names."""

import re

import pytest

from interp.errors import ModelError
from interp.models.catalog import ALIASES, DEFAULT_ALIAS, find_alias
from interp.models.loading import load_parts
from interp.models.locate import find_files


def test_names_are_lower_case_and_stand_for_one_repository_each() -> None:
    assert DEFAULT_ALIAS in ALIASES
    assert all(name == alias.name == name.lower() for name, alias in ALIASES.items())
    assert len({alias.hub_id for alias in ALIASES.values()}) == len(ALIASES)
    assert all(re.fullmatch(r"[\w.-]+/[\w.-]+", alias.hub_id) for alias in ALIASES.values())
    assert all(alias.parameters > 0 and alias.licence for alias in ALIASES.values())


def test_the_case_of_a_name_does_not_matter() -> None:
    assert find_alias("SmolLM2-135M") is ALIASES["smollm2-135m"]
    assert find_alias("smollm3") is None


@pytest.mark.parametrize("name", ["smolm2-135m", "smollm-135", "GPT-2", "pythia160m"])
def test_a_misspelt_name_gets_the_nearest_and_all_valid_ones(name, empty_cache) -> None:
    nearest = {"GPT-2": "gpt2", "pythia160m": "pythia-160m"}.get(name, "smollm2-135m")
    for find in (lambda: load_parts(name, device="cpu"), lambda: find_files(name)):
        with pytest.raises(ModelError, match=rf"unknown model '{name}' \(did you mean '{nearest}'\?\)") as caught:
            find()
        assert all(alias in str(caught.value) for alias in ALIASES)
        assert "nothing is cached here yet" in str(caught.value)


def test_the_default_model_has_one_revision() -> None:
    with pytest.raises(ModelError, match=r"one fixed revision; .*'HuggingFaceTB/SmolLM2-135M-Instruct'"):
        load_parts(DEFAULT_ALIAS, device="cpu", revision="main")

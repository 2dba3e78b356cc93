"""``interp models``: the list, what is cached, and fetching."""

import json

import pytest

from interp.models.catalog import ALIASES


@pytest.fixture
def no_hub_models(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def one_converted(empty_cache, no_hub_models):
    folder = empty_cache / "converted" / "123-v1"
    folder.mkdir(parents=True)
    (folder / "interp.json").write_text(json.dumps({"alias": "smollm2-135m", "sha256": "123"}))
    (folder / "model.safetensors").write_bytes(bytes(3_000_000))
    (empty_cache / "converted" / ".unfinished").mkdir()
    return folder


def test_every_short_name_is_listed(interp, empty_cache, no_hub_models) -> None:
    ended = interp("models")
    assert (ended.code, ended.stderr) == (0, "")
    assert all(alias.name in ended.stdout and alias.hub_id in ended.stdout for alias in ALIASES.values())
    assert str(empty_cache) in ended.stdout.replace("\n", "")


def test_json_says_what_is_cached(interp, one_converted) -> None:
    found = json.loads(interp("models", "--json").stdout)
    assert found["schema_version"] == 1
    assert [model["name"] for model in found["models"]] == list(ALIASES)
    size = sum(path.stat().st_size for path in one_converted.iterdir())
    assert found["models"][0]["cached_bytes"] == size
    assert {model["cached_bytes"] for model in found["models"][1:]} == {None}
    assert found["cached"] == [
        {"name": "smollm2-135m", "store": "interp", "path": str(one_converted), "bytes": size},
    ]


def test_listing_creates_nothing(interp, empty_cache, no_hub_models) -> None:
    interp("models")
    assert list(empty_cache.iterdir()) == []


@pytest.mark.model
def test_fetching_what_is_there_fetches_nothing(interp, default_model_parts) -> None:
    ended = interp("models", "fetch", "smollm2-135m", "--json")
    assert (ended.code, ended.stderr) == (0, "")
    found = json.loads(ended.stdout)
    assert (found["model"], found["tensors"], found["format"]) == ("smollm2-135m", 272, "gguf")


def test_fetching_an_unknown_name_is_code_3(interp, empty_cache, no_hub_models) -> None:
    ended = interp("models", "fetch", "smolm2-135m")
    assert ended.code == 3
    assert "did you mean 'smollm2-135m'?" in ended.stderr


def test_fetching_offline_says_so(interp, empty_cache, no_hub_models) -> None:
    """The suite runs with HF_HUB_OFFLINE."""
    ended = interp("models", "fetch", "gpt2")
    assert ended.code == 3
    assert "openai-community/gpt2 is not cached and offline mode is on; nothing is cached here yet" in ended.stderr

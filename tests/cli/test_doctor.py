"""``interp doctor`` on a sound installation, and on ones that are not."""

import json
from importlib import metadata
from pathlib import Path

import pytest

from interp_cli import doctor


def by_name(checks) -> dict[str, doctor.Check]:
    return {check.name: check for check in checks}


def test_a_sound_installation(interp, empty_cache: Path) -> None:
    ended = interp("doctor", "--json")
    assert (ended.code, ended.stderr) == (0, "")
    found = json.loads(ended.stdout)
    assert (found["command"], found["schema_version"], found["healthy"]) == ("doctor", 1, True)
    checks = {check["name"]: check for check in found["checks"]}
    assert checks["torch"]["found"] == metadata.version("torch")
    assert "threads of" in checks["cpu"]["found"]
    assert checks["cached models"]["found"].startswith("none yet")
    assert str(empty_cache) in checks["cache folder"]["found"]
    assert list(empty_cache.iterdir()) == []


def test_the_table(interp, empty_cache: Path) -> None:
    ended = interp("doctor")
    assert ended.code == 0
    assert all(name in ended.stdout for name in ("python", "torch", "cache folder", "atlas"))


@pytest.mark.parametrize(("installed", "said"), [(None, "missing"), ("1.0", "1.0, needed >=2.10")])
def test_a_missing_or_old_package_fails_with_the_fix(
    interp, monkeypatch, empty_cache: Path, installed: str | None, said: str
) -> None:
    real = metadata.version

    def version(name: str) -> str:
        if name != "torch":
            return real(name)
        if installed is None:
            raise metadata.PackageNotFoundError(name)
        return installed

    monkeypatch.setattr(doctor, "version", version)
    ended = interp("doctor")
    assert ended.code == 1
    assert said in ended.stdout
    assert "torch: pip install 'torch>=2.10'" in ended.stdout


def test_another_transformer_lens_is_a_warning(monkeypatch, empty_cache: Path) -> None:
    monkeypatch.setattr(doctor, "version", lambda name: "4.3.9")
    check = by_name([doctor._atlas()])["atlas"]
    assert check.status == "warning"
    assert "pip install 'transformer-lens==" in check.fix


def test_a_cache_folder_that_cannot_be_written(interp, monkeypatch) -> None:
    monkeypatch.setenv("INTERP_CACHE", "/proc/interp")
    ended = interp("doctor")
    assert ended.code == 1
    assert "set INTERP_CACHE to a folder that you can write" in ended.stdout

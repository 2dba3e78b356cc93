"""What is built holds every module and data file, under names that collide with nobody's."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def pinned() -> dict[str, str]:
    """Package and version of each line of constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): number for name, number in pairs}


def requirements() -> list[Requirement]:
    extras = PROJECT["project"]["optional-dependencies"].values()
    return [
        Requirement(line)
        for line in [*PROJECT["project"]["dependencies"], *(line for extra in extras for line in extra)]
    ]


def test_every_folder_with_modules_is_a_listed_package() -> None:
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "interp").rglob("*.py")}
    found = {".".join(folder.parts) for folder in folders}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == found | {"interp_cli"}
    assert all((ROOT / folder / "__init__.py").is_file() for folder in folders)


@pytest.mark.parametrize("need", requirements(), ids=lambda need: need.name)
def test_constraints_pin_a_version_in_each_range(need: Requirement) -> None:
    assert need.specifier.contains(pinned()[canonicalize_name(need.name)])


def test_constraints_are_what_the_suite_runs_with() -> None:
    running = {
        name: version(name).split("+")[0] for name in ("torch", "transformers", "plotly", "typer", "safetensors")
    }
    assert running.items() <= pinned().items()


def test_the_wheel_holds_everything(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    ignored = shutil.ignore_patterns("__pycache__", ".*")
    for name in ("interp", "cli"):
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
    ]
    built = subprocess.run([*pip, "-w", str(tmp_path), str(source)], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        licences = {name.rpartition(".dist-info/licenses/")[2] for name in archive.namelist() if "/licenses/" in name}
        entry_points = next(name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert "interp = interp_cli.main:main" in archive.read(entry_points).decode()
    assert licences == {"LICENSE", "interp/report/vendor/LICENSE.plotly"}
    expected = set()
    for name, package in (("interp", "interp"), ("cli", "interp_cli")):
        files = [path for path in (source / name).rglob("*") if path.is_file()]
        expected |= {str(Path(package, path.relative_to(source / name))) for path in files}
    assert held == expected


def test_make_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony
    shown = subprocess.run(["make", "-C", str(ROOT), "help"], capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"^  make ([a-z-]+) ", shown, re.MULTILINE)) == set(phony.group(1).split())


def test_the_version_is_the_changelogs_newest() -> None:
    from interp import __version__

    newest = re.search(r"^## (\S+)( \(\d{4}-\d\d-\d\d\))?$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert newest
    assert newest.group(1) == __version__
    assert newest.group(2), "the version of the package has no date in CHANGELOG.md"


def test_the_file_tree_of_the_readme_is_the_repositorys() -> None:
    """Every tracked folder at the top, and in each line only folders and files that are there."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = re.search(r"^## Where things are\n\n```text\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert tree
    lines = {line.split("/")[0]: line.split(None, 1)[1] for line in tree[1].splitlines()}
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this is no git checkout, so what belongs to it is not known")
    tracked = {line.split("/")[0] for line in listed.stdout.splitlines() if "/" in line}
    assert set(lines) == {folder for folder in tracked if not folder.startswith(".")}
    for folder, said in lines.items():
        for name in re.findall(r"[\w-]+(?:/|\.py)", said):
            assert (ROOT / folder / name).exists(), f"{folder}/{name}"

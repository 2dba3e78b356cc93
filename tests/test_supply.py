"""What is installed and shipped, and that nothing is asked or told: exact versions, few upper bounds, licences, no connection."""

import json
import os
import shutil
import stat
import subprocess
import sys
from importlib.metadata import distributions, requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from test_packaging import PROJECT, ROOT, pinned

TESTS = ROOT / "tests"
BOUNDED = {"transformer-lens": "the shipped table of components is made from one version of it"}
"""Requirements that have an upper bound, and why."""


def needed() -> set[str]:
    """Every distribution that interp with all its extras brings along, as the installed metadata tell; those that are not here are not
    followed (the tools to compare with come with the bench extra only).
    """
    here = {canonicalize_name(one.name) for one in distributions()}
    extras = tuple(PROJECT["project"]["optional-dependencies"])
    waiting = [("interp", extra) for extra in ("", *extras)]
    found: set[tuple[str, str]] = set()
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in found:
            continue
        found.add((name, extra))
        for line in requires(name) or ():
            need = Requirement(line)
            if need.marker is None or need.marker.evaluate({"extra": extra}):
                name = canonicalize_name(need.name)
                waiting += [(name, asked) for asked in ("", *need.extras) if name in here]
    return {name for name, _ in found} - {"interp"}


def test_every_distribution_that_is_brought_along_has_its_exact_version() -> None:
    versions = pinned()
    found = {name: version(name).split("+")[0] for name in needed()}
    assert len(found) > 60
    assert found == {name: versions.get(name) for name in found}


def test_an_upper_bound_has_its_reason() -> None:
    lists = [PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"].values()]
    bounded = set()
    for need in map(Requirement, (line for lines in lists for line in lines)):
        operators = {one.operator for one in need.specifier}
        assert operators & {">=", ">", "=="}, f"{need.name} has no lower bound"
        if operators & {"<", "<=", "==", "~=", "==="}:
            bounded.add(need.name)
    assert bounded == set(BOUNDED)


def test_what_is_vendored_has_its_licence_beside_it() -> None:
    folder = ROOT / "interp" / "report" / "vendor"
    vendored = {path.name for path in folder.iterdir() if not path.name.startswith("LICENSE")}
    assert vendored == {"plotly-cartesian.min.js.gz"}
    text = (folder / "LICENSE.plotly").read_text(encoding="utf-8")
    assert "MIT" in text
    assert "Plotly" in text
    assert "interp/report/vendor/LICENSE.*" in PROJECT["project"]["license-files"]
    assert PROJECT["project"]["license"] == "Apache-2.0 AND MIT"
    minified = sorted(path.name for path in ROOT.glob("interp/**/*.min.*"))
    assert minified == ["plotly-cartesian.min.js.gz"]  # nothing of others lies elsewhere


def offline(folder: Path, *more: str) -> None:
    """Every command ends well and none tried to connect; where the system allows it, in a network of its own, which is empty."""
    (folder / "work").mkdir()
    alone = (
        ["unshare", "-n"]
        if shutil.which("unshare") and not subprocess.run(["unshare", "-n", "true"]).returncode
        else []
    )
    command = [*alone, sys.executable, str(TESTS / "offline_commands.py"), str(folder / "work"), *more]
    kept = {name: value for name, value in os.environ.items() if "OFFLINE" not in name}
    kept |= {"PYTHONPATH": f"{TESTS}{os.pathsep}{ROOT}", "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    if not more:
        kept["INTERP_CACHE"] = str(folder / "cache")
    done = subprocess.run(command, capture_output=True, text=True, env=kept)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["tried"] == []
    assert found["failed"] == {}
    assert found["ran"] > 20
    assert found["page"] > 100_000


@pytest.mark.long
def test_no_command_connects_to_anything(tmp_path: Path) -> None:
    offline(tmp_path)


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.usefixtures("model")
def test_the_cached_default_model_needs_no_network(tmp_path: Path) -> None:
    offline(tmp_path, "default")


AUDITS = {
    "a finding": ('echo \'{"dependencies": [{"name": "x", "vulns": [{"id": "Y"}]}]}\' > "$out"; exit 1', 1, "vulns"),
    "no network": ("echo 'connection failed' >&2; exit 1", 0, "audit skipped: pip-audit got no answer"),
    "nothing known": (
        'echo \'{"dependencies": [{"name": "x", "skip_reason": "not found"}, {"name": "y", "skip_reason": "not found"}]}\' > "$out"',
        0,
        "audit skipped: the service pip-audit asked does not know 2 of the packages",
    ),
    "nothing found": ('echo \'{"dependencies": []}\' > "$out"', 0, "no known vulnerability"),
    "not there": (None, 0, "audit skipped: pip-audit is not installed"),
}


@pytest.mark.parametrize("case", AUDITS)
def test_the_audit_fails_for_a_finding_and_never_for_lack_of_a_network(tmp_path: Path, case: str) -> None:
    script, code, said = AUDITS[case]
    if script is not None:
        tool = tmp_path / "pip-audit"
        tool.write_text(f'#!/bin/sh\nfor word; do case "$last" in -o) out=$word;; esac; last=$word; done\n{script}\n')
        tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    path = f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin"
    done = subprocess.run(["make", "-s", "-C", str(ROOT), "audit"], capture_output=True, text=True, env={"PATH": path})
    assert (done.returncode != 0) == (code != 0), done.stderr
    assert said in done.stdout

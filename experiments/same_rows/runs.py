"""The runs that are compared: in this process, on two that are interrupted, and on a Ray cluster that loses a worker and a node."""

import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from interp.models.cache import Step
from interp.scale.sweep import sweep
from interp.scale.sweep_result import SweepResult

FRACTION = 4
"""What goes wrong does so after a quarter of the tasks; a node is lost after a half."""
_POLL_SECONDS = 0.05


@dataclass(frozen=True, kw_only=True)
class Told:
    """One run: ``seconds`` in all, the SHA-256 of its table, and what happened on the way.

    ``lost`` says after how many tasks something was lost; ``kept`` are the tasks that an interrupt left, ``resumed`` those done after
    it, ``redone`` the kept ones whose file was written again.
    """

    name: str
    tasks: int
    failed: int
    rows: int
    seconds: float
    rows_sha256: str
    lost: dict[str, int] = field(default_factory=dict)
    kept: int = 0
    resumed: int = 0
    redone: int = 0


def this_process(config: Mapping[str, Any], folder: Path) -> Told:
    """One task after the other, here."""
    began = time.perf_counter()
    return _told("this process", sweep(config, folder), began)


def interrupted_workers(config: Mapping[str, Any], folder: Path) -> Told:
    """The command with two workers, which gets Ctrl-C, and then goes on with ``--resume``."""
    began = time.perf_counter()
    path = folder.with_suffix(".yaml")
    path.write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
    command = [sys.executable, "-m", "interp_cli.main", "sweep", str(path), "-o", str(folder), "--workers", "2", "-q"]
    _interrupt(command, folder, len(config["items"]) // FRACTION)
    kept = {part.name: part.stat().st_ino for part in (folder / "parts").iterdir()}
    done: list[int] = []
    changed: set[str] = set()

    def watch(what: str, finished: int, total: int | None) -> None:
        done.append(finished)
        there = {part.name: part.stat().st_ino for part in (folder / "parts").iterdir()}
        changed.update(name for name, place in kept.items() if there.get(name) != place)

    result = sweep(config, folder, resume=True, workers=2, progress=watch)
    return _told("2 workers, Ctrl-C, --resume", result, began, kept=len(kept), resumed=max(done), redone=len(changed))


def unlucky_ray(config: Mapping[str, Any], folder: Path) -> Told:
    """A cluster of two nodes on this machine, of which a worker and later a node with its worker are killed."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    import ray
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        second = made.add_node(num_cpus=1)
        made.wait_for_nodes()
        ray.init(address=made.address, log_to_driver=False, logging_level=logging.ERROR)
        lost: dict[str, int] = {}
        step = _losing(len(config["items"]), lost, lambda: made.remove_node(second, allow_graceful=False))
        began = time.perf_counter()
        return _told("Ray, two nodes", sweep(config, folder, engine="ray", progress=step), began, lost=lost)
    finally:
        ray.shutdown()
        made.shutdown()


RUNS: Mapping[str, Callable[[Mapping[str, Any], Path], Told]] = {
    "process": this_process,
    "workers": interrupted_workers,
    "ray": unlucky_ray,
}


def _losing(total: int, lost: dict[str, int], lose_node: Callable[[], None]) -> Step:
    """Progress that kills a worker and then a node on the way, and notes when."""

    def step(what: str, done: int, of: int | None) -> None:
        if done >= total // FRACTION and "worker" not in lost:
            actors()[0].kill()
            lost["worker"] = done
        if done >= total // 2 and "node" not in lost:
            lose_node()
            lost["node"] = done

    return step


def actors() -> list[psutil.Process]:
    """The processes of this cluster's workers; nobody else's."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.cmdline()[:1] and "ray::_Actor" in process.cmdline()[0]:
                found.append(process)
        except psutil.Error:
            continue
    return found


def _interrupt(command: list[str], folder: Path, after: int) -> None:
    """Runs a sweep's command and interrupts it when some tasks are done."""
    process = subprocess.Popen(command, preexec_fn=_listen)  # noqa: PLW1509 - it only sets a signal's default
    while process.poll() is None and len(list(folder.glob("parts/*.parquet"))) < after:
        time.sleep(_POLL_SECONDS)
    process.send_signal(signal.SIGINT)
    code = process.wait()
    assert code == 130, f"the interrupted command ended with {code}"


def _listen() -> None:
    """Takes interrupts as usual, also where this process was started to ignore them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _told(name: str, result: SweepResult, began: float, **more: Any) -> Told:
    return Told(
        name=name,
        tasks=result.n_tasks,
        failed=result.summary.n_failed,
        rows=result.summary.n_rows,
        seconds=round(time.perf_counter() - began, 1),
        rows_sha256=hashlib.sha256(Path(result.table_path).read_bytes()).hexdigest(),
        **more,
    )

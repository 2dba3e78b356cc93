"""Sweeps: one analyzer over many prompts, facts, models or settings, each task alone, its rows kept as soon as it is done."""

import os
from collections.abc import Callable, Mapping
from typing import Any

from interp.errors import UsageError
from interp.models.cache import Step
from interp.models.locate import locate
from interp.models.progress import silent
from interp.scale.engine import Engine
from interp.scale.engines import engine_of
from interp.scale.sweep_config import SweepConfig, read_config
from interp.scale.sweep_folder import MANIFEST, ROWS, SweepFolder
from interp.scale.sweep_result import SweepResult
from interp.scale.sweep_run import SweepRun


def sweep(
    config: "str | os.PathLike[str] | Mapping[str, Any] | SweepConfig",
    output: str | os.PathLike[str],
    *,
    resume: bool = False,
    retry_failed: bool = False,
    engine: str | Engine = "embedded",
    workers: int | None = None,
    address: str | None = None,
    confidence: float = 0.95,
    progress: Step | None = None,
    notify: Callable[[str], None] | None = None,
) -> SweepResult:
    """Runs an analyzer over many items, with one or several models and settings, and keeps the rows of each as soon as it is done.

    The numbers depend on the configuration alone, not on the engine, the number of workers or the order in which they are done: each
    task is computed by itself, or beside others that are chosen from the configuration alone, on the configured number of threads, with
    a seed made from the sweep's seed and the item. An item on which the analyzer fails is a row with the reason in ``error``.

    Args:
        config: a TOML or YAML file, or a mapping with its keys: ``analyzer`` (such as "logit_lens" or "causal_trace"), ``model`` or
            ``models`` (names, or tables with ``name``, ``revision``, ``dtype``, ``device``, ``device_map``, ``max_memory``,
            ``offload_folder``), ``items`` (a list of items, or a table with ``file``, ``skip``, ``limit``, ``fields``), ``settings``
            and ``grid`` (of the analyzer's arguments), ``seed``, ``threads`` (of each worker, 1), ``gpus`` (of each worker on Ray),
            ``batch_tokens`` (that share a forward at most; by default 1,024 on a CPU and 32,768 on an accelerator, cut to what a quarter
            of its free memory holds; 1: every item alone), and for all models ``device``, ``dtype``, ``device_map``, ``max_memory``,
            ``offload_folder``, ``offline``.
        output: the sweep's folder, new or empty; a path, or an address that fsspec knows, such as ``s3://bucket/folder``. At the end it
            holds ``rows.parquet``, in the order models, points of the grid, items.
        resume: go on with the sweep in the folder, where there is one. What is finished is not done again.
        retry_failed: go on, and do the tasks again whose rows say that they failed; those that memory ran out for, or whose worker
            died, are always done again where a sweep goes on that is not finished.
        engine: "embedded" (this process, or ``workers`` processes beside it), "ray", or an ``Engine``.
        workers: how many items are done at once; by default one, on Ray what the cluster has room for.
        address: of a Ray cluster; without one a cluster is made on this machine.
        confidence: of the intervals of the summary (Student t over items).
        progress: called with (what, tasks done, tasks to do) of this call.
        notify: called with one line when something worth knowing happens.

    Returns:
        The means over items, the failures with their reasons, and where the rows are.

    Raises:
        UsageError: anything wrong with the configuration, with the names that would be valid; a folder that holds something else, or
            another sweep (the difference is named); settings with which the first items all fail alike.
        ModelError: a model that cannot be loaded; a folder that was begun with other weights or package versions.

    """
    asked = read_config(config)
    runner = engine if isinstance(engine, Engine) else _engine(asked, engine, workers, address)
    if runner.threads != asked.threads:
        raise UsageError(
            f"the engine has {runner.threads} threads a worker and the sweep {asked.threads}; give both the same"
        )
    folder = SweepFolder(os.fspath(output))
    tell = notify or _ignore
    runner.tell = tell
    tasks = list(asked.tasks())
    if address is None:
        for spec in asked.models.values():
            locate(spec.name, revision=spec.revision, offline=spec.offline, step=progress or silent)
    _check_place(folder, resume or retry_failed)
    folder.make()
    with folder.locked():
        run = SweepRun(asked, folder, tasks, runner, tell)
        run.begin()
        if retry_failed and folder.has(ROWS):
            run.reopen()
        if not folder.has(ROWS):
            run.finish(progress or silent, retry_failed=retry_failed)
        folder.remove_parts()
        return run.result(confidence)


def _engine(config: SweepConfig, name: str, workers: int | None, address: str | None) -> Engine:
    on_cpu = all(spec.device == "cpu" for spec in config.models.values())
    gpus = 0.0 if on_cpu and config.gpus is None else config.gpus
    return engine_of(name, workers=workers, threads=config.threads, address=address, gpus=gpus)


def _check_place(folder: SweepFolder, resume: bool) -> None:
    """Raises UsageError for a folder with other things in it, or with a sweep that is not to be resumed."""
    if folder.has(ROWS) or folder.parts():
        if not resume:
            state = "a finished sweep" if folder.has(ROWS) else f"a sweep with {len(folder.parts()):,} finished tasks"
            raise UsageError(f"{folder.url} holds {state}; go on with --resume (resume=True), or choose another folder")
    elif not folder.has(MANIFEST) and not folder.is_empty():
        raise UsageError(f"{folder.url} is not empty and holds no sweep; choose another folder")


def _ignore(message: str) -> None:
    """Where no one listens, nothing is said."""

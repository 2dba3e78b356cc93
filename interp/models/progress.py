"""Progress of fetching and converting: bars on stderr, drawn only while something long happens."""

from collections.abc import Iterator
from contextlib import contextmanager

from interp.models.cache import Step


def silent(what: str, done: int, total: int | None) -> None:
    """Shows nothing."""


@contextmanager
def bars() -> Iterator[Step]:
    """A function that draws one bar on stderr for each kind of work it is told about, the first time it is told."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=Console(stderr=True),
    )
    tasks: dict[str, TaskID] = {}

    def step(what: str, done: int, total: int | None) -> None:
        if not tasks:
            progress.start()
        if what not in tasks:
            tasks[what] = progress.add_task(what, total=total)
        progress.update(tasks[what], completed=done, total=total)

    try:
        yield step
    finally:
        if tasks:
            progress.stop()


@contextmanager
def choose(step: Step | None) -> Iterator[Step]:
    """The caller's own function, or bars on stderr where it gave none."""
    if step is not None:
        yield step
        return
    with bars() as drawn:
        yield drawn

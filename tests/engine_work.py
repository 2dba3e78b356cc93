"""Work that the tests of engines give their workers; imported by worker processes, so it needs nothing of the tests."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Squares:
    """Makes a worker that squares numbers; of ``deadly`` ones it dies, of those in ``once`` only the first time. ``folder`` keeps notes."""

    folder: str
    deadly: tuple = ()
    once: tuple = ()

    def __call__(self, number):
        Path(self.folder, f"worker-{os.getpid()}").touch()

        def work(unit):
            mark = Path(self.folder, f"tried-{unit}")
            if unit in self.deadly or (unit in self.once and not mark.exists()):
                mark.touch()
                time.sleep(
                    1.0 if unit in self.deadly else 0.0
                )  # the others have begun by then, and are not taken along untried
                os.kill(os.getpid(), signal.SIGKILL)
            if unit == "wrong":
                raise ValueError("wrong was given")
            time.sleep(0.02)
            return unit * unit

        return work


@dataclass(frozen=True)
class Threads:
    """Makes a worker that says on how many threads torch computes there, where torch is imported before anything else."""

    def __reduce__(self):
        return _threads, ()

    def __call__(self, number):
        import torch

        return lambda unit: torch.get_num_threads()


def _threads():
    """Made where it is unpickled, as a work is that holds something of torch."""
    import torch

    torch.set_num_threads(1)
    return Threads()

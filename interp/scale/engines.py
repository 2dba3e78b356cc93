"""The engines by name."""

from interp.errors import UsageError, unknown
from interp.scale.engine import Engine, ThisProcess
from interp.scale.engine_processes import Processes
from interp.scale.engine_ray import OnRay

ENGINES = ("embedded", "ray")


def engine_of(
    name: str,
    *,
    workers: int | None = None,
    threads: int = 1,
    address: str | None = None,
    gpus: float | None = None,
) -> Engine:
    """The engine of a name: "embedded" (this process, or ``workers`` processes beside it) or "ray" (``address``, or a cluster made here).

    ``gpus`` is of each worker on Ray; None: one where the cluster has any.
    Without ``workers`` there is one, or on Ray as many as the cluster has room for. Raises UsageError for another name, and where Ray is
    asked for and not installed.
    """
    if name == "ray":
        return OnRay(workers=workers, threads=threads, address=address, gpus=gpus)
    if name != "embedded":
        raise unknown("engine", name, ENGINES)
    if address is not None:
        raise UsageError(f"the address {address} is of a Ray cluster; add --engine ray (in Python engine='ray')")
    if workers is None or workers == 1:
        return ThisProcess(threads=threads)
    return Processes(workers=workers, threads=threads)

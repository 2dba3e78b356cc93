"""Ray: the same rows as in this process, also when a worker and then a node are lost on the way. One cluster of two nodes for all."""

import socket
import sys
from collections import deque
from types import SimpleNamespace

import pytest

import word_model
from engine_work import Squares
from experiments.same_rows.runs import actors
from interp.errors import InterpError, UsageError
from interp.runner.model import load
from interp.scale.collect import collect
from interp.scale.engine import Lost
from interp.scale.engine_ray import OnRay, _Crew
from interp.scale.sweep import sweep
from scale import small_corpus
from sweep_cases import FACTS, save_model, trace_of


class Pretended:
    """A cluster of which nothing is known but what it has."""

    def __init__(self, **has) -> None:
        self.has = has

    def cluster_resources(self):
        return self.has


ray = pytest.importorskip("ray", reason="Ray is not installed; pip install 'interp[ray]'")

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def cluster():
    """A cluster of two nodes of one processor each, to which this process is connected."""
    import os

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second = made.add_node(num_cpus=1)
    made.wait_for_nodes()
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    yield made, second
    ray.shutdown()
    made.shutdown()


@pytest.mark.long
def test_a_store_is_that_of_one_process_though_a_worker_is_lost(cluster, tmp_path) -> None:
    """Shards are written by the actors; what comes back to this process is a record each."""
    made = word_model.build()
    made.hf.save_pretrained(tmp_path / "model")
    made.tokenizer.save_pretrained(tmp_path / "model")
    model, texts = load(str(tmp_path / "model"), device="cpu"), small_corpus.texts(40)
    asked = {"sites": ["resid_post@1", "mlp.post@0"], "shard_rows": 250, "batch_tokens": 128}
    collect(model, texts, folder=tmp_path / "alone", threads=1, **asked)
    lost = []

    def lose(what: str, done: int, total: int | None) -> None:
        if done > 500 and not lost:
            victim = actors()[0]
            lost.append(victim.pid)
            victim.kill()

    store = collect(model, texts, folder=tmp_path / "spread", engine="ray", workers=2, progress=lose, **asked)
    assert lost
    assert store.complete
    assert small_corpus.files(tmp_path / "spread") == small_corpus.files(tmp_path / "alone")


@pytest.mark.slow
def test_actors_write_shards_through_fsspec(cluster, tmp_path) -> None:
    """``dir`` is no folder of ours but a place that fsspec knows and other processes reach, as a bucket is."""
    made = word_model.build()
    made.hf.save_pretrained(tmp_path / "model")
    made.tokenizer.save_pretrained(tmp_path / "model")
    model, texts, url = (
        load(str(tmp_path / "model"), device="cpu"),
        small_corpus.texts(20),
        f"dir://store::file://{tmp_path}",
    )
    asked = {"sites": "resid_post@1", "shard_rows": 250, "batch_tokens": 128}
    alone = collect(model, texts, folder=tmp_path / "alone", threads=1, **asked)
    spread = collect(model, texts, folder=url, engine="ray", workers=1, **asked)
    assert spread.complete
    files, expected = small_corpus.files(tmp_path / "store"), small_corpus.files(tmp_path / "alone")
    assert {record.tensors for record in spread._records} < files.keys(), "an object is named by its bytes"
    for record in spread._records:
        assert files[record.tensors] == expected[f"shard-{record.shard:06d}.safetensors"]
        assert files[record.index] == expected[f"index-{record.shard:06d}.parquet"]
    assert len(files) == len(expected)
    assert spread.rows()["resid_post@1"].equal(alone.rows()["resid_post@1"])


@pytest.mark.long
def test_rows_are_those_of_one_process_though_a_worker_and_a_node_are_lost(cluster, tmp_path) -> None:
    made, second = cluster
    config = trace_of(save_model(tmp_path / "model"), items=FACTS * 4)
    alone = sweep(config, tmp_path / "alone")
    lost = []

    def lose(what: str, done: int, total: int | None) -> None:
        if done == 4 and not lost:
            victim = actors()[0]
            lost.append(victim.pid)
            victim.kill()
        if done == 12 and len(lost) == 1:
            lost.append("node")
            made.remove_node(second, allow_graceful=False)

    spread = sweep(config, tmp_path / "spread", engine="ray", progress=lose)
    assert len(lost) == 2
    assert spread.summary.n_failed == 0
    assert spread.n_tasks == len(FACTS) * 4
    rows = [(tmp_path / name / "rows.parquet").read_bytes() for name in ("alone", "spread")]
    assert rows[0] == rows[1]
    assert spread.to_frame().equals(alone.to_frame())
    assert ray.is_initialized(), "a cluster that was there before is left alone"


@pytest.mark.parametrize(
    ("has", "asked", "gpus", "workers", "need"),
    [
        ({"CPU": 8.0}, None, None, 4, {"CPU": 2.0}),
        ({"CPU": 8.0}, 3, None, 3, {"CPU": 2.0}),
        ({"CPU": 64.0, "GPU": 4.0}, None, None, 4, {"CPU": 2.0, "GPU": 1.0}),
        ({"CPU": 64.0, "GPU": 4.0}, None, 0.5, 8, {"CPU": 2.0, "GPU": 0.5}),
        ({"CPU": 64.0, "GPU": 4.0}, None, 0.0, 32, {"CPU": 2.0}),
    ],
)
def test_workers_are_what_there_is_room_for(has, asked, gpus, workers, need) -> None:
    engine = OnRay(workers=asked, threads=2, gpus=gpus)
    engine._ray = Pretended(**has)
    assert engine._resources() == need
    assert engine.workers == workers


def test_an_address_that_nothing_answers_at_is_said_at_once() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: no one else takes it, and nothing answers
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        engine = OnRay(address=address)
        with pytest.raises(UsageError, match=rf"no Ray cluster answers at {address} \(.*refused.*\); give 'auto'"):
            engine._connect()


def test_without_ray_the_command_to_install_it_is_said(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"needs Ray; install it with: pip install 'interp\[ray\]'"):
        OnRay()


@pytest.mark.long
def test_what_can_never_be_placed_is_said(cluster, tmp_path) -> None:
    config = trace_of("never loaded", threads=64) | {"model": save_model(tmp_path / "model")}
    with pytest.raises(UsageError, match=r"each worker takes 64 CPU and the whole Ray cluster has [12] CPU; use fewer"):
        sweep(config, tmp_path / "out", engine="ray")


class Reference:
    """What is to come; ``give`` computes it."""

    def __init__(self, give) -> None:
        self.give = give


class Call:
    """A remote function of a pretended actor; what it gives is computed when it is asked for."""

    def __init__(self, function) -> None:
        self.function = function

    def remote(self, *arguments):
        return Reference(lambda: self.function(*arguments))


class PretendedRay:
    """Ray without processes: actors square numbers, and die of those in ``once`` (the first time) and ``always``, or at birth."""

    def __init__(self, *, once=(), always=(), stillborn=False, busy=0, broken=False) -> None:
        self.once, self.always, self.stillborn = set(once), always, stillborn
        self.busy, self.broken = busy, broken

    def remote(self, kind):
        made = SimpleNamespace(remote=lambda *arguments: SimpleNamespace(ready=Call(self.ready), do=Call(self.do)))
        made.options = lambda **options: made
        return made

    def ready(self) -> None:
        if self.stillborn:
            raise ray.exceptions.RayActorError
        if self.broken:
            raise ray.exceptions.RaySystemError("out of file descriptors\nmore")

    def do(self, unit):
        if unit in self.once or unit in self.always:
            self.once.discard(unit)
            raise ray.exceptions.RayActorError
        return unit * unit

    def wait(self, references, **options):
        self.busy -= 1
        if self.busy >= 0:
            return [], references
        return references[:1], references[1:]

    def get(self, reference):
        return reference.give()

    def kill(self, actor) -> None:
        """Nothing to end."""


def test_a_unit_that_kills_every_worker_is_lost_and_no_other_is() -> None:
    crew = _Crew(PretendedRay(once=(2,), always=(5,)), Squares("."), {"CPU": 1.0}, 1, print)
    found = dict(crew.run(2, deque(range(1, 9))))
    lost = found.pop(5)
    assert found == {unit: unit * unit for unit in (1, 2, 3, 4, 6, 7, 8)}
    assert lost == Lost("the worker died each of the 3 times that it was tried")


def test_units_are_made_when_an_actor_is_free_and_more_may_come_with_a_reply() -> None:
    """No more are made than are at work; a unit that is put back when the last one ends is done, too."""
    made, again = [], []

    class Units:
        def __iter__(self):
            return self

        def __next__(self):
            if again:
                return again.pop()
            if len(made) == 6:
                raise StopIteration
            made.append(len(made))
            return made[-1]

    done = []
    for unit, _ in _Crew(PretendedRay(), Squares("."), {"CPU": 1.0}, 1, print).run(2, Units()):
        done.append(unit)
        assert len(made) <= len(done) + 2
        if unit == 5 and done.count(5) == 1:
            again.append(5)
    assert sorted(done) == [0, 1, 2, 3, 4, 5, 5]


def test_workers_that_cannot_start_are_an_error() -> None:
    crew = _Crew(PretendedRay(stillborn=True), Squares("."), {"CPU": 1.0}, 1, print)
    with pytest.raises(InterpError, match="workers cannot start on the Ray cluster"):
        list(crew.run(2, deque([1])))


def test_a_busy_cluster_is_waited_for(monkeypatch) -> None:
    clock = iter(range(0, 100_000, 100))
    monkeypatch.setattr("interp.scale.engine_ray.time", SimpleNamespace(monotonic=lambda: next(clock)))
    told: list[str] = []
    crew = _Crew(PretendedRay(busy=9), Squares("."), {"CPU": 1.0}, 1, told.append)
    assert dict(crew.run(1, deque([3]))) == {3: 9}
    assert told == [
        f"the Ray cluster had no room for a worker in {seconds} seconds; waiting until it has"
        for seconds in (120, 240, 480)
    ]


def test_what_else_fails_in_ray_is_one_line() -> None:
    crew = _Crew(PretendedRay(broken=True), Squares("."), {"CPU": 1.0}, 1, print)
    with pytest.raises(InterpError, match=r"^Ray failed: .*out of file descriptors; what is finished is kept$"):
        list(crew.run(1, deque([1])))

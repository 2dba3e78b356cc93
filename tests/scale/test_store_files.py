"""Where stores lie: a folder that one process at a time writes to, or a bucket."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import fsspec
import pytest

from interp.errors import ModelError, UsageError
from interp.runner.model import Model
from interp.scale.collect import collect
from interp.scale.store import open_store
from interp.scale.store_files import Folder, place_of
from scale import small_corpus

TEXTS = small_corpus.texts(12)

HOLDER = """
import sys
from pathlib import Path
from interp.scale.store_files import Folder

with Folder(Path(sys.argv[1])).writing():
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_a_second_writer_is_refused_in_a_line_and_changes_nothing(small, tmp_path) -> None:
    folder = tmp_path / "s"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match=r"another process is writing to .*; wait for it to end"):
            collect(small, TEXTS, "resid_post@1", folder)
        assert [path.name for path in folder.iterdir()] == [".lock"]
        holder.kill()  # without a chance to let go
    assert collect(small, TEXTS, "resid_post@1", folder).complete


def test_a_second_writer_in_the_same_process_is_refused_too(small, tmp_path, monkeypatch) -> None:
    run, refused = Model.run, []

    def nested(self, *arguments, **options):
        if not refused:
            with pytest.raises(UsageError, match="another process is writing") as caught:
                collect(small, TEXTS, "resid_post@1", tmp_path / "s")
            refused.append(caught)
        return run(self, *arguments, **options)

    monkeypatch.setattr(Model, "run", nested)
    collect(small, TEXTS, "resid_post@1", tmp_path / "s")
    assert len(refused) == 1


def test_a_reader_sees_finished_shards_while_another_writes(small, tmp_path, monkeypatch) -> None:
    from interp.scale import store_shards

    seen, write = [], store_shards.write_record

    def watched(place, record):
        write(place, record)
        store = open_store(tmp_path / "s")
        store.verify()
        seen.append((store.n_shards, store.complete))

    monkeypatch.setattr(store_shards, "write_record", watched)
    store = collect(small, TEXTS, "resid_post@1", tmp_path / "s", shard_rows=200)
    assert seen == [(number + 1, False) for number in range(store.n_shards)]


def test_what_a_killed_writer_left_half_written_is_removed(small, tmp_path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / ".interp-abc.part").write_bytes(b"half")
    collect(small, TEXTS, "resid_post@1", tmp_path / "s")
    assert not list((tmp_path / "s").glob("*.part"))


def test_a_bucket_holds_the_same_bytes_as_a_folder(small, tmp_path) -> None:
    url = "memory://bucket/deep/store"
    collect(small, TEXTS, "resid_post@1", tmp_path / "s", shard_rows=400)
    store = collect(small, TEXTS, "resid_post@1", url, shard_rows=400)
    system = fsspec.filesystem("memory")
    objects = {Path(name).name: system.cat_file(name) for name in system.ls("/bucket/deep/store", detail=False)}
    objects.pop("store.json")
    files = small_corpus.files(tmp_path / "s")
    assert {record.tensors for record in store._records} <= objects.keys()
    for record in store._records:  # its files have their digest in the name
        assert objects[record.tensors] == files[f"shard-{record.shard:06d}.safetensors"]
        assert objects[record.index] == files[f"index-{record.shard:06d}.parquet"]
    assert len(objects) == len(files)
    assert store.rows(350, 450)["resid_post@1"].equal(open_store(tmp_path / "s").rows(350, 450)["resid_post@1"])
    assert open_store(url).document(3).tokens.tolist() == TEXTS[3]
    # It goes on, too, and finds a flipped byte.
    system.rm_file("/bucket/deep/store/shard-000001.json")
    assert collect(small, TEXTS, "resid_post@1", url, shard_rows=400).complete
    name = store._records[1].tensors
    broken = bytearray(system.cat_file(f"/bucket/deep/store/{name}"))
    broken[-1] ^= 1
    system.pipe_file(f"/bucket/deep/store/{name}", bytes(broken))
    with pytest.raises(
        ModelError, match=r"shard-000001-[0-9a-f]{12}.safetensors in memory://bucket/deep/store is damaged"
    ):
        open_store(url).verify()
    system.rm("/bucket", recursive=True)


def test_a_place_that_cannot_be_reached_is_told(tmp_path) -> None:
    with pytest.raises(UsageError, match=r"cannot reach nowhere://x"):
        place_of("nowhere://x")
    with pytest.raises(ModelError, match="cannot read"):
        Folder(tmp_path).read("missing")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_told(small, tmp_path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match="cannot write in"):
        collect(small, TEXTS, "resid_post@1", tmp_path / "s")


def test_two_writers_in_a_bucket_leave_a_sound_store(tmp_path, monkeypatch) -> None:
    """Both have the files of a shard there before either writes its record; the numbers of one differ in their last bits."""
    import threading

    import tiny_models
    from interp.scale.store_files import Bucket

    models = [Model(tiny_models.build("llama")) for _ in range(2)]
    write, meet = Bucket.write, threading.Barrier(2)
    models[1].hf.model.layers[1].register_forward_hook(lambda module, given, out: out * (1 + 1e-6))

    def met(self, name, data):
        write(self, name, data)
        if name.startswith("index-"):
            with contextlib.suppress(threading.BrokenBarrierError):
                meet.wait(5)

    monkeypatch.setattr(Bucket, "write", met)
    url, faults = "memory://two/store", []

    def work(model) -> None:
        try:
            collect(model, TEXTS, "resid_post@1", url, shard_rows=400, batch_tokens=256)
        except (ModelError, UsageError) as error:
            faults.append(error)

    threads = [threading.Thread(target=work, args=(model,)) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    monkeypatch.setattr(Bucket, "write", write)
    store = open_store(url)
    assert store.complete
    store.verify()
    names = [Path(name).name for name in fsspec.filesystem("memory").ls("/two/store", detail=False)]
    assert len([name for name in names if name.endswith(".safetensors")]) == 2 * store.n_shards
    fsspec.filesystem("memory").rm("/two", recursive=True)


def test_another_collection_in_a_bucket_stops_before_it_mixes_rows(small, monkeypatch) -> None:
    from interp.scale.store_files import Bucket

    url, write, begun = "memory://three/store", Bucket.write, []

    def overtaken(self, name, data):
        write(self, name, data)
        if name.startswith("index-") and not begun:
            begun.append(1)
            manifest = fsspec.filesystem("memory").cat_file("/three/other/store.json")
            write(self, "store.json", manifest)

    collect(small, TEXTS, "resid_post@0", "memory://three/other", shard_rows=400)
    monkeypatch.setattr(Bucket, "write", overtaken)
    with pytest.raises(UsageError, match="another collection was begun in memory://three/store at the same time"):
        collect(small, TEXTS, "resid_post@1", url, shard_rows=400)
    assert open_store(url).n_shards == 0
    system = fsspec.filesystem("memory")
    mine = system.cat_file("/three/other/shard-000000.json")
    collect(small, TEXTS, "resid_post@1", "memory://three/third", shard_rows=400)
    system.pipe_file("/three/third/shard-000000.json", mine)
    with pytest.raises(ModelError, match="shard-000000.json in .* belongs to another collection"):
        open_store("memory://three/third")
    system.rm("/three", recursive=True)


def test_a_file_url_is_a_folder(tmp_path) -> None:
    found = place_of(f"file://{tmp_path}/s")
    assert isinstance(found, Folder)
    assert found.name == str(tmp_path / "s")
    with (
        found.writing(),
        pytest.raises(UsageError, match="another process is writing"),
        place_of(tmp_path / "s").writing(),
    ):
        pass


def test_a_bucket_is_read_once_and_two_shards_are_held(small, monkeypatch) -> None:
    from interp.scale.store_files import Bucket

    read, fetched = Bucket.read, []

    def counted(self, name):
        fetched.append(name)
        return read(self, name)

    collect(small, TEXTS, "resid_post@1", "memory://read/store", shard_rows=100)
    monkeypatch.setattr(Bucket, "read", counted)
    store = open_store("memory://read/store")
    assert store.n_shards > 4
    fetched.clear()
    held = []
    for _ in store.batches(batch_rows=64):
        held.append(len(store._open))
    assert max(held) == 2
    assert sorted(name for name in fetched if name.endswith(".safetensors")) == sorted(
        record.tensors for record in store._records
    )
    fsspec.filesystem("memory").rm("/read", recursive=True)

"""Buckets of an S3 server: shards and rows that this process, workers and Ray's actors put there are those of a folder.

``moto_server`` is the server, a program that may lie in an environment of its own (``pipx install 'moto[server]'``); s3fs is what fsspec
speaks to it with (``pip install s3fs``). Neither is needed for anything else here, so without them this skips.
"""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest
import torch

import word_model
from interp.errors import ModelError
from interp.runner.model import load
from interp.scale.collect import collect
from interp.scale.store import open_store
from interp.scale.sweep import sweep
from scale import small_corpus
from sweep_cases import FACTS, save_model, trace_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning"),
]
s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed; pip install s3fs")
SERVER = shutil.which("moto_server")
ASKED = {"sites": ["resid_post@1", "mlp.post@0"], "shard_rows": 250, "batch_tokens": 128}
WAYS = [{"workers": 1}, {"workers": 2}, {"engine": "ray", "workers": 2}]


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The URL of an empty bucket; the address of its server stands in the environment, which every process inherits."""
    if SERVER is None:
        pytest.skip("moto_server is not installed; pipx install 'moto[server]'")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    with pytest.MonkeyPatch.context() as patched:
        for name, value in (
            ("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}"),
            ("AWS_ACCESS_KEY_ID", "any"),
            ("AWS_SECRET_ACCESS_KEY", "any"),
            ("AWS_DEFAULT_REGION", "us-east-1"),
            ("RAY_USAGE_STATS_ENABLED", "0"),
        ):
            patched.setenv(name, value)
        quiet = subprocess.DEVNULL
        with subprocess.Popen([SERVER, "-H", "127.0.0.1", "-p", str(port)], stdout=quiet, stderr=quiet) as server:
            try:
                _wait(port)
                s3fs.S3FileSystem().mkdir("some-bucket")
                yield "s3://some-bucket"
            finally:
                server.terminate()


def _wait(port: int) -> None:
    for _ in range(120):
        with socket.socket() as asked:
            if not asked.connect_ex(("127.0.0.1", port)):
                return
        time.sleep(0.5)
    raise TimeoutError("the server did not start in a minute")


def test_a_store_is_that_of_a_folder_whoever_writes_it(bucket: str, tmp_path) -> None:
    made = word_model.build()
    made.hf.save_pretrained(tmp_path / "model")
    made.tokenizer.save_pretrained(tmp_path / "model")
    model, texts = load(str(tmp_path / "model"), device="cpu"), small_corpus.texts(40)
    alone = collect(model, texts, folder=tmp_path / "alone", threads=1, **ASKED)

    def same(url: str) -> None:
        found = open_store(url)
        found.verify()
        assert found.complete
        assert found.n_shards == alone.n_shards > 3
        assert found.rows().to_frame().equals(alone.rows().to_frame())
        for site in alone.sites:
            assert torch.equal(found.rows()[site], alone.rows()[site])

    for number, way in enumerate(WAYS):
        collect(model, texts, folder=f"{bucket}/store-{number}", **way, **ASKED)
        same(f"{bucket}/store-{number}")

    def stop(what: str, done: int, total: int | None) -> None:
        if done > 800:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(model, texts, folder=f"{bucket}/cut", threads=1, progress=stop, **ASKED)
    assert 0 < open_store(f"{bucket}/cut").n_shards < alone.n_shards
    collect(model, texts, folder=f"{bucket}/cut", threads=1, **ASKED)
    same(f"{bucket}/cut")

    system = s3fs.S3FileSystem()
    name = next(name for name in system.ls(f"{bucket}/cut", detail=False) if name.endswith(".safetensors"))
    data = bytearray(system.cat_file(name))
    data[-3] ^= 1
    system.pipe_file(name, bytes(data))
    with pytest.raises(ModelError, match="is damaged"):
        open_store(f"{bucket}/cut").rows()


def test_rows_are_those_of_a_folder_whoever_writes_them(bucket: str, tmp_path) -> None:
    config = trace_of(save_model(tmp_path / "model"), items=FACTS * 2)
    sweep(config, tmp_path / "out")
    expected, system = (tmp_path / "out" / "rows.parquet").read_bytes(), s3fs.S3FileSystem()
    for number, way in enumerate(WAYS):
        sweep(config, f"{bucket}/sweep-{number}", **way)
        assert system.cat_file(f"{bucket}/sweep-{number}/rows.parquet") == expected

    def stop(what: str, done: int, total: int | None) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(config, f"{bucket}/sweep-cut", progress=stop)
    assert len(system.ls(f"{bucket}/sweep-cut/parts", detail=False)) == 3
    sweep(config, f"{bucket}/sweep-cut", resume=True)
    assert system.cat_file(f"{bucket}/sweep-cut/rows.parquet") == expected

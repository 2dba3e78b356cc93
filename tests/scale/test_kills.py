"""A collection that is killed, at any moment, goes on to the same bytes; with real processes and SIGKILL."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import word_model
from interp.runner.model import load
from interp.scale.collect import collect
from interp.scale.store import open_store
from scale import small_corpus

ROOT = Path(__file__).resolve().parents[2]

KILLER = """
import json, os, random, signal, sys, time
from pathlib import Path

from interp.runner.model import load
from interp.scale.collect import collect

work, kind, parent = Path(sys.argv[1]), sys.argv[2], os.getpid()
texts = json.loads((work / "texts.json").read_text())
draw, left = random.Random(0), [-1]


def killing(function):
    def counted(*arguments, **options):
        if os.getpid() != parent:
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
        return function(*arguments, **options)

    return counted


for name in ("replace", "fsync", "fdatasync", "pwrite", "unlink"):
    setattr(os, name, killing(getattr(os, name)))


model = load(str(work / "model"))


def forked(folder):
    child = os.fork()
    if child == 0:
        collect(model, texts, ["resid_post@1", "mlp.post@0"], folder, shard_rows=int(sys.argv[3]), batch_tokens=64, max_tokens=2300)
        os._exit(0)
    return child


def ended(child):
    code = os.waitpid(child, 0)[1]
    assert os.WIFEXITED(code) or os.WTERMSIG(code) == signal.SIGKILL
    return os.WIFEXITED(code)


def shards(folder):
    return len(list(folder.glob("shard-*.json")))


point = 0
if kind == "calls":  # before each call that reaches the disk, then once more to the end
    while True:
        left[0] = point
        done = ended(forked(work / f"killed-{point}"))
        left[0] = -1
        if done:
            break
        assert ended(forked(work / f"killed-{point}"))
        point += 1
else:  # at random moments at work, again and again, and then to the end
    for _ in range(4):
        child, wanted = forked(work / "killed"), shards(work / "killed") + draw.randint(1, 4)
        begun = time.monotonic()
        while shards(work / "killed") < wanted and time.monotonic() < begun + 30:
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.02))
        os.kill(child, signal.SIGKILL)
        if ended(child):
            break
        point += 1
    assert ended(forked(work / "killed"))
print(point)
"""


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A folder with a tiny model on disk and texts."""
    model = word_model.build()
    model.hf.save_pretrained(tmp_path / "model")
    model.tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "texts.json").write_text(json.dumps(small_corpus.texts(30)))
    return tmp_path


def killed(work: Path, kind: str, shard_rows: int) -> int:
    """The number of kills in a process that forks and kills."""
    command = [sys.executable, "-W", "ignore", "-c", KILLER, str(work), kind, str(shard_rows)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def unbroken(work: Path, shard_rows: int) -> dict[str, bytes]:
    texts = json.loads((work / "texts.json").read_text())
    collect(
        load(str(work / "model")),
        texts,
        ["resid_post@1", "mlp.post@0"],
        work / "whole",
        shard_rows=shard_rows,
        batch_tokens=64,
        max_tokens=2300,
    )
    return small_corpus.files(work / "whole")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes to kill are forked")
@pytest.mark.long
def test_kills_at_random_moments(work: Path) -> None:
    n_killed = killed(work, "moments", 120)
    assert n_killed > 1
    assert small_corpus.files(work / "killed") == unbroken(work, 120)
    open_store(work / "killed").verify()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes to kill are forked")
def test_a_kill_before_every_call_that_reaches_the_disk(work: Path) -> None:
    n_killed = killed(work, "calls", 700)
    whole = unbroken(work, 700)
    assert n_killed > 30
    for point in range(n_killed):
        assert small_corpus.files(work / f"killed-{point}") == whole, f"killed before call {point}"
        assert not list((work / f"killed-{point}").glob(".interp-*"))


@pytest.mark.slow
@pytest.mark.model
def test_the_command_on_the_default_model_killed_and_run_again(model, shared_data: Path, tmp_path: Path) -> None:
    """``model`` is asked for so that it is fetched; the commands load their own."""
    lines = (shared_data / "wikipedia_paragraphs.txt").read_text(encoding="utf-8").splitlines()[:60]
    (tmp_path / "texts.txt").write_text("\n".join(lines), encoding="utf-8")
    command = [sys.executable, "-m", "interp_cli.main", "collect", "-c", str(tmp_path / "texts.txt")]
    command += ["-s", "resid_post@3", "-s", "attn_out@2", "--shard-rows", "256", "--batch-tokens", "512", "-q"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    draw, n_killed = random.Random(0), 0
    for _ in range(4):
        with subprocess.Popen(
            [*command, "-o", str(tmp_path / "killed")], env=environment, stdout=subprocess.DEVNULL
        ) as process:
            begun = time.monotonic()
            before = len(list((tmp_path / "killed").glob("shard-*.json")))
            # From the first new shard on, so that it is killed at work and not at loading.
            while process.poll() is None and len(list((tmp_path / "killed").glob("shard-*.json"))) == before:
                assert time.monotonic() - begun < 120
                time.sleep(0.02)
            time.sleep(draw.uniform(0, 0.6))
            process.send_signal(signal.SIGKILL)
            n_killed += process.wait() == -signal.SIGKILL
    assert n_killed >= 2
    for folder in ("killed", "whole"):
        subprocess.run([*command, "-o", str(tmp_path / folder)], env=environment, check=True, capture_output=True)
    assert small_corpus.files(tmp_path / "killed") == small_corpus.files(tmp_path / "whole")
    assert open_store(tmp_path / "killed").n_shards > 20

"""``interp collect`` and ``interp store``: what they print, write and refuse, and an interrupt that keeps finished shards."""

import json
from pathlib import Path

import pytest

import word_model
from interp.runner.model import Model
from interp.scale.collect import collect
from interp.scale.store import open_store
from scale import small_corpus

LINES = [" ".join(word_model.WORDS[index] for index in text) for text in small_corpus.texts(20, longest=60)]
N_TOKENS = sum(len(line.split(" ")) for line in LINES)


@pytest.fixture
def corpus(small, monkeypatch, tmp_path: Path) -> Path:
    """A text file; the command finds the small model already loaded, and it says what it has to say through the command."""

    def opened(speaker, *arguments, **options) -> Model:
        small.notify = speaker.note
        return small

    monkeypatch.setattr("interp_cli.collect.open_model", opened)
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(LINES), encoding="utf-8")
    return path


def test_the_store_is_what_python_makes_and_the_table_describes_it(interp, small, corpus, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    ended = interp("collect", "-c", str(corpus), "-s", "resid_post@1", "--sites", "attn_out@0", "-o", str(folder))
    assert (ended.code, ended.stderr) == (0, "")
    collect(small, corpus, ["resid_post@1", "attn_out@0"], tmp_path / "other")
    assert small_corpus.files(folder) == small_corpus.files(tmp_path / "other")
    lines = [" ".join(line.split()) for line in ended.stdout.splitlines()]
    assert lines[0] == f"{folder} ({open_store(folder).bytes / 1e6:,.2f} MB)"
    assert "model tiny" in lines
    assert "sites blocks.0.hook_attn_out, blocks.1.hook_resid_post" in lines
    assert f"read {N_TOKENS:,} tokens in 20 texts" in lines
    assert f"rows {N_TOKENS:,} in float32, in 1 shards" in lines


def test_every_option_reaches_the_store(interp, corpus, tmp_path: Path) -> None:
    records = tmp_path / "texts.jsonl"
    records.write_text("\n".join(json.dumps({"body": line}) for line in LINES), encoding="utf-8")
    folder = tmp_path / "store"
    options = ["--positions", "1::2", "--store-dtype", "bfloat16", "--field", "body", "--window", "32"]
    options += ["--max-tokens", "300", "--shard-rows", "50", "--batch-tokens", "64", "--json"]
    options += ["--threads", "1", "--workers", "1"]
    ended = interp("collect", "-c", str(records), "-s", "resid_post@1", "-o", str(folder), *options)
    assert ended.code == 0
    found, settings = json.loads(ended.stdout), open_store(folder).manifest.settings
    assert (found["command"], found["complete"], found["tokens"], found["dtype"]) == ("collect", True, 300, "bfloat16")
    assert found["rows"] == open_store(folder).n_rows
    assert (settings.positions, settings.window, settings.shard_rows, settings.batch_tokens) == ("1::2", 32, 50, 64)
    assert settings.threads == 1


def test_an_interrupt_keeps_finished_shards_and_says_how_to_go_on(
    interp, small, corpus, tmp_path: Path, monkeypatch
) -> None:
    folder, run, calls = tmp_path / "store", Model.run, []

    def interrupted(self, *arguments, **options):
        calls.append(1)
        if len(calls) == 17:
            raise KeyboardInterrupt
        return run(self, *arguments, **options)

    monkeypatch.setattr(Model, "run", interrupted)
    command = ["collect", "-c", str(corpus), "-s", "resid_post@1", "-o", str(folder)]
    command += ["--shard-rows", "50", "--batch-tokens", "16"]
    ended = interp(*command)
    assert ended.code == 130
    kept = open_store(folder)
    assert not kept.complete
    assert kept.n_shards > 1
    assert ended.stderr == (
        f"error: interrupted; {kept.n_shards} shards ({kept.n_rows} rows) are kept in {folder}: the same command goes on from there\n"
    )
    described = interp("store", str(folder))
    assert described.stdout.splitlines()[0].endswith("MB, unfinished)")
    ended = interp(*command)
    assert ended.code == 0
    assert ended.stderr == f"going on behind {kept.n_shards} finished shards of {folder} ({kept.n_rows} rows)\n"
    monkeypatch.setattr(Model, "run", run)
    collect(small, corpus, "resid_post@1", tmp_path / "whole", shard_rows=50, batch_tokens=16)
    assert small_corpus.files(folder) == small_corpus.files(tmp_path / "whole")


def test_an_interrupt_before_any_shard(interp, corpus, tmp_path: Path, monkeypatch) -> None:
    def interrupted(self, *arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(Model, "run", interrupted)
    ended = interp("collect", "-c", str(corpus), "-s", "resid_post@1", "-o", str(tmp_path / "store"))
    assert (ended.code, ended.stderr) == (
        130,
        "error: interrupted before a shard was finished; the same command starts anew\n",
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-c", "CORPUS", "-o", "STORE"], "no site is given; give one or more, such as --sites resid_post@5"),
        (["-s", "resid_post@1", "-o", "STORE"], "no corpus is given; give a file"),
        (["-s", "resid_post@1", "-c", "CORPUS"], "no store is given; name a folder for it"),
        (["-s", "resid_post@1", "-c", "nowhere.txt", "-o", "STORE"], "there is no corpus file nowhere.txt"),
        (["-s", "resid_post@9", "-c", "CORPUS", "-o", "STORE"], "layer 9 is out of range; valid: 0 to 2"),
        (
            ["-s", "resid_post@1", "-c", "CORPUS", "-o", "STORE", "--positions", "odd"],
            "cannot read the positions 'odd'",
        ),
    ],
)
def test_what_is_missing_or_wrong_is_told_in_a_line(interp, corpus, tmp_path, arguments, message: str) -> None:
    names = {"CORPUS": str(corpus), "STORE": str(tmp_path / "store")}
    ended = interp("collect", *(names.get(argument, argument) for argument in arguments))
    assert (ended.code, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"error: {message}")
    assert ended.stderr.count("\n") == 1


def test_a_store_that_another_process_writes_is_refused_before_the_model_is_loaded(
    interp, corpus, tmp_path: Path, monkeypatch
) -> None:
    from interp.scale.store_files import Folder

    monkeypatch.setattr("interp_cli.collect.open_model", None)
    with Folder(tmp_path / "store").writing():
        ended = interp("collect", "-c", str(corpus), "-s", "resid_post@1", "-o", str(tmp_path / "store"))
    assert ended.code == 2
    assert ended.stderr.startswith(f"error: another process is writing to {tmp_path / 'store'}; wait for it to end")


def test_store_describes_and_verifies(interp, small, corpus, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    collect(small, corpus, "resid_post@1", folder, shard_rows=200)
    ended = interp("store", str(folder), "--verify", "--json")
    assert ended.code == 0
    found = json.loads(ended.stdout)
    assert (found["command"], found["verified"], found["complete"]) == ("store", True, True)
    assert (found["model"], found["weights_sha256"]) == ("tiny", "ab" * 32)
    assert "verified every file has its SHA-256" in " ".join(interp("store", str(folder), "--verify").stdout.split())
    path = folder / "shard-000001.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    assert interp("store", str(folder)).code == 0
    ended = interp("store", str(folder), "--verify")
    assert (ended.code, ended.stdout) == (3, "")
    assert ended.stderr.startswith(f"error: shard-000001.safetensors in {folder} is damaged")
    ended = interp("store", str(tmp_path / "nothing"))
    assert (ended.code, ended.stderr.count("\n")) == (2, 1)

"""``interp moments``: what it prints, writes and refuses, and an interrupt that loses nothing."""

import json
import random
from pathlib import Path

import pytest
import torch

import word_model
from interp.checkpoint import Checkpoint
from interp.editing.second_moments import SecondMoment, second_moments
from interp_cli.unfinished import FOLDER

WORDS = random.Random(0).choices(word_model.WORDS, k=3600)
TEXT = "\n".join(" ".join(WORDS[start : start + 20]) for start in range(0, len(WORDS), 20))
N_TOKENS = len(WORDS)


@pytest.fixture
def corpus(small, monkeypatch, empty_cache, tmp_path: Path) -> Path:
    """A text file; the command finds the small model already loaded, and keeps unfinished work in an empty cache folder."""
    monkeypatch.setattr("interp_cli.moments.open_model", lambda *arguments, **options: small)
    path = tmp_path / "texts.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_the_file_is_the_result_and_the_table_describes_it(interp, small, corpus, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    ended = interp("moments", "tiny", "--layer", "1", "--corpus", str(corpus), "-o", str(path))
    assert (ended.code, ended.stderr) == (0, f"wrote {path}\n")
    found = SecondMoment.load(path)
    (expected,) = second_moments(small, 1, corpus)
    assert torch.equal(found.matrix, expected.matrix)
    assert found.n_tokens == N_TOKENS
    assert f"{N_TOKENS:,} tokens in 180 texts: texts.txt" in ended.stdout
    cells = ended.stdout.strip().splitlines()[-1].split()
    assert cells == [
        "1",
        "64",
        f"{N_TOKENS / 64:.1f}",
        f"{found.condition_number():.2g}",
        f"{found.automatic_shrinkage:.2g}",
        f"{found.condition_number(None):.2g}",
    ]
    found.check(small, 1)


def test_several_layers_give_a_file_each(interp, small, corpus, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    ended = interp(
        "moments", "tiny", "-l", "2", "-l", "0", "-c", str(corpus), "--max-tokens", "50", "-o", str(path), "--json"
    )
    assert ended.code == 0
    found = json.loads(ended.stdout)
    assert (found["command"], found["model"], found["weights_sha256"]) == ("moments", "tiny", "ab" * 32)
    assert found["corpus"] == "texts.txt"
    assert [(item["layer"], item["tokens"], item["file"]) for item in found["moments"]] == [
        (layer, 50, str(tmp_path / f"m-layer{layer}.safetensors")) for layer in (2, 0)
    ]
    for item in found["moments"]:
        kept = SecondMoment.load(item["file"])
        assert (kept.layer, kept.condition_number(None)) == (item["layer"], item["shrunk_condition_number"])
        assert item["condition_number"] is None  # infinite: 50 tokens, 64 dimensions
    assert not path.exists()
    assert "infinite" in interp("moments", "-l", "2", "-c", str(corpus), "--max-tokens", "50", "-o", str(path)).stdout


def test_the_default_corpus_is_kept_where_edits_find_it(interp, small, corpus, empty_cache) -> None:
    ended = interp("moments", "tiny", "--layer", "1", "-q")
    assert (ended.code, ended.stderr) == (0, "")
    assert "1,024 tokens in 17 texts: text sampled from the model (seed 0)" in ended.stdout
    (kept,) = (empty_cache / "second_moments").iterdir()
    assert SecondMoment.load(kept).layer == 1
    assert interp("moments", "tiny", "--layer", "1", "-q").stdout == ended.stdout


def test_an_interrupt_keeps_sums_and_the_same_command_ends_in_the_same_numbers(
    interp, corpus, empty_cache, tmp_path: Path, monkeypatch
) -> None:
    files = [tmp_path / name for name in ("whole.safetensors", "resumed.safetensors")]
    commands = [("moments", "tiny", "--layer", "1", "--corpus", str(corpus), "-o", str(path)) for path in files]
    assert interp(*commands[0]).code == 0
    put, done = Checkpoint.put, []

    def stopping(self, name, tensor) -> None:
        put(self, name, tensor)
        done.append(int(tensor[1]))
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoint, "put", stopping)
        ended = interp(*commands[1])
    assert (ended.code, ended.stdout) == (130, "")
    assert 0 < done[0] < N_TOKENS
    assert ended.stderr == (
        f"error: interrupted; {done[0]:,} of {N_TOKENS:,} tokens are kept: the same command goes on from there\n"
    )
    assert len(list((empty_cache / FOLDER).iterdir())) == 1
    assert not files[1].exists()
    ended = interp(*commands[1])
    assert ended.code == 0
    assert f"{done[0]:,} tokens are kept (--fresh starts anew)" in ended.stderr
    whole, resumed = (SecondMoment.load(path) for path in files)
    assert torch.equal(whole.matrix, resumed.matrix)
    assert list((empty_cache / FOLDER).iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "no layer is given; give one or more, such as --layer 5"),
        (("-l", "3", "-o", "{folder}/m.safetensors"), 2, "layer 3 "),
        (("-l", "1", "-c", "{corpus}"), 2, "the second moments would be lost; name a file for them"),
        (("-l", "1", "--max-tokens", "9"), 2, "the second moments would be lost"),
        (("-l", "1", "-l", "1", "-o", "{folder}/m.safetensors"), 2, "a layer is given twice: 1, 1"),
        (("-l", "1", "-c", "nowhere.txt", "-o", "{folder}/m.safetensors"), 2, "there is no corpus file nowhere.txt"),
        (("-l", "1", "-o", "{folder}/m.csv"), 2, "ends in '.csv'; valid: .safetensors"),
        (("-l", "1", "-o", "{folder}/none/m.safetensors"), 2, "does not exist"),
        (("-l", "1", "--max-tokens", "0"), 2, "--max-tokens"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(interp, corpus, tmp_path: Path, arguments, code: int, message: str) -> None:
    given = [argument.format(folder=tmp_path, corpus=corpus) for argument in arguments]
    ended = interp("moments", "tiny", *given)
    assert (ended.code, ended.stdout) == (code, "")
    assert message in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert not list(tmp_path.glob("*.safetensors"))

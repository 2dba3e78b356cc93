"""``interp trace`` on the default model: what it prints, writes and refuses, and an interrupt that loses nothing."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from interp.checkpoint import Checkpoint
from interp.models.cache import cache_folder
from interp.results import load_result
from interp.runner.model import Model
from interp_cli.unfinished import FOLDER

PROMPT, SUBJECT = "The Eiffel Tower is located in the city of", "The Eiffel Tower"
TRACE = ("trace", PROMPT, "--subject", SUBJECT)
QUICK = ("--samples", "3", "--kinds", "resid,mlp", "--target", " Paris")
ON_CPU = ("--device", "cpu", "--dtype", "float32")

pytestmark = pytest.mark.model


@pytest.fixture
def opened(model, monkeypatch, empty_cache) -> Path:
    """The command finds the default model already loaded; the folder where it keeps unfinished work."""
    monkeypatch.setattr("interp_cli.trace.open_model", lambda *arguments, **options: model)
    return empty_cache / FOLDER


@pytest.fixture(scope="module")
def small_model(model) -> Model:
    """A model of two narrow layers with random weights that reads the default model's tokens."""
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    return Model(LlamaForCausalLM(LlamaConfig(vocab_size=49152, **sizes)).eval(), model.tokenizer)


@pytest.fixture
def small(opened, small_model, monkeypatch) -> Path:
    """As ``opened``, with the small model."""
    monkeypatch.setattr("interp_cli.trace.open_model", lambda *arguments, **options: small_model)
    return opened


def files_under(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.long
def test_the_table_is_the_result(interp, opened, tmp_path: Path) -> None:
    path = tmp_path / "trace.safetensors"
    ended = interp(*TRACE, "--samples", "3", "--kinds", "resid", "-o", str(path))
    assert (ended.code, ended.stderr) == (0, f"wrote {path}\n")
    result = load_result(path)
    assert (result.kinds, result.answer.text) == (("resid",), " Paris")
    assert "corrupted: noise on The Eiffel Tower of 3 standard deviations of the embeddings, 3 draws" in ended.stdout
    # Columns are two spaces apart or more.
    split = [re.split(r" {2,}", line.strip()) for line in ended.stdout.splitlines()]
    lines = {cells[0]: cells[1:] for cells in split}
    corrupted, total = result.corrupted(), result.total_effect()
    assert lines["clean"] == [f"{result.clean_probability:.3f}", f"{result.clean_logit_difference:+.2f}"]
    assert lines["corrupted"][:2] == [f"{corrupted.value:.3f}", f"{corrupted.lower:.3f} to {corrupted.upper:.3f}"]
    assert lines["lost"][:2] == [f"{total.value:.3f}", f"{total.lower:.3f} to {total.upper:.3f}"]
    layer, position, effect = result.peak("resid")
    restored = result.restored("resid").at(layer, position)
    assert position == 9
    assert lines["␣of (9)"] == [
        str(layer),
        f"{restored.value:.3f}",
        f"{effect.value:+.3f}",
        f"{effect.lower:+.3f} to {effect.upper:+.3f}",
    ]
    assert "iffel (2)*" in lines
    assert files_under(opened) == []


@pytest.mark.long
def test_json_is_one_object_and_a_page_is_written(interp, opened, tmp_path: Path) -> None:
    page = tmp_path / "trace.html"
    only = ("--samples", "2", "--kinds", "attn", "--target", " Paris", "--against", " Rome")
    ended = interp(*TRACE, *only, "--json", "-q", "-o", str(page))
    assert (ended.code, ended.stderr) == (0, "")
    found = json.loads(ended.stdout)
    assert (found["command"], found["schema_version"], found["lowered"]) == ("trace", 1, True)
    assert (found["answer"], found["against"]) == (" Paris", " Rome")
    assert found["result"]["kind"] == "causal_trace"
    assert found["total_effect"]["n"] == 2
    site = found["sites"]["attn"][0]
    assert (site["token"], site["position"]) == (" of", 9)
    assert site["layers"] == list(range(site["layer"] - 5, site["layer"] + 5))
    assert site["effect"]["lower"] < site["effect"]["value"] < site["effect"]["upper"]
    assert "brings back" in page.read_text(encoding="utf-8")


def test_other_text_in_the_subjects_place_and_severed_kinds(interp, small) -> None:
    ended = interp(*TRACE, "--replace", "The Statue of Liberty", "--kinds", "", "--severed", "--json", "-q")
    assert (ended.code, ended.stderr) == (0, "")
    found = json.loads(ended.stdout)
    assert list(found["sites"]) == ["resid-mlp-severed", "resid-attn-severed"]
    assert found["result"]["replacements"] == ["The Statue of Liberty"]
    assert found["total_effect"]["lower"] is None


def test_nothing_lost_names_no_state(interp, small) -> None:
    ended = interp(*TRACE, *QUICK, "--noise", "1e-6")
    assert ended.code == 0
    assert "the corruption did not measurably lower the answer" in ended.stdout
    assert "restored:" not in ended.stdout
    found = json.loads(interp(*TRACE, *QUICK, "--noise", "1e-6", "--json").stdout)
    assert (found["lowered"], found["sites"]) == (False, {})


def numbers(stdout: str) -> dict:
    """The JSON object without the time at which it was made."""
    found = json.loads(stdout)
    found["result"]["provenance"].pop("created")
    return found


def test_an_interrupt_keeps_parts_and_the_same_command_ends_in_the_same_numbers(interp, small, monkeypatch) -> None:
    command = (*TRACE, *QUICK, "--json")
    whole = numbers(interp(*command).stdout)
    put, done = Checkpoint.put, []

    def stopping(self, name, tensor) -> None:
        put(self, name, tensor)
        done.append(tensor.shape[0])
        if len(done) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "put", stopping)
    ended = interp(*command)
    assert (ended.code, ended.stdout) == (130, "")
    kept, total = sum(done), re.search(r"of ([\d,]+) runs", ended.stderr)
    assert total is not None, ended.stderr
    assert ended.stderr == (
        f"error: interrupted; {kept:,} of {total[1]} runs are kept: the same command goes on from there\n"
    )
    assert len(files_under(small)) == 1
    ended = interp(*command)
    assert (ended.code, numbers(ended.stdout)) == (0, whole)
    assert f"{kept:,} runs are kept" in ended.stderr
    assert len(done) > 4
    assert files_under(small) == []


def test_fresh_starts_anew_and_another_request_does_not_see_it(interp, small, monkeypatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Checkpoint, "get", _stop)
        assert interp(*TRACE, *QUICK).code == 130
    put = Checkpoint.put

    def stop_after_one(self, name, tensor) -> None:
        put(self, name, tensor)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoint, "put", stop_after_one)
        assert "runs are kept" in interp(*TRACE, *QUICK).stderr
    assert "kept" not in interp(*TRACE, *QUICK, "--seed", "1").stderr
    assert len(files_under(small)) == 1
    assert "kept" not in interp(*TRACE, *QUICK, "--fresh").stderr
    assert files_under(small) == []


def _stop(*arguments: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.slow
def test_a_real_interrupt_of_a_real_process(tmp_path: Path) -> None:
    """SIGINT in the middle; the same command then ends in the numbers of one that nobody stopped."""
    cache = tmp_path / "cache"
    cache.mkdir()
    for entry in cache_folder().iterdir():
        if entry.name != FOLDER:
            (cache / entry.name).symlink_to(entry)
    command = [sys.executable, "-m", "interp_cli.main", *TRACE, "--samples", "3", "--kinds", "resid", "--json", *ON_CPU]
    environment = {**os.environ, "INTERP_CACHE": str(cache), "OMP_NUM_THREADS": "1", "TERM": "xterm", "COLUMNS": "120"}
    whole = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
        env=environment,
        # A shell that runs the tests in the background has interrupts ignored, which a child would inherit.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    os.close(theirs)
    seen = _until_a_third(ours)
    process.send_signal(signal.SIGINT)
    seen += _rest(ours)
    stdout, _ = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (130, ""), seen
    said = re.search(
        r"error: interrupted; ([\d,]+) of ([\d,]+) runs are kept: the same command goes on from there", seen
    )
    assert said is not None, seen
    kept, total = (int(number.replace(",", "")) for number in said.groups())
    assert 0 < kept < total
    assert re.search(r"\d:\d\d:\d\d", seen), "the bar shows the time left"
    assert [path.name[:6] for path in files_under(cache / FOLDER)] == ["trace-"]
    again = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert f"{kept:,} runs are kept" in again.stderr
    assert numbers(again.stdout) == numbers(whole.stdout)
    assert files_under(cache / FOLDER) == []


def _until_a_third(terminal: int, seconds: float = 300) -> str:
    """What a terminal shows until the bar of the trace is at a third or more."""
    seen, end = "", time.monotonic() + seconds
    while time.monotonic() < end:
        if select.select([terminal], [], [], 1)[0]:
            seen += os.read(terminal, 1 << 16).decode(errors="replace")
        counts = re.findall(r"causal trace.*?(\d+)/(\d+)", seen)
        if counts and 3 * int(counts[-1][0]) >= int(counts[-1][1]):
            return seen
    raise TimeoutError(seen)


def _rest(terminal: int) -> str:
    """What a terminal shows until its process ends."""
    seen = ""
    while True:
        try:
            part = os.read(terminal, 1 << 16)
        except OSError:  # how Linux says that the other end is closed
            return seen
        if not part:
            return seen
        seen += part.decode(errors="replace")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((PROMPT, "-s", "The Louvre"), 2, "'The Louvre' is not in the prompt"),
        (("Paris is Paris is", "-s", "Paris"), 2, "'Paris' occurs more than once in 'Paris is Paris is'"),
        ((PROMPT, "-s", ""), 2, "the subject is empty"),
        ((PROMPT,), 2, "Missing option '--subject' / '-s'"),
        (("", "-s", SUBJECT), 2, "the prompt is empty"),
        ((PROMPT, "-s", SUBJECT, "-t", ""), 2, "the target is empty"),
        ((PROMPT, "-s", SUBJECT, "-t", " Paris", "--against", " Paris"), 2, "begin with the same token"),
        ((PROMPT, "-s", SUBJECT, "--kinds", "resid,mpl"), 2, "unknown kind 'mpl' (did you mean 'mlp'?); valid: resid"),
        ((PROMPT, "-s", SUBJECT, "--kinds", ","), 2, "--kinds names nothing to restore; valid: resid, mlp, attn"),
        ((PROMPT, "-s", SUBJECT, "--samples", "0"), 2, "'--samples': Input should be greater than or equal to 1"),
        ((PROMPT, "-s", SUBJECT, "--samples", "many"), 2, "'--samples': Input should be a valid integer"),
        ((PROMPT, "-s", SUBJECT, "--window", "0"), 2, "'--window': Input should be greater than or equal to 1"),
        ((PROMPT, "-s", SUBJECT, "--noise", "-1"), 2, "noise is -1.0; give a number above 0"),
        ((PROMPT, "-s", SUBJECT, "--noise", "nan"), 2, "noise is nan; give a number above 0"),
        ((PROMPT, "-s", SUBJECT, "--replace", "Big Ben"), 2, "the replacement 'Big Ben' is 2 tokens"),
        ((PROMPT, "-s", SUBJECT, "--replace", SUBJECT), 2, "is the subject itself"),
        ((PROMPT, "-s", SUBJECT, "--replace", "Big Ben", "--noise", "3"), 2, "give one or the other"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(
    interp, small, tmp_path: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    path = tmp_path / "trace.json"
    ended = interp("trace", *arguments, "-o", str(path))
    assert (ended.code, ended.stdout) == (code, "")
    assert said in ended.stderr
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1
    assert not path.exists()
    assert files_under(small) == []


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("-m", "no-such-model"), 3, "no-such-model"),
        (("--device", "tpu"), 2, "tpu"),
        (("-o", "/proc/trace.json"), 2, "cannot write in /proc"),
        (("-o", "/nowhere/trace.json"), 2, "the folder /nowhere does not exist"),
        (("-o", "trace.txt"), 2, "valid: .safetensors, .json, .csv, .html"),
        (("-o", "/dev"), 2, "ends in ''"),
    ],
)
def test_mistakes_that_need_no_model(interp, empty_cache, arguments: tuple[str, ...], code: int, said: str) -> None:
    ended = interp(*TRACE, *QUICK, *arguments)
    assert (ended.code, ended.stdout) == (code, "")
    assert said in ended.stderr
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1
    assert files_under(empty_cache / FOLDER) == []

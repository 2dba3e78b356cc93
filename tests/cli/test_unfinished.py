"""What an interrupt keeps, what it says, and which file the same command finds again."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

import tiny_models
from interp.checkpoint import Checkpoint
from interp.runner.model import Model
from interp_cli.guard import INTERRUPTED, Interrupted, guarded
from interp_cli.output import Output
from interp_cli.unfinished import Work, checkpoint_path, keeping

REQUEST = {"prompt": "The sun", "noise": 3.0, "kinds": ["resid", "mlp"]}
SPEAKER = Output(command="trace")


@pytest.fixture(scope="module")
def tiny_model() -> Model:
    return Model(tiny_models.build("llama"))


@contextmanager
def sweep(work: Work, *, stop: bool) -> Iterator[Checkpoint]:
    """Two parts of 3 and 5 runs, the second only if nothing stops it."""
    with Checkpoint(work.checkpoint, REQUEST) as kept:
        work.progress("sweep", 0, 8)
        if kept.get("first") is None:
            kept.put("first", torch.zeros(3, 2))
        if stop:
            raise KeyboardInterrupt
        kept.put("second", torch.ones(5, 2))
        yield kept


def test_an_interrupt_keeps_what_is_done_and_the_same_command_finds_it(tiny_model, empty_cache, capsys) -> None:
    with (
        pytest.raises(Interrupted, match=r"^interrupted; 3 of 8 runs are kept: the same command goes on"),
        keeping(SPEAKER, tiny_model, fresh=False, **REQUEST) as work,
        sweep(work, stop=True),
    ):
        pass
    path = work.checkpoint
    assert path is not None
    assert [file.parent.name for file in empty_cache.rglob("*.safetensors")] == ["unfinished"]
    assert capsys.readouterr().err == ""
    with keeping(SPEAKER, tiny_model, fresh=False, **REQUEST) as again, sweep(again, stop=False) as kept:
        assert (again.checkpoint, kept.n_found) == (path, 1)
    assert capsys.readouterr().err == (
        "going on from where the same command was stopped: 3 runs are kept (--fresh starts anew)\n"
    )
    assert not path.exists()


def test_fresh_starts_anew(tiny_model, empty_cache, capsys) -> None:
    for fresh in (False, True):
        with (
            pytest.raises(Interrupted),
            keeping(SPEAKER, tiny_model, fresh=fresh, **REQUEST) as work,
            sweep(work, stop=True),
        ):
            pass
    with keeping(SPEAKER, tiny_model, fresh=True, **REQUEST) as work, sweep(work, stop=False) as kept:
        assert kept.n_found == 0
    assert capsys.readouterr().err == ""


def test_an_interrupt_before_anything_is_done_says_so(tiny_model, empty_cache) -> None:
    with (
        pytest.raises(Interrupted, match="interrupted before anything was finished"),
        keeping(SPEAKER, tiny_model, fresh=False, **REQUEST),
    ):
        raise KeyboardInterrupt


def test_each_request_command_and_dtype_has_its_own_file(tiny_model, empty_cache) -> None:
    bf16 = Model(tiny_models.build("llama").to(torch.bfloat16))
    paths = {
        checkpoint_path("trace", tiny_model, REQUEST),
        checkpoint_path("patch", tiny_model, REQUEST),
        checkpoint_path("trace", tiny_model, REQUEST | {"noise": 2.0}),
        checkpoint_path("trace", tiny_model, REQUEST | {"prompt": "The moon"}),
        checkpoint_path("trace", bf16, REQUEST),
    }
    assert len(paths) == 5
    assert checkpoint_path("trace", tiny_model, dict(reversed(REQUEST.items()))) in paths


def test_a_cache_folder_that_cannot_be_written_is_warned_of(tiny_model, monkeypatch, capsys) -> None:
    monkeypatch.setenv("INTERP_CACHE", "/proc/interp")
    with (
        pytest.raises(Interrupted, match="interrupted before anything was finished"),
        keeping(SPEAKER, tiny_model, fresh=True, **REQUEST) as work,
        sweep(work, stop=True),
    ):
        pass
    assert work.checkpoint is None
    assert capsys.readouterr().err.startswith("warning: an interrupt will lose what is done: cannot create the cache")


def test_a_damaged_file_is_the_analyzers_to_report(tiny_model, empty_cache, capsys) -> None:
    from interp.errors import ModelError

    path = checkpoint_path("trace", tiny_model, REQUEST)
    path.write_bytes(b"no safetensors")
    with (
        pytest.raises(ModelError, match="is not a readable checkpoint"),
        keeping(SPEAKER, tiny_model, fresh=False, **REQUEST) as work,
        sweep(work, stop=False),
    ):
        pass
    assert capsys.readouterr().err == ""


def test_the_code_and_the_line(tiny_model, empty_cache, capsys, monkeypatch) -> None:
    import sys

    monkeypatch.setattr(sys, "excepthook", sys.excepthook)

    def command() -> None:
        with keeping(SPEAKER, tiny_model, fresh=False, **REQUEST) as work, sweep(work, stop=True):
            pass

    assert guarded(command) == INTERRUPTED
    assert capsys.readouterr().err == (
        "error: interrupted; 3 of 8 runs are kept: the same command goes on from there\n"
    )

"""A checkpoint keeps finished parts of work that was stopped, and nothing after work that ended well."""

import pytest
import torch

from interp import checkpoint
from interp.checkpoint import Checkpoint, hash_of
from interp.errors import ModelError, UsageError

KEY = {"prompt": [1, 2], "noise": 3.0}


def stopped(path, error: type[BaseException] = KeyboardInterrupt, **parts: torch.Tensor) -> None:
    """Work that does these parts and is then stopped."""
    with Checkpoint(path, KEY) as kept:
        for done, (name, tensor) in enumerate(parts.items(), 1):
            kept.put(name, tensor)
            assert kept.n_kept == done
        raise error


def test_work_that_was_stopped_finds_its_parts_again_and_ended_work_leaves_nothing(tmp_path) -> None:
    path = tmp_path / "work.safetensors"
    with pytest.raises(KeyboardInterrupt):
        stopped(path, a=torch.arange(3.0), b=torch.ones(2, 2))
    with Checkpoint(path, KEY) as kept:
        assert kept.n_found == 2
        torch.testing.assert_close(kept.get("a"), torch.arange(3.0))
        assert kept.get("c") is None
    assert not path.exists()


def test_parts_are_written_on_the_way(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(checkpoint, "_SECONDS_BETWEEN_WRITES", 0.0)
    path = tmp_path / "work.safetensors"
    kept = Checkpoint(path, KEY)
    kept.put("a", torch.zeros(1))
    assert Checkpoint(path, KEY).n_found == 1


def test_nothing_is_written_without_a_path_or_a_part(tmp_path) -> None:
    with pytest.raises(RuntimeError):
        stopped(None, RuntimeError, a=torch.zeros(1))
    with pytest.raises(RuntimeError):
        stopped(tmp_path / "work.safetensors", RuntimeError)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_other_work_or_a_damaged_one_is_refused(tmp_path) -> None:
    path = tmp_path / "work.safetensors"
    with pytest.raises(KeyboardInterrupt):
        stopped(path, a=torch.zeros(1))
    with pytest.raises(UsageError, match=r"work\.safetensors is not a checkpoint of this work"):
        Checkpoint(path, {**KEY, "noise": 2.0})
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ModelError, match=r"work\.safetensors is not a readable checkpoint .*remove it"):
        Checkpoint(path, KEY)


def test_a_file_that_the_same_work_elsewhere_removes_meanwhile_is_none(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("pathlib.Path.exists", lambda path: True)
    assert Checkpoint(tmp_path / "work.safetensors", KEY).n_found == 0


def test_the_name_of_work_depends_on_its_values_and_not_on_their_order() -> None:
    assert hash_of(KEY) == hash_of(dict(reversed(KEY.items())))
    assert hash_of(KEY) != hash_of({**KEY, "noise": 3.5})

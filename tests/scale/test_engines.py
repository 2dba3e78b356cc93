"""Engines in this process and in others: every unit once, whoever dies on the way."""

import pytest
import torch

from engine_work import Squares
from interp.errors import UsageError
from interp.scale.engine import Lost, ThisProcess
from interp.scale.engine_processes import Processes
from interp.scale.engines import engine_of


def test_this_process_gives_replies_in_order_and_its_threads_back(tmp_path) -> None:
    before = torch.get_num_threads()
    seen = []
    for unit, reply in ThisProcess(threads=before + 1).run(Squares(str(tmp_path)), range(4)):
        seen.append((unit, reply, torch.get_num_threads()))
    assert seen == [(unit, unit * unit, before + 1) for unit in range(4)]
    assert torch.get_num_threads() == before


@pytest.mark.long
def test_processes_do_every_unit_once_and_survive_the_death_of_one(tmp_path) -> None:
    """One unit kills its worker the first time, another each time: the first is done again, the second alone is lost."""
    work = Squares(str(tmp_path), deadly=(3,), once=(1,))
    replies = list(Processes(workers=2).run(work, range(6)))
    found = dict(replies)
    assert len(replies) == len(found) == 6
    assert {unit: reply for unit, reply in found.items() if unit != 3} == {n: n * n for n in (0, 1, 2, 4, 5)}
    assert isinstance(found[3], Lost)
    assert "process died twice" in found[3].reason


def test_what_a_worker_raises_is_raised(tmp_path) -> None:
    with pytest.raises(ValueError, match="wrong was given"):
        list(ThisProcess().run(Squares(str(tmp_path)), ["wrong"]))


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("spark", {}, r"unknown engine 'spark'; valid: embedded, ray"),
        ("embedded", {"address": "auto"}, r"the address auto is of a Ray cluster; add --engine ray"),
        ("embedded", {"workers": 0}, r"workers is 0; give 1 or more"),
        ("embedded", {"threads": 0}, r"threads is 0; give 1 or more"),
    ],
)
def test_bad_choices(name, options, said) -> None:
    with pytest.raises(UsageError, match=said):
        engine_of(name, **options)


def test_the_number_of_workers_decides_between_here_and_processes() -> None:
    assert isinstance(engine_of("embedded"), ThisProcess)
    assert isinstance(engine_of("embedded", workers=1), ThisProcess)
    found = engine_of("embedded", workers=3, threads=2)
    assert isinstance(found, Processes)
    assert (found.workers, found.threads) == (3, 2)

"""Second moments where memory runs out in the middle of a forward: halved, said once, and every token counted once a layer."""

import pytest
import torch

import tiny_models
from interp.editing.second_moments import second_moments
from interp.errors import MemoryLimitError
from interp.runner.model import Model
from oracles.second_moment import DOWN, second_moment

TEXTS = [[3 + (7 * i + j) % 90 for j in range(5 + i % 3)] for i in range(11)]


@pytest.fixture
def short() -> tuple[Model, list[str], list[tuple[int, ...]]]:
    """A model whose last MLP runs out of memory with more than 3 texts at once, what it said, and the batches it was given."""
    told: list[str] = []
    model, shapes = Model(tiny_models.build("llama"), notify=told.append), []

    def fill(module, arguments) -> None:
        shapes.append(tuple(arguments[0].shape[:2]))
        if arguments[0].shape[0] > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")

    model.hf.model.layers[2].mlp.register_forward_pre_hook(fill)
    return model, told, shapes


def test_halves_count_every_token_once_in_every_layer(short) -> None:
    model, told, shapes = short
    found = second_moments(model, [0, 1, 2], TEXTS)
    plain = Model(tiny_models.build("llama"))
    for moment in found:
        expected, count = second_moment(plain.hf, DOWN["llama"].format(moment.layer), TEXTS)
        torch.testing.assert_close(moment.matrix, expected, rtol=0, atol=1e-5 * float(expected.diagonal().max()))
        assert moment.n_tokens == count
    assert told == [
        "out of memory with 77 tokens a batch; going on with 38",
        "out of memory with 30 tokens a batch; going on with 15",
    ]
    assert [rows for rows, _ in shapes][:2] == [11, 5]
    assert max(rows for rows, _ in shapes[2:]) <= 3


def test_later_batches_are_no_larger(short) -> None:
    model, told, shapes = short
    found = second_moments(model, 2, TEXTS * 2, batch_tokens=40)
    expected, count = second_moment(Model(tiny_models.build("llama")).hf, DOWN["llama"].format(2), TEXTS * 2)
    torch.testing.assert_close(found[0].matrix, expected, rtol=0, atol=1e-5 * float(expected.diagonal().max()))
    assert found[0].n_tokens == count
    assert len(told) == sum(rows > 3 for rows, _ in shapes) == 2
    assert max(rows for rows, _ in shapes[2:]) <= 3


def test_one_text_that_does_not_fit_is_said(short) -> None:
    model, told, _ = short
    model.hf.model.layers[2].mlp.register_forward_pre_hook(_always)
    with pytest.raises(
        MemoryLimitError, match="a forward of one text of 5 tokens does not fit in memory; use a smaller"
    ):
        second_moments(model, [0, 2], TEXTS)
    assert told


def _always(module, arguments) -> None:
    raise MemoryError


def test_another_error_is_not_taken_for_it(short) -> None:
    model, told, _ = short
    model.hf.model.layers[1].mlp.register_forward_pre_hook(_wrong)
    with pytest.raises(RuntimeError, match="shapes"):
        second_moments(model, [0, 2], TEXTS)
    assert not told


def _wrong(module, arguments) -> None:
    raise RuntimeError("shapes do not fit")

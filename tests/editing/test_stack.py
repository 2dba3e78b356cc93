"""Several edits in one model: every state is base + edits in their order, and the base bytes come back whatever happens."""

import gc
import hashlib
import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tiny_models
from interp.editing import stack
from interp.editing.matrix import output_matrix
from interp.errors import ModelError, NumericsError, UsageError
from interp.runner.model import Model
from random_edit import random_edit

CORE = ("gpt2", "llama", "gemma2", "gpt_neox", "phi3")
IDS = tiny_models.prompt_ids(1)


def build(name="llama", dtype=torch.float32, **settings):
    return Model(tiny_models.build(name, **settings).to(dtype))


def bytes_of(model):
    """The SHA-256 of every parameter, read here and not by the code under test."""
    return {
        name: hashlib.sha256(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()
        for name, value in model.hf.named_parameters()
    }


def by_the_paper(base, edits, layer, transposed):
    """W + sum of the updates, element by element, in float32."""
    values = base.T.clone().float() if transposed else base.clone().float()
    for edit in edits:
        for change in edit.layers:
            if change.layer == layer:
                values = values + change.left @ change.right
    return (values.T if transposed else values).to(base.dtype)


@pytest.mark.parametrize("name", tiny_models.FAMILIES)
def test_an_edit_adds_its_update_and_undo_brings_the_bytes_back(name: str) -> None:
    model = build(name)
    layers = [layer for layer, block in enumerate(model.atlas.blocks) if block.experts is None]
    if not layers:
        with pytest.raises(UsageError, match="is a mixture of experts"):
            stack.base_sha256(model, 0)
        return
    before, logits = bytes_of(model), model.hf(IDS).logits
    base = {layer: output_matrix(model, layer).stored.clone() for layer in layers}
    edit = random_edit(model, layers[:2], rank=3)
    edit.apply(model)
    for layer in layers:
        matrix = output_matrix(model, layer)
        expected = by_the_paper(base[layer], [edit], layer, matrix.transposed)
        torch.testing.assert_close(matrix.stored, expected, atol=1e-6, rtol=1e-6)
        assert torch.equal(stack.base_values(model, layer), base[layer].T if matrix.transposed else base[layer])
    changed = {path for path, sha256 in bytes_of(model).items() if sha256 != before[path]}
    assert changed == {f"{change.path}.weight" for change in edit.layers}
    assert (model.hf(IDS).logits - logits).abs().max() > 1e-3
    edit.undo(model)
    assert bytes_of(model) == before
    assert torch.equal(model.hf(IDS).logits, logits)


@given(
    moves=st.lists(st.tuples(st.booleans(), st.integers(0, 3)), max_size=12),
    family=st.sampled_from(["gpt2", "llama"]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
)
@pytest.mark.long
def test_any_order_of_apply_and_undo(moves, family, dtype) -> None:
    model = MODELS.setdefault((family, dtype), build(family, dtype))
    before = bytes_of(model)
    base = {layer: output_matrix(model, layer).stored.clone() for layer in range(3)}
    edits = [random_edit(model, layers, rank=1 + i, seed=i) for i, layers in enumerate([[0], [0, 1], [1, 2], [2]])]
    there = []
    for is_apply, which in moves:
        edit = edits[which]
        if is_apply and edit not in there:
            stack.apply(model, edit)
            there.append(edit)
        elif not is_apply and edit in there:
            stack.undo(model, edit)
            there.remove(edit)
        elif is_apply:
            with pytest.raises(UsageError, match="already; undo it first"):
                stack.apply(model, edit)
        else:
            with pytest.raises(UsageError, match=r"no edit is applied|this edit is not applied"):
                stack.undo(model, edit)
        assert stack.applied_edits(model) == tuple(there)
        for layer in range(3):
            matrix = output_matrix(model, layer)
            expected = by_the_paper(base[layer], there, layer, matrix.transposed)
            assert torch.equal(matrix.stored, expected)
            assert stack.base_sha256(model, layer) == before[f"{matrix.path}.weight"]
    while there:
        stack.undo(model)
        there.pop()
    assert bytes_of(model) == before


MODELS: dict = {}


def test_parameters_stay_the_same_objects_and_ties_hold() -> None:
    model = build("gpt2")
    assert model.hf.lm_head.weight is model.hf.transformer.wte.weight
    parameters = dict(model.hf.named_parameters())
    frozen = output_matrix(model, 1).weight
    frozen.requires_grad_(False)
    frozen.grad = None
    pointers = {name: value.data_ptr() for name, value in parameters.items()}
    with stack.applied(model, random_edit(model, [0, 1])):
        now = dict(model.hf.named_parameters())
        assert all(now[name] is value for name, value in parameters.items())
        assert {name: value.data_ptr() for name, value in now.items()} == pointers
        assert [output_matrix(model, layer).weight.requires_grad for layer in (0, 1)] == [True, False]
        assert output_matrix(model, 0).weight.is_leaf
        assert model.hf.lm_head.weight is model.hf.transformer.wte.weight


def test_gradients_flow_after_an_edit() -> None:
    model = build()
    with stack.applied(model, random_edit(model, [1])):
        model.hf(IDS).logits.sum().backward()
        assert output_matrix(model, 1).weight.grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32_and_rounded_once(dtype) -> None:
    model = build("llama", dtype)
    base = output_matrix(model, 1).stored.clone()
    edits = [random_edit(model, [1], seed=seed, size=0.002) for seed in range(6)]
    with stack.applied(model, *edits):
        now = output_matrix(model, 1).stored.clone()
    assert torch.equal(now, by_the_paper(base, edits, 1, False))
    drifting = base.clone()
    for edit in edits:
        drifting = by_the_paper(drifting, [edit], 1, False)
    assert not torch.equal(drifting, now)


def exchange_and_fail(model, one, other):
    one.undo(model)
    other.apply(model)
    raise ZeroDivisionError


def test_blocks_nest_and_undo_in_any_order() -> None:
    model = build()
    before = bytes_of(model)
    first, second, third = (random_edit(model, [0, 1], seed=seed) for seed in range(3))
    first.apply(model)
    with_first = bytes_of(model)
    with second.applied(model):
        with third.applied(model):
            first.undo(model)
            assert stack.applied_edits(model) == (second, third)
            first.apply(model)
        with stack.applied(model, third):
            pass
        assert stack.applied_edits(model) == (second, first)
    assert bytes_of(model) == with_first
    with pytest.raises(ZeroDivisionError), second.applied(model):
        exchange_and_fail(model, second, third)
    assert stack.applied_edits(model) == (first, third)
    third.undo(model)
    first.undo(model)
    assert bytes_of(model) == before
    with pytest.raises(UsageError, match="already"), first.applied(model), stack.applied(model, second, first):
        pass
    with pytest.raises(UsageError, match="already"), stack.applied(model, second, second):
        pass
    assert bytes_of(model) == before
    assert stack.applied_edits(model) == ()


class Stopped(BaseException):
    """Not an Exception, as KeyboardInterrupt is not."""


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, Stopped])
@pytest.mark.parametrize("after", [0, 1, 2, 3])
@pytest.mark.parametrize("half", [False, True], ids=["before a write", "in the middle of a write"])
def test_an_error_between_two_writes_leaves_the_model_as_before(monkeypatch, error, after: int, half: bool) -> None:
    model = build("gpt2")
    first, second = random_edit(model, [0, 1, 2]), random_edit(model, [0, 1, 2], seed=1)
    start = bytes_of(model)
    first.apply(model)
    before = bytes_of(model)
    write, calls = stack._write, []

    def failing(matrix, stored):
        calls.append(matrix.layer)
        if len(calls) == after + 1:
            if half:
                with torch.no_grad():
                    matrix.weight[: len(stored) // 2].copy_(stored[: len(stored) // 2])
            raise error
        write(matrix, stored)

    for change in (lambda: second.apply(model), lambda: first.undo(model)):
        calls.clear()
        with monkeypatch.context() as patch:
            patch.setattr(stack, "_write", failing)
            if after < 3:
                with pytest.raises(error):
                    change()
            else:
                change()  # three layers, three writes: the fourth never comes
        if after < 3:
            assert bytes_of(model) == before
            assert stack.applied_edits(model) == (first,)
    stack.restore(model)
    assert bytes_of(model) == start


def test_a_second_interrupt_while_putting_back_is_mended_by_the_next_call(monkeypatch) -> None:
    model = build()
    before = bytes_of(model)
    edit, write, calls = random_edit(model, [0, 1, 2]), stack._write, []

    def failing(matrix, stored):
        calls.append(matrix.layer)
        if len(calls) in (3, 4):
            raise KeyboardInterrupt
        write(matrix, stored)

    with monkeypatch.context() as patch:
        patch.setattr(stack, "_write", failing)
        with pytest.raises(KeyboardInterrupt):
            edit.apply(model)
        assert bytes_of(model) != before
    assert stack.applied_edits(model) == ()
    assert bytes_of(model) == before


def test_an_interrupt_while_a_block_ends_does_not_leave_the_edit_in(monkeypatch) -> None:
    model = build()
    before = bytes_of(model)
    write, calls = stack._write, []

    def failing(matrix, stored):
        calls.append(matrix.layer)
        if len(calls) == 3:
            raise KeyboardInterrupt
        write(matrix, stored)

    monkeypatch.setattr(stack, "_write", failing)
    with pytest.raises(KeyboardInterrupt), stack.applied(model, random_edit(model, [0, 1])):
        assert calls == [0, 1]
    assert bytes_of(model) == before
    assert stack.applied_edits(model) == ()


def test_a_result_that_is_no_number_leaves_the_model_as_before() -> None:
    model = build("llama", torch.float16)
    before = bytes_of(model)
    good, bad = random_edit(model, [0]), random_edit(model, [0, 1, 2], size=1e9)
    good.apply(model)
    with pytest.raises(NumericsError, match=r"NaN or infinite weights in layer 0 in float16.*float32 or bfloat16"):
        bad.apply(model)
    assert stack.applied_edits(model) == (good,)
    good.undo(model)
    bad.layers[2].left[3] = float("nan")
    full = build("llama")
    whole = bytes_of(full)
    with pytest.raises(NumericsError, match="NaN or infinite weights in layer 2 in float32"):
        bad.rebased(full).apply(full)
    assert bytes_of(full) == whole
    assert bytes_of(model) == before


def test_a_weight_that_other_code_changed_is_not_overwritten() -> None:
    model = build()
    before = bytes_of(model)
    first, second = random_edit(model, [0, 1]), random_edit(model, [1, 2], seed=1)
    first.apply(model)
    weight = output_matrix(model, 1).weight
    with torch.no_grad():
        weight[0, 0] += 1
    changed = bytes_of(model)
    for change in (first.undo, second.apply):
        with pytest.raises(ModelError, match=r"is not what the last edit wrote.*other code changed it.*restore"):
            change(model)
        assert bytes_of(model) == changed
        assert stack.applied_edits(model) == (first,)
    third = random_edit(model, [0, 2], seed=2)  # does not touch the changed layer
    third.apply(model)
    third.undo(model)
    stack.restore(model)
    assert bytes_of(model) == before
    assert stack.applied_edits(model) == ()


def test_another_base_model_is_refused_unless_it_is_allowed() -> None:
    model, other = build(seed=0), build(seed=1)
    before = bytes_of(other)
    edit = random_edit(model, [1, 2])
    own, found = edit.layers[0].base_sha256, stack.base_sha256(other, 1)
    with pytest.raises(ModelError) as raised:
        edit.apply(other)
    assert own in str(raised.value)
    assert found in str(raised.value)
    assert "other_base=True" in str(raised.value)
    with pytest.raises(ModelError, match="for other weights"), edit.applied(other):
        pass
    assert bytes_of(other) == before
    with edit.applied(other, other_base=True):
        assert bytes_of(other) != before
    edit.apply(other, other_base=True)
    edit.undo(other)
    assert bytes_of(other) == before
    with pytest.raises(ModelError, match=r"the edit's in float32, the model's in bfloat16"):
        edit.apply(build(seed=0, dtype=torch.bfloat16))
    wide = build(seed=0, intermediate_size=48)
    with pytest.raises(UsageError, match="changes a matrix of 32 x 64 in layer 1, that of .* is 32 x 48"):
        edit.apply(wide, other_base=True)
    with pytest.raises(UsageError, match="layer 2 is out of range; valid: 0 to 1"):
        edit.apply(build(seed=0, num_hidden_layers=2), other_base=True)


def test_a_weight_that_two_modules_share_is_refused() -> None:
    model = build()
    edit = random_edit(model, [0, 1])
    layers = model.hf.model.layers
    layers[2].mlp.down_proj.weight = layers[1].mlp.down_proj.weight
    before = bytes_of(model)
    with pytest.raises(UsageError, match="is shared by"):
        edit.apply(model)
    assert bytes_of(model) == before


def test_two_views_of_one_model_share_its_edits_and_nothing_keeps_the_model_alive() -> None:
    model = build()
    view = Model(model.hf)
    edit = random_edit(model, [0])
    edit.apply(model)
    assert stack.applied_edits(view) == (edit,)
    view_sha = stack.base_sha256(view, -3)
    assert view_sha == edit.layers[0].base_sha256
    edit.undo(view)
    gone = weakref.ref(model.hf)
    edit.apply(model)
    del model, view
    gc.collect()
    assert gone() is None


@pytest.mark.gpu
def test_the_same_bytes_on_a_gpu() -> None:
    model, other = build("gpt2"), build("gpt2")
    before, edit = bytes_of(model), random_edit(model, [0, 1], rank=3)
    other.hf.to("cuda")
    with edit.applied(model):
        expected = bytes_of(model)
    with edit.applied(other):
        assert bytes_of(other) == expected
        other.hf.to("cpu")  # moved while the edit is in
    assert bytes_of(other) == before

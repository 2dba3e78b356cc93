"""One forward of the untouched model with hooks on just the ports of a session. Whatever is raised, everything is restored."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from interp.models.atlas import module_at
from interp.models.offload import arriving
from interp.runner.attention import watched_attention
from interp.runner.ports import Port
from interp.runner.selection import take_positions
from interp.runner.session import Session, StopForward


def forward(
    hf: Any,
    ids: Tensor,
    session: Session,
    *,
    unembed: str,
    logit_columns: Sequence[Sequence[int]] | None = None,
    stop_block: str | None = None,
    before: "Callable[[], Any] | None" = None,
    **arguments: Any,
) -> Any:
    """Runs ``hf`` on ``ids`` [batch pos] and returns its output, or None when it was stopped early.

    ``logit_columns`` lists the columns of each row to unembed; None unembeds all. ``stop_block`` is the path of a block that must not
    run any more. ``before`` registers hooks that come before the session's own and returns their handles.
    """
    with ExitStack() as stack:
        stack.enter_context(evaluation_mode(hf))
        stack.enter_context(torch.set_grad_enabled(session.gradients))
        for handle in before() if before is not None else ():
            stack.callback(handle.remove)
        stack.enter_context(_hooked(hf, session))
        if stop_block is not None:
            stack.callback(_module(hf, stop_block).register_forward_pre_hook(_stop).remove)
        if logit_columns is not None:
            stack.callback(_module(hf, unembed).register_forward_pre_hook(partial(_narrow, logit_columns)).remove)
        elif not session.needs_logits:
            stack.callback(_module(hf, unembed).register_forward_pre_hook(_stop).remove)
        try:
            return hf(input_ids=ids, return_dict=True, **arguments)
        except StopForward:
            return None


@contextmanager
def evaluation_mode(hf: nn.Module) -> Iterator[None]:
    """Dropout off while the block runs; every module's own setting is restored."""
    if not hf.training:
        yield
        return
    modes = {module: module.training for module in hf.modules()}
    hf.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def _hooked(hf: Any, session: Session) -> Iterator[None]:
    handles: list[Any] = []
    attention: dict[nn.Module, dict[int, Port]] = {}
    try:
        for port in session.visits:
            module = _module(hf, port.path)
            if port.side == "attention":
                attention.setdefault(module, {})[port.item] = port
            elif port.side == "in":
                handles.append(module.register_forward_pre_hook(partial(_on_input, session, port), with_kwargs=True))
            else:
                handles.append(module.register_forward_hook(partial(_on_output, session, port)))
        if attention:
            with watched_attention(hf, session, attention):
                yield
        else:
            yield
    finally:
        for handle in handles:
            handle.remove()


def _on_input(session: Session, port: Port, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    name = None if args else "hidden_states" if "hidden_states" in kwargs else next(iter(kwargs))
    given = args[0] if name is None else kwargs[name]
    raw = arriving(module, given)  # the module may compute on another device than the one before it
    seen = session.flow(port, raw)
    session.passed(port)
    if seen is given:
        return None
    return ((seen, *args[1:]), kwargs) if name is None else (args, {**kwargs, name: seen})


def _on_output(session: Session, port: Port, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
    packed = isinstance(output, tuple)
    raw = output[port.item] if packed else output
    seen = session.flow(port, raw)
    session.passed(port)
    if seen is raw:
        return None
    return (*output[: port.item], seen, *output[port.item + 1 :]) if packed else seen


def _narrow(columns: Sequence[Sequence[int]], module: nn.Module, args: tuple[Any, ...]) -> Any:
    return (take_positions(args[0], 1, columns), *args[1:])


def _stop(module: nn.Module, args: tuple[Any, ...]) -> None:
    raise StopForward


def _module(hf: nn.Module, path: str) -> nn.Module:
    module = module_at(hf, path)
    assert module is not None, f"the atlas holds {path}, which is not in the model"
    return module

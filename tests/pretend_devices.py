"""Devices that are not there: tensors on the CPU that say they are elsewhere, and refuse to meet tensors that are not with them.

Inside ``pretend_devices()`` the devices "cuda:0", "cuda:1" and so on can be used as if they were there. What PyTorch would refuse on real
ones is an error here too: an operation on tensors of two devices. The numbers are those of the CPU, so that a model spread over pretended
devices must give, bit for bit, what it gives on one. Changes of a tensor's device by ``out=`` and C++ extensions are not followed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_CPU = torch.device("cpu")
_MOVES = {Tensor.to, Tensor.cpu, Tensor.cuda}
_ACROSS = {Tensor.copy_, Tensor.__setitem__}  # a whole tensor may be copied from elsewhere
_FREE = {torch.autograd.grad}


class Pretended(Tensor):
    """A tensor on the CPU that says it is on ``place``."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # the mode below does it all
    place = _CPU

    def __new__(cls, data: Tensor, requires_grad: bool = False) -> "Pretended":  # as nn.Parameter is made
        made = data.detach().as_subclass(cls).requires_grad_(requires_grad)
        made.place, made._is_param = device_of(data), True
        return made

    @property
    def device(self) -> torch.device:
        return self.place

    @property
    def is_cuda(self) -> bool:
        return self.place.type == "cuda"


def device_of(tensor: Tensor) -> torch.device:
    return tensor.place if isinstance(tensor, Pretended) else tensor.device


@contextmanager
def pretend_devices(count: int = 0) -> Iterator[None]:
    """``count`` is how many GPUs libraries are told of, where they ask."""
    about = {
        "mem_get_info": lambda device=None: (8 << 30, 8 << 30),
        "memory_reserved": lambda device=None: 0,
        "memory_allocated": lambda device=None: 0,
        "synchronize": lambda device=None: None,
    }
    if count:
        about |= {"is_available": lambda: True, "device_count": lambda: count}
    with _Pretending(), patch.multiple(torch.cuda, **about):
        yield


class _Pretending(TorchFunctionMode):
    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if function in _MOVES:
            return _moved(function, args, kwargs)
        if function is torch.histc:  # of whole numbers, which only GPUs do
            args = (args[0].float(), *args[1:])
        if function in _FREE:
            return tuple(
                _told(grad, device_of(of)) for grad, of in zip(function(*args, **kwargs), args[1], strict=True)
            )
        places = _places(function, args, kwargs)
        kwargs.pop("pin_memory", None)
        asked = kwargs.pop("device", None)
        if asked is not None:
            asked = torch.device("cuda", asked) if isinstance(asked, int) else torch.device(asked)
            kwargs["device"] = asked if asked.type == "meta" else _CPU
        where = asked if asked is not None else places
        wants_grad = kwargs.pop("requires_grad", False)  # asked for afterwards: a view of a leaf is no leaf
        found = _told(function(*args, **kwargs), where)
        return found.requires_grad_() if wants_grad else found


def _moved(function: Any, args: Any, kwargs: Any) -> Any:
    source = device_of(args[0])
    target, rest = source, []
    for value in args[1:]:
        if isinstance(value, str | torch.device | int) and not isinstance(value, bool):
            target = torch.device("cuda", value) if isinstance(value, int) else torch.device(value)
        elif isinstance(value, Tensor):
            target, rest = device_of(value), [*rest, value.dtype]
        else:
            rest.append(value)
    given = kwargs.pop("device", None)
    if given is not None:
        target = torch.device("cuda", given) if isinstance(given, int) else torch.device(given)
    if function is Tensor.cpu:
        target = _CPU
    if target.type == "meta" or args[0].is_meta:
        return Tensor.to(args[0], target, *rest, **kwargs)
    if target != source:
        kwargs["copy"] = True
    out = Tensor.to(args[0], *rest, **kwargs) if rest or kwargs else args[0]
    return _told(out, target)


def _places(function: Any, args: Any, kwargs: Any) -> torch.device | None:
    """The one device of all tensors that take part; a single number on the CPU may meet any."""
    index = function in (Tensor.__getitem__, Tensor.__setitem__, Tensor.index_put, Tensor.index_put_)
    found: dict[torch.device, Tensor] = {}
    for place, tensor in enumerate(_tensors((args, kwargs))):
        device = device_of(tensor)
        number = tensor.dim() == 0 and device == _CPU
        if not number and not (index and place and device == _CPU) and device.type != "meta":
            found.setdefault(device, tensor)
    if len(found) > 1 and function not in _ACROSS:
        raise RuntimeError(f"{getattr(function, '__name__', function)} of tensors on {', '.join(map(str, found))}")
    return next(iter(found), None)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(tuple(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def _told(value: Any, where: torch.device | None) -> Any:
    """The result, which says where it is."""
    if isinstance(value, Tensor):
        if where is None or value.is_meta or where == device_of(value):
            return value
        told = value.as_subclass(Tensor) if where == _CPU else value.as_subclass(Pretended)
        if where != _CPU:
            told.place = where
        return told
    if type(value) in (list, tuple):
        return type(value)(_told(item, where) for item in value)
    if isinstance(value, tuple):  # named results such as torch.max's
        return type(value)(tuple(_told(item, where) for item in value))
    return value


def spread(hf: Any, home: str = "cuda:0", away: str = "cuda:1") -> Any:
    """A Hugging Face model dispatched by accelerate: embeddings and first block on one device, the rest on another.

    The unembedding is where the embeddings are if both are one weight.
    """
    from accelerate import dispatch_model

    from interp.models.atlas import build_atlas

    atlas = build_atlas(hf)
    blocks = [block.block for block in atlas.blocks]
    first = {atlas.embed, atlas.pos_embed, blocks[0], *([atlas.unembed] if atlas.tied_embeddings else [])}
    places = {}
    for name, module in hf.named_modules():
        inside = any(name.startswith(f"{block}.") for block in blocks)
        if not inside and (name in blocks or not list(module.children())):
            places[name] = home if name in first else away
    return dispatch_model(hf, places, skip_keys=hf._skip_keys_device_placement)

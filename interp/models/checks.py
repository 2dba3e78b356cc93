"""What must hold of a model after its weights were read: each tensor there, of the right shape, and made of numbers."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from re import compile as regex
from typing import TYPE_CHECKING, Any

from interp.errors import MemoryLimitError, ModelError, NumericsError
from interp.models.device import free_memory
from interp.models.headers import TensorInfo

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_NAMED = 5
# causal masks and rotary tables that old checkpoints carry; they are computed, not learnt
_COMPUTED = regex(
    r"(\.attn|\.attention|\.self_attention)\.(attention\.)?(bias|masked_bias)$|rotary_emb\.inv_freq$|position_ids$"
)


def check_loading_info(folder: Path, info: Mapping[str, Any], tensors: Sequence[TensorInfo]) -> None:
    """Refuses a model whose checkpoint lacks tensors, has others, or has them in other shapes.

    Args:
        folder: where the weights were read, for the message.
        info: transformers' loading info.
        tensors: what the files' headers list; decides whether an extra tensor is a computed mask.

    Raises:
        ModelError: naming the tensors.

    """
    shapes = {tensor.name: tensor.shape for tensor in tensors}
    extra = [name for name in info["unexpected_keys"] if not _is_computed(name, shapes.get(name, ()))]
    misshapen = [f"{name} {list(got)} instead of {list(wanted)}" for name, got, wanted in info["mismatched_keys"]]
    report_differences(folder, missing=info["missing_keys"], extra=extra, misshapen=misshapen)


def report_differences(folder: Path, *, missing: Iterable[str], extra: Iterable[str], misshapen: Iterable[str]) -> None:
    """Raises a ModelError that names the tensors at fault, if there are any."""
    groups = (("missing", missing), ("not part of the model", extra), ("of the wrong shape", misshapen))
    faults = [f"{word}: {_few(sorted(names))}" for word, names in ((w, list(n)) for w, n in groups) if names]
    if faults:
        raise ModelError(
            f"{folder}: the weights do not fit config.json; {'; '.join(faults)}; "
            "fetch weights and configuration of one revision again"
        )


def _is_computed(name: str, shape: tuple[int, ...]) -> bool:
    """A mask is a scalar or a square with leading ones, which tells it from a bias vector of the same name."""
    if not _COMPUTED.search(name):
        return False
    return not name.endswith(".bias") or (len(shape) == 4 and shape[:2] == (1, 1) and shape[2] == shape[3])


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def check_fits_files(folder: Path, skeleton: "torch.nn.Module", tensors: Sequence[TensorInfo]) -> None:
    """Refuses a configuration that asks for more numbers than the files hold, before memory is taken for them.

    Args:
        folder: for the message.
        skeleton: the model on the meta device, tied weights tied.
        tensors: what the files' headers list.

    Raises:
        ModelError: naming the tensors that are missing or misshapen.

    """
    wanted = {name: tuple(parameter.shape) for name, parameter in skeleton.named_parameters()}
    needed = sum(parameter.numel() for parameter in skeleton.parameters())
    if needed <= sum(info.parameters for info in tensors):
        return
    prefix = f"{getattr(skeleton, 'base_model_prefix', '')}."
    found = {info.name.removeprefix(prefix): info.shape for info in tensors}
    stripped = {name: name.removeprefix(prefix) for name in wanted}
    missing = [name for name, short in stripped.items() if short not in found]
    misshapen = [
        f"{name} {list(found[short])} instead of {list(wanted[name])}"
        for name, short in stripped.items()
        if short in found and found[short] != wanted[name]
    ]
    report_differences(folder, missing=missing, extra=(), misshapen=misshapen)


def check_memory(tensors: Sequence[TensorInfo], element_bytes: int, device: "torch.device") -> None:
    """Refuses a model that cannot fit in the device's free memory, before weights are read.

    Raises:
        MemoryLimitError: with what is needed and what is free.

    """
    needed = sum(info.parameters for info in tensors) * element_bytes
    free = free_memory(device)
    if free is not None and needed > free:
        advice = "dtype='bfloat16' halves it; " if element_bytes > 2 else ""
        raise MemoryLimitError(
            f"the weights need {needed / 1e9:.1f} GB and {device} has {free / 1e9:.1f} GB free; {advice}"
            "device_map='auto' (--device-map auto) spreads them over devices, host memory and disk; or choose a smaller model"
        )


def check_finite(model: "torch.nn.Module", source: Path) -> None:
    """Refuses weights that hold NaN or infinity.

    A tensor's sum is finite if all its elements are (unless it overflows), so one pass with one number a tensor finds the suspects.
    Weights that are offloaded are read one after another.

    Raises:
        NumericsError: naming the tensors and how many elements of each are no numbers.

    """
    import torch

    from interp.models.offload import named_weights

    bad = []
    for name, tensor in chain(named_weights(model), _saved_buffers(model)):
        if tensor.is_floating_point() and tensor.numel() and not torch.isfinite(tensor.sum(dtype=torch.float32)):
            nan, inf = _count_bad(tensor)
            bad += [f"{name} ({nan:,} NaN, {inf:,} infinite)"] if nan or inf else []
    if bad:
        raise NumericsError(
            f"{source}: weights that are no numbers: {_few(bad)}; fetch the file again or use another one"
        )


def _saved_buffers(model: "torch.nn.Module") -> "Iterable[tuple[str, Tensor]]":
    saved = model.state_dict(keep_vars=True).keys()
    return [(name, buffer) for name, buffer in model.named_buffers() if name in saved]


def _count_bad(tensor: "Tensor") -> tuple[int, int]:
    return int(tensor.isnan().sum()), int(tensor.isinf().sum())

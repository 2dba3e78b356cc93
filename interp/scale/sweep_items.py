"""The items of a sweep: written in the configuration, or read from a file whose fields are put into those that the analyzer takes.

A file is JSON or JSON Lines (objects), Parquet (rows) or text (each line a prompt). ``fields`` says how the fields of an item are made
out of those of the file: ``target = " {attribute}"``. Edit cases are read from CounterFact and zsRE files as they are published.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp.errors import UsageError, unknown
from interp.prompts import read_jsonl
from interp.scale.sweep_analyzers import SweepAnalyzer

_FILE_KEYS = ("file", "limit", "skip", "fields")
_PLACE = re.compile(r"\{(\w+)\}")
_CASE_FIELDS = ("paraphrases", "neighbours", "portability", "locality", "generation_prompts")


@dataclass(frozen=True, kw_only=True)
class ItemSource:
    """For whom items are read: ``where`` begins the messages, paths are relative to ``folder``."""

    analyzer: SweepAnalyzer
    where: str
    folder: Path


def read_items(given: Any, source: ItemSource) -> tuple[dict[str, Any], ...]:
    """The items that a configuration asks for, in order. Raises UsageError where one lacks what the analyzer needs."""
    if given is None:
        if source.analyzer.needs:
            needs = ", ".join(source.analyzer.needs)
            raise UsageError(f"{source.where}: 'items' is missing; {source.analyzer.name} needs items with {needs}")
        return ({},)
    if isinstance(given, Mapping):
        return _from_file(given, source)
    if not isinstance(given, list | tuple):
        raise UsageError(f"{source.where}: 'items' must be a list of items, or a table with 'file'; got {given!r}")
    items = []
    for index, one in enumerate(given):
        record = {"prompt": one} if isinstance(one, str) else one
        place = f"{source.where}, item {index}"
        if not isinstance(record, Mapping):
            raise UsageError(f"{place}: must be text (a prompt) or a table of fields, got {one!r}")
        for name in record:
            if name not in source.analyzer.fields:
                raise unknown(f"field of an item of {source.analyzer.name}", name, source.analyzer.fields)
        items.append(_item(record, place, source.analyzer))
    return _some(items, source.where)


def _from_file(given: Mapping[str, Any], source: ItemSource) -> tuple[dict[str, Any], ...]:
    for name in given:
        if name not in _FILE_KEYS:
            raise unknown("key of items", name, _FILE_KEYS)
    if not isinstance(given.get("file"), str):
        raise UsageError(f"{source.where}: items needs 'file', the path of a file, or write the items as a list")
    path = source.folder / Path(given["file"]).expanduser()
    skip, limit = (_count(given, name, source.where) for name in ("skip", "limit"))
    fields = given.get("fields", {})
    if not isinstance(fields, Mapping) or not all(isinstance(text, str) for text in fields.values()):
        raise UsageError(f'{source.where}: fields must be a table of texts, such as target = " {{attribute}}"')
    for name in fields:
        if name not in source.analyzer.fields:
            raise unknown(f"field of an item of {source.analyzer.name}", name, source.analyzer.fields)
    end = None if limit is None else (skip or 0) + limit
    items = []
    if source.analyzer.is_edit and not fields and path.suffix in (".json", ".jsonl"):
        items = list(_cases(path))[skip or 0 : end]
    else:
        for index, record in list(enumerate(_records(path)))[skip or 0 : end]:
            place = f"{path}, record {index}"
            made = dict(record) | {name: _filled(text, record, place) for name, text in fields.items()}
            items.append(_item(made, place, source.analyzer))
    return _some(items, str(path))


def _cases(path: Path) -> Iterable[dict[str, Any]]:
    from interp.editing.cases import read_cases

    for case in read_cases(path):
        found = {"subject": case.fact.subject, "template": case.fact.template, "target": case.fact.target}
        lists = {name: _listed(getattr(case, name)) for name in _CASE_FIELDS if getattr(case, name)}
        yield {**found, "true": case.true, **lists}


def _records(path: Path) -> Iterable[Mapping[str, Any]]:
    if path.suffix in (".json", ".jsonl"):
        return read_jsonl(path)
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            return pq.read_table(path).to_pylist()
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:  # bytes that are no text, a file that is no Parquet
        raise UsageError(f"cannot read {path}: {error}") from error
    return [{"prompt": line} for line in lines if line.strip()]


def _filled(text: str, record: Mapping[str, Any], place: str) -> Any:
    """A template with the record's fields in place of their names in braces; alone, ``"{name}"`` is the field as it is."""
    for name in _PLACE.findall(text):
        if name not in record:
            raise UsageError(f"{place}: there is no field {name!r}; there are: {', '.join(map(str, record))}")
    whole = _PLACE.fullmatch(text)
    return record[whole[1]] if whole else _PLACE.sub(lambda match: str(record[match[1]]), text)


def _item(record: Mapping[str, Any], place: str, analyzer: SweepAnalyzer) -> dict[str, Any]:
    """What the analyzer takes of a record, checked."""
    made = {name: record[name] for name in analyzer.fields if record.get(name) is not None}
    if "prompt" in analyzer.needs and "prompt" not in made and isinstance(record.get("template"), str):
        subject = record.get("subject")
        if isinstance(subject, str) and record["template"].count("{}") == 1:
            made["prompt"] = record["template"].replace("{}", subject)
    for name in analyzer.needs:
        if name not in made and not (name == "prompt" and "prompts" in made):
            fields = ", ".join(map(str, record)) or "none"
            raise UsageError(
                f"{place}: {analyzer.name} needs the field {name!r}, got: {fields}; give it, or make it with items.fields"
            )
    for name, value in made.items():
        if not _fits(name, value):
            raise UsageError(f"{place}: the field {name!r} holds {str(value)[:60]!r}, which is no {_kind(name)}")
    return {name: _listed(value) for name, value in made.items()}


_TEXTS = ("prompts", "paraphrases", "neighbours", "generation_prompts")


def _fits(name: str, value: Any) -> bool:
    if name in ("template", "true"):
        return isinstance(value, str) and bool(value)
    if name in _TEXTS:
        return isinstance(value, list | tuple) and bool(value) and all(_fits("prompt", one) for one in value)
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(one, int | str | Mapping | list | tuple) for one in value)
    kinds = str if name in ("prompt", "clean", "corrupted") else str | int
    return isinstance(value, kinds) and not isinstance(value, bool) and value != ""


def _kind(name: str) -> str:
    return "list of texts" if name in _TEXTS else "text" if name in ("template", "true") else "text or token ids"


def _listed(value: Any) -> Any:
    """Tuples as lists, as JSON gives them back."""
    return [_listed(one) for one in value] if isinstance(value, list | tuple) else value


def _count(given: Mapping[str, Any], name: str, where: str) -> int | None:
    value = given.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise UsageError(f"{where}: items {name!r} must be a whole number from 0, got {value!r}")
    return value


def _some(items: list[dict[str, Any]], where: str) -> tuple[dict[str, Any], ...]:
    if not items:
        raise UsageError(f"{where} holds no item; give at least one")
    return tuple(items)

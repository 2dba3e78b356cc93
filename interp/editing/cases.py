"""Edited facts with what tests them: paraphrases, neighbours and more, read from the data sets of the field.

Formats, each as JSON (an array of records) or JSON Lines, told apart record by record:

- CounterFact as published (Meng et al. 2022): ``requested_rewrite``, ``paraphrase_prompts``, ``neighborhood_prompts``, ...
- the flat CounterFact of EasyEdit: ``prompt``, ``target_new``, ``subject``, ``ground_truth``, ``rephrase_prompt``, ``locality_prompt``, ...
- zsRE as published (Levy et al. 2017; Mitchell et al. 2022): ``src``, ``subject``, ``alt``, ``answers``, ``rephrase``, ``loc``,
  ``loc_ans``, and EasyEdit's with ``portability`` beside them.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from interp.errors import UsageError
from interp.prompts import Fact, read_jsonl

_ZSRE_PREFIX = "nq question: "


@dataclass(frozen=True, kw_only=True)
class EditCase:
    """A fact to edit, and the prompts that tell what the edit did.

    ``fact.target`` is the new object and ``true`` the old one, each with its leading space. ``paraphrases`` ask for the same fact in other
    words. ``neighbours`` ask for the same relation of other subjects whose object is ``true`` too, so an edit should leave them.
    ``portability`` are (prompt, answer) pairs that follow from the new fact, ``locality`` pairs that it should not touch.
    ``generation_prompts`` are continued, and compared with the ``reference_texts`` about the new object where there are any.
    """

    fact: Fact
    true: str
    paraphrases: tuple[str, ...] = ()
    neighbours: tuple[str, ...] = ()
    generation_prompts: tuple[str, ...] = ()
    portability: tuple[tuple[str, str], ...] = ()
    locality: tuple[tuple[str, str], ...] = ()
    reference_texts: tuple[str, ...] = ()
    name: str = ""

    def __post_init__(self) -> None:
        for what, text in (("new object", self.fact.target), ("true object", self.true)):
            if not text.strip():
                raise UsageError(
                    f"the {what} of the fact {self.fact.prompt!r} is empty; give its text, such as ' Paris'"
                )
        for what in ("paraphrases", "neighbours", "generation_prompts"):
            if not all(getattr(self, what)):
                raise UsageError(f"one of the {what} of the fact {self.fact.prompt!r} is empty; leave it out")


def read_cases(path: str | os.PathLike[str]) -> tuple[EditCase, ...]:
    """The cases of a file, in its order.

    A space is put before objects that begin without one. In zsRE the new object is ``alt`` and the true one the first of ``answers`` (the
    ROME authors' loader edits towards ``answers`` instead); a record whose ``alt`` is empty has nothing to edit and is left out; the
    locality prompt gets the question mark that the data lack.
    Raises UsageError with file, record (from 0) and field for a file or record that cannot be read.
    """
    cases = []
    for index, row in enumerate(read_jsonl(path)):
        record = _Record(row, f"{path}, record {index}")
        if "requested_rewrite" in row:
            cases.append(_published(record))
        elif "src" in row:
            if row.get("alt") != "":
                cases.append(_zsre(record))
        elif "prompt" in row and "target_new" in row:
            cases.append(_flat(record))
        else:
            raise UsageError(
                f"{path}, record {index}: needs 'requested_rewrite' (CounterFact), 'prompt' and 'target_new' (EasyEdit's flat form) or "
                f"'src' (zsRE), got the fields {', '.join(map(repr, row)) or 'none'}"
            )
    if not cases:
        raise UsageError(f"{path} holds no case; give at least one record")
    return tuple(cases)


def with_neighbours(cases: Sequence[EditCase], limit: int = 10) -> tuple[EditCase, ...]:
    """The cases with neighbours from each other: prompts of other subjects with the same template and the same true object.

    At most ``limit`` are added to each case, in the order of the cases; those that it has stay first. For records that come with one
    neighbour or none, such as EasyEdit's flat CounterFact.
    Raises UsageError for a negative limit.
    """
    if limit < 0:
        raise UsageError(f"limit is {limit}; give 0 or more")
    alike: dict[tuple[str, str], list[Fact]] = {}
    for case in cases:
        alike.setdefault((case.fact.template, case.true), []).append(case.fact)
    found = []
    for case in cases:
        others = [fact.prompt for fact in alike[case.fact.template, case.true] if fact.subject != case.fact.subject]
        new = [prompt for prompt in dict.fromkeys(others) if prompt not in case.neighbours]
        found.append(replace(case, neighbours=(*case.neighbours, *new[:limit])))
    return tuple(found)


@dataclass(frozen=True)
class _Record:
    """One object of a file, with its place for the messages."""

    row: Mapping[str, Any]
    place: str

    def text(self, field: str) -> str:
        """A field that must hold text; of nested lists the first text."""
        value = self.row.get(field)
        while isinstance(value, list) and value:
            value = value[0]
        if not isinstance(value, str) or not value.strip():
            raise self.wrong(field, "must hold text", value)
        return value

    def texts(self, *names: str) -> tuple[str, ...]:
        """The texts of the first of these fields that is there: one text, or a list of them; none where no field is."""
        field = next((name for name in names if self.row.get(name) not in (None, "", [])), None)
        if field is None:
            return ()
        value = self.row[field]
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, list) or not all(isinstance(item, str) and item for item in items):
            raise self.wrong(field, "must hold text or a list of texts", value)
        return tuple(items)

    def within(self, field: str) -> "_Record":
        """The object that a field holds."""
        value = self.row.get(field)
        if not isinstance(value, Mapping):
            raise self.wrong(field, "must hold an object", value)
        return _Record(value, f"{self.place}, {field!r}")

    def pairs(self, field: str) -> tuple[tuple[str, str], ...]:
        """(prompt, answer) pairs: ``{name: [{"prompt", "ground_truth"}, ...]}``, or ``{"New Question", "New Answer"}``."""
        if self.row.get(field) in (None, {}, []):
            return ()
        inside = self.within(field)
        if "New Question" in inside.row:
            return ((inside.text("New Question"), _spaced(inside.text("New Answer"))),)
        found = []
        for name, items in inside.row.items():
            for index, item in enumerate(items if isinstance(items, list) else [items]):
                if not isinstance(item, Mapping):
                    raise inside.wrong(name, "must hold objects with 'prompt' and 'ground_truth'", item)
                one = _Record(item, f"{inside.place}, {name!r}, item {index}")
                found.append((one.text("prompt"), _spaced(one.text("ground_truth"))))
        return tuple(found)

    def fact(self, prompt_field: str, target: str) -> Fact:
        """The fact of a whole prompt that holds the subject; its first occurrence is where the template's {} goes."""
        prompt, subject = self.text(prompt_field), self.text("subject")
        if subject not in prompt:
            raise UsageError(f"{self.place}: the subject {subject!r} is not in the {prompt_field!r} {prompt!r}")
        return self.made(subject, prompt.replace(subject, "{}", 1), target)

    def made(self, subject: str, template: str, target: str) -> Fact:
        """A Fact, with the record's place in what it complains about."""
        try:
            return Fact(subject, template, _spaced(target))
        except UsageError as error:
            raise UsageError(f"{self.place}: {error}") from error

    @property
    def name(self) -> str:
        """The record's ``case_id``, if it has one."""
        return str(self.row.get("case_id", ""))

    def wrong(self, field: str, expected: str, value: object) -> UsageError:
        """What is wrong with a field."""
        got = "it is missing" if value is None else f"got {type(value).__name__} {str(value)[:40]!r}"
        return UsageError(f"{self.place}: {field!r} {expected}, {got}")


def _published(record: _Record) -> EditCase:
    rewrite = record.within("requested_rewrite")
    return EditCase(
        fact=rewrite.made(rewrite.text("subject"), rewrite.text("prompt"), rewrite.within("target_new").text("str")),
        true=_spaced(rewrite.within("target_true").text("str")),
        paraphrases=record.texts("paraphrase_prompts"),
        neighbours=record.texts("neighborhood_prompts"),
        generation_prompts=record.texts("generation_prompts"),
        reference_texts=record.texts("reference_texts"),
        name=record.name,
    )


def _flat(record: _Record) -> EditCase:
    true = _spaced(record.text("ground_truth"))
    neighbours, locality = (), record.pairs("locality")
    if record.row.get("locality_prompt"):
        prompt, answer = record.text("locality_prompt"), _spaced(record.text("locality_ground_truth"))
        if answer == true:
            neighbours = (prompt,)
        else:
            locality = ((prompt, answer), *locality)
    return EditCase(
        fact=record.fact("prompt", record.text("target_new")),
        true=true,
        paraphrases=record.texts("rephrase_prompt", "rephrase"),
        neighbours=neighbours,
        generation_prompts=record.texts("generation_prompts"),
        portability=record.pairs("portability"),
        locality=locality,
        reference_texts=record.texts("reference_texts"),
        name=record.name,
    )


def _zsre(record: _Record) -> EditCase:
    locality: Iterable[tuple[str, str]] = ()
    if record.row.get("loc"):
        prompt = record.text("loc").removeprefix(_ZSRE_PREFIX)
        locality = ((prompt if prompt.endswith("?") else prompt + "?", _spaced(record.text("loc_ans"))),)
    return EditCase(
        fact=record.fact("src", record.text("alt")),
        true=_spaced(record.text("answers")),
        paraphrases=record.texts("rephrase", "rephrase_prompt"),
        portability=record.pairs("portability"),
        locality=(*locality, *record.pairs("locality")),
        name=record.name,
    )


def _spaced(text: str) -> str:
    """The text as it stands in running text: with a space before it."""
    return text if text[:1].isspace() else f" {text}"

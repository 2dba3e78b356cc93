"""What every part of the experiment works with: the model, the facts, the texts, the second moments, and a folder of finished work."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from experiments.rome.config import Config
from interp.editing.cases import EditCase, read_cases, with_neighbours
from interp.editing.contexts import sample_contexts
from interp.editing.edit import Edit
from interp.editing.edit_facts import edit_facts
from interp.editing.edit_file import load_edit
from interp.editing.known_cases import known_cases
from interp.editing.layers import choose_layers
from interp.editing.second_moments import SecondMoment, second_moments
from interp.editing.settings import sequence_settings_of, settings_of
from interp.errors import UsageError
from interp.files import write_bytes
from interp.models.progress import silent
from interp.prompts import Fact
from interp.runner.model import Model


class OutOfTime(Exception):
    """The time of this call is used up; the next one goes on."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Workshop:
    """``cases`` are those of all facts, single edits use the first of them; ``texts`` are all texts, in order."""

    model: Model
    config: Config
    cases: tuple[EditCase, ...]
    texts: tuple[str, ...]
    folder: Path
    say: Callable[[str], None]
    until: float = float("inf")
    contexts: dict[str, Sequence[str]] = field(default_factory=dict)
    moments: dict[int, SecondMoment] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        model: Model,
        config: Config,
        cases: Path,
        texts: Path,
        folder: Path,
        say: Callable[[str], None],
        seconds: float,
    ) -> "Workshop":
        """Reads the files and chooses the facts."""
        until = time.monotonic() + seconds
        lines = tuple(line for line in texts.read_text(encoding="utf-8").split("\n") if line.strip())
        if len(lines) < config.moment_texts + max(config.held_out, config.held_out_many):
            raise UsageError(f"{texts} has {len(lines)} texts; moments and held-out texts need more")
        known = _known(model, config, with_neighbours(read_cases(cases), config.neighbours), folder / "known.json")
        return cls(model=model, config=config, cases=known, texts=lines, folder=folder, say=say, until=until)

    @property
    def singles(self) -> tuple[EditCase, ...]:
        """Those that are edited one at a time."""
        return self.cases[: self.config.facts]

    def check_time(self) -> None:
        """Raises OutOfTime once this call has used its seconds."""
        if time.monotonic() > self.until:
            raise OutOfTime

    def layers(self, method: str) -> tuple[int, ...]:
        """The layers that the method edits in this model by default."""
        return default_layers(self.model, method)

    def moment(self, layer: int) -> SecondMoment:
        """The second moment of a layer over the first texts, made once and kept."""
        if layer not in self.moments:
            path = self.folder / f"layer{layer}.safetensors"
            if not path.is_file():
                methods = {*self.config.methods, "rome", "memit"}  # many edits are by these
                needed = sorted({layer for method in methods for layer in self.layers(method)})
                missing = [one for one in needed if not (self.folder / f"layer{one}.safetensors").is_file()]
                self.say(f"second moments of layers {missing}")
                texts = list(self.texts[: self.config.moment_texts])
                for made in second_moments(self.model, missing, texts, max_tokens=self.config.moment_tokens):
                    made.save(self.folder / f"layer{made.layer}.safetensors")
            self.moments[layer] = SecondMoment.load(path)
        return self.moments[layer]

    def edit(self, name: str, cases: Sequence[EditCase], method: str, earlier: Sequence[Fact] | None = None) -> Edit:
        """The edit of these facts on the model as it is now, made once and stored under ``name``.

        ``earlier`` are those edited before in a sequence, which are kept, with a sequence's settings; None is an edit by itself.
        """
        path = self.folder / f"{name}.safetensors"
        if path.is_file():
            return load_edit(path)
        self.check_time()
        if method not in self.contexts:
            self.contexts[method] = sample_contexts(self.model, settings_of(method), self.config.seed)
        layers = self.layers(method)
        made = edit_facts(
            self.model,
            [case.fact for case in cases],
            method,
            layers=list(layers),
            moments=[self.moment(layer) for layer in layers],
            contexts=self.contexts[method],
            keep=earlier or (),
            settings=settings_of(method) if earlier is None else sequence_settings_of(method),
            allow_known=True,
        )
        made.save(path)
        return made


def default_layers(model: Model, method: str) -> tuple[int, ...]:
    """The layers that a method edits in a model that was measured before."""
    return choose_layers(model, (), method, "auto", settings_of(method), seed=0, progress=silent)[0]


def _known(model: Model, config: Config, cases: Sequence[EditCase], path: Path) -> tuple[EditCase, ...]:
    """The facts that the model knows: their places in the file are kept, for asking takes a minute."""
    if not path.is_file():
        places = {id(case): place for place, case in enumerate(cases)}
        chosen = known_cases(model, cases, config.most, config.seed)
        write_bytes(path, json.dumps([places[id(case)] for case in chosen]).encode())
    return tuple(cases[place] for place in json.loads(path.read_text()))

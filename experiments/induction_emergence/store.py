"""What training leaves behind: the curve of each model as JSON, and its checkpoints as folders that ``interp.load`` reads."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from experiments.induction_emergence.config import BOS, Config
from experiments.induction_emergence.measure import Measures, measure
from experiments.induction_emergence.train import train
from interp.files import save_tensors, write_bytes
from interp.models.folder import SINGLE
from interp.models.quiet import quiet_libraries
from interp.runner.model import Model

_BOS_TEXT = "<bos>"
_OF_THE_WHOLE = ("layers", "seeds", "detector_seeds")
"""Settings that do not change a model or its curve."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """One trained model: its curve, the processor seconds that it took with its measurements, and its folders by step."""

    layers: int
    seed: int
    seconds: float
    curve: tuple[Measures, ...]
    folder: Path

    def checkpoint(self, step: int) -> Path:
        """The folder of the weights at a step that was kept."""
        return self.folder / f"step-{step}"

    def at(self, step: int) -> Measures:
        """The measures at a step."""
        return next(measures for measures in self.curve if measures.step == step)


def trained(config: Config, n_layers: int, seed: int, folder: Path, say: Callable[[str], None]) -> Trained:
    """Trains a model, or reads what an earlier run with the same settings has left in ``folder``."""
    place = folder / f"{n_layers}-layer-seed-{seed}"
    curve_file = place / "curve.json"
    settings = {key: value for key, value in config.to_json().items() if key not in _OF_THE_WHOLE}
    if curve_file.is_file():
        found = json.loads(curve_file.read_text())
        if found["settings"] == settings:
            return _read(found, place)
    place.mkdir(parents=True, exist_ok=True)
    began = time.process_time()
    curve = []
    for step, hf in train(config, n_layers, seed):
        measures = measure(Model(hf), config, step)
        curve.append(measures)
        if step in (config.before, config.steps):
            save_checkpoint(hf, place / f"step-{step}")
        if step % (4 * config.every) == 0:
            say(f"{n_layers} layers, seed {seed}, step {step}: {_shown(measures)}")
    seconds = time.process_time() - began
    data: dict[str, Any] = {"settings": settings, "layers": n_layers, "seed": seed, "seconds": seconds}
    data["curve"] = [asdict(measures) for measures in curve]
    write_bytes(curve_file, json.dumps(data).encode())  # last: a run that was stopped trains again
    return Trained(layers=n_layers, seed=seed, seconds=seconds, curve=tuple(curve), folder=place)


def _read(found: dict[str, Any], place: Path) -> Trained:
    curve = tuple(_measures(row) for row in found["curve"])
    return Trained(layers=found["layers"], seed=found["seed"], seconds=found["seconds"], curve=curve, folder=place)


def _measures(row: dict[str, Any]) -> Measures:
    return Measures(
        step=row["step"],
        first_loss=row["first_loss"],
        second_loss=row["second_loss"],
        stripe=tuple(map(tuple, row["stripe"])),
        previous=tuple(map(tuple, row["previous"])),
    )


def save_checkpoint(hf: LlamaForCausalLM, folder: Path) -> None:
    """Writes weights as safetensors, the config and a tokenizer whose tokens are ``<bos>``, ``t1``, ``t2``, ..."""
    with quiet_libraries():
        hf.config.save_pretrained(folder)
    save_tensors(folder / SINGLE, hf.state_dict(), {"format": "pt"})
    words = {_BOS_TEXT: BOS} | {f"t{index}": index for index in range(BOS + 1, hf.config.vocab_size)}
    tokenizer = Tokenizer(WordLevel(words, unk_token=_BOS_TEXT))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=_BOS_TEXT).save_pretrained(folder)


def _shown(measures: Measures) -> str:
    def row(values: Sequence[float]) -> str:
        return " ".join(f"{value:.2f}" for value in values)

    stripes = ", ".join(row(values) for values in measures.stripe)
    return f"loss {measures.first_loss:.2f} first, {measures.second_loss:.2f} second copy; stripes {stripes}"

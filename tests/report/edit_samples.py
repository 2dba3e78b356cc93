"""Hand-made edits and what they change: plausible numbers, no model."""

import torch

from interp.analyzers.answers import Answer
from interp.editing.edit import Edit, LayerEdit, ValueCurve
from interp.editing.effect_result import EditEffect, Predictions, UndoProof
from interp.prompts import Fact
from report import samples

PIECES = ("The", " Eiffel", " Tower", " is", " located", " in", " the", " city", " of")
FACT = Fact("The Eiffel Tower", "{} is located in the city of", " Rome")
WORDS = (" Paris", " Rome", " Venice", " London", " the", " San")


def curve(steps: int = 12, last: float = 0.97) -> ValueCurve:
    rising = torch.linspace(-6, 4, steps).sigmoid() * last
    target, essence = -rising.log(), 0.02 * torch.linspace(0, 1, steps)
    decay = 0.1 * torch.linspace(0, 1, steps)
    return ValueCurve(
        loss_nats=target + essence + decay,
        target_nats=target,
        essence_nats=essence,
        decay_nats=decay,
        probability=rising,
        bare_probability=rising.sqrt(),
        delta_norm=torch.linspace(0, 8, steps).clamp(max=6),
        start_norm=1.5,
        stop_reason="steps",
    )


def edit(facts: tuple[Fact, ...] = (FACT,), layers: tuple[int, ...] = (5,), **changes) -> Edit:
    draw = torch.Generator().manual_seed(7)
    written = tuple(
        LayerEdit(
            layer=layer,
            path=f"model.layers.{layer}.mlp.down_proj",
            transposed=False,
            left=torch.randn(8, 1, generator=draw),
            right=torch.randn(1, 24, generator=draw),
            base_dtype="float32",
            base_sha256=f"{layer:x}" * 64,
            base_norm=172.0,
        )
        for layer in layers
    )
    values = {
        "provenance": samples.provenance(seed=0, command="interp edit"),
        "facts": facts,
        "method": "rome",
        "layers": written,
        "layer_source": "table",
        "settings": {"contexts": 10, "steps": 20, "clamp": 4.0, "shrinkage": None, "averaged": True, "ridge": 10.0},
        "moments": ("layer 5: 100,000 tokens sampled from the model",),
        "curves": tuple(curve(last=0.97 - 0.02 * index) for index in range(len(facts))),
        "seconds": 9.25,
    }
    return Edit(**(values | changes))


def predictions(rows: list[list[float]], old: int = 0, target: int = 1) -> Predictions:
    """From probabilities of ``WORDS``, one list a prompt."""
    logs = torch.tensor(rows).log()
    best = logs.topk(5)
    return Predictions(
        top_ids=best.indices + 1000,
        top_log_probs_nats=best.values,
        target_log_prob_nats=logs[:, target],
        target_rank=(logs > logs[:, target, None]).sum(1),
        old_log_prob_nats=logs[:, old],
    )


BEFORE = [
    [0.70, 0.006, 0.02, 0.01, 0.1, 0.001],
    [0.60, 0.005, 0.02, 0.01, 0.2, 0.001],
    [0.30, 0.005, 0.02, 0.01, 0.4, 0.001],
    [0.80, 0.001, 0.02, 0.01, 0.1, 0.001],
    [0.05, 0.600, 0.02, 0.01, 0.1, 0.001],
]
AFTER = [
    [0.0002, 0.98, 0.005, 0.002, 0.001, 0.0001],
    [0.1, 0.80, 0.005, 0.002, 0.05, 0.0001],
    [0.02, 0.3, 0.02, 0.01, 0.4, 0.001],
    [0.02, 0.010, 0.72, 0.01, 0.1, 0.001],
    [0.05, 0.610, 0.02, 0.01, 0.1, 0.001],
]


def effect(pieces=PIECES, words=WORDS, *, fact: Fact = FACT, before=None, after=None, **changes) -> EditEffect:
    """The target comes first with 0.98; one paraphrase of two gives it, one neighbour of two keeps its answer."""
    layers, draw = 12, torch.Generator().manual_seed(9)
    prompt = samples.tokens(pieces)
    one, two = predictions(before or BEFORE), predictions(after or AFTER)
    lens = -12 * (1 - torch.linspace(0, 1, layers)[:, None]) - torch.rand(layers, len(pieces), generator=draw)
    later = lens.clone()
    later[5:, min(2, len(pieces) - 1)] -= 3
    later[8:, -1] += 2
    ids = torch.cat([one.top_ids[0], two.top_ids[0]]).unique()
    values = {
        "provenance": samples.provenance(seed=0, command="interp edit"),
        "edit": edit((fact,)),
        "fact": fact,
        "prompt": prompt,
        "subject_position": 2,
        "target": Answer(text=words[1], ids=(1001,), pieces=(words[1],)),
        "old": Answer(text=words[0], ids=(1000,), pieces=(words[0],)),
        "paraphrases": (samples.tokens(("The", " Tower", " stands", " in")), samples.tokens(("Where", "?"))),
        "neighbours": (
            samples.tokens(("The", " Louvre", " is", " in")),
            samples.tokens(("The", " Forum", " is", " in")),
        ),
        "before": one,
        "after": two,
        "answer_ids": ids,
        "answers_before_nats": torch.tensor((before or BEFORE)[0]).log()[ids - 1000],
        "answers_after_nats": torch.tensor((after or AFTER)[0]).log()[ids - 1000],
        "continuation_before": samples.generation(pieces, (words[0], ".")),
        "continuation_after": samples.generation(pieces, (words[1], ",", " Italy"), ids=torch.tensor([1001, 5, 6])),
        "lens_before_nats": lens,
        "lens_after_nats": later,
        "proofs": (proof(),),
        "vocabulary": {str(1000 + index): word for index, word in enumerate(words)},
    }
    return EditEffect(**(values | changes))


def proof(layer: int = 5, undone: str = "a" * 64, applied: str = "b" * 64) -> UndoProof:
    return UndoProof(
        layer=layer,
        path=f"model.layers.{layer}.mlp.down_proj",
        before_sha256="a" * 64,
        applied_sha256=applied,
        undone_sha256=undone,
    )

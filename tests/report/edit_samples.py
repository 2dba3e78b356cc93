"""Hand-made edits and what they change: plausible numbers, no model."""

import torch

from interp.analyzers.answers import Answer
from interp.editing.asked_prompts import AskedPrompts, Readings
from interp.editing.cases import EditCase
from interp.editing.edit import Edit, LayerEdit, ValueCurve
from interp.editing.edit_sequence_result import EditSequence
from interp.editing.effect_result import EditEffect, Predictions, UndoProof
from interp.editing.evaluation_result import EditScores
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


def scores(n_cases: int = 3, *, edited: bool = True, **changes) -> EditScores:
    """Cases of which the first neighbour of each changes its answer; every prompt gives the new object after the edit."""
    draw = torch.Generator().manual_seed(11)
    cases = tuple(
        EditCase(
            fact=Fact(f"Tower {index}", "{} is in", " Rome"),
            true=" Paris",
            paraphrases=(f"Where is Tower {index}? In",),
            neighbours=(f"Bridge {index} is in", f"Lake {index} is in"),
        )
        for index in range(n_cases)
    )
    asked = {
        role: _asked([text for case in cases for text in texts(case)], len(texts(cases[0])), role, edited, draw)
        for role, texts in {
            "prompt": lambda case: (case.fact.prompt,),
            "paraphrase": lambda case: case.paraphrases,
            "neighbour": lambda case: case.neighbours,
        }.items()
    }
    values = {
        "provenance": samples.provenance(seed=0, command="interp edit eval"),
        "cases": cases,
        "method": "rome",
        "n_edits": 1 if edited else 0,
        "layers": (5,) if edited else (),
        "drift": torch.tensor([[0.061]]) if edited else torch.zeros(0, 0),
        "edit_seconds": torch.tensor([9.0]) if edited else torch.zeros(0),
        "asked": asked,
        "entropy_before": None,
        "entropy_after": None,
        "reference_before": None,
        "reference_after": None,
        "text_tokens": torch.tensor([10, 20, 30]),
        "text_nats_before": torch.tensor([30.0, 62.0, 91.0]),
        "text_nats_after": torch.tensor([[31.0, 63.0, 93.0]]) if edited else None,
        "vocabulary": {str(1000 + index): word for index, word in enumerate(WORDS)},
        "seed": 0,
        "confidence": 0.95,
        "seconds": 12.5,
    }
    return EditScores(**(values | changes))


def _asked(texts: list[str], each: int, role: str, edited: bool, draw: torch.Generator) -> AskedPrompts:
    """The old object is likelier before; after the edit the new one is, but at neighbours, of which every other changes."""
    size = len(texts)
    low, high = 0.2 + 0.1 * torch.rand(size, generator=draw), 3 + torch.rand(size, generator=draw)

    def readings(new: torch.Tensor, true: torch.Tensor, top: torch.Tensor) -> Readings:
        return Readings(
            new_nats=new,
            true_nats=true,
            new_accuracy=(new < true).float(),
            true_accuracy=(true < new).float(),
            top=top,
            top_probability=torch.minimum(new, true).neg().exp(),
        )

    paris = torch.full((size,), 1000)
    before = readings(high, low, paris)
    if role == "neighbour":
        after = readings(high, low, torch.tensor([1002 if index % 2 == 0 else 1000 for index in range(size)]))
    else:
        after = readings(low, high, torch.full((size,), 1001))
    return AskedPrompts(
        case=torch.arange(size) // each,
        texts=tuple(texts),
        before=before,
        after=after if edited else None,
        kl_nats=0.1 + torch.rand(size, generator=draw) if edited else None,
        same=torch.ones(size) if edited else None,
    )


def sequence(n_facts: int = 10, every: int = 5, **changes) -> EditSequence:
    """One edit a fact; at the last check the first fact is lost."""
    facts = tuple(Fact(f"Tower {index}", "{} is in", " Rome") for index in range(n_facts))
    checked = torch.arange(0, n_facts + 1, every)
    accuracy = torch.full((len(checked), n_facts), float("nan"))
    for row, count in enumerate(checked.tolist()):
        accuracy[row, :count] = 1.0
    accuracy[-1, 0] = 0.0
    values = {
        "provenance": samples.provenance(seed=0, command=None),
        "facts": facts,
        "method": "rome",
        "batch": 1,
        "edits": tuple(edit((fact,)) for fact in facts),
        "layers": (5,),
        "drift": torch.linspace(0.05, 0.3, n_facts)[:, None],
        "checked": checked,
        "accuracy": accuracy,
        "new_nats": torch.where(accuracy.isnan(), accuracy, 0.1),
        "true_nats": None,
        "perplexity": torch.linspace(22.8, 24.0, len(checked)),
        "n_texts": 8,
        "stop_reason": "end",
        "warnings": (),
        "confidence": 0.95,
        "seconds": 80.0,
    }
    return EditSequence(**(values | changes))

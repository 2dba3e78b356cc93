"""Edits with random factors, for tests of what can be done with an edit."""

import torch

from interp.editing.edit import Edit, LayerEdit, ValueCurve
from interp.editing.matrix import output_matrix
from interp.editing.stack import base_sha256, base_values
from interp.prompts import Fact

FACT = Fact("The Eiffel Tower", "{} is located in the city of", " Rome")


def random_curve(steps=4, seed=0):
    """An optimisation that may have been."""
    drawn = torch.rand(7, steps, generator=torch.Generator().manual_seed(seed))
    return ValueCurve(
        loss_nats=drawn[:3].sum(0),
        target_nats=drawn[0],
        essence_nats=drawn[1],
        decay_nats=drawn[2],
        probability=drawn[3],
        bare_probability=drawn[4],
        delta_norm=drawn[5],
        start_norm=1.5,
        stop_reason="steps",
    )


def random_edit(model, layers, rank=1, seed=0, size=0.1, ranks=None, facts=(FACT,), curves=None):
    """An edit of these layers; ``size`` is |dW| / |W|, ``ranks`` one for each layer where they differ."""
    generator = torch.Generator().manual_seed(seed)
    changes = []
    for layer, columns in zip(layers, ranks or [rank] * len(layers), strict=True):
        matrix, values = output_matrix(model, layer), base_values(model, layer)
        left = torch.randn(values.shape[0], columns, generator=generator)
        right = torch.randn(columns, values.shape[1], generator=generator)
        norm = float(values.float().norm())
        left *= size * norm / float((left @ right).norm())
        changes.append(
            LayerEdit(
                layer=matrix.layer,
                path=matrix.path,
                transposed=matrix.transposed,
                left=left,
                right=right,
                base_dtype=str(values.dtype).removeprefix("torch."),
                base_sha256=base_sha256(model, layer),
                base_norm=norm,
            )
        )
    return Edit(
        provenance=model.provenance(seed=seed),
        facts=tuple(facts),
        method="rome",
        layers=tuple(changes),
        layer_source="given",
        settings={"steps": 20, "learning_rate": 0.5},
        moments=("1,000 tokens sampled from the model",),
        curves=tuple(random_curve(seed=index) for index in range(len(facts))) if curves is None else curves,
        seconds=1.25,
    )

"""What leaves a block when one of its parts is changed at one position: computed for all layers and positions in one forward."""

from jaxtyping import Float
from torch import Tensor

from interp.errors import UsageError
from interp.interventions import Patch
from interp.runner.model import Model
from interp.runner.run import Run
from interp.sites import Site

LOCAL = ("attn.z", "attn_out", "resid_mid", "mlp.post", "mlp_out")
"""Sites after attention has read other positions: inside their block, a change there stays at its own position."""


def streams_after(
    model: Model, run: Run, kind: str, values: Float[Tensor, "layer batch pos ..."]
) -> tuple[Float[Tensor, "batch pos d_model"], ...]:
    """For each layer the stream leaving its block, had the site ``kind`` held ``values[layer]`` in that block and nowhere before it.

    Position t of the outcome is also what leaves the block when the site is changed at position t alone, since up to there nothing
    moves between positions. So patching a local site at (layer, t) is patching the stream after that block at t, and the block
    need not run. Goes through the model's own modules: every block gets the stream that entered it in ``run``, a resumable one.
    """
    if kind not in LOCAL:
        raise UsageError(f"a change of {kind!r} reaches other positions within its block; valid: {', '.join(LOCAL)}")
    assert run.snapshot is not None, "the run must be resumable"
    layers = range(model.atlas.n_layers)
    entering = {Site("resid_pre", layer).name: run.snapshot.stream[layer] for layer in layers}
    changed = {Site(kind, layer).name: values[layer] for layer in layers}
    found = model.run(
        list(run.tokens),
        "resid_post",
        [Patch("resid_pre", entering), Patch(kind, changed)],
        logits=False,
    )
    return tuple(found.cache[Site("resid_post", layer)] for layer in layers)

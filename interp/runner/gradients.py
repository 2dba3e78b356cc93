"""Gradients of a metric with respect to captured sites, in one forward and one backward."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.cache import ActivationCache
from interp.errors import UsageError
from interp.interventions import Intervention
from interp.models.atlas import module_at
from interp.runner.batch import Batch
from interp.runner.forward import forward
from interp.runner.plan import Logits, Plan, Request, logit_columns
from interp.runner.ports import batched
from interp.runner.session import Session
from interp.tokens import Tokens

if TYPE_CHECKING:
    from interp.runner.model import Model


@dataclass(frozen=True, kw_only=True, eq=False)
class Gradients:
    """``value`` of the metric, activations in ``cache`` and d value / d activation in ``gradients``, by the same names."""

    tokens: tuple[Tokens, ...]
    value: float
    logits: Float[Tensor, "batch pos d_vocab"]
    cache: ActivationCache
    gradients: ActivationCache


def gradients(
    model: "Model",
    prompts: Any,
    metric: Callable[[Tensor], Tensor],
    wrt: Request,
    *,
    interventions: Intervention | Iterable[Intervention] = (),
    logits: Logits = "all",
) -> Gradients:
    """Derivatives d metric(logits) / d site for every site that ``wrt`` names.

    ``metric`` takes logits [batch pos d_vocab] (``logits`` chooses the positions, as in ``model.run``) and returns one number.
    The derivative is that of the whole computation after the site: for ``resid_mid``, attention's update held fixed.
    Attention in layers where scores or patterns are asked for is multiplied out, so that they lie on the path.

    Raises UsageError when the metric gives no single number, or for a site that nothing flows through (norm divisors).
    """
    batch = Batch.of(model, prompts)
    plan = Plan(model.sites)
    sites = plan.capture(wrt)
    bindings = [model.sites.bindings[site] for site in sites]
    off_path = [b.site for b in bindings if b.computed and b.site.kind != "resid_mid"]
    if off_path:
        raise UsageError(
            f"{off_path[0].name} is computed beside the forward, so nothing depends on it; take resid_pre, attn.z, attn_out or mlp.post"
        )
    for intervention in (interventions,) if isinstance(interventions, Intervention) else interventions:
        plan.intervene(intervention, batch.lengths)
    session = Session(visits=plan.visits(), n_rows=len(batch.lengths), n_pos=batch.n_pos, gradients=True)
    output = forward(
        model.hf,
        batch.ids,
        session,
        unembed=model.atlas.unembed,
        logit_columns=logit_columns(logits, batch.lengths, batch.n_pos),
        before=lambda: [_connect(model)],
        use_cache=False,
    )
    with torch.enable_grad():
        value = metric(output.logits)
    if not isinstance(value, Tensor) or value.numel() != 1 or not value.requires_grad:
        raise UsageError("the metric must return one number that depends on the logits, such as logits[0, -1, 5]")
    ports = list(dict.fromkeys(binding.port for binding in bindings))
    raw = torch.autograd.grad(value, [session.raw[port] for port in ports], allow_unused=True)
    by_port = {port: _present(g, session.raw[port]) for port, g in zip(ports, raw, strict=True)}
    found = {b.site: b.read_gradient(batched(by_port[b.port], batch.n_pos)) for b in bindings}
    n_layers = model.atlas.n_layers
    return Gradients(
        tokens=batch.tokens,
        value=float(value.detach()),
        logits=output.logits.detach(),
        cache=ActivationCache({site: tensor.detach() for site, tensor in session.captured.items()}, n_layers),
        gradients=ActivationCache(found, n_layers),
    )


def _connect(model: "Model") -> Any:
    """Makes the embeddings part of a graph even where the parameters are frozen."""

    def hook(module: nn.Module, args: Sequence[Any], output: Tensor) -> Tensor | None:
        return None if output.requires_grad else output.detach().requires_grad_()

    module = module_at(model.hf, model.atlas.embed)
    assert module is not None, "the atlas checked this path"
    return module.register_forward_hook(hook)


def _present(gradient: Tensor | None, like: Tensor) -> Tensor:
    """A site that the metric does not depend on has gradient zero."""
    return torch.zeros_like(like) if gradient is None else gradient

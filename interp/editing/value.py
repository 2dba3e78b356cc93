"""The value of a fact: what the MLP should write at the subject's last token so that the model goes on with the target.

Meng et al. 2022, eq. 4. A change delta of the value is optimised in all contexts at once. Positions before the subject's last token
and layers up to the edited one never change, so they are computed once; of the rest only the target's positions are unembedded.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import kl_div

from interp.editing.edit import ValueCurve
from interp.editing.rewrite import Rewrite
from interp.editing.settings import EditSettings
from interp.errors import NumericsError
from interp.runner.aligned import Place, Suffixes
from interp.runner.model import Model

SHARES = (0.5, 0.6, 0.7, 0.8, 0.9)
"""The parts of delta that are tried where less of it may be enough."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Value:
    """What the optimisation found: the wanted value is ``start + delta``."""

    delta: Float[Tensor, " d_model"]
    start: Float[Tensor, " d_model"]
    curve: ValueCurve


def optimise_value(model: Model, rewrite: Rewrite, layer: int, settings: EditSettings, place: Place = "mlp") -> Value:
    """Finds the change of the value at ``layer`` that makes the target likely in every context.

    ``start`` is the value before, averaged over contexts where ``settings.averaged`` says so, else the bare prompt's; delta's size is
    measured against it. ``place`` "block" optimises the stream that leaves the block (MEMIT), not the MLP's output.

    Raises NumericsError where the loss or the value is not finite.
    """
    chosen = spread_over(len(rewrite.prompts), settings.value_contexts)
    tokens = [*(rewrite.prompts[i] for i in chosen), rewrite.essence]
    positions = [*(rewrite.positions[i] for i in chosen), rewrite.essence_position]
    columns = [*(rewrite.columns[i] for i in chosen), [rewrite.essence_position] * len(rewrite.target.ids)]
    run = model.run(tokens, capture=f"mlp.post@{layer}", logits=False, resumable=True)
    suffixes = Suffixes(run, layer, positions, columns, place)
    starts = suffixes.start[:-1].float()
    start = starts.mean(0) if settings.averaged and place == "mlp" else starts[0]
    target = torch.tensor(rewrite.target.ids)
    delta, curve = _optimise(suffixes, target, start, settings, rewrite.seed)
    if settings.enough_probability is not None:
        delta = shortest(suffixes, target, delta, settings.enough_probability)
    return Value(delta=delta, start=start, curve=curve)


def shortest(
    suffixes: Suffixes, target: Int[Tensor, " pos"], delta: Float[Tensor, " d_model"], enough: float
) -> Float[Tensor, " d_model"]:
    """The smallest of ``SHARES`` of delta under which the target keeps a probability of ``enough``, delta itself where none does.

    The probability is the geometric mean over the contexts and the target's tokens, without noise; the essence prompt, the last of the
    suffixes, has no part in it.
    """
    for share in SHARES:
        with torch.no_grad():
            nll = _target_nll(_log_probs(suffixes, share * delta), target)
        if float((-nll.mean()).exp()) >= enough:
            return share * delta
    return delta


def spread_over(n: int, wanted: int | None) -> list[int]:
    """``wanted`` of the indices 0 to n - 1 in order, the first always among them and the others spread evenly; None is all."""
    if wanted is None or wanted >= n:
        return list(range(n))
    if wanted <= 2:
        return [0, 1][:wanted]
    return [0, *(1 + round(i * (n - 2) / (wanted - 2)) for i in range(wanted - 1))]


def _optimise(
    suffixes: Suffixes, target: Tensor, start: Tensor, settings: EditSettings, seed: int
) -> tuple[Float[Tensor, " d_model"], ValueCurve]:
    delta = torch.zeros_like(start, requires_grad=True)
    optimiser = torch.optim.Adam([delta], lr=settings.learning_rate)
    radius = settings.clamp * start.norm()
    generator = torch.Generator().manual_seed(seed)
    essence: Tensor | None = None
    steps: list[list[float]] = []
    reason = "steps"
    for step in range(settings.steps):
        with torch.enable_grad():
            noise = _disturbance(suffixes.following, settings.noise, generator) if settings.noise else None
            log_probs = _log_probs(suffixes, delta, noise)
            by_context = _target_nll(log_probs, target).mean(1)
            essence = log_probs[-1, 0].detach() if essence is None else essence
            # KL(changed || unchanged), as in the paper.
            divergence = settings.kl_weight * kl_div(essence, log_probs[-1, 0], reduction="sum", log_target=True)
            decay = settings.decay * delta.norm() / start.norm() ** 2
            loss = by_context.mean() + divergence + decay
        steps.append(_numbers(loss, by_context, divergence, decay, delta))
        if not torch.isfinite(loss):
            raise NumericsError(f"the loss is not finite at step {step} of the optimisation; the model is as it was")
        if steps[-1][0] < settings.stop_loss_nats:
            reason = "loss"
            break
        if step == settings.steps - 1:
            break
        (delta.grad,) = torch.autograd.grad(loss, [delta])
        optimiser.step()
        with torch.no_grad():
            delta.mul_((radius / delta.norm()).clamp(max=1.0))
    return delta.detach(), _curve(steps, float(start.norm()), reason)


def _log_probs(
    suffixes: Suffixes, delta: Float[Tensor, " d_model"], noise: Float[Tensor, "batch _ d_model"] | None = None
) -> Float[Tensor, "batch pos d_vocab"]:
    return suffixes.logits(delta, noise).to(delta.device).float().log_softmax(-1)


def _target_nll(
    log_probs: Float[Tensor, "batch pos d_vocab"], target: Int[Tensor, " pos"]
) -> Float[Tensor, "context pos"]:
    """-log p of the target's tokens in each context; the last of the batch is the essence prompt."""
    return -log_probs[:-1].gather(-1, target.to(log_probs.device).expand(len(log_probs) - 1, -1)[..., None])[..., 0]


def _disturbance(
    stream: Float[Tensor, "batch _ d_model"], size: float, generator: torch.Generator
) -> Float[Tensor, "batch _ d_model"]:
    """Gaussian noise of ``size`` times the root mean square of each position. The essence is read before all of them."""
    noise = torch.randn(stream.shape, generator=generator).to(stream)  # drawn on the CPU: the same on every device
    return noise * (size * stream.square().mean(-1, keepdim=True).sqrt())


def _numbers(loss: Tensor, by_context: Tensor, divergence: Tensor, decay: Tensor, delta: Tensor) -> list[float]:
    mean = by_context.detach().mean()
    parts = (loss, mean, divergence, decay, (-mean).exp(), (-by_context[0]).exp(), delta.norm())
    return [float(part.detach()) for part in parts]


def _curve(steps: list[list[float]], start_norm: float, reason: str) -> ValueCurve:
    loss, target, essence, decay, probability, bare, norm = torch.tensor(steps).unbind(1)
    return ValueCurve(
        loss_nats=loss,
        target_nats=target,
        essence_nats=essence,
        decay_nats=decay,
        probability=probability,
        bare_probability=bare,
        delta_norm=norm,
        start_norm=start_norm,
        stop_reason=reason,
    )

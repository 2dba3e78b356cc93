"""The value of a fact: what the MLP should write at the subject's last token so that the model goes on with the target.

Meng et al. 2022, eq. 4. A change delta of the value is optimised in all contexts at once. Positions before the subject's last token
and layers up to the edited one never change, so they are computed once; of the rest only the target's positions are unembedded.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import kl_div

from interp.editing.edit import ValueCurve
from interp.editing.rewrite import Rewrite
from interp.editing.settings import EditSettings
from interp.errors import NumericsError
from interp.maths.rank_one import Direction
from interp.runner.aligned import Place, Suffixes
from interp.runner.model import Model
from interp.tokens import Tokens

PARTS = (0.5, 0.6, 0.7, 0.8, 0.9)
"""The parts of delta that are tried where less of it may be enough."""
LIKELY = 0.9
"""The probability from which on the target counts as won, over the contexts and in the bare prompt."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Value:
    """What the optimisation found: the wanted value is ``start + delta``."""

    delta: Float[Tensor, " d_model"]
    start: Float[Tensor, " d_model"]
    curve: ValueCurve


def optimise_value(
    model: Model,
    rewrite: Rewrite,
    layer: int,
    settings: EditSettings,
    place: Place = "mlp",
    *,
    direction: Direction | None = None,
    overhearers: Sequence[Tokens] = (),
) -> Value:
    """Finds the change of the value at ``layer`` that makes the target likely in every context.

    ``start`` is the value before, averaged over contexts where ``settings.averaged`` says so, else the bare prompt's; delta's size is
    measured against it. ``place`` "block" optimises the stream that leaves the block (MEMIT), not the MLP's output.

    The ``overhearers``, prompts whose subject ends where the bare prompt's does, get the share of delta that they hear in the
    ``direction`` and are to predict what they did before; with ``settings.as_heard`` all other prompts get only their share, too.

    Raises NumericsError where the loss or the value is not finite.
    """
    chosen = spread_over(len(rewrite.prompts), settings.value_contexts)
    tokens = [*(rewrite.prompts[i] for i in chosen), *overhearers, rewrite.essence]
    own, told = [rewrite.positions[i] for i in chosen], len(chosen)
    positions = [*own, *[rewrite.positions[0]] * len(overhearers), rewrite.essence_position]
    last = [*(len(prompt) - 1 for prompt in overhearers), rewrite.essence_position]
    columns = [*(rewrite.columns[i] for i in chosen), *([column] for column in last)]
    run = model.run(tokens, capture=f"mlp.post@{layer}", logits=False, resumable=True)
    suffixes = Suffixes(run, layer, positions, columns, place, calls=settings.steps)
    starts = suffixes.start[:told].float()
    start = starts.mean(0) if settings.averaged and place == "mlp" else starts[0]
    shares = torch.ones(len(tokens))
    if direction is not None:
        shares = direction.shares(run.cache[f"mlp.post@{layer}"][torch.arange(len(tokens)), positions]).float()
        if not settings.as_heard:
            shares[:told] = shares[-1] = 1.0
    loss = _Loss(
        suffixes=suffixes,
        target=torch.tensor(rewrite.target.ids),
        told=told,
        shares=shares.to(start),
        start=start,
        settings=settings,
    )
    noise = torch.Generator().manual_seed(rewrite.seed) if settings.noise else None
    delta, steps = _optimised(loss, torch.zeros_like(start), settings.steps, noise, _below(settings.stop_loss_nats))
    reason = "loss" if steps[-1][0] < settings.stop_loss_nats else "steps"
    if settings.quiet_steps:
        delta, quiet = _optimised(loss, delta, settings.quiet_steps + 1, None, _is_likely)
        steps = [*steps, *quiet]  # the first without noise, too: it tells what the value found under noise does
        if len(quiet) > 1:
            reason = "likely" if _is_likely(quiet[-1]) else "steps"
    if settings.enough_probability is not None:
        delta, shortened = _shortened(loss, delta, settings.enough_probability)
        steps, reason = [*steps, *shortened], "enough" if shortened else reason
    return Value(delta=delta, start=start, curve=_curve(steps, float(start.norm()), reason))


def spread_over(n: int, wanted: int | None) -> list[int]:
    """``wanted`` of the indices 0 to n - 1 in order, the first always among them and the others spread evenly; None is all."""
    if wanted is None or wanted >= n:
        return list(range(n))
    if wanted <= 2:
        return [0, 1][:wanted]
    return [0, *(1 + round(i * (n - 2) / (wanted - 2)) for i in range(wanted - 1))]


@dataclass(kw_only=True, eq=False)
class _Loss:
    """What the optimisation makes small. The first ``told`` of ``suffixes`` are the prompts that are told the target, the last is the
    essence prompt, and between them stand the overhearers; each gets its ``shares`` of delta.

    ``before`` is what all but the told predict without a change, which the first call reads: delta is zero there.
    """

    suffixes: Suffixes
    target: Int[Tensor, " pos"]
    told: int
    shares: Float[Tensor, " batch"]
    start: Float[Tensor, " d_model"]
    settings: EditSettings
    before: Float[Tensor, "_ d_vocab"] | None = None

    def __call__(
        self, delta: Float[Tensor, " d_model"], noise: Float[Tensor, "batch _ d_model"] | None = None
    ) -> tuple[Tensor, list[float]]:
        """The loss, differentiable with respect to delta, and what the curve holds of it."""
        told = self.told
        if noise is not None:  # what the others predict is compared with what they did, so they are not disturbed
            noise = torch.cat([noise[:told], torch.zeros_like(noise[told:])])
        logits = self.suffixes.logits(self.shares[:, None] * delta, noise)
        log_probs = logits.to(delta.device).float().log_softmax(-1)
        answers, now = log_probs.tensor_split([told * len(self.target)])
        target = self.target.to(answers.device).repeat(told)
        by_context = -answers.gather(-1, target[:, None]).view(told, -1).mean(1)
        self.before = now.detach() if self.before is None else self.before
        # KL(changed || unchanged), as in the paper.
        each = kl_div(self.before, now, reduction="none", log_target=True).sum(-1)
        divergence = self.settings.kl_weight * each[-1]
        if len(each) > 1:
            divergence = divergence + self.settings.overhearing_weight * each[:-1].mean()
        decay = self.settings.decay * delta.norm() / self.start.norm() ** 2
        loss = by_context.mean() + divergence + decay
        return loss, _numbers(loss, by_context, divergence, decay, delta)


def _optimised(
    loss: _Loss,
    delta: Float[Tensor, " d_model"],
    most: int,
    noise: torch.Generator | None,
    ends: Callable[[list[float]], bool],
) -> tuple[Float[Tensor, " d_model"], list[list[float]]]:
    """Delta and the numbers of each step on the way to it: ``most`` forward passes, and updates after all but the last.

    ``ends`` is asked after each whether its numbers are good enough. With ``noise`` each pass is disturbed.
    """
    settings = loss.settings
    delta = delta.clone().requires_grad_()
    optimiser = torch.optim.Adam([delta], lr=settings.learning_rate)
    radius = settings.clamp * loss.start.norm()
    steps: list[list[float]] = []
    for step in range(most):
        with torch.enable_grad():
            drawn = None if noise is None else _disturbance(loss.suffixes.following, settings.noise, noise)
            found, numbers = loss(delta, drawn)
        steps.append(numbers)
        if not torch.isfinite(found):
            raise NumericsError(f"the loss is not finite at step {step} of the optimisation; the model is as it was")
        if ends(numbers) or step == most - 1:
            break
        (delta.grad,) = torch.autograd.grad(found, [delta])
        optimiser.step()
        with torch.no_grad():
            delta.mul_((radius / delta.norm()).clamp(max=1.0))
    return delta.detach(), steps


def _below(loss_nats: float) -> Callable[[list[float]], bool]:
    return lambda numbers: numbers[0] < loss_nats


def _is_likely(numbers: list[float]) -> bool:
    return min(numbers[_PROBABILITY], numbers[_BARE]) >= LIKELY


def _shortened(
    loss: _Loss, delta: Float[Tensor, " d_model"], enough: float
) -> tuple[Float[Tensor, " d_model"], list[list[float]]]:
    """The smallest of ``PARTS`` of delta under which the target keeps a probability of ``enough``, and the curve's numbers there.

    The probability is the curve's, the geometric mean over the contexts and the target's tokens, without noise. Delta itself and nothing
    where no part is enough.
    """
    for share in PARTS:
        with torch.no_grad():
            _, numbers = loss(share * delta)
        if numbers[_PROBABILITY] >= enough:
            return share * delta, [numbers]
    return delta, []


def _disturbance(
    stream: Float[Tensor, "batch _ d_model"], size: float, generator: torch.Generator
) -> Float[Tensor, "batch _ d_model"]:
    """Gaussian noise of ``size`` times the root mean square of each position."""
    noise = torch.randn(stream.shape, generator=generator).to(stream)  # drawn on the CPU: the same on every device
    return noise * (size * stream.square().mean(-1, keepdim=True).sqrt())


_PROBABILITY = 4
"""Where the probability over the contexts stands among the numbers of a step."""
_BARE = 5
"""Where that of the bare prompt stands."""


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

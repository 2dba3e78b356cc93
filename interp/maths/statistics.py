"""Figures from samples: means with intervals, paired differences, one-sided p values, and false-discovery control over many tests.

Samples lie along the first axis and are taken to be independent (one a prompt, one a seed). A NaN sample is one that could not be
measured: it is left out of its own cell and counted nowhere. Everything is computed and returned in double precision on the CPU.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from scipy import special
from torch import Generator, Tensor

from interp.errors import UsageError
from interp.maths.estimates import Estimates

_DRAWS_AT_ONCE = 256


def mean_estimates(samples: Float[Tensor, "sample *batch"], confidence: float = 0.95) -> Estimates:
    """The mean over samples with its two-sided Student t interval: ``mean +- t((1 + confidence) / 2, n - 1) s / sqrt(n)``.

    Raises UsageError for a confidence that is not between 0 and 1.
    """
    _check_fraction("confidence", confidence)
    mean, error, n = _moments(samples)
    half = _t_quantiles((1 + confidence) / 2, n) * error
    return Estimates(value=mean, lower=mean - half, upper=mean + half, n=n)


def estimates_of_moments(
    mean: Float[Tensor, "*batch"],
    squares: Float[Tensor, "*batch"],
    n: Int[Tensor, "*batch"],
    confidence: float = 0.95,
) -> Estimates:
    """As ``mean_estimates``, of samples of which only the mean, the sum of squared deviations from it and the number are kept."""
    _check_fraction("confidence", confidence)
    error = (squares / (n - 1).clamp(min=1) / n.clamp(min=1)).sqrt()
    half = _t_quantiles((1 + confidence) / 2, n) * error
    return Estimates(value=mean.masked_fill(n < 1, float("nan")), lower=mean - half, upper=mean + half, n=n)


def paired_difference(
    first: Float[Tensor, "sample *batch"], second: Float[Tensor, "sample *batch"], confidence: float = 0.95
) -> Estimates:
    """The mean over samples of ``first - second``, sample by sample, with its Student t interval."""
    return mean_estimates(first.cpu().double() - second.cpu().double(), confidence)


def unpaired_difference(first: Estimates, second: Estimates, confidence: float = 0.95) -> Estimates:
    """``first - second`` of two means from independent samples, with Welch's interval (Welch 1947).

    The standard errors are read off the bounds, which are Student t intervals of ``confidence``; the degrees of freedom are
    Satterthwaite's. ``n`` is the smaller number of samples; without two on both sides the bounds are NaN. Where samples of both sides
    belong together (one seed, one prompt) the true interval is narrower.
    """
    _check_fraction("confidence", confidence)
    errors = []
    for one in (first, second):
        half = (one.upper - one.lower).cpu().double() / 2
        errors.append((half / _t_quantiles((1 + confidence) / 2, one.n.cpu())).square())
    freedom = (errors[0] + errors[1]).square() / (
        errors[0].square() / (first.n.cpu() - 1) + errors[1].square() / (second.n.cpu() - 1)
    )
    quantiles = torch.as_tensor(
        special.stdtrit(freedom.nan_to_num(nan=1.0).clamp(min=1.0).numpy(), (1 + confidence) / 2)
    )
    half = torch.where(errors[0] + errors[1] == 0, 0.0, quantiles * (errors[0] + errors[1]).sqrt())
    value = first.value.cpu().double() - second.value.cpu().double()
    return Estimates(
        value=value, lower=value - half, upper=value + half, n=torch.minimum(first.n.cpu(), second.n.cpu())
    )


def p_values(samples: Float[Tensor, "sample *batch"], reference: float = 0.0) -> Float[Tensor, "*batch"]:
    """One-sided p values of Student's t test that the mean lies above ``reference``; NaN where fewer than two samples are there.

    Samples that are all equal have no spread to test against: their p value is 0 above the reference and 1 elsewhere.
    """
    mean, error, n = _moments(samples)
    distance = mean - reference
    infinite = torch.where(distance > 0, torch.inf, -torch.inf).to(distance)
    t = torch.where(error > 0, distance / error, infinite)
    tail = torch.as_tensor(special.stdtr((n - 1).double().numpy(), -t.numpy()))
    return tail.masked_fill(n < 2, float("nan"))


def sign_flip_p_values(
    samples: Float[Tensor, "sample *batch"], generator: Generator, draws: int = 9999
) -> Float[Tensor, "*batch"]:
    """One-sided p values that the mean lies above 0, from flipping the signs of samples (Fisher's randomisation test).

    The null is that each sample is as likely to be negative as positive; no shape is assumed. p is ``(1 + hits) / (1 + draws)``, a hit
    being a mean at least as great as that seen. Where there are no more than ``draws`` patterns of signs all of them are taken and
    p is their exact share. The same flips serve every cell. NaN where a cell has no sample.

    Raises UsageError for fewer than one draw.
    """
    if draws < 1:
        raise UsageError(f"draws is {draws}; give 1 or more")
    values = samples.cpu().double()
    n, shape = values.shape[0], values.shape[1:]
    flat = values.nan_to_num(nan=0.0).reshape(n, -1)
    exact = n < 31 and 2**n <= draws
    seen = flat.sum(0)
    bar = seen - 1e-12 * flat.abs().sum(0)  # a sum in another order is still a tie
    hits = torch.zeros_like(seen)
    for start in range(0, 2**n if exact else draws, _DRAWS_AT_ONCE):
        stop = min(start + _DRAWS_AT_ONCE, 2**n if exact else draws)
        if exact:
            bits = torch.arange(start, stop)[:, None] >> torch.arange(n)[None] & 1
        else:
            bits = torch.randint(0, 2, (stop - start, n), generator=generator)
        hits += ((1 - 2 * bits).double() @ flat >= bar).sum(0)
    p = hits / 2**n if exact else (1 + hits) / (1 + draws)
    return p.reshape(shape).masked_fill(values.isnan().all(0), float("nan"))


def benjamini_hochberg(p: Float[Tensor, "*batch"], rate: float = 0.05) -> Bool[Tensor, "*batch"]:
    """Which tests are discoveries at a false-discovery ``rate`` over all cells (Benjamini and Hochberg 1995).

    The greatest rank i with ``p_(i) <= i / m * rate`` and all before it are. NaN is no test: never a discovery, not counted in m.

    Raises UsageError for a rate that is not between 0 and 1.
    """
    _check_fraction("rate", rate)
    flat = p.cpu().double().flatten()
    ordered, order = flat.sort()  # NaN comes last
    m = int((~flat.isnan()).sum())
    passed = (ordered[:m] <= torch.arange(1, m + 1) / max(m, 1) * rate).nonzero()
    found = torch.zeros_like(flat, dtype=torch.bool)
    if len(passed):
        found[order[: int(passed[-1]) + 1]] = True
    return found.reshape(p.shape)


def bootstrap_estimates(
    samples: Float[Tensor, "sample *batch"],
    statistic: Callable[[Float[Tensor, "sample *batch"]], Float[Tensor, "..."]],
    generator: Generator,
    *,
    draws: int = 1000,
    confidence: float = 0.95,
) -> Estimates:
    """A statistic of all samples together, with the percentile bootstrap interval over samples (Efron 1979).

    ``statistic`` gets the samples, or as many drawn from them with replacement, and returns the cells. For a mean
    ``mean_estimates`` is better: with few samples this interval is too narrow. With fewer than two samples the bounds are NaN.
    """
    _check_fraction("confidence", confidence)
    n = samples.shape[0]
    value = statistic(samples).cpu().double()
    counts = torch.full(value.shape, n).masked_fill(value.isnan(), 0)
    if n < 2:
        nothing = torch.full_like(value, float("nan"))
        return Estimates(value=value, lower=nothing, upper=nothing.clone(), n=counts)
    drawn = [statistic(samples[torch.randint(0, n, (n,), generator=generator)]).cpu().double() for _ in range(draws)]
    tail = (1 - confidence) / 2
    bounds = torch.stack(drawn).nanquantile(torch.tensor([tail, 1 - tail], dtype=torch.float64), 0)
    bounds = bounds.masked_fill(value.isnan(), float("nan"))
    return Estimates(value=value, lower=bounds[0], upper=bounds[1], n=counts)


def _moments(
    samples: Float[Tensor, "sample *batch"],
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"], Int[Tensor, "*batch"]]:
    """Mean, standard error of the mean (NaN for fewer than two samples) and number of samples, NaN samples left out."""
    values = samples.cpu().double()
    there = ~values.isnan()
    n = there.sum(0)
    mean = values.nansum(0) / n  # 0 / 0 is NaN, as it should be
    squares = (values - mean).square().nansum(0)
    variance = torch.where(n > 1, squares / (n - 1), torch.nan)
    return mean, (variance / n).sqrt(), n


def _t_quantiles(probability: float, n: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """The quantile for n - 1 degrees of freedom in each cell; NaN where there are none."""
    quantiles = torch.as_tensor(special.stdtrit((n - 1).clamp(min=1).double().numpy(), probability))
    return quantiles.masked_fill(n < 2, float("nan"))


def _check_fraction(what: str, value: float) -> None:
    if not 0 < value < 1:
        raise UsageError(f"{what} is {value}; valid: between 0 and 1, both excluded")

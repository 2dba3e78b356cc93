"""ROME, r-ROME, MEMIT and AlphaEdit as their papers and reference code describe them, by full forwards and plain torch hooks.

Nothing of interp is used. A fact is token ids and positions: ``prompts`` are the rewriting prompts, each a list of ids that ends in the
target's tokens but the last, the one without a context first; ``positions[i]`` is the subject's last token in prompt i; ``essence`` is
"{subject} is a". ``module`` is the MLP's output projection: its input at a position is the key, its output the value, bias included.
One row is run at a time and never padded. Matrices are [d_model d_mlp] whatever the module stores.
"""

import math

import torch


class Fact:
    """One fact as tokens. ``more`` are (ids, position) of further contexts that only the key is averaged over."""

    def __init__(self, prompts, positions, target, essence, essence_position, more=()):
        self.prompts, self.positions, self.target = prompts, positions, target
        self.essence, self.essence_position = essence, essence_position
        self.more = more


def matrix(module):
    """The weight [d_model d_mlp], sharing the module's memory: transformers' Conv1D stores it the other way round than nn.Linear."""
    return module.weight.data.T if type(module).__name__ == "Conv1D" else module.weight.data


def key(hf, module, ids, position):
    """The input of the module at a position."""
    return _read(hf, module, ids, position)[0]


def value(hf, module, ids, position):
    """The output of the module at a position; of a block, the residual stream after it."""
    return _read(hf, module, ids, position)[1]


def average_key(hf, module, prompts, positions):
    """The mean key over the contexts."""
    total = 0.0
    for ids, position in zip(prompts, positions, strict=True):
        total = total + key(hf, module, ids, position)
    return total / len(prompts)


def average_value(hf, module, prompts, positions):
    """The mean output over the contexts: W k_bar, and the bias where there is one."""
    total = 0.0
    for ids, position in zip(prompts, positions, strict=True):
        total = total + value(hf, module, ids, position)
    return total / len(prompts)


def direction(moment, k):
    """u = C^-1 k / |C^-1 k|, in double precision."""
    solved = torch.linalg.inv(moment.double()) @ k.double()
    return solved / solved.norm()


def optimise(
    hf, module, fact, *, averaged=False, chosen=None, block=None, noise=0.0, seed=0, quiet_steps=0, likely=1.0, shares=None,
    overhearers=(), overhearing_weight=1.0, steps, learning_rate, kl_weight, decay, clamp, stop_loss,
):  # fmt: skip
    """(v*, curve): a delta added to the module's output at the subject's last token, found by Adam; v* = v_0 + delta.

    v_0 is the bare prompt's output, or with ``averaged`` the mean over the contexts; delta's size is measured against it. ``chosen`` are
    the numbers of the prompts that take part; all by default. With ``noise`` the stream that leaves ``block`` is disturbed at every
    position after the subject: at each step a number is drawn for each row (those of ``overhearers`` and the essence's, left as they
    are, come last), position (as many as the longest row has) and dimension, and added in units of noise times the root mean square of
    what the position held before. ``overhearers`` are (ids, position, share): prompts that get a share of delta, and the mean over them
    of KL(what they predict || what they did) at their last token, times ``overhearing_weight``, joins the essence's part of the loss.
    ``shares`` are those of the prompts that take part and of the essence, which comes last; all of delta by default.

    Each entry of the curve is (loss, target's part, essence's part, decay's part, |delta|) of one forward. There are ``steps`` forwards
    and one update fewer; it ends early after a forward whose loss is below ``stop_loss``. Then up to ``quiet_steps`` updates by a new Adam
    follow without noise, until the probability of the target is ``likely`` both in the bare prompt and as exp of minus its part of the
    loss; they are in the curve too, and their first forward also where it is the only one.
    """
    prompts = fact.prompts if chosen is None else [fact.prompts[i] for i in chosen]
    positions = fact.positions if chosen is None else [fact.positions[i] for i in chosen]
    start = value(hf, module, prompts[0], positions[0])
    if averaged:
        start = average_value(hf, module, prompts, positions)
    with torch.no_grad():
        before = _log_probs(hf, module, fact.essence, fact.essence_position, None)[fact.essence_position]
        others = [_log_probs(hf, module, ids, position, None)[-1] for ids, position, _ in overhearers]
    shares = [1.0] * (len(prompts) + 1) if shares is None else shares
    lengths = [len(ids) - position - 1 for ids, position in zip(prompts, positions, strict=True)]
    lengths += [len(ids) - position - 1 for ids, position, _ in overhearers]
    shape = (
        len(prompts) + len(overhearers) + 1,
        max(*lengths, len(fact.essence) - fact.essence_position - 1),
        len(start),
    )
    generator = torch.Generator().manual_seed(seed)
    streams = [_stream(hf, block, ids) for ids in prompts] if noise else [None] * len(prompts)
    delta = torch.zeros_like(start, requires_grad=True)

    def descend(most, noise, ends):
        adam = torch.optim.Adam([delta], lr=learning_rate)
        curve = []
        for step in range(most):
            nll, bare = 0.0, 0.0
            drawn = torch.randn(shape, generator=generator) if noise else [None] * len(prompts)
            for row, (ids, position) in enumerate(zip(prompts, positions, strict=True)):
                disturbed = None
                if noise:
                    size = noise * streams[row].square().mean(-1, keepdim=True).sqrt()
                    disturbed = (block, size[position + 1 :] * drawn[row, : len(ids) - position - 1])
                logs = _log_probs(hf, module, ids, position, shares[row] * delta, disturbed)
                first = len(ids) - len(fact.target)
                of_row = 0.0
                for j, token in enumerate(fact.target):
                    of_row = of_row - logs[first + j, token]
                nll = nll + of_row / len(fact.target)
                bare = math.exp(-float(nll.detach())) if row == 0 else bare
            nll = nll / len(prompts)
            after = _log_probs(hf, module, fact.essence, fact.essence_position, shares[-1] * delta)[
                fact.essence_position
            ]
            essence = kl_weight * (after.exp() * (after - before)).sum()
            for was, (ids, position, share) in zip(others, overhearers, strict=True):
                now = _log_probs(hf, module, ids, position, share * delta)[-1]
                essence = essence + overhearing_weight * (now.exp() * (now - was)).sum() / len(overhearers)
            small = decay * delta.norm() / start.norm() ** 2
            loss = nll + essence + small
            curve.append(tuple(float(part.detach()) for part in (loss, nll, essence, small, delta.norm())))
            if ends(curve[-1], bare) or step == most - 1:
                break
            adam.zero_grad()
            loss.backward()
            adam.step()
            with torch.no_grad():
                if delta.norm() > clamp * start.norm():
                    delta.mul_(clamp * start.norm() / delta.norm())
        return curve

    curve = descend(steps, noise, lambda numbers, bare: numbers[0] < stop_loss)
    if quiet_steps:
        quiet = descend(quiet_steps + 1, 0.0, lambda numbers, bare: min(math.exp(-numbers[1]), bare) >= likely)
        curve += quiet
    return start + delta.detach(), curve


def target_probability(hf, module, fact, delta):
    """The geometric mean over contexts and tokens of the target's probability where delta is added at the subject's last token."""
    total = 0.0
    for ids, position in zip(fact.prompts, fact.positions, strict=True):
        with torch.no_grad():
            logs = _log_probs(hf, module, ids, position, delta)
        first = len(ids) - len(fact.target)
        total += sum(float(logs[first + j, token]) for j, token in enumerate(fact.target)) / len(fact.target)
    return math.exp(total / len(fact.prompts))


def insertion(hf, module, fact, moment, target_value, *, original):
    """(u, update): W += r u^T with r = (v* - W k) / (k . u).

    u is always of the averaged key. ``original`` takes the bare prompt's key and value for k and W k, as the code of Meng et al. 2022
    does; otherwise they are averaged too (Gupta et al. 2024).
    """
    mean = average_key(hf, module, fact.prompts, fact.positions)
    u = direction(moment, mean)
    if original:
        k = key(hf, module, fact.prompts[0], fact.positions[0])
        now = value(hf, module, fact.prompts[0], fact.positions[0])
    else:
        k, now = mean, average_value(hf, module, fact.prompts, fact.positions)
    r = (target_value.double() - now.double()) / (k.double() @ u)
    return u, torch.outer(r, u)


def even_insertion(
    hf, module, fact, moment, delta, *, context_weight, misses=(), miss_weight=0.0, kept=(), keep_weight=0.0
):  # fmt: skip
    """(u, update) of an edit that answers alike to the key in every context, those of ``fact.more`` too, not to ``misses`` nor ``kept``.

    The least of u^T C u + context_weight * (variance of k_i . u over the contexts) + miss_weight * (mean square of k_j . u over the
    misses, each (ids, position)) + keep_weight * (sum of squares of k_j . u over the kept) with k_mean . u = 1; the update adds delta to
    W k_mean.
    """
    keys = [key(hf, module, ids, position) for ids, position in zip(fact.prompts, fact.positions, strict=True)]
    keys += [key(hf, module, ids, position) for ids, position in fact.more]
    mean = sum(keys).double() / len(keys)
    total = moment.double().clone()
    for one in keys:
        total = total + context_weight * torch.outer(one.double() - mean, one.double() - mean) / len(keys)
    for ids, position in misses:
        one = key(hf, module, ids, position).double()
        total = total + miss_weight * torch.outer(one, one) / len(misses)
    for ids, position in kept:
        one = key(hf, module, ids, position).double()
        total = total + keep_weight * torch.outer(one, one)
    u = direction(total, mean)
    return u, torch.outer(delta.double() / (mean @ u), u)


def rome(hf, module, fact, moment, *, original, **settings):
    """(u, v*, update, curve) of one edit."""
    target_value, curve = optimise(hf, module, fact, averaged=not original, **settings)
    u, update = insertion(hf, module, fact, moment, target_value, original=original)
    return u, target_value, update, curve


def memit(hf, modules, block, facts, moments, *, weight, **settings):
    """One update for each of ``modules`` (the layers in order): all facts spread over the layers, as Meng et al. 2023 do.

    ``block`` is the last of those layers, whose output z is optimised. The second moments are weighted by ``weight`` (their lambda).
    ``kept``, each (ids, position), count as facts whose values stay, when it is their layer's turn.
    """

    def solve(number, keys, residual, kept):
        total = weight * moments[number].double() + keys @ keys.T + kept @ kept.T
        return residual @ torch.linalg.solve(total, keys).T

    return _spread(hf, modules, block, facts, solve, settings)


def projector(moment, threshold):
    """P = U U^T over the eigenvectors of C whose eigenvalue is below the threshold."""
    values, vectors = torch.linalg.eigh(moment.double())
    total = torch.zeros_like(moment, dtype=torch.float64)
    for i in range(len(values)):
        if float(values[i]) < threshold:
            total = total + torch.outer(vectors[:, i], vectors[:, i])
    return total


def alphaedit(hf, modules, block, facts, moments, *, threshold, ridge, **settings):
    """As ``memit``, with dW^T = (P (K K^T + K_prev K_prev^T) + ridge I)^-1 P K R^T (Fang et al. 2025)."""
    projectors = [projector(moment, threshold) for moment in moments]

    def solve(number, keys, residual, kept):
        p, outer = projectors[number], keys @ keys.T + kept @ kept.T
        return torch.linalg.solve(p @ outer + ridge * torch.eye(len(p), dtype=torch.float64), p @ keys @ residual.T).T

    return _spread(hf, modules, block, facts, solve, settings)


def _spread(hf, modules, block, facts, solve, settings):
    settings = dict(settings)
    kept = settings.pop("kept", ())
    wanted = [optimise(hf, block, fact, **settings)[0] for fact in facts]
    saved = [module.weight.data.clone() for module in modules]
    updates = []
    try:
        for number, module in enumerate(modules):
            keys, residual = [], []
            for fact, z in zip(facts, wanted, strict=True):
                mean = average_key(hf, module, fact.prompts[:1], fact.positions[:1]).double()
                if len(fact.prompts) > 1:  # the mean over kinds of contexts: none, and sampled
                    mean = (mean + average_key(hf, module, fact.prompts[1:], fact.positions[1:]).double()) / 2
                keys.append(mean)
                now = value(hf, block, fact.prompts[0], fact.positions[0])
                residual.append((z.double() - now.double()) / (len(modules) - number))
            preserved = [key(hf, module, *one) for one in kept] or [torch.zeros(len(keys[0]))]
            update = solve(number, torch.stack(keys, 1), torch.stack(residual, 1), torch.stack(preserved, 1).double())
            updates.append(update)
            matrix(module).add_(update.to(module.weight.dtype))
    finally:
        for module, weight in zip(modules, saved, strict=True):
            module.weight.data.copy_(weight)
    return updates


def _stream(hf, block, ids):
    """What leaves a block, [pos d_model]."""
    return torch.stack([value(hf, block, ids, position) for position in range(len(ids))])


def _log_probs(hf, module, ids, position, delta, disturbed=None):
    """[pos d_vocab] with delta added to the module's output at the position, and with ``disturbed``, a block and numbers [pos d_model],
    these added to what leaves the block at the positions after it.
    """

    def add(module, args, output):
        tensor = output[0] if isinstance(output, tuple) else output
        changed = tensor.clone()
        changed.view(-1, tensor.shape[-1])[position] += delta
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    def disturb(module, args, output):
        tensor = output[0] if isinstance(output, tuple) else output
        changed = tensor.clone()
        changed.view(-1, tensor.shape[-1])[position + 1 :] += disturbed[1]
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    handles = [] if delta is None else [module.register_forward_hook(add)]
    handles += [] if disturbed is None else [disturbed[0].register_forward_hook(disturb)]
    try:
        return torch.log_softmax(hf(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float(), -1)
    finally:
        for handle in handles:
            handle.remove()


def _read(hf, module, ids, position):
    seen = []

    def record(module, args, kwargs, output):
        entering = args[0] if args else kwargs["hidden_states"]
        leaving = output[0] if isinstance(output, tuple) else output
        seen.append([x.reshape(-1, x.shape[-1])[position].clone() for x in (entering, leaving)])

    handle = module.register_forward_hook(record, with_kwargs=True)
    try:
        with torch.no_grad():
            hf(input_ids=torch.tensor([ids]), use_cache=False)
    finally:
        handle.remove()
    return seen[0]

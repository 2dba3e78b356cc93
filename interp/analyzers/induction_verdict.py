"""Whether a candidate is called an induction head, and the sentence that says why."""

from interp.analyzers.induction_circuit import Mechanism
from interp.analyzers.induction_result import Behaviour, Cause, Verdict
from interp.heads import Head


def judged(
    head: Head, behaviour: Behaviour, mechanism: Mechanism | None, cause: Cause | None, threshold: float
) -> Verdict:
    """The verdict on a head: called where behaviour and cause agree."""
    against = _against_behaviour(behaviour, threshold)
    if against is None:
        against = "not tested by ablation" if cause is None else _against_cause(cause)
    called = against is None
    if against is None:
        assert cause is not None, "without a test nothing is called"
        against = (
            f"goes to the induction target with {behaviour.prefix_matching.value:.2f} of its attention off the first token; "
            f"without it the loss on repeats rises by {cause.second.value:.2f} nats, {_beside(cause)}"
        )
    return Verdict(head=head, called=called, reason=against, behaviour=behaviour, mechanism=mechanism, cause=cause)


def _against_behaviour(seen: Behaviour, threshold: float) -> str | None:
    """Why the head does not attend like an induction head; None if it does."""
    score = seen.prefix_matching.value
    if score != score:
        return f"rests on the first token with {seen.on_first.value:.0%} of its attention, so that there is nothing to judge"
    if seen.p != seen.p:
        return "one text gives no interval; give several prompts or seeds"
    if not seen.significant:
        return (
            f"attends to induction targets no more than to the same places of text without repeats (p = {seen.p:.2g})"
        )
    if score < threshold:
        return f"goes to the induction target with only {score:.2f} of its attention off the first token; {threshold:g} is asked for"
    if seen.stripe.n and seen.peak != 1:
        return "does not peak at the induction target whatever the period"
    return None


def _against_cause(cause: Cause) -> str | None:
    """Why ablation does not show that the head matters for repeats; None if it does."""
    loss = cause.second.value
    beyond_each = cause.worst_peer != cause.worst_peer or loss > cause.worst_peer
    if cause.p != cause.p:
        return "one text gives no interval for the ablation; give several prompts or seeds"
    if cause.significant and loss > 0 and beyond_each:
        return None
    restored = cause.restored
    back = ""
    if restored.lower > 0:
        back = f"; put back alone after all candidates were ablated, it wins back {restored.value:.2f} nats, so others can stand in for it"
    return (
        f"attends like one, but without it the loss on repeats changes by {_signed(loss)} nats, {_beside(cause)}{back}"
    )


def _beside(cause: Cause) -> str:
    if not cause.peers:
        return "and its layer has no other head to compare with"
    if len(cause.peers) == 1:
        return f"without {cause.peers[0]} by {_signed(cause.peers_second.value)}"
    others = f"without another head of its layer by {_signed(cause.peers_second.value)}"
    return f"{others} (mean of {len(cause.peers)}, {_signed(cause.worst_peer)} at most)"


def _signed(value: float) -> str:
    """Two decimals with a sign, and none on a zero."""
    return f"{round(value, 2) + 0.0:+.2f}".replace("+0.00", "0.00")

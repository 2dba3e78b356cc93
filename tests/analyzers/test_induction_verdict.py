"""A head is called where behaviour and cause agree, and each verdict says why."""

import math
from dataclasses import replace

import pytest

from interp.analyzers.induction_result import Behaviour, Cause
from interp.analyzers.induction_verdict import judged
from interp.heads import Head
from interp.maths.estimates import Estimate


def around(value: float, half: float = 0.1) -> Estimate:
    return Estimate(value=value, lower=value - half, upper=value + half, n=6)


NOTHING = Estimate(value=math.nan, lower=math.nan, upper=math.nan, n=0)
GOOD = Behaviour(
    stripe=around(0.8),
    unrepeated=around(0.01),
    prefix_matching=around(0.9),
    on_first=around(0.2),
    p=1e-6,
    significant=True,
    peak=1,
)
CAUSES = Cause(
    second=around(1.5),
    late_less_early=around(1.2),
    peers=(Head(1, 1), Head(1, 2)),
    peers_second=around(0.1),
    worst_peer=0.3,
    p=1e-4,
    significant=True,
    restored=around(0.5),
)


def verdict(behaviour=GOOD, cause=CAUSES):
    return judged(Head(1, 0), behaviour, None, cause, 0.3)


def test_called_where_both_agree():
    got = verdict()
    assert got.called
    assert got.reason == (
        "goes to the induction target with 0.90 of its attention off the first token; without it the loss on repeats rises by "
        "1.50 nats, without another head of its layer by +0.10 (mean of 2, +0.30 at most)"
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"prefix_matching": NOTHING, "on_first": around(0.97)}, "rests on the first token with 97%"),
        ({"p": math.nan, "significant": False}, "one text gives no interval"),
        ({"p": 0.4, "significant": False}, "no more than to the same places of text without repeats .p = 0.4."),
        ({"prefix_matching": around(0.2)}, "only 0.20 of its attention off the first token; 0.3 is asked for"),
        ({"peak": 0}, "does not peak at the induction target whatever the period"),
        ({"peak": None}, "does not peak at the induction target whatever the period"),
    ],
)
def test_not_called_without_the_behaviour(changes, reason):
    got = verdict(replace(GOOD, **changes))
    assert not got.called
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(got.reason)


@pytest.mark.parametrize(
    "changes",
    [
        {"significant": False},
        {"second": around(-0.2)},
        {"worst_peer": 1.6},
    ],
)
def test_not_called_without_the_cause(changes):
    got = verdict(cause=replace(CAUSES, **changes))
    assert not got.called
    assert got.reason.startswith("attends like one, but without it the loss on repeats changes by")
    assert "wins back 0.50 nats" in got.reason
    nothing_back = verdict(cause=replace(CAUSES, **changes, restored=around(0.05)))
    assert "wins back" not in nothing_back.reason


def test_without_peers_and_without_a_test():
    alone = verdict(cause=replace(CAUSES, peers=(), peers_second=NOTHING, worst_peer=math.nan))
    assert alone.called
    assert alone.reason.endswith("and its layer has no other head to compare with")
    assert not verdict(cause=None).called
    assert verdict(cause=None).reason == "not tested by ablation"
    unknown = verdict(cause=replace(CAUSES, p=math.nan, significant=False))
    assert "one text gives no interval for the ablation" in unknown.reason


def test_text_without_a_period_needs_no_peak():
    assert verdict(replace(GOOD, stripe=NOTHING, peak=None)).called

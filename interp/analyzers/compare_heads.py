"""What can be compared of attention patterns, head profiles and causal traces."""

import torch
from jaxtyping import Float
from torch import Tensor

from interp.analyzers.attention_patterns import AttentionPatternsResult
from interp.analyzers.causal_trace_result import CausalTraceResult
from interp.analyzers.compare_axes import Aligner, Shared
from interp.analyzers.compare_tables import estimated_on_shared, heads_of, on_shared
from interp.analyzers.comparison import Quantity, Summary
from interp.analyzers.head_profiles import HeadProfilesResult
from interp.maths.attention import unpack
from interp.maths.estimates import Estimates
from interp.maths.statistics import mean_estimates
from interp.maths.tracing import PLACES
from interp.tokens import visible

_HABITS = {
    "first": ("attention to the first token", "share of attention"),
    "previous": ("attention to the previous token", "share of attention"),
    "own": ("attention to the token itself", "share of attention"),
    "entropy_nats": ("entropy of the attention", "nats"),
    "distance_tokens": ("mean distance", "tokens"),
}


def patterns(a: AttentionPatternsResult, b: AttentionPatternsResult, axes: Aligner) -> list[Quantity]:
    """How far each head's pattern moved, for prompts of one length, then the habits of each head, averaged over its queries."""
    layers, heads = axes.layers(a.layers, b.layers), axes.heads(a.heads, b.heads)
    if layers is None or heads is None:
        return []
    every = []
    if len(a.tokens) == len(b.tokens) > 1:
        axes.positions(a.tokens, b.tokens, range(len(a.tokens)), range(len(b.tokens)))
        every.append(_moved(a, b, layers, heads))
    else:
        axes.refuse(
            f"patterns: A has {len(a.tokens)} tokens, B has {len(b.tokens)}; keys have no counterparts, so only averages are compared"
        )
    means = a.means(), b.means()
    for name, (title, unit) in _HABITS.items():
        one, two = means[0][name], means[1][name]
        every.append(on_shared(name, layers, heads, one, two, title=title, unit=unit, axes=("layer", "head")))
    return every


def pattern_summaries(a: AttentionPatternsResult, b: AttentionPatternsResult) -> list[Summary]:
    """Averages over all heads that each result holds."""
    means = a.means(), b.means()
    found = [
        Summary(
            name=f"{title}, mean over heads",
            unit=unit,
            a=float(means[0][name].mean()),
            b=float(means[1][name].mean()),
        )
        for name, (title, unit) in _HABITS.items()
    ]
    over = [float((one["first"] > 0.5).float().mean()) for one in means]
    return [
        *found,
        Summary(name="heads with over half on the first token", unit="share of heads", a=over[0], b=over[1]),
    ]


def profiles(a: HeadProfilesResult, b: HeadProfilesResult, axes: Aligner) -> list[Quantity]:
    """Each measure that both have, head by head, with the interval of its difference over prompts."""
    layers = axes.layers(a.layers, b.layers)
    heads = axes.heads(range(a.p.shape[2]), range(b.p.shape[2]))
    if layers is None or heads is None:
        return []
    if a.lengths != b.lengths or a.default_prompts != b.default_prompts:
        axes.note("A and B were measured on other prompts")
    axes.note(
        "intervals are Welch's, as if the prompts of A and B were drawn independently; of the same prompts they are too wide"
    )
    names = [measure.name for measure in b.measures]
    every = []
    for index, measure in enumerate(a.measures):
        if measure.name not in names:
            axes.refuse(f"{measure.name}: only A has it")
            continue
        one, two = _measure(a.value, index), _measure(b.value, names.index(measure.name))
        title = measure.name.replace("_", " ")
        every.append(
            estimated_on_shared(
                measure.name,
                layers,
                heads,
                one,
                two,
                confidence=_confidence(a, b, axes),
                title=title,
                unit=measure.unit,
                axes=("layer", "head"),
            )
        )
    return every


def profile_summaries(a: HeadProfilesResult, b: HeadProfilesResult) -> list[Summary]:
    """How many heads of each class are named."""
    named = [[found.head_class for found in result.named_heads()] for result in (a, b)]
    classes = dict.fromkeys(
        measure.head_class for result in (a, b) for measure in result.measures if measure.head_class
    )
    return [
        Summary(name=f"{name}s named", unit="heads", a=float(named[0].count(name)), b=float(named[1].count(name)))
        for name in classes
    ]


def traces(a: CausalTraceResult, b: CausalTraceResult, axes: Aligner) -> list[Quantity]:
    """What restoring a state brings back: by the places of the prompt, which subjects of any length share, then token by token."""
    layers = axes.layers(range(a.n_layers), range(b.n_layers))
    kinds = [kind for kind in a.kinds if kind in b.kinds]
    for side, other, name in ((a, b, "A"), (b, a, "B")):
        for kind in side.kinds:
            if kind not in other.kinds:
                axes.refuse(f"{kind}: only {name} traced it")
    if layers is None or not kinds:
        return []
    if a.corruption != b.corruption or (a.corruption == "noise" and a.noise != b.noise):
        axes.note("A and B were corrupted in other ways")
    axes.note(
        "effects are of each side's own answer; intervals of differences are Welch's, as if samples were independent"
    )
    confidence = _confidence(a, b, axes)
    places = [place for place in PLACES if place in a.places and place in b.places]
    by_place = Shared(labels=tuple(places), a=tuple(range(len(places))), b=tuple(range(len(places))))
    tokens = axes.positions(a.prompt, b.prompt, range(len(a.prompt)), range(len(b.prompt)))
    assert tokens is not None, "a trace has all positions"
    every = []
    for kind in kinds:
        title = f"effect of restoring {kind}"
        shape = {"confidence": confidence, "unit": "probability"}
        one, two = _at_places(a, kind, places), _at_places(b, kind, places)
        every.append(
            estimated_on_shared(
                f"{kind}_by_place",
                layers,
                by_place,
                one,
                two,
                title=f"{title}, by place",
                axes=("layer", "place"),
                **shape,
            )
        )
        one, two = a.indirect_effect(kind), b.indirect_effect(kind)
        every.append(
            estimated_on_shared(
                f"{kind}_by_token",
                layers,
                tokens,
                one,
                two,
                title=f"{title}, by token",
                axes=("layer", "token"),
                **shape,
            )
        )
    return every


def trace_summaries(a: CausalTraceResult, b: CausalTraceResult) -> list[Summary]:
    """The three runs of each, and the greatest effect of each kind that both traced."""
    answers = {"a_text": a.answer.text, "b_text": b.answer.text}
    runs = (
        ("answer, clean", a.clean_probability, b.clean_probability),
        ("answer, corrupted", a.corrupted().value, b.corrupted().value),
        ("lost by corrupting the subject", a.total_effect().value, b.total_effect().value),
    )
    found = [Summary(name=name, unit="probability", a=one, b=two, **answers) for name, one, two in runs]
    for kind in (kind for kind in a.kinds if kind in b.kinds):
        (one, at_a), (two, at_b) = (_peak(result, kind) for result in (a, b))
        found.append(
            Summary(
                name=f"greatest effect of restoring {kind}", unit="probability", a=one, b=two, a_text=at_a, b_text=at_b
            )
        )
    return found


def _moved(a: AttentionPatternsResult, b: AttentionPatternsResult, layers: Shared, heads: Shared) -> Quantity:
    """Half the sum of |p - q| over keys, averaged over the queries from the second on: 0 for equal patterns, 1 for disjoint ones."""
    one, two = (_triangles(result) for result in (a, b))
    one = one[torch.tensor(layers.a)][:, torch.tensor(heads.a)]
    two = two[torch.tensor(layers.b)][:, torch.tensor(heads.b)]
    queries = torch.tensor([query for query in range(len(a.tokens)) for _ in range(query + 1)])
    summed = torch.zeros(*one.shape[:2], len(a.tokens)).index_add(2, queries, (one - two).abs()) / 2
    return Quantity(
        name="pattern_distance",
        title="distance between the patterns (total variation, mean over queries)",
        unit="share of attention",
        row_axis="layer",
        column_axis="head",
        rows=layers.labels,
        columns=heads.labels,
        row_layers=layers.numbers,
        column_heads=heads_of(heads),
        a=None,
        b=None,
        difference=summed[..., 1:].mean(-1),
        lower=None,
        upper=None,
        a_texts=None,
        b_texts=None,
    )


def _triangles(result: AttentionPatternsResult) -> Float[Tensor, "layer head pair"]:
    return result.patterns.float() if result.exact else unpack(result.patterns)


def _measure(every: Estimates, index: int) -> Estimates:
    return Estimates(value=every.value[index], lower=every.lower[index], upper=every.upper[index], n=every.n[index])


def _confidence(
    a: CausalTraceResult | HeadProfilesResult, b: CausalTraceResult | HeadProfilesResult, axes: Aligner
) -> float | None:
    """The confidence of the intervals of both; None where they differ, so that no interval of a difference follows from them."""
    if a.confidence == b.confidence:
        return a.confidence
    axes.refuse(f"intervals: those of A are of {a.confidence:.0%}, those of B of {b.confidence:.0%}")
    return None


def _at_places(trace: CausalTraceResult, kind: str, places: list[str]) -> Estimates:
    """The indirect effect averaged over the tokens of each place, [layer place], estimated over samples."""
    effects = trace.restored_probability[trace.kinds.index(kind)] - trace.corrupted_probability
    columns = []
    for place in places:
        at = torch.tensor([position for position, own in enumerate(trace.places) if own == place])
        columns.append(effects[:, at].mean(1))
    return mean_estimates(torch.stack(columns, 1).movedim(-1, 0), trace.confidence)


def _peak(trace: CausalTraceResult, kind: str) -> tuple[float, str]:
    layer, position, effect = trace.peak(kind)
    return effect.value, f"{visible(trace.prompt.pieces[position])} ({position}), layer {layer}"

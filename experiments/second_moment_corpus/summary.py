"""The figures of the experiment by name, and its tables."""

from collections.abc import Mapping
from typing import Any

from experiments.publishing import kept
from experiments.second_moment_corpus.moments import AGAIN, DEFAULT, IDENTITY
from experiments.second_moment_corpus.scores import SCORES, Scored
from interp.maths.estimates import Estimate
from interp.maths.statistics import mean_estimates

_TITLES = {
    "efficacy_score": "ES, %",
    "paraphrase_score": "PS, %",
    "neighbourhood_score": "NS, %",
    "paraphrase_argmax": "argmax of the paraphrase, %",
    "neighbours_kept": "neighbours kept, %",
    "neighbour_kl": "KL on neighbours, nats",
    "perplexity_ratio": "perplexity, x",
}
_DIGITS = {"neighbour_kl": 3, "perplexity_ratio": 4}


def paragraphs_of(scored: Mapping[str, Scored], n_tokens: int) -> str:
    """The name of the paragraphs with as many tokens, else with the most."""
    names = [name for name in scored if name.startswith("paragraphs")]
    return min(names, key=lambda name: abs(scored[name].n_tokens - n_tokens))


def values(scored: Mapping[str, Scored]) -> dict[str, float]:
    """The figures that are held against what is expected: scores of the default, and differences from them."""
    default = scored[DEFAULT]
    text = scored[paragraphs_of(scored, default.n_tokens)]
    figures = {
        "least_efficacy": min(one.mean("efficacy_score").value for one in scored.values()),
        "apart_again": scored[AGAIN].apart,
        "apart_text": text.apart,
        "cosine_again": float(scored[AGAIN].plain.mean()),
        "cosine_text": float(text.plain.mean()),
        "cosine_identity": float(scored[IDENTITY].plain.mean()),
    }
    for name in SCORES:
        if name in default.samples:
            figures[f"default_{name}"] = default.mean(name).value
            figures[f"text_{name}"] = text.less(default, name).value
            figures[f"identity_{name}"] = scored[IDENTITY].less(default, name).value
    return figures


def score_lines(scored: Mapping[str, Scored]) -> list[str]:
    """The means over facts."""
    names = [name for name in SCORES if name in scored[DEFAULT].samples]
    lines = ["| second moment of | tokens | " + " | ".join(_TITLES[name] for name in names) + " | change of W, % |"]
    lines.append("| --- | ---: |" + " ---: |" * (len(names) + 1))
    before = scored[DEFAULT].before
    cells = [
        f"{float(before[name].nanmean()):.1f}" if name in before and _TITLES[name].endswith("%") else ""
        for name in names
    ]
    lines.append(f"| before the edit | | {' | '.join(cells)} | |")
    for one in scored.values():
        cells = [f"{one.mean(name).value:.{_DIGITS.get(name, 1)}f}" for name in names]
        lines.append(f"| {one.name} | {one.n_tokens:,} | {' | '.join(cells)} | {100 * float(one.drift.mean()):.2f} |")
    return lines


def difference_lines(scored: Mapping[str, Scored]) -> list[str]:
    """Differences from the default with 95 % intervals, fact by fact."""
    names = [name for name in SCORES if name in scored[DEFAULT].samples and name != "efficacy_score"]
    lines = [
        "| less the default | " + " | ".join(_TITLES[name] for name in names) + " |",
        "| --- |" + " ---: |" * len(names),
    ]
    for one in scored.values():
        if one.name != DEFAULT:
            cells = [_cell(one.less(scored[DEFAULT], name), _DIGITS.get(name, 1)) for name in names]
            lines.append(f"| {one.name} | {' | '.join(cells)} |")
    return lines


def distance_lines(scored: Mapping[str, Scored]) -> list[str]:
    """How far each second moment is from the default."""
    lines = [
        "| second moment of | Frobenius distance from the default's | cosine of C⁻¹k | cosine of u |",
        "| --- | ---: | ---: | ---: |",
    ]
    for one in scored.values():
        if one.name != DEFAULT:
            cosines = [_cell(mean_estimates(part[:, None]).at(0), 3) for part in (one.plain, one.used)]
            lines.append(f"| {one.name} | {one.apart:.3f} | {' | '.join(cosines)} |")
    return lines


def more(scored: Mapping[str, Scored], facts: list[str]) -> dict[str, Any]:
    """What is kept beside the figures."""
    return {
        "facts": facts,
        "moments": [
            {
                "name": one.name,
                "tokens": one.n_tokens,
                "apart": round(one.apart, 6),
                "cosines": kept(one.plain),
                "cosines_used": kept(one.used),
                "drift": kept(one.drift),
                "scores": {name: kept(part) for name, part in one.samples.items()},
            }
            for one in scored.values()
        ],
    }


def _cell(one: Estimate, digits: int) -> str:
    return f"{one.value:+.{digits}f} ({one.lower:+.{digits}f} to {one.upper:+.{digits}f})"

"""What lies near the embeddings of the prompt, what differences between rows mean, and how far rows are from orthogonal."""

from typing import Any

from interp.figures.embedding_geometry import neighbours_heatmap, pairs_histogram
from interp.report.arrays import Words
from interp.report.blocks import Axis, Cells, Evidence, Finding, Picture, Section, Table, Version
from interp.report.markup import Child, join, quoted, token
from interp.report.sections.numbers import brief, interval_of, signed, told_from
from interp.tokens import visible


def build(result: Any, prompt: str) -> Section | None:
    """The nearest rows of each token, analogies with their ranks, and the cosines of random pairs."""
    tied = " The same rows are the [[unembedding]]: the two are tied." if result.tied else ""
    lead = (
        f"The [[embedding]] matrix has {result.n_rows:,} rows of {result.d_model:,} numbers. Rows of related tokens point in related "
        f"directions, which their [[cosine]] shows; no context is in them yet.{tied}"
    )
    return Section(
        name="embedding-geometry",
        title="Neighbours, analogies and angles of the embeddings",
        label="Embedding space",
        lead=lead,
        place=21,
        blocks=(_neighbours(result, prompt), _analogies(result), _pairs(result, prompt)),
        findings=_findings(result),
    )


def _neighbours(result: Any, prompt: str) -> Picture:
    texts = {int(number): visible(piece) for number, piece in result.vocabulary.items()}
    ids, cosines = result.neighbour_ids.T.numpy(), result.neighbour_cosines.T.double().numpy().round(3)
    ranks = tuple(str(rank) for rank in range(len(ids)))
    named = [[texts[number] for number in row] for row in ids.tolist()]
    version = Version(
        figure=neighbours_heatmap(cosines, named, result.tokens.labels),
        x=Axis(of="token"),
        y=Axis(of="neighbour", labels=ranks),
        cells=Cells(rows=ranks, link="nearest to", best=Words(ids[..., None], texts), probs=[cosines]),
    )
    return Picture(
        versions={"neighbours": version},
        caption="The nearest rows of each token's own, the nearest on top; the colour is the cosine.",
        prompt=prompt,
    )


def _analogies(result: Any) -> Table:
    rows: list[list[Child]] = []
    for analogy in result.analogies:
        question = quoted(analogy.question.replace(" - ", " − "))  # noqa: RUF001
        expected = quoted(analogy.words[3])
        if analogy.rank is None:
            cut = join(["not one token: ", join(map(quoted, analogy.not_one_token), ", ")])
            rows.append([question, expected, cut, "–", "–", "–"])  # noqa: RUF001
            continue
        first = token(result.vocabulary[str(analogy.nearest_ids[0])])
        ranks = (analogy.rank, analogy.rank_with_inputs, analogy.rank_beside_first)
        rows.append([question, expected, first, *(f"{rank:,}" for rank in ranks)])
    return Table(
        columns=(
            "sum of rows",
            "expected",
            "nearest row",
            "rank of expected",
            "… of all rows",
            "… beside the first word",
        ),
        rows=rows,
        numeric=frozenset({3, 4, 5}),
        caption="Analogies on rows of length 1; rank 0 is nearest. The words of the sum are left out, but not in “of all rows”.",
    )


def _pairs(result: Any, prompt: str) -> Picture:
    stored, centred = result.random_pairs, result.centred_pairs
    shares = {name: values.numpy() for name, values in result.pair_shares().items()}
    count = len(stored.counts)
    middles = tuple(f"{(2 * index + 1) / count - 1:.4g}" for index in range(count))
    return Picture(
        versions={"pairs": Version(figure=pairs_histogram(shares), x=Axis(of="cosine", labels=middles))},
        caption=(
            f"Cosines of {result.n_pairs:,} random pairs of rows. Their root mean square is {_interval(stored.root_mean_square)}, and "
            f"{_interval(centred.root_mean_square)} with the mean row taken off; random directions in {result.d_model:,} dimensions have "
            f"1/√d = {brief(result.d_model**-0.5)}."
        ),
        prompt=prompt,
    )


def _interval(estimate: Any) -> str:
    return f"{estimate.value:.3f} ({estimate.lower:.3f} to {estimate.upper:.3f})"


def _findings(result: Any) -> tuple[Finding, ...]:
    mean, centred = result.random_pairs.mean, result.centred_pairs.root_mean_square
    text = (
        f"Two random rows of the embedding have a cosine of {signed(mean.value)} on average ({mean.lower:.3f} to {mean.upper:.3f}); with "
        f"the mean row taken off, the root mean square is {centred.value:.3f} where random directions have {brief(result.d_model**-0.5)}."
    )
    strength = min(1.0, abs(mean.value)) if told_from(mean, 0.0) else 0.0
    return (
        Finding(
            text=text,
            rank=Evidence.HABIT,
            strength=strength,
            value=mean.value,
            unit="cosine",
            interval=interval_of(mean),
            null=0.0,
            block=2,
        ),
    )

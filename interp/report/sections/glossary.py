"""The words of the page, each explained once."""

from collections.abc import Collection

from interp.report.blocks import Section
from interp.report.markup import element, prose, term_anchor

TERMS = {
    "attention": (
        "The part of a layer that moves information between tokens: each token looks at itself and the ones before it, "
        "weighs them, and adds a mixture of what they hold to its own stream."
    ),
    "cosine": (
        "The cosine of the angle between two vectors: 1 if they point the same way, 0 if they are at right angles, "
        "-1 if they are opposed. In a space of hundreds of dimensions, unrelated vectors have a cosine near 0."
    ),
    "direct logit attribution": (
        "The [[logit]] of one token split into what each component wrote to the [[residual stream]], with the final norm's "
        "divisor held at its value in this run. It counts direct effects only: what a component does through later layers "
        "is credited to those."
    ),
    "entropy": (
        "How undecided a distribution is, in nats: 0 when one token has all the probability, "
        "about 10.8 when 49,152 tokens share it alike."
    ),
    "KL divergence": (
        "How much one distribution differs from another, in nats. Here KL(final ‖ lens): what is lost by using the lens's "
        "distribution in place of the model's own. 0 means they are the same."
    ),
    "layer": "One block of the model: attention and an [[MLP]], each adding its result to the [[residual stream]].",
    "log-probability": "The natural logarithm of a probability, in nats: 0 is certain, -2.3 is one in ten, -6.9 is one in a thousand.",
    "logit": "The score the model gives a token before the [[softmax]]. Adding the same number to all logits changes nothing.",
    "logit lens": (
        "Reading an intermediate [[residual stream]] as if it were the last one, through the final norm and the [[unembedding]] "
        "(nostalgebraist, 2020). Early layers do not yet speak this language, so their words are to be taken with care."
    ),
    "MLP": "The part of a layer that computes within one token: a wide hidden layer whose result is added to the stream.",
    "norm": "The length of a vector: the square root of the sum of its squares.",
    "rank": "The place of a token when all tokens are sorted by probability. 0 is the top.",
    "residual stream": (
        "The vector that each token carries from layer to layer. It starts as the [[embedding]]; attention and MLPs read it and "
        "add to it, and at the end it is turned into [[logits|logit]]."
    ),
    "embedding": "The vector that stands for a token at the start: one row of a learned table, chosen by the token's id.",
    "softmax": "Turns logits into probabilities: each is exp(logit), divided by the sum over all tokens.",
    "token": "A piece of text with a number, its id. Models read and write tokens; a common word is one, a rare one several.",
    "tuned lens": (
        "A [[logit lens]] with a learned affine map for each layer, fitted so that reading that layer predicts the model's "
        "own output (Belrose et al., 2023)."
    ),
    "unembedding": (
        "The matrix that turns the [[residual stream]] after the final norm into one [[logit]] for each token of the "
        "vocabulary."
    ),
}
_LEAD = "The words used on this page."


def build(used: Collection[str]) -> Section:
    """The entries for the terms that the page links, and for the terms those entries link."""
    by_name = {term.lower(): term for term in TERMS}
    entries = []
    for name in sorted(by_name):
        if name in used:
            term = by_name[name]
            entries += [element("dt", term, id=term_anchor(term)), element("dd", prose(TERMS[term]))]
    return Section(
        name="glossary", title="Glossary", label="Glossary", lead=_LEAD, place=100, blocks=(element("dl", *entries),)
    )

"""The size of a page about a long prompt, from real runs of the default model: random words do not tell how small one gets."""

import pytest

import interp
from interp.report import report
from interp_cli.report_analyses import Asked, analyse, chosen

LIMIT = 1_000_000
"""What ``interp report`` promises of 256 tokens."""
OF_512 = 1_020_000
"""Of twice as many tokens no more is promised. 575 kB are the same on every page, most of it plotly; the page's own script, which
has the views, keys, addresses and files, takes 18 kB of these, and with it three analyses of 512 tokens passed a round megabyte."""
TEXT = """\
Replacing what a component puts out by something that says nothing about the text (zero, its mean over texts, or what it puts
out on another one), and seeing what the model loses. The part of a layer that moves information between tokens: each token
looks at itself and the ones before it, weighs them, and adds a mixture of what they hold to its own stream. One of the parts
that attention is made of. Each looks at tokens in its own way, by its own attention pattern; L5H3 is head 3 of layer 5, both
counted from 0. Several heads can share the keys and values that they read. For one attention head: how much each token (the
query) reads from itself and each token before it (the keys). The weights of a query add up to 1. A token, most often the
first, on which heads put the weight that they have no other use for. Little is read from it: its values are short. Patching
estimated from the gradient of the metric: what a patch would change is the change of the state times the gradient there, for
all states from two runs and one backward pass (Nanda, 2023). Where the metric is not straight it is off. The model run on
the prompt as it is. How much of what one attention head writes a later one reads with its queries, keys or values (Elhage et
al., 2021): the norm of the product of their matrices over the product of the norms. Matrices that know nothing of each other
give about one over the root of the stream's width, not zero. The model run on a prompt whose subject is garbled, by noise
added to the embeddings of its tokens or by other words in its place, so that the answer is lost (Meng et al., 2022). The
cosine of the angle between two vectors: 1 if they point the same way, 0 if they are at right angles, -1 if they are opposed.
In a space of hundreds of dimensions, unrelated vectors have a cosine near 0. Patching a state of the clean run into the run
on the corrupted prompt: does it bring the answer back? It finds states that are enough by themselves. The other way round is
noising. How far edits have moved a matrix from what it was: |dW| / |W|, in Frobenius norms, of all edits together. A model
whose weights
""".replace("\n", " ").strip()
"""Sentences of the report's glossary, 512 tokens of the default model."""


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.parametrize(("tokens", "limit"), [(512, OF_512), (256, 860_000)])
def test_a_page_about_a_long_prompt_is_small(model, tokens: int, limit: int) -> None:
    ids = model.tokenizer(TEXT)["input_ids"]
    assert len(ids) == 512
    prompt = model.tokenizer.decode(ids[:tokens])
    results = [
        analyse(model, prompt)
        for analyse in (interp.residual_story, interp.logit_lens, interp.direct_logit_attribution)
    ]
    assert len(results[0].tokens) == tokens
    assert len(report(results).html().encode()) <= limit


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.parametrize(("sections", "limit"), [("default", LIMIT), ("default,attention", 3_000_000)])
def test_the_page_of_interp_report_is_small(model, sections: str, limit: int) -> None:
    """All that ``interp report`` makes of 256 tokens by default, and with the patterns of all heads."""
    asked = Asked(prompt=model.tokenizer.decode(model.tokenizer(TEXT)["input_ids"][:256]))
    results = analyse(model, asked, chosen(sections, asked), lambda *_: None)
    assert len(results[0].tokens) == 256
    assert len(report(results).html().encode()) <= limit

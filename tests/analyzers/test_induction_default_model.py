"""Induction heads of the default model: known stripe scores, and what the model loses without the heads that are found."""

import pytest
import torch

from interp.analyzers.induction_ablation import Ablator, drawn_groups
from interp.analyzers.induction_heads import induction_heads
from interp.analyzers.induction_prompts import random_texts
from interp.analyzers.induction_scan import scan
from interp.analyzers.ordinary_tokens import begin_of_text, frequencies, ordinary_ids
from interp.errors import UsageError
from interp.heads import Head
from interp.maths.induction import places, prefix_matching

pytestmark = pytest.mark.model

STRIPES = {Head(18, 6): 0.863, Head(17, 3): 0.734, Head(17, 4): 0.663, Head(18, 7): 0.613}
FOUND = [Head(17, 3), Head(18, 6), Head(18, 7), Head(20, 6), Head(23, 2), Head(23, 7)]


def test_the_known_stripe_scores(model):
    """TransformerLens' whole diagonal on four prompts of begin-of-text and 2 x 40 ids of 1,000 to 39,999, seed 0."""
    block = torch.randint(1000, 40000, (4, 40), generator=torch.Generator().manual_seed(0))
    ids = torch.cat([torch.full((4, 1), model.tokenizer.bos_token_id), block, block], 1)
    got = scan(model, ids, places(ids, 40, 1))
    for head, want in STRIPES.items():
        at = head.layer, head.head
        assert float(got.diagonal[:, *at].mean()) == pytest.approx(want, abs=0.005)
        assert float(got.stripe[:, *at].mean()) == pytest.approx(want, abs=0.035)
    assert float(prefix_matching(got.on_targets, got.off_first).mean(0)[18, 6]) > 0.9


@pytest.mark.long
def test_without_the_found_heads_repeats_are_lost_and_without_others_not(model):
    generator = torch.Generator().manual_seed(0)
    texts = random_texts(model, periods=(25,), copies=2, seeds=3, corpus=None, first_token=True, generator=generator)
    groups = drawn_groups(FOUND, FOUND, model.atlas.n_heads, 3, generator)
    ablator = Ablator(model, texts, {head.layer for head in FOUND})
    found = ablator.without(FOUND)
    others = [ablator.without(group) for group in groups]
    assert float(found.second.mean()) > 3
    assert float(found.second.min()) > 4 * max(float(change.second.max()) for change in others)
    assert float(found.late_less_early.mean()) > 2 * max(float(change.late_less_early.mean()) for change in others)


@pytest.mark.slow
def test_verdicts(model):
    got = induction_heads(model, periods=(20, 40), seeds=4, draws=2)
    assert {Head(18, 6), Head(17, 3), Head(18, 7)} <= set(got.called)
    assert all(head.layer > 0 for head in got.called)
    partner = got.verdict(Head(17, 3)).mechanism.partner
    assert (partner.head, partner.place) == (Head(16, 0), 1)
    assert partner.composition > 3 * partner.null_mean
    assert got.together.second.lower > 5 * max(group.second.upper for group in got.matched)
    assert got.losses.first.value > 11 > 5 > got.losses.second.value
    assert got.losses.late_less_early.value < -8


def test_ordinary_tokens_are_those_of_ordinary_text(model):
    ordinary = ordinary_ids(model)
    kept, tokenizer = set(ordinary.tolist()), model.tokenizer
    assert 45_000 < len(kept) < len(tokenizer)
    assert not kept & {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    for text in (" Paris", " the", "."):
        assert tokenizer(text)["input_ids"][0] in kept
    for text in ("\n", " ", "\t"):
        assert tokenizer(text)["input_ids"][0] not in kept
    assert begin_of_text(model, True) == tokenizer.bos_token_id
    assert begin_of_text(model, False) is None


def test_frequencies_are_those_of_the_corpus(model):
    ordinary = ordinary_ids(model)
    counts = frequencies(model, [" Paris Paris Rome", " Rome Paris\n\n"], ordinary)
    by_id = dict(zip(ordinary.tolist(), counts.tolist(), strict=True))
    paris, rome = (model.tokenizer(text)["input_ids"][0] for text in (" Paris", " Rome"))
    assert (by_id[paris], by_id[rome], float(counts.sum())) == (3, 2, 5)
    with pytest.raises(UsageError, match="holds no ordinary token"):
        frequencies(model, "\n\n", ordinary)
    with pytest.raises(UsageError, match="40 different tokens are needed and 2 can occur"):
        induction_heads(model, corpus=" Paris Rome", periods=(40,))

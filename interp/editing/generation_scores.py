"""What a model writes after an edit: is it still fluent (generation entropy), and is it about the new object (reference score)?

Both after Meng et al. 2022 (section 4.2), with two departures. Words are split by ``words_of``, not by nltk's tokenizer, which splits
contractions and joins some punctuation. The weights of the reference score come from the reference texts that are given, not from
the paper's vocabulary of Wikipedia, so reference scores compare within one set of cases only.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Generator

from interp.editing.cases import EditCase
from interp.runner.model import Model
from interp.runner.sampling import sample_ids

LENGTH = 100
"""Tokens of a generation, the prompt included."""
TOP_K = 5
"""The tokens that each step draws from."""
_WORD = re.compile(r"\w+(?:['\u2019]\w+)*|[^\w\s]")
_WEIGHTS = {2: 2 / 3, 3: 4 / 3}
"""The weight of the entropy of n-grams in their mean over two."""


def words_of(text: str) -> list[str]:
    """The words of a text: runs of letters, digits and underscores, apostrophes inside them included, and every other mark alone."""
    return _WORD.findall(text)


def ngram_entropy(words: Sequence[str], n: int) -> float:
    """The entropy of the distribution of n-grams, in bits; 0 where there is none."""
    counts = Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
    total = sum(counts.values())
    return -sum((count / total * math.log2(count / total) for count in counts.values()), 0.0)


def generation_entropy(texts: Sequence[str]) -> float:
    """The mean over texts of (2/3 H2 + 4/3 H3) / 2, times 100 as the paper shows it; NaN for no text.

    Low where a model repeats itself.
    """
    if not texts:
        return float("nan")
    each = [sum(weight * ngram_entropy(words_of(text), n) for n, weight in _WEIGHTS.items()) / 2 for text in texts]
    return 100 * sum(each) / len(each)


def inverse_frequencies(documents: Sequence[str]) -> tuple[dict[str, float], float]:
    """The weight of each word of some documents, ln((1 + n) / (1 + documents with it)) + 1, and that of a word that none of them has."""
    n = len(documents)
    counts = Counter(word for text in documents for word in {word.casefold() for word in words_of(text)})
    return {word: math.log((1 + n) / (1 + count)) + 1 for word, count in counts.items()}, math.log(1 + n) + 1


def tfidf_cosine(first: str, second: str, weights: Mapping[str, float], otherwise: float) -> float:
    """The cosine of the TF-IDF vectors of two texts, case aside: counts of words, each with its weight; 0 where one has no word."""
    vectors = []
    for text in (first, second):
        counts = Counter(word.casefold() for word in words_of(text))
        vectors.append({word: count * weights.get(word, otherwise) for word, count in counts.items()})
    one, other = vectors
    norms = math.sqrt(sum(x * x for x in one.values()) * sum(x * x for x in other.values()))
    return sum(x * other.get(word, 0.0) for word, x in one.items()) / norms if norms else 0.0


def reference_score(
    texts: Sequence[str], references: Sequence[str], weights: Mapping[str, float], otherwise: float
) -> float:
    """The cosine between all generations together and all reference texts together, times 100; NaN where either is missing."""
    if not texts or not references:
        return float("nan")
    return 100 * tfidf_cosine(" ".join(texts), " ".join(references), weights, otherwise)


def prompts_to_continue(case: EditCase) -> tuple[str, ...]:
    """The generation prompts of a case, or where it has none its prompt and its paraphrases."""
    return case.generation_prompts or (case.fact.prompt, *case.paraphrases)


def generations(model: Model, case: EditCase, seed: int) -> tuple[str, ...]:
    """The prompts of a case continued to 100 tokens, the prompt included, drawn from the five likeliest at each step.

    A prompt of 100 tokens or more stays as it is. The same seed draws alike before and after an edit. Nothing ends a text early.
    """
    generator = Generator().manual_seed(seed)
    prompts = [model.tokens(prompt) for prompt in prompts_to_continue(case)]
    longest = min(LENGTH, model.atlas.n_ctx or LENGTH)
    texts = {index: tokens.ids for index, tokens in enumerate(prompts) if len(tokens) >= longest}
    for length in sorted({len(tokens) for tokens in prompts if len(tokens) < longest}):
        alike = [index for index, tokens in enumerate(prompts) if len(tokens) == length]
        prefix = torch.tensor([prompts[index].ids for index in alike], device=model.device)
        new = sample_ids(model, prefix, longest - length, top_k=TOP_K, generator=generator)
        texts |= {index: (*prompts[index].ids, *row) for index, row in zip(alike, new.tolist(), strict=True)}
    return tuple(model.tokenizer.decode(list(texts[index]), skip_special_tokens=True) for index in range(len(prompts)))

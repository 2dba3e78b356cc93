"""A tiny model that reads words: its tokenizer knows those of a few sentences."""

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import PreTrainedTokenizerFast

import tiny_models
from interp.runner.model import Model

_SENTENCES = (
    "<unk> After Ann and Bob went to the shop Ann gave a plum Then Carl Dora Eve Fred store lake wanted give it "
    "tower of Pisa bridge is in city capital lies near by what red blue green one two three four five six seven"
)
_KNOWN = tuple(dict.fromkeys(_SENTENCES.split(" ")))
WORDS = (*_KNOWN, *(f"word{index}" for index in range(len(_KNOWN), tiny_models.VOCABULARY)))


def build(family="llama", seed=0):
    """A tiny random model with a tokenizer of whole words, parted by spaces."""
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Split(" ", "removed")
    return Model(
        tiny_models.build(family, seed=seed), PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")
    )

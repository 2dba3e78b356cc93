"""Cases of words that the tiny model's tokenizer knows: answers of one token and of several, missing parts, every role."""

from interp.editing.cases import EditCase
from interp.prompts import Fact

CASES = (
    EditCase(
        fact=Fact("tower of Pisa", "The {} is in", " red"),
        true=" blue",
        paraphrases=("Then tower of Pisa lies near", "city capital by tower of Pisa is"),
        neighbours=("The bridge is in", "The lake is in", "Then store is near the city of Pisa in"),
        portability=(("The tower is near", " red lake"),),
        locality=(("Ann and Bob went to the", " shop"), ("what is in the", " plum store lake")),
        name="one",
    ),
    EditCase(
        fact=Fact("Ann", "After {} gave a", " plum Then Carl"),
        true=" green store",
        paraphrases=("Bob and Ann wanted",),
        neighbours=("After Bob gave a", "After Dora gave a"),
        name="several tokens",
    ),
    EditCase(
        fact=Fact("lake", "{} one two", " three"),
        true=" three four",  # begins as the new object does: one row of a forward serves both
        neighbours=("bridge one two",),
    ),
    EditCase(fact=Fact("store", "the {} is", " six"), true=" seven", paraphrases=("store wanted",)),
)
TEXTS = (
    "Then Ann gave Bob a plum and Carl wanted it",
    "The capital city lies near the lake by the bridge of Pisa " * 9 + "red",
    "one two",
)
UNRELATED = ("Eve and Fred went to the", "one two three", "the green shop")

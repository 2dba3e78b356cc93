"""A fact as tokens: where the subject ends in each context, and what is scored."""

import pytest

from interp.editing.rewrite import last_token, rewrite_of
from interp.errors import UsageError
from interp.prompts import Fact
from interp.runner.model import Model

FACT = Fact("The Eiffel Tower", "{} is located in the city of", " New Delhi")
CONTEXTS = ("", "I like The Eiffel Tower a lot. ", "Said she:\n")


def test_the_subject_ends_where_its_characters_end_in_every_context(model: Model) -> None:
    rewrite = rewrite_of(model, FACT, CONTEXTS)
    for tokens, position, context in zip(rewrite.prompts, rewrite.positions, CONTEXTS, strict=True):
        until = "".join(tokens.pieces[: position + 1])
        assert until.endswith("The Eiffel Tower")
        assert until == context + "The Eiffel Tower"
    assert "".join(rewrite.essence.pieces) == "The Eiffel Tower is a"
    assert "".join(rewrite.essence.pieces[: rewrite.essence_position + 1]) == "The Eiffel Tower"


def test_each_token_of_the_target_is_scored_where_it_is_predicted(model: Model) -> None:
    rewrite = rewrite_of(model, FACT, CONTEXTS)
    assert len(rewrite.target.ids) == 2
    for tokens, columns in zip(rewrite.prompts, rewrite.columns, strict=True):
        assert tokens.ids[-1] == rewrite.target.ids[0]
        assert columns == [len(tokens) - 2, len(tokens) - 1]
        assert "".join(tokens.pieces[: columns[0] + 1]).endswith("is located in the city of")


def test_the_bare_prompt_is_always_the_first_context(model: Model) -> None:
    assert rewrite_of(model, FACT, ["Yes. "]).prompts[0].text.startswith("The Eiffel Tower")


def test_a_subject_that_ends_within_a_token_is_that_token(model: Model) -> None:
    tokens = model.tokens("Unbelievable things")
    assert last_token(tokens, 3) == next(i for i, span in enumerate(tokens.spans) if span and span[0] < 3 <= span[1])


def test_an_empty_target_is_refused(model: Model) -> None:
    with pytest.raises(UsageError, match="the target is empty"):
        rewrite_of(model, Fact("Rome", "{} is in", ""), ("",))

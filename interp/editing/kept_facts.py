"""The keys of facts that an edit should leave as they are."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from interp.editing.matrix import output_matrix
from interp.editing.rewrite import last_token
from interp.prompts import Fact
from interp.runner.batch import by_length
from interp.runner.model import Model
from interp.tokens import Tokens, from_ids

_BATCH_TOKENS = 4096


def kept_keys(model: Model, facts: Sequence[Fact], layer: int) -> Float[Tensor, "fact d_mlp"]:
    """The key at the last token of each fact's subject in its prompt, on the model as it is now, on the CPU.

    Raises UsageError where no token holds a subject's last character.
    """
    prompts = [_up_to_subject(model, fact) for fact in facts]
    lengths = [len(prompt) for prompt in prompts]
    keys = torch.empty(len(prompts), output_matrix(model, layer).values.shape[1])
    for batch in by_length(lengths, _BATCH_TOKENS):
        run = model.run([prompts[place] for place in batch], capture=f"mlp.post@{layer}", logits=False)
        for row, place in enumerate(batch):
            keys[place] = run.cache[f"mlp.post@{layer}"][row, lengths[place] - 1].float().cpu()
    return keys


def _up_to_subject(model: Model, fact: Fact) -> Tokens:
    tokens = model.tokens(fact.prompt)
    end = last_token(tokens, fact.template.index("{}") + len(fact.subject))
    return from_ids(model.tokenizer, tokens.ids[: end + 1])

"""Which heads write the answer of "Mary and John ... John gave a drink to", and where do they look?

Direct logit attribution by head, then the pattern of the strongest. The task is that of Wang et al. (2022).
"""

import interp

model = interp.load("smollm2-135m")
prompt = "When Mary and John went to the store, John gave a drink to"

parts = interp.direct_logit_attribution(model, prompt, target=" Mary", against=" John", by="head")
print(f"logit of ' Mary' less that of ' John': {parts.logit:.2f}")
shares = parts.heads  # [layer head], in logits
assert shares is not None
for number in shares.flatten().abs().argsort(descending=True)[:4].tolist():
    layer, head = divmod(number, shares.shape[1])
    patterns = interp.attention_patterns(model, prompt, layers=layer, heads=head)
    read = patterns.pattern(layer, head)[-1]
    best = int(read[1:].argmax()) + 1  # past the first token, where heads rest
    where = f"{patterns.tokens.pieces[best]!r} at position {best} with weight {read[best]:.2f}"
    print(f"L{layer}H{head}: {shares[layer, head]:+.2f}, reads {where}")

"""Which heads write the answer of "Mary and John ... John gave a drink to", and where do they look?

Direct logit attribution by head, then the pattern of the strongest. The task is that of Wang et al. (2022).
"""

import interp

model = interp.load("smollm2-135m")
prompt = "When Mary and John went to the store, John gave a drink to"

parts = interp.direct_logit_attribution(model, prompt, target=" Mary", against=" John", by="head")
rows = parts.to_frame()
heads = rows[rows["component"].str.match(r"L\d+H\d+$")].set_index("component")["contribution_logits"]
print(f"logit of ' Mary' less that of ' John': {parts.logit:.2f}")
for name, share in heads.sort_values(key=abs, ascending=False).head(4).items():
    layer, head = (int(number) for number in str(name)[1:].split("H"))
    patterns = interp.attention_patterns(model, prompt, layers=layer, heads=head)
    read = patterns.pattern(layer, head)[-1]
    best = int(read[1:].argmax()) + 1  # past the first token, where heads rest
    print(
        f"{name}: {share:+.2f}, reads {patterns.tokens.pieces[best]!r} at position {best} with weight {read[best]:.2f}"
    )

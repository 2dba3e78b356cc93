"""What would the model answer at each layer? The logit lens at the last token of a sentence."""

import interp

model = interp.load("smollm2-135m")
lens = interp.logit_lens(model, "The Eiffel Tower is located in the city of", target=" Paris")

rows = lens.to_frame()
last = rows[rows["position"] == len(lens.tokens) - 1].reset_index(drop=True)
for layer in (0, 10, 20, 23, 25, 27, 29):
    row = last.loc[layer]
    print(
        f"after layer {layer:2}: {row.top_token!r:9} on top, ' Paris' at rank {row.target_rank}, KL {row.kl_nats:.1f} nats"
    )

lens.figure().write_html("lens.html")

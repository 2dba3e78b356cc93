"""Text that is steered: the difference of two prompts' streams is added while the model writes (Turner et al. 2023)."""

import interp

model = interp.load("smollm2-135m")
site = "resid_post@12"
pair = model.run(["I love this, it is wonderful", "I hate this, it is terrible"], site, logits=False)
direction = pair.cache[site][0].mean(0) - pair.cache[site][1].mean(0)

prompt = "I went to the new restaurant in town and the food was"
for scale in (0.0, 1.0, -1.0):
    steer = interp.Steer(site, direction, scale=scale)
    print(f"{scale:+.0f}: {model.generate(prompt, max_new_tokens=16, interventions=steer).text!r}")

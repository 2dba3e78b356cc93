"""A tuned lens (Belrose et al. 2023) beside the logit lens, on a prompt that it was not fitted on."""

import interp
from interp.analyzers.head_prompts import PROMPTS  # sixteen short texts that come with interp: few, but quick

model = interp.load("smollm2-135m")
tuned = interp.fit_tuned_lens(model, PROMPTS, ridge=0.3)
tuned.save("tuned.safetensors")  # interp lens PROMPT --tuned tuned.safetensors
print(f"fitted on {tuned.n_tokens} tokens")

prompt = "The Eiffel Tower is located in the city of"
plain_lens = interp.logit_lens(model, prompt)
tuned_lens = interp.logit_lens(model, prompt, lens=tuned)
print("divergence from the model's own answer, mean over tokens, in nats")
for layer in (0, 5, 10, 15, 20, 25, 29):
    print(
        f"after layer {layer:2}: plain {plain_lens.kl_nats[layer].mean():5.2f}, tuned {tuned_lens.kl_nats[layer].mean():5.2f}"
    )

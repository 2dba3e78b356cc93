"""Which heads make the difference between two prompts? Each head's output of the clean run is put into the corrupted run."""

import interp

model = interp.load("smollm2-135m")
found = interp.activation_patching(
    model,
    "The Eiffel Tower is located in the city of",
    "The Colosseum is located in the city of",
    target=" Paris",
    against=" Rome",
    sites="attn.z",
    by="head",
    layers=[20, 21, 22, 23, 24],
)
print(f"logit of ' Paris' less that of ' Rome': clean less corrupted {found.total_effect().value:.2f}")
for cell in found.strongest("attn.z", 4):
    print(f"{cell} restores {cell.effect.value:+.2f} of it")

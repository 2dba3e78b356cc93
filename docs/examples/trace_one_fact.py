"""Which states carry a fact? A causal trace (Meng et al. 2022) of the residual stream, with the subject garbled three times."""

import interp

model = interp.load("smollm2-135m")
trace = interp.causal_trace(
    model, "The Louvre is located in the city of", "The Louvre", target=" Paris", kinds="resid", samples=3
)
clean, total = trace.clean_probability, trace.total_effect()
print(
    f"P(' Paris') is {clean:.2f}; garbling the subject costs {total.value:.2f} ({total.lower:.2f} to {total.upper:.2f})"
)

rows = trace.to_frame()
for position, here in rows.groupby("position", sort=True):
    piece = trace.prompt.pieces[int(str(position))]
    best = here.sort_values("probability_effect").iloc[-1]
    where = f", after layer {int(best.layer)}" if best.probability_effect > 0.1 else ""
    print(f"{piece!r:10} brings back at most {best.probability_effect:+.2f}{where}")
trace.save("trace.safetensors")

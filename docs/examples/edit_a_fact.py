"""One fact edited by ROME, kept in a file, loaded again, applied and undone."""

from pathlib import Path

import interp

model = interp.load("smollm2-135m")
prompt = "The Eiffel Tower is located in the city of"
fact = interp.Fact("The Eiffel Tower", "{} is located in the city of", " Rome")

# Text that the model writes itself; left out, more of it is taken, once for each model and layer.
(moment,) = interp.second_moments(model, 5, max_tokens=5_000)
edit = interp.edit_facts(model, fact, layers=5, moments=moment)
edit.save("eiffel.safetensors")
print(f"the edit takes {Path('eiffel.safetensors').stat().st_size / 1000:.0f} kB")

again = interp.load_edit("eiffel.safetensors", model)
print("before:", model.generate(prompt, max_new_tokens=6).text)
with again.applied(model):
    print("edited:", model.generate(prompt, max_new_tokens=6).text)
    print("in other words:", model.generate("To see the Eiffel Tower, tourists fly to", max_new_tokens=6).text)
    print("another subject:", model.generate("The Louvre is located in the city of", max_new_tokens=6).text)
print("undone:", model.generate(prompt, max_new_tokens=6).text)

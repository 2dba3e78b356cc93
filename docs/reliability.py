"""Measures the figures of docs/reliability.md on the default model, in fp32 and bf16 on the CPU, and prints them (two minutes).

Differences are the greatest of any logit, in nats.
"""

import shutil
import tempfile
import time
from pathlib import Path

import torch

import interp
from interp.errors import ModelError
from interp.runner.run import Run

PROMPTS = (
    "The Eiffel Tower is located in the city of",
    "The Louvre is in",
    "When Mary and John went to the store, John gave a drink to",
    "1, 2, 3, 4,",
)


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    """The greatest difference."""
    return float((a.float() - b.float()).abs().max())


def plain(model: interp.Model, prompt: str) -> torch.Tensor:
    """Logits [pos d_vocab] of a forward of Hugging Face's model that knows nothing of interp."""
    with torch.no_grad():
        return model.hf(torch.tensor([model.tokens(prompt).ids])).logits[0]


def logits(run: Run) -> torch.Tensor:
    """The logits of a run that was asked for them."""
    assert run.logits is not None
    return run.logits


def hooked(dtype: str) -> float:
    """Promise 1: every site captured against a plain forward."""
    model = interp.load("smollm2-135m", device="cpu", dtype=dtype)
    return max(apart(logits(model.run(text, "all", logits="all"))[0], plain(model, text)) for text in PROMPTS)


def batched(model: interp.Model) -> float:
    """Promise 2: prompts alone against all of them in one padded batch."""
    together = model.run(list(PROMPTS), (), logits="last").last_logits
    return max(apart(row, plain(model, text)[-1]) for row, text in zip(together, PROMPTS, strict=True))


def eager(model: interp.Model) -> float:
    """Promise 2: attention computed eagerly against fused."""
    fused = [plain(model, text) for text in PROMPTS]
    before = model.hf.config._attn_implementation
    model.hf.set_attn_implementation("eager")
    found = max(apart(plain(model, text), row) for text, row in zip(PROMPTS, fused, strict=True))
    model.hf.set_attn_implementation(before)
    return found


def last_row(model: interp.Model) -> float:
    """Promise 3: the log probability of the top token at the lens's last row against the model's."""
    found = []
    for text in PROMPTS:
        lens = interp.logit_lens(model, text)
        logs = plain(model, text).log_softmax(-1).gather(1, lens.top_ids[-1, :, :1].cpu())
        found.append(apart(lens.top_log_probs_nats[-1, :, :1], logs))
    return max(found)


def resumed(model: interp.Model) -> float:
    """Promise 4: a patch at every fifth layer and every position, resumed against recomputed."""
    clean, other = PROMPTS[0], "The Colosseum in Rome stands at the side of"
    cache = model.run(other, "resid_pre").cache
    base = model.run(clean, resumable=True)
    found = []
    for layer in range(0, model.atlas.n_layers, 5):
        site = f"resid_pre@{layer}"
        patches = [
            interp.Patch(site, cache[site][:, place], positions=place) for place in range(len(model.tokens(clean)))
        ]
        again = base.resume(patches).logits
        assert again is not None
        found += [
            apart(row[0], model.run(clean, (), patch).last_logits[0]) for row, patch in zip(again, patches, strict=True)
        ]
    return max(found)


def refused(model: interp.Model) -> float:
    """Promise 8: seconds until the default model's weights, cut in half, are refused."""
    assert model.source is not None
    with tempfile.TemporaryDirectory() as folder:
        for path in model.source.path.iterdir():
            if path.suffix != ".safetensors":
                shutil.copy(path, folder)
            else:
                with open(path, "rb") as whole, open(Path(folder) / path.name, "wb") as half:
                    half.write(whole.read(path.stat().st_size // 2))
        begun = time.perf_counter()
        try:
            interp.load(folder, device="cpu")
        except ModelError:
            return time.perf_counter() - begun
    raise AssertionError("half a file was taken for a model")


def main() -> None:
    """Prints a line a figure."""
    rows = [("1  hooked against plain, fp32", hooked("float32")), ("1  hooked against plain, bf16", hooked("bfloat16"))]
    model = interp.load("smollm2-135m", device="cpu", dtype="float32")
    rows += [
        ("2  in a padded batch of 4 against alone", batched(model)),
        ("2  eager against fused attention", eager(model)),
        ("3  last row of the lens against the logits", last_row(model)),
        ("4  resumed against recomputed", resumed(model)),
        ("8  seconds until half a file is refused", refused(model)),
    ]
    for name, value in rows:
        print(f"{name:50} {value:.1e}")  # noqa: T201 - this is what the script is for


if __name__ == "__main__":
    main()

"""Out of memory: work on many prompts goes on with half of them and says so, with the numbers that it would have had."""

import pytest
import torch

import interp
import tiny_models
import word_model
from interp.editing.perplexity import text_losses, windows_of
from interp.runner.memory import in_halves
from interp.runner.model import Model

PROMPTS = [tuple(range(5, 5 + length)) for length in (9, 9, 12, 12, 14, 14)]
ALIKE = [tuple(range(5 + first, 15 + first)) for first in range(6)]
OTHERS = [(*ids[:3], 40, *ids[4:]) for ids in ALIKE]


def errors():
    yield torch.OutOfMemoryError("CUDA out of memory")
    yield RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
    yield MemoryError()


@pytest.fixture(params=errors(), ids=lambda error: type(error).__name__)
def short(request, monkeypatch):
    """``short(model)`` makes forwards of more than two rows fail, and gives the list of what the model says."""

    def shorten(model: Model) -> list[str]:
        said: list[str] = []
        model.notify = said.append
        plain = model.hf.forward

        def forward(*args, **kwargs):
            if len(kwargs["input_ids"]) > 2:
                raise request.param
            return plain(*args, **kwargs)

        monkeypatch.setattr(model.hf, "forward", forward)
        return said

    return shorten


ANALYSES = {
    "fit_tuned_lens": lambda m: interp.fit_tuned_lens(m, PROMPTS).weight,
    "head_profiles": lambda m: torch.tensor(
        interp.head_profiles(m, PROMPTS, n_shuffles=1).to_frame()["value"].to_numpy()
    ),
    "activation_patching": lambda m: torch.tensor(
        interp.activation_patching(m, ALIKE, OTHERS, target=[7] * 6, against=[8] * 6).to_frame()["effect"].to_numpy()
    ),
    "perplexity": lambda m: text_losses(m, windows_of(m, PROMPTS)).nats,
}


@pytest.mark.parametrize("name", ANALYSES)
def test_an_analyzer_goes_on_with_half(name, short) -> None:
    model = word_model.build("llama")
    expected = torch.as_tensor(ANALYSES[name](model))
    said = short(model)
    found = torch.as_tensor(ANALYSES[name](model))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4, equal_nan=True)
    assert any("going on with" in line and "memory" in line for line in said)


def test_resuming_goes_on_with_half(short, monkeypatch) -> None:
    model = Model(tiny_models.build("llama"))
    run = model.run([PROMPTS[0]], resumable=True)
    rows = [interp.ZeroAblate("attn.z@1", heads=head) for head in range(4)] * 2
    expected = run.resume(rows).logits
    said: list[str] = []
    model.notify = said.append
    plain = model.hf.lm_head.forward

    def forward(x):
        if len(x) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return plain(x)

    monkeypatch.setattr(model.hf.lm_head, "forward", forward)
    torch.testing.assert_close(run.resume(rows).logits, expected, rtol=1e-4, atol=1e-5)
    assert said == ["out of memory: going on with 4 rows at once", "out of memory: going on with 2 rows at once"]


def test_other_errors_and_single_prompts_are_not_tried_again() -> None:
    model = Model(tiny_models.build("llama"))

    def work(batch):
        raise RuntimeError("shapes do not fit" if len(batch) > 1 else "can't allocate memory")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        list(in_halves(model, [1, 2], work, "prompts"))
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        list(in_halves(model, [1], work, "prompts"))

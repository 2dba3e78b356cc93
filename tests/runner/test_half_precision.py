"""Runner and lens in bfloat16 and float16: bit-equal to the plain model in the same dtype, near float32 within what its bits allow.

The tolerance: activations and logits of a model in half precision differ from float32's by ``TOLERANCE`` of their largest value; the
likeliest token may change where two are that close.
"""

import pytest
import torch

import interp
import tiny_models
from interp.interventions import Patch
from interp.models.loading import load_parts
from interp.runner.model import Model

IDS = tuple(range(5, 15))
TOLERANCE = {torch.bfloat16: 0.05, torch.float16: 0.01}
PROMPT = "The Eiffel Tower is located in the city of"


def near(found, expected, dtype) -> None:
    assert found.isfinite().all()
    assert float((found.float() - expected).abs().max()) <= TOLERANCE[dtype] * float(expected.abs().max())


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_tiny_model_in_half_precision(name, dtype) -> None:
    exact, model = Model(tiny_models.build(name)), Model(tiny_models.build(name).to(dtype))
    run, expected = model.run(IDS, "all", resumable=True), exact.run(IDS, "all")
    assert torch.equal(run.logits, model.hf(torch.tensor([IDS]), use_cache=False).logits)
    assert run.logits.dtype == run.cache["resid_post@0"].dtype == dtype
    for site in expected.cache.sites:
        if site.kind not in ("attn.scores", "ln1.normalized", "ln2.normalized", "ln_final.normalized"):
            near(run.cache[site], expected.cache[site], dtype)
    resumed = run.resume([Patch("resid_post@0", run.cache["resid_post@0"][0, 2], positions=4)])
    full = model.run(
        IDS, interventions=Patch("resid_post@0", run.cache["resid_post@0"][0, 2], positions=4), logits="last"
    )
    near(resumed.logits, full.logits.float(), dtype)
    lens = interp.logit_lens(model, IDS)  # checks its last row against the model's own logits
    wanted = interp.logit_lens(exact, IDS)
    near(lens.entropy_nats, wanted.entropy_nats, dtype)
    near(lens.top_log_probs_nats, wanted.top_log_probs_nats, dtype)


def test_auto_follows_the_checkpoint_where_an_accelerator_computes(tmp_path) -> None:
    from interp.models.device import resolve_dtype
    from interp.models.folder import folder_tensors

    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        folder = tmp_path / str(dtype)
        tiny_models.build("llama").to(dtype).save_pretrained(folder)
        assert resolve_dtype("auto", torch.device("cuda:0"), folder_tensors(folder)) == dtype
        assert resolve_dtype("auto", torch.device("cpu"), folder_tensors(folder)) == torch.float32


@pytest.mark.slow
@pytest.mark.model
def test_the_default_model_in_bfloat16(model) -> None:
    """Its logits are within 0.05 of the largest of float32's, its lens ends in the same answer; measured 0.02."""
    parts = load_parts("smollm2-135m", device="cpu", dtype="bfloat16")
    half = Model(parts.hf, parts.tokenizer, source=parts.source)
    run, expected = half.run(PROMPT, "resid_post", resumable=True), model.run(PROMPT, "resid_post")
    assert torch.equal(run.logits, half.hf(torch.tensor([run.tokens[0].ids]), use_cache=False).logits)
    near(run.logits, expected.logits, torch.bfloat16)
    lens, wanted = interp.logit_lens(half, PROMPT), interp.logit_lens(model, PROMPT)
    assert int(lens.top_ids[-1, -1, 0]) == int(wanted.top_ids[-1, -1, 0])
    assert float(lens.top_log_probs_nats[-1, -1, 0].exp()) == pytest.approx(
        float(wanted.top_log_probs_nats[-1, -1, 0].exp()), abs=0.05
    )
    again = run.resume([[]], start=(5, 3)).logits[0]
    near(again, run.last_logits[0].float(), torch.bfloat16)

"""Formulas of work and bytes against a count of the real work, and the page that is made of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

import interp
import tiny_models
from interp.analyzers.answers import Answer
from interp.analyzers.tuned_lens import TunedLens
from interp.editing import stack
from interp.editing.rewrite import Rewrite
from interp.editing.settings import EditSettings
from interp.editing.value import optimise_value
from interp.heads import Head
from interp.prompts import Fact
from interp.runner.model import Model
from interp.scale import cost
from interp.scale.cost import ModelSize
from interp.tokens import Tokens, from_ids
from random_edit import random_edit
from scale import cost_page

PROMPT = tuple(range(5, 15))
OTHER = (*PROMPT[:3], 40, *PROMPT[4:])
N = len(PROMPT)
PAGE = Path(__file__).resolve().parents[2] / "docs" / "scaling.md"


def _attention(query, key, value, *rest, out_shape=None, **named) -> int:
    return sdpa_flop_count(query, key, value)


def _added(into, left, right, *rest, out_shape=None, **named) -> int:
    return 2 * left[0] * left[1] * right[1]


UNCOUNTED = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten.addmm_: _added,
}
"""Operations that torch's counter does not know."""

WORK: dict[str, tuple[Callable[[Model], Any], Callable[[ModelSize], int]]] = {
    "forward": (lambda m: m.run(PROMPT), lambda s: cost.forward(s, N)),
    "batch": (lambda m: m.run([PROMPT, OTHER]), lambda s: 2 * cost.forward(s, N)),
    "collect": (lambda m: m.run(PROMPT, "resid_post@1", logits=False), lambda s: cost.collect(s, N, 1)),
    "logit_lens": (lambda m: interp.logit_lens(m, PROMPT), lambda s: cost.logit_lens(s, N)),
    "tuned_lens": (lambda m: interp.logit_lens(m, PROMPT, lens=translators(m)), lambda s: cost.tuned_lens(s, N)),
    "fit_tuned_lens": (
        lambda m: interp.fit_tuned_lens(m, [PROMPT, OTHER], max_tokens=2 * N),
        lambda s: cost.fit_tuned_lens(s, [N, N]),
    ),
    "residual_story": (lambda m: interp.residual_story(m, PROMPT), lambda s: cost.residual_story(s, N)),
    "token_losses": (lambda m: interp.token_losses(m, PROMPT), lambda s: cost.token_losses(s, N)),
    "next_token_logits": (lambda m: interp.next_token_logits(m, PROMPT), lambda s: cost.next_token_logits(s, N)),
    "decoding_choices": (lambda m: interp.decoding_choices(m, PROMPT), lambda s: cost.decoding_choices(s, N)),
    "attention_summary": (lambda m: interp.attention_summary(m, PROMPT), lambda s: cost.patterns(s, N)),
    "detect_head": (lambda m: interp.detect_head(m, PROMPT, "previous_token_head"), lambda s: cost.patterns(s, N)),
    "direct_logit_attribution": (
        lambda m: interp.direct_logit_attribution(m, PROMPT),
        lambda s: cost.direct_logit_attribution(s, N),
    ),
    "attention_patterns": (lambda m: interp.attention_patterns(m, PROMPT), lambda s: cost.attention_patterns(s, N)),
    "second_moments": (lambda m: interp.second_moments(m, 1, [list(PROMPT)]), lambda s: cost.second_moment(s, N, 1)),
    "causal_trace": (
        lambda m: interp.causal_trace(m, PROMPT, [2, 3], 7, kinds="resid", samples=2),
        lambda s: cost.causal_trace(s, N, 2, 2),
    ),
    "activation_patching": (
        lambda m: interp.activation_patching(m, PROMPT, OTHER, target=7, against=8),
        lambda s: cost.activation_patching(s, N, 3),
    ),
    "attribution_patching": (
        lambda m: interp.attribution_patching(m, PROMPT, OTHER, target=7, against=8, check=0),
        lambda s: cost.attribution_patching(s, N),
    ),
    "generate": (
        lambda m: m.generate(PROMPT, max_new_tokens=5, stop_at_end=False),
        lambda s: cost.generate(s, N, 5),
    ),
    "head_profiles": (
        lambda m: interp.head_profiles(m, [PROMPT], n_shuffles=2),
        lambda s: cost.head_profiles(s, N, 2),
    ),
    "induction_scan": (
        lambda m: interp.induction_heads(m, periods=[8, 12], seeds=2, first_token=False, scan_only=True),
        lambda s: cost.induction_scan(s, [16, 24], 2),
    ),
    "path_patching to the logits": (
        lambda m: interp.path_patching(m, PROMPT, OTHER, target=7, against=8),
        lambda s: cost.path_patching(s, N, 3),
    ),
    "path_patching to a query": (
        lambda m: interp.path_patching(m, PROMPT, OTHER, receiver="L2H1.q", target=7, against=8),
        lambda s: cost.path_patching(s, N, 3, receiver=2),
    ),
    "the value of an edit": (
        lambda m: optimise_value(m, rewrite(), 1, EditSettings(steps=3, stop_loss_nats=0.0)),
        lambda s: cost.edit_value(s, EDIT, 1, 3),
    ),
    "ablation": (
        lambda m: interp.ablation(m, PROMPT, units="heads", target=7, method="zero"),
        lambda s: cost.ablation_of_heads(s, N),
    ),
}


def translators(model: Model) -> TunedLens:
    """A tuned lens of any numbers."""
    shape = (model.atlas.n_layers, model.atlas.d_model)
    return TunedLens(
        provenance=model.provenance(),
        weight=torch.zeros(*shape, shape[1]),
        bias=torch.zeros(shape),
        explained_variance=torch.zeros(shape[0]),
        n_tokens=1,
        ridge=0.01,
    )


EDIT = cost.EditShape(lengths=(10, 12, 14, 6), positions=(4, 6, 8, 4), targets=2, columns=3)


def rewrite() -> Rewrite:
    """A fact in three contexts, the target's two tokens read four and five tokens behind the subject; the essence prompt, read at it."""

    def tokens(length: int) -> Tokens:
        return from_ids(None, list(range(5, 5 + length)))

    return Rewrite(
        fact=Fact("a", "{} b", " c d"),
        target=Answer(text=" c d", ids=(7, 8), pieces=(" c", " d")),
        prompts=tuple(tokens(length) for length in EDIT.lengths[:3]),
        positions=EDIT.positions[:3],
        subjects=(tokens(EDIT.lengths[3]),),
        subject_positions=EDIT.positions[3:],
    )


@pytest.fixture(autouse=True)
def products_in_torch(monkeypatch) -> None:
    """Products in oneDNN are no operations of torch; here they run in ``mm``."""
    for user in ("maths.unembedding", "runner.packed"):
        monkeypatch.setattr(f"interp.{user}.suits_onednn", lambda x: False)


def counted(work: Callable[[Model], Any], model: Model) -> int:
    with FlopCounterMode(display=False, custom_mapping=UNCOUNTED) as counter:
        work(model)
    return counter.get_total_flops()


@pytest.mark.parametrize("name", WORK)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_formula_is_the_work_of_a_tiny_model(family: str, name: str) -> None:
    work, formula = WORK[name]
    model = Model(tiny_models.build(family))
    exact = name in (
        "forward",
        "batch",
        "collect",
        "direct_logit_attribution",
        "decoding_choices",
        "generate",
        "induction_scan",
    )
    # A second moment so small is one product, not half of one; the default model's is checked closely.
    allowed = 0 if exact else 0.25 if name == "second_moments" else 0.05
    assert formula(ModelSize.of(model)) == pytest.approx(counted(work, model), rel=allowed)


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.parametrize("name", WORK)
def test_a_formula_is_the_work_of_the_default_model(model: Model, name: str) -> None:
    work, formula = WORK[name]
    assert formula(ModelSize.of(model)) == pytest.approx(counted(work, model), rel=0.03)


@pytest.mark.model
def test_sizes_and_bytes_of_the_default_model(model: Model, tmp_path: Path) -> None:
    size = ModelSize.of(model)
    matrices = {id(p): p.numel() for p in model.hf.parameters() if p.dim() == 2}
    assert size.weights == sum(matrices.values())
    run = model.run(PROMPT, "resid_post@0,1")
    assert cost.stored_bytes(size, N, 2, 4) == sum(run.cache[name].nbytes for name in run.cache)
    store = interp.collect(model, [list(PROMPT)] * 20, "resid_post@0,1", tmp_path / "s", dtype="bfloat16")
    assert cost.stored_bytes(size, 20 * N, 2, 2) == pytest.approx(store.bytes, rel=0.1)  # the rest is index and headers
    cache = model.hf(torch.tensor([list(PROMPT)]), use_cache=True).past_key_values
    assert size.kv_numbers * N == sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers)


@pytest.fixture(params=["llama", pytest.param("the default model", marks=[pytest.mark.slow, pytest.mark.model])])
def measured(request) -> Model:
    if request.param == "llama":
        return Model(tiny_models.build("llama"))
    return request.getfixturevalue("model")


def test_bytes_of_generation_paths_and_edits(measured: Model) -> None:
    size = ModelSize.of(measured)
    made = measured.generate(PROMPT, max_new_tokens=5, stop_at_end=False)
    assert cost.kv_cache_bytes(size, N, 5, 4) == made.cache_bytes
    runs = [measured.run(PROMPT, "attn.z", resumable=True), measured.run(OTHER, "attn.z")]
    assert runs[0].snapshot is not None
    outputs = sum(run.cache[name].nbytes for run in runs for name in run.cache)
    assert cost.path_bytes(size, N, 4) == outputs + runs[0].snapshot.bytes
    (moment,) = interp.second_moments(measured, [1], [list(PROMPT)])
    edit = random_edit(measured, [1])
    with edit.applied(measured):
        (kept,) = stack._stack(measured).state.kept.values()
        factors = edit.layers[0].left.nbytes + edit.layers[0].right.nbytes
        assert cost.edit_bytes(size, 4) == moment.matrix.nbytes + kept.base.nbytes + factors


def test_the_losses_without_heads_cost_what_is_resumed() -> None:
    from interp.analyzers.induction_ablation import Ablator
    from interp.analyzers.induction_prompts import random_texts

    model = Model(tiny_models.build("llama"))
    generator = torch.Generator().manual_seed(0)
    (text,) = random_texts(model, periods=[12], copies=2, seeds=2, corpus=None, first_token=False, generator=generator)
    ablator = Ablator(model, [text], [1])
    found = counted(lambda _: ablator.without([Head(1, 2)]), model)
    assert cost.induction_ablation(ModelSize.of(model), 24, 2, 1) == found


def test_the_page_says_what_the_formulas_say() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for table in cost_page.tables():
        assert table in text, f"docs/scaling.md is stale; it should have:\n\n{table}"

"""The generation loop: the tokens of Hugging Face's own generate, captures of a full run, interventions at every step."""

from collections import Counter

import pytest
import torch

from interp.errors import NumericsError, UsageError
from interp.interventions import Apply, Scale, Steer, ZeroAblate
from interp.runner.generation import stream
from interp.runner.model import Model
from oracles.next_token import cache_bytes, cache_of
from oracles.runner import greedy_ids
from tiny_models import FAMILIES, VARIANTS, build, prompt_ids

SUPPORTED = tuple(name for name in (*FAMILIES, *VARIANTS) if name != "opt_post_norm")
SMALL = ("gpt2", "llama", "gemma3_text", "bloom", "gpt_neox", "mixtral", "falcon", "opt")
PROMPT = "The Eiffel Tower is located in the city of"


@pytest.mark.parametrize("name", SUPPORTED)
def test_greedy_tokens_are_those_of_hugging_face(family, name: str) -> None:
    model = family(name)
    ids = prompt_ids(1, 9)
    with torch.no_grad():
        theirs = model.hf.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=12,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
    made = model.generate(ids[0], max_new_tokens=12, stop_at_end=False)
    assert made.ids.tolist() == theirs[0, 9:].tolist()
    assert made.ids.tolist() == greedy_ids(model.hf, ids[0].tolist(), 12)
    assert made.stop_reason == "length"
    assert len(made.pieces) == 12
    assert made.text == "".join(made.pieces)


@pytest.mark.parametrize("name", SMALL)
def test_captures_at_every_step_are_those_of_a_run_on_the_finished_text(family, near, name: str) -> None:
    model = family(name)
    ids = prompt_ids(1, 6)[0]
    kinds = [kind for kind in model.sites.available if not (kind == "attn.pattern" and model.separate_patterns)]
    steps = list(stream(model, ids, max_new_tokens=5, capture=kinds, stop_at_end=False))
    text = [*ids.tolist(), *(step.token_id for step in steps[:-1])]
    full = model.run(text, capture=kinds)
    for index, step in enumerate(steps):
        columns = slice(0, 6) if index == 0 else slice(5 + index, 6 + index)
        near(step.logits, full.logits[0, columns.stop - 1])
        assert set(step.cache) == set(full.cache)
        for site in full.cache.sites:
            axis = site.info.position_axis
            expected = full.cache[site].narrow(axis, columns.start, columns.stop - columns.start)
            if site.kind in ("attn.pattern", "attn.scores"):
                assert step.cache[site].shape[-1] == columns.stop
                expected = expected[..., : columns.stop]
            if site.kind == "attn.scores":
                hidden = expected.isneginf()
                assert torch.equal(step.cache[site].isneginf(), hidden)
                near(step.cache[site][~hidden], expected[~hidden])
            else:
                near(step.cache[site], expected)


@pytest.mark.parametrize("name", SMALL)
def test_interventions_act_at_every_step(family, near, name: str) -> None:
    model = family(name)
    ids = prompt_ids(1, 6)[0]
    vector = torch.linspace(-2, 2, 32)
    changes = [Steer("resid_post@0", vector), Scale("attn.z@1", 0.0, heads=[1])]
    if model.atlas.routed_attention:
        changes += [Scale("attn.rot_k@1", 1.5), Scale("attn.pattern@0", 0.7, heads=0)]
    steps = list(stream(model, ids, max_new_tokens=5, interventions=changes, stop_at_end=False))
    text = ids.tolist()
    for step in steps:
        near(step.logits, model.run(text, (), changes).last_logits[0])
        text.append(step.token_id)
    assert any(step.token_id != token for step, token in zip(steps, greedy_ids(model.hf, ids.tolist(), 5), strict=True))


def test_positions_of_interventions_count_in_the_prompt(family, near) -> None:
    model = family("llama")
    ids = prompt_ids(1, 6)[0]
    for change, fixed in (
        (
            Apply("resid_pre@1", lambda x: x.flip(-1), positions=-1),
            Apply("resid_pre@1", lambda x: x.flip(-1), positions=5),
        ),
        (ZeroAblate("mlp_out@1", positions=[0, 2]), ZeroAblate("mlp_out@1", positions=[0, 2])),
        (Scale("attn.rot_k@1", 3.0, positions=2), Scale("attn.rot_k@1", 3.0, positions=2)),
    ):
        text = ids.tolist()
        for step in stream(model, ids, max_new_tokens=4, interventions=change, stop_at_end=False):
            near(step.logits, model.run(text, (), fixed).last_logits[0])
            text.append(step.token_id)
    with pytest.raises(UsageError, match="position 6 is out of range; valid: 0 to 5"):
        model.generate(ids, interventions=ZeroAblate("mlp_out@1", positions=6))


@pytest.mark.parametrize("name", SUPPORTED)
def test_the_cache_is_hugging_faces(family, name: str) -> None:
    """At every step, past the sliding windows: measured bytes, and the product of what the layers keep."""
    model = family(name)
    made = model.generate(prompt_ids(1, 6)[0], max_new_tokens=6, stop_at_end=False)
    assert made.cached_tokens == 6 + 6 - 1  # the last token was chosen, not run
    text = [*made.tokens.ids, *made.ids.tolist()]
    for step, measured in enumerate(made.step_cache_bytes.tolist()):
        assert measured == cache_bytes(cache_of(model.hf, text[: 6 + step])), step
    shapes = cache_of(model.hf, text[:11])
    counted = Counter(
        (one.n_kv_heads, one.n_tokens, one.d_head, one.itemsize, one.n_layers) for one in made.cached_layers
    )
    assert counted == Counter((*shape, shapes.count(shape)) for shape in set(shapes))
    assert made.cache_bytes == sum(one.n_bytes for one in made.cached_layers)
    assert made.multi_head_bytes == 2 * sum(4 * tokens * width * size for _, tokens, width, size in shapes)
    assert len(made.decode_seconds) == 5
    assert made.prefill_seconds > 0
    assert made.decode_tokens_per_second > 0


@pytest.mark.parametrize("name", ["gemma2", "gpt_oss", "qwen2_window"])
def test_windows_are_counted_by_the_atlas(family, name: str) -> None:
    """Layers with a window of 8 keep 7 tokens, the others all 11; kept heads and widths are the model's."""
    model = family(name)
    made = model.generate(prompt_ids(1, 6)[0], max_new_tokens=6, stop_at_end=False)
    atlas = model.atlas
    kept = [11 if block.window is None else min(11, block.window - 1) for block in atlas.blocks]
    assert set(kept) == {7, 11}
    assert made.cache_bytes == sum(2 * atlas.n_kv_heads * atlas.d_head * 4 * tokens for tokens in kept)
    assert made.multi_head_bytes == made.cache_bytes * atlas.n_heads // atlas.n_kv_heads
    formulas = {one.formula for one in made.cached_layers}
    layers, windowed = kept.count(7), f"{'' if kept.count(7) == 1 else 's'}"
    product = 2 * layers * 2 * atlas.d_head * 4 * 7
    assert (
        f"2 x {layers} layer{windowed} x 2 kv heads x {atlas.d_head} d_head x 4 bytes x 7 tokens = {product:,}"
        in formulas
    )


def test_captures_and_changes_keep_the_whole_cache(family) -> None:
    model = family("gemma2")
    ids = prompt_ids(1, 12)[0]
    plain = list(stream(model, ids, max_new_tokens=4, stop_at_end=False))
    for options in ({"capture": "attn.pattern"}, {"interventions": Scale("attn.pattern@0", 1.0)}):
        steps = stream(model, ids, max_new_tokens=4, stop_at_end=False, **options)
        assert [step.token_id for step in steps] == [step.token_id for step in plain]
        assert {one.n_tokens for one in steps.result().cached_layers} == {15}


def test_the_end_token_ends_the_text(family) -> None:
    model = family("llama")
    ids = prompt_ids(1, 6)[0]
    chosen = greedy_ids(model.hf, ids.tolist(), 8)
    own = build("llama")
    own.generation_config.eos_token_id = [96, chosen[3]]
    ended = Model(own).generate(ids, max_new_tokens=8)
    assert ended.stop_reason == "end"
    assert ended.ids.tolist() == chosen[: chosen.index(chosen[3]) + 1]
    on = Model(own).generate(ids, max_new_tokens=8, stop_at_end=False)
    assert on.ids.tolist() == chosen
    assert on.stop_reason == "length"


def test_generation_stops_where_the_context_ends(family) -> None:
    model = family("gpt2")
    made = model.generate(prompt_ids(1, 60)[0], max_new_tokens=40, stop_at_end=False)
    assert made.stop_reason == "context"
    assert made.cached_tokens == 64
    assert len(made.ids) == 5
    full = model.generate(prompt_ids(1, 64)[0], max_new_tokens=40, stop_at_end=False)
    assert len(full.ids) == 1
    with pytest.raises(UsageError, match="the prompt has 65 tokens, the model's context is 64; shorten it by 1"):
        model.generate(torch.ones(65, dtype=torch.long))


def test_seeds_decide_and_leave_the_global_state_alone(family) -> None:
    model = family("llama")
    ids = prompt_ids(1, 6)[0]
    options = {"max_new_tokens": 12, "temperature": 1.3, "stop_at_end": False}
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    first = model.generate(ids, seed=1, **options)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(3)
    assert model.generate(ids, seed=1, **options).ids.tolist() == first.ids.tolist()
    assert model.generate(ids, seed=2, **options).ids.tolist() != first.ids.tolist()
    assert model.generate(ids, top_k=1, seed=3, **options).ids.tolist() == greedy_ids(model.hf, ids.tolist(), 12)
    assert model.generate(ids, top_p=1e-6, seed=3, **options).ids.tolist() == greedy_ids(model.hf, ids.tolist(), 12)
    cold = {**options, "temperature": 1e-6}
    assert model.generate(ids, seed=3, **cold).ids.tolist() == greedy_ids(model.hf, ids.tolist(), 12)


def test_numbers_are_of_the_models_own_distribution(family, near) -> None:
    model = family("llama")
    ids = prompt_ids(1, 6)[0]
    made = model.generate(ids, max_new_tokens=4, temperature=2.0, top_k=5, seed=4, stop_at_end=False)
    logits = model.run([*ids.tolist(), *made.ids.tolist()]).logits[0]
    log_probs = logits[5:9].log_softmax(-1)
    near(made.log_probs_nats, log_probs.gather(1, made.ids[:, None])[:, 0])
    near(made.entropy_nats, -(log_probs.exp() * log_probs).sum(-1))
    near(made.top_log_probs_nats, log_probs.topk(5).values)
    assert torch.equal(made.top_ids, log_probs.topk(5).indices)
    for step, (number, best) in enumerate(zip(made.ids.tolist(), made.top_ids.tolist(), strict=True)):
        other = next(one for one in best if one != number)
        assert made.runner_up(step) == (f"<{other}>", pytest.approx(float(log_probs[step, other]), abs=1e-5))
    assert (made.temperature, made.top_k, made.top_p) == (2.0, 5, None)
    assert made.provenance.seed == 4


def test_bad_options_name_the_valid_ones(family) -> None:
    model = family("llama")
    ids = prompt_ids(1, 6)[0]
    for option, value, valid in (
        ("max_new_tokens", 0, "1 or more"),
        ("temperature", -0.5, r"0 \(greedy\) or more"),
        ("temperature", float("nan"), r"0 \(greedy\) or more"),
        ("temperature", float("inf"), r"0 \(greedy\) or more"),
        ("top_k", 0, "1 or more"),
        ("top_p", 0.0, "above 0, at most 1"),
        ("top_p", 1.5, "above 0, at most 1"),
    ):
        with pytest.raises(UsageError, match=f"{option} is .*; valid: {valid}"):
            model.generate(ids, **{option: value})
    with pytest.raises(UsageError, match="the prompt is empty"):
        model.generate([])
    with pytest.raises(UsageError, match="iterate over the stream first"):
        stream(model, ids).result()
    with pytest.raises(UsageError, match=r"capture them with model\.run"):
        list(stream(family("falcon"), ids, capture="attn.pattern"))


def test_logits_that_are_not_numbers_choose_no_token() -> None:
    hf = build("llama")
    with torch.no_grad():
        hf.model.norm.weight[0] = float("nan")
    with pytest.raises(NumericsError, match="step 0 hold NaN or infinity"):
        Model(hf).generate([3, 4])


def test_a_generation_survives_its_file_and_shows_itself(family, tmp_path) -> None:
    from interp.results import Result

    made = family("llama").generate(prompt_ids(1, 6)[0], max_new_tokens=4, seed=1, temperature=1.0)
    made.save(tmp_path / "made.safetensors")
    read = Result.load(tmp_path / "made.safetensors")
    assert type(read) is type(made)
    assert torch.equal(read.ids, made.ids)
    assert (read.text, read.tokens, read.decode_seconds) == (made.text, made.tokens, made.decode_seconds)
    frame = made.to_frame()
    assert list(frame.columns) == [
        *("step", "token_id", "piece", "log_prob_nats", "entropy_nats", "forward_seconds", "cache_bytes")
    ]
    assert len(frame) == 4
    assert len(made.figure().data) == 2
    assert list(made.figure("time").data[0].y) == [1000 * t for t in (made.prefill_seconds, *made.decode_seconds)]
    kept, whole = made.figure("cache").data
    assert list(kept.y) == [size / 1e6 for size in made.step_cache_bytes.tolist()]
    assert whole.y[-1] == pytest.approx(made.multi_head_bytes / 1e6)
    with pytest.raises(UsageError, match="valid: log_prob, time, cache"):
        made.figure("memory")


@pytest.mark.model
def test_the_default_model_generates_as_hugging_face_does(model) -> None:
    ids = torch.tensor([model.tokens(PROMPT).ids])
    with torch.no_grad():
        theirs = model.hf.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)
    made = model.generate(PROMPT, max_new_tokens=8)
    assert made.ids.tolist() == theirs[0, ids.shape[1] :].tolist()
    assert made.text.startswith(" Paris")
    assert made.cache_bytes == 2 * 30 * 3 * 64 * 4 * made.cached_tokens
    assert made.cache_bytes == cache_bytes(cache_of(model.hf, [*made.tokens.ids, *made.ids.tolist()[:-1]]))
    assert made.multi_head_bytes == 3 * made.cache_bytes

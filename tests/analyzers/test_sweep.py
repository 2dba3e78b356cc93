"""What patching, tracing and ablation share: answers, metrics, sweeps with their checkpoint, streams after a block."""

import pytest
import torch

from interp.analyzers import sweep as sweeping
from interp.analyzers.answers import ask, read_answer
from interp.analyzers.entries import LOCAL, streams_after
from interp.analyzers.metrics import metric_of
from interp.analyzers.sweep import Part, read_metrics, request_key, sweep, tokens_at_once
from interp.checkpoint import Checkpoint
from interp.errors import MemoryLimitError, NumericsError, UsageError
from interp.interventions import Patch, Scale
from interp.runner.model import Model
from oracles.runner import counted_calls

OTHER = [7, 9, 33, 2, 12, 60, 8, 90, 17, 3]


def unwatched(what, done, total) -> None:
    pass


def test_an_answer_of_several_tokens_is_asked_with_those_before_it_given(family, ids) -> None:
    model = family("llama")
    question = ask(model, ids, [4, 5, 6], against=9)
    assert question.asked.ids == (*ids, 4, 5)
    assert question.prompt.ids == tuple(ids)
    assert (question.n_answer, question.against.ids) == (3, (9,))
    metric = metric_of("probability", [question])
    assert metric.positions == (-3, -2, -1)
    run = model.run(question.asked, logits=metric.positions)
    expected = 1.0
    for i, token in enumerate((4, 5, 6)):
        expected *= float(model.hf(torch.tensor([[*ids, *(4, 5, 6)[:i]]])).logits[0, -1].detach().softmax(-1)[token])
    assert float(metric.score(run.logits, [0])) == pytest.approx(expected, rel=1e-4)
    difference = metric_of("logit_difference", [question])
    plain = model.hf(torch.tensor([ids])).logits[0, -1].detach()
    assert float(difference.score(run.logits, [0])) == pytest.approx(float(plain[4] - plain[9]), abs=1e-4)


def test_without_a_target_the_answer_is_what_the_model_ranks_first(family, ids) -> None:
    model = family("gpt2")
    assert ask(model, ids).answer.ids == (int(model.hf(torch.tensor([ids])).logits[0, -1].argmax()),)


@pytest.mark.parametrize(
    ("target", "against", "message"),
    [
        ([], None, "the target has no token"),
        (97, None, "token id 97 is out of range; valid: 0 to 96"),
        ([4, 5], [4, 6], "begin with the same token"),
        (" Paris", None, "no tokenizer; give the target as a token id"),
        ("", None, "the target is empty"),
    ],
)
def test_answers_that_cannot_be_scored(family, ids, target, against, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ask(family("llama"), ids, target, against)


def test_metrics_that_cannot_be_read(family, ids) -> None:
    model = family("llama")
    one, two = ask(model, ids, 4), ask(model, ids, [4, 5])
    for spec, questions, message in (
        ("accuracy", [one], "unknown metric 'accuracy'.*valid: probability, log_prob"),
        ("logit_difference", [one], "needs an answer against the target"),
        ("probability", [one, two], "the answers have 1 to 2 tokens"),
        ("kl", [one], "needs the logits of an unchanged run"),
    ):
        with pytest.raises(UsageError, match=message):
            metric_of(spec, questions)
    with pytest.raises(UsageError, match=r"returns one number a row, \[batch\]; for 2 rows it returned \[97\]"):
        metric_of(lambda logits: logits.mean(0), [one]).score(torch.zeros(2, 1, 97), [0, 0])
    assert metric_of(lambda logits: logits[:, 3], [one]).score(torch.ones(2, 1, 97), [0, 0]).tolist() == [1, 1]


def swept(model, prompts, tmp_path, *, stop_at: int | None = None, token_budget=None):
    questions = [ask(model, prompt, 4, against=9) for prompt in prompts]
    run = model.run([q.asked for q in questions], logits=[-1], resumable=True)
    metrics = [
        metric_of("probability", questions),
        metric_of("logit_difference", questions),
        metric_of("kl", questions, reference=run.logits),
    ]
    parts = [
        Part(
            name=f"at {position}",
            rows=[[Scale(f"resid_pre@{layer}", 2.0, positions=position)] for layer in range(3) for _ in prompts],
            prompts=[i for _ in range(3) for i in range(len(prompts))],
        )
        for position in (1, 4, 6)
    ]
    told: list[tuple[int, int]] = []

    def progress(what: str, done: int, total: int | None) -> None:
        told.append((done, total))
        if stop_at is not None and done >= stop_at:
            raise KeyboardInterrupt

    key = request_key(model, ids=[q.asked.ids for q in questions])
    with Checkpoint(tmp_path / "kept.safetensors", key) as kept:
        found = sweep(run, parts, metrics, what="rows", progress=progress, kept=kept, token_budget=token_budget)
    return found, parts, read_metrics(run, metrics), told


@pytest.mark.parametrize("name", ["llama", "gpt2", "bloom"])
def test_every_row_of_a_sweep_has_the_metrics_of_a_full_forward(family, ids, tmp_path, name: str) -> None:
    model, prompts = family(name), [ids, OTHER]
    found, parts, base, told = swept(model, prompts, tmp_path)
    assert told[-1] == (18, 18)
    plain = [model.hf(torch.tensor([prompt])).logits[0, -1].detach() for prompt in prompts]
    for i, logits in enumerate(plain):
        assert float(base[i, 0]) == pytest.approx(float(logits.softmax(-1)[4]), abs=1e-6)
        assert float(base[i, 2]) == 0
    for part in parts:
        for row, prompt, values in zip(part.rows, part.prompts, found[part.name], strict=True):
            logits = model.run(prompts[prompt], (), row).last_logits[0]
            p, q = plain[prompt].softmax(-1), logits.softmax(-1)
            expected = [q[4], logits[4] - logits[9], (p * (p / q).log()).sum()]
            torch.testing.assert_close(values, torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_a_stopped_sweep_goes_on_to_the_identical_numbers(family, ids, tmp_path) -> None:
    model = family("llama")
    with counted_calls([model.hf]) as calls:
        whole, *_ = swept(model, [ids, OTHER], tmp_path)
    with pytest.raises(KeyboardInterrupt):
        swept(model, [ids, OTHER], tmp_path, stop_at=12)
    with counted_calls([model.hf]) as fewer:
        again, _, _, told = swept(model, [ids, OTHER], tmp_path)
    assert told[1] == (6, 18)
    assert fewer[0] == calls[0] - 1  # the first part came from the file and was not run
    for name, values in whole.items():
        assert torch.equal(again[name], values)
    assert list(tmp_path.iterdir()) == []


def test_nan_is_never_taken_for_a_metric(family, ids, tmp_path) -> None:
    model = family("llama")
    run = model.run(ids, logits=[-1], resumable=True)
    metric = metric_of("probability", [ask(model, ids, 4)])
    part = Part(name="nan", rows=[[Patch("resid_pre@1", torch.tensor(float("nan")), positions=2)]], prompts=[0])
    with pytest.raises(NumericsError, match="hold NaN"), Checkpoint(None, {}) as kept:
        sweep(run, [part], [metric], what="rows", progress=unwatched, kept=kept)


def test_the_budget_follows_the_free_memory(family, ids, monkeypatch) -> None:
    run = family("llama").run(ids, resumable=True)
    assert tokens_at_once(run) == 4096
    monkeypatch.setattr(sweeping, "least_free", lambda model: 100_000)
    assert 10 <= tokens_at_once(run) < 4096
    monkeypatch.setattr(sweeping, "least_free", lambda model: 1_000)
    with pytest.raises(MemoryLimitError, match=r"one row of 10 tokens needs about .* GB"):
        tokens_at_once(run)
    monkeypatch.setattr(Model, "device", property(lambda self: torch.device("cuda:0")))
    monkeypatch.setattr(sweeping, "least_free", lambda model: 100 << 30)
    assert tokens_at_once(run) == 32_768, "what has much room is kept busy"
    monkeypatch.setattr(sweeping, "least_free", lambda model: 100_000)
    assert 10 <= tokens_at_once(run) < 4096


@pytest.mark.parametrize(
    "name", ["llama", "gpt2", "gpt_neox", "gemma2", "granite", "mixtral", "bloom", "mpt", "falcon"]
)
def test_the_stream_after_a_block_is_that_of_a_change_at_one_position(family, ids, name: str) -> None:
    model = family(name)
    run = model.run([ids, OTHER], resumable=True)
    for kind in LOCAL:
        if kind not in model.sites.available or len(model.sites.available[kind]) < model.atlas.n_layers:
            continue
        source = model.run([OTHER, ids], kind).cache.stack(kind)
        after = streams_after(model, run, kind, source)
        for layer in range(model.atlas.n_layers):
            for position in (0, 5, 9):
                patch = Patch(
                    f"{kind}@{layer}", source[layer][:, position : position + 1], positions=position, by_prompt=True
                )
                if kind in ("attn.z",):
                    patch = Patch(patch.site, patch.value, positions=position, heads=range(4), by_prompt=True)
                full = model.run([ids, OTHER], "resid_post", patch).cache[f"resid_post@{layer}"]
                scale = float(full.abs().max())
                torch.testing.assert_close(after[layer][:, position], full[:, position], rtol=0, atol=1e-5 * scale)
                others = [p for p in range(10) if p != position]
                torch.testing.assert_close(
                    run.snapshot.stream[layer + 1][:, others], full[:, others], rtol=0, atol=1e-5 * scale
                )


def test_a_site_that_reaches_other_positions_is_refused(family, ids) -> None:
    model = family("llama")
    run = model.run(ids, resumable=True)
    with pytest.raises(
        UsageError, match=r"'attn\.v' reaches other positions within its block; valid: attn\.z, attn_out"
    ):
        streams_after(model, run, "attn.v", torch.zeros(3, 1, 10, 2, 8))


@pytest.mark.model
def test_an_answer_in_words(model) -> None:
    found = read_answer(model, " Paris")
    assert (found.text, found.pieces) == (" Paris", (" Paris",))
    question = ask(model, "The Eiffel Tower is located in the city of", " Paris, France")
    assert question.answer.pieces == (" Paris", ",", " France")
    assert question.asked.text == "The Eiffel Tower is located in the city of Paris,"
    assert ask(model, "The Eiffel Tower is located in the city of").answer.text == " Paris"

"""The nondeterminism experiment: its ways agree on paper, its reference is float64, and flips lie where they can."""

import json
from dataclasses import replace

import pytest
import torch

import word_model
from experiments.nondeterminism import run
from experiments.nondeterminism.config import Config, read_prompts
from experiments.nondeterminism.drift import compare, flip_rates
from experiments.nondeterminism.figure import drift_figure
from experiments.nondeterminism.measure import measure
from experiments.nondeterminism.reference import in_float64
from experiments.nondeterminism.summary import flip_lines, values, way_lines
from experiments.nondeterminism.ways import logits, ways_of
from interp.errors import UsageError
from interp.runner.model import Model

TINY = replace(Config(), prompts=3, dtypes=("float32", "bfloat16"), beside=12)
TEXTS = ("After Ann and Bob went", "Carl gave a plum to Dora near the lake", "one two three", "then Eve wanted it")


@pytest.fixture(scope="module")
def small():
    return word_model.build()


def in_dtype(dtype):
    built = word_model.build()
    return Model(built.hf.to(getattr(torch, dtype)), built.tokenizer)


def plain(model, ids):
    with torch.no_grad():
        return model.hf(torch.tensor([list(ids)])).logits[0]


@pytest.mark.parametrize("way", ways_of(Config()), ids=lambda way: way.name)
def test_every_way_gives_the_prompts_own_logits(small, way):
    ids, longer = list(small.tokens(TEXTS[0]).ids), list(small.tokens(" ".join(TEXTS)).ids)
    found = logits(small, ids, way, longer)
    torch.testing.assert_close(found, plain(small, ids), atol=1e-5, rtol=0)
    assert small.hf.config._attn_implementation == "sdpa"
    assert torch.get_num_threads() == 1


def test_the_reference_is_the_model_in_float64_throughout(small):
    ids = torch.tensor([list(small.tokens(TEXTS[1]).ids)])
    exact = in_float64(small.hf)
    seen = {}
    for name, module in exact.named_modules():
        module.register_forward_hook(lambda _, given, out, name=name: seen.update({name: out}))
    with torch.no_grad():
        found = exact(ids).logits
    parts = [out for out in seen.values() if isinstance(out, torch.Tensor)]
    assert len(parts) > 10
    assert {part.dtype for part in parts} == {torch.float64}
    apart = (found - plain(small, ids[0].tolist())).abs().max()
    assert 0 < apart < 1e-5
    norm, stream = exact.model.norm, torch.randn(2, 3, exact.config.hidden_size, dtype=torch.float64)
    by_hand = norm.weight * stream / (stream.square().mean(-1, keepdim=True) + norm.variance_epsilon).sqrt()
    torch.testing.assert_close(norm(stream), by_hand, atol=1e-14, rtol=0)  # in float32 it is off by 1e-7
    rotary, places = exact.model.rotary_emb, torch.arange(50)[None]
    angles = torch.outer(torch.arange(50).double(), small.hf.model.rotary_emb.inv_freq.double())
    torch.testing.assert_close(rotary(stream, places)[0][0, :, : angles.shape[1]], angles.cos(), atol=1e-14, rtol=0)
    with pytest.raises(UsageError, match="of Llama models only"):
        in_float64(word_model.build("gpt2").hf)


def test_drift_flips_and_reach():
    base = [torch.tensor([[1.0, 2.0, 2.5], [0.0, 3.0, 1.0]]), torch.tensor([[4.0, 4.0, 0.0]])]
    found = [torch.tensor([[1.0, 2.6, 2.5], [0.0, 3.0, 1.0]]), torch.tensor([[4.0, 4.5, 0.0]])]
    one = compare("float32", "some way", found, base)
    torch.testing.assert_close(one.drift, torch.tensor([0.6, 0.0, 0.5], dtype=torch.float64), atol=1e-6, rtol=0)
    assert one.gap.tolist() == [0.5, 2.0, 0.0]
    assert one.flipped.tolist() == [True, False, True]
    assert one.equal.tolist() == [False, True, False]
    assert flip_rates([one]) == ((1, 1), (0, 0), (1, 1), (0, 0), (0, 0))  # what did not move is not counted


def test_a_flip_needs_a_gap_within_twice_the_drift():
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(4000, 5, generator=generator)
    found = base + 0.3 * torch.randn(4000, 5, generator=generator)
    one = compare("float32", "noise", [found], [base])
    rates = flip_rates([one])
    assert one.n_flipped > 300
    assert rates[-1][0] == 0
    assert sum(flips for flips, _ in rates) == one.n_flipped
    shares = [flips / number for flips, number in rates]
    assert shares == sorted(shares, reverse=True)


def test_all_of_it_on_a_tiny_model():
    found = measure(TINY, in_dtype, TEXTS)
    assert found.n_positions == 5 + 9 + 3
    assert len(found.ways) == 2 * 7
    figures = values(found)
    assert figures["repeats_equal"] == 100
    assert figures["beyond_reach"] == 0
    assert figures["float32_worst"] < 1e-5 < figures["bfloat16_worst"]
    lines = way_lines(found)
    assert len(lines) == 2 + 2 * 8
    assert len({line.count("|") for line in lines}) == 1
    assert len({line.count("|") for line in flip_lines(found)}) == 1
    assert len(drift_figure(found).data) == 7


@pytest.mark.long
def test_a_short_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run, "OUT", tmp_path)
    monkeypatch.setattr(run, "load", lambda name, device, dtype: in_dtype(dtype))
    monkeypatch.setattr(Config, "quick", lambda self: replace(TINY, dtypes=Config().dtypes))
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n\n".join(TEXTS) + "\n")
    assert run.main(["--quick", "--prompts", str(prompts)]) == 0
    kept = json.loads((tmp_path / "quick" / "results.json").read_text())
    assert kept["positions"] == 17
    assert (tmp_path / "drift.html").stat().st_size > 10_000
    assert "| 0 to 0.25 |" in capsys.readouterr().out


def test_prompts_of_the_project():
    prompts = read_prompts()
    assert len(set(prompts)) == len(prompts) >= Config().prompts
    assert all(40 < len(prompt) < 400 for prompt in prompts)


@pytest.mark.slow
@pytest.mark.model
def test_a_few_prompts_give_the_expected_figures(default_model_parts):
    from experiments.expected import read_expected, rows
    from interp.runner.model import load

    config = replace(Config(), prompts=4)
    found = measure(config, lambda dtype: load(config.model, device="cpu", dtype=dtype), read_prompts())
    figures = rows(values(found), read_expected(run.FOLDER / "expected.json"))
    assert [row.name for row in figures if not row.met] == []

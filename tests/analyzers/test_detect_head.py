"""``detect_head`` gives TransformerLens' numbers: compared with plain loops, and with TransformerLens' own function."""

import math
from types import SimpleNamespace

import pytest
import torch

from interp.analyzers.detect_head import detect_head
from interp.errors import UsageError
from interp.maths.detect_head import NAMES
from oracles import detect_head as oracle
from tiny_models import build

IDS = [5, 9, 33, 5, 9, 44, 44, 33, 17, 33, 9, 9, 60]
OPTIONS = [
    {"error_measure": measure, "exclude_bos": bos, "exclude_current_token": current}
    for measure in ("mul", "abs")
    for bos in (False, True)
    for current in (False, True)
]


def own_pattern() -> torch.Tensor:
    return torch.rand(len(IDS), len(IDS), generator=torch.Generator().manual_seed(0)).tril()


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("family_name", ["llama", "gpt2", "bloom"])
def test_scores_are_the_plain_loops(family, family_name, options):
    model = family(family_name)
    cache = model.run(IDS, "attn.pattern", logits=False).cache
    for name in (*NAMES, None):
        wanted = own_pattern() if name is None else name
        got = detect_head(model, IDS, wanted, **options)
        table = wanted.tolist() if name is None else oracle.wanted(name, IDS)
        for layer in range(model.atlas.n_layers):
            for head in range(model.atlas.n_heads):
                pattern = cache[f"attn.pattern@{layer}"][0, head].tolist()
                want = oracle.score(
                    pattern, table, options["error_measure"], options["exclude_bos"], options["exclude_current_token"]
                )
                assert float(got[layer, head]) == pytest.approx(want, abs=1e-6)


class Lens:
    """A TransformerLens model that gets token ids, with its own patterns from its own forward."""

    def __init__(self, bridge) -> None:
        self.bridge = bridge
        self.cfg = SimpleNamespace(
            device="cpu",
            n_ctx=bridge.cfg.n_ctx,
            n_heads=bridge.cfg.n_heads,
            n_layers=bridge.cfg.n_layers,
            dtype=torch.float32,
        )

    def to_tokens(self, ids):
        return torch.tensor([ids])

    def run_with_cache(self, *arguments, **options):
        return self.bridge.run_with_cache(*arguments, **options)

    def run_with_hooks(self, *arguments, **options):
        raise NotImplementedError


@pytest.mark.tl
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family_name", ["gpt2", "llama", "gpt_neox"])
def test_scores_are_transformer_lens_own(family, family_name):
    from transformer_lens.head_detector import detect_head as theirs
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    hf = build(family_name, attn="eager")
    bridge = build_bridge_from_module(hf, type(hf).__name__, hf_config=hf.config)
    bridge.enable_compatibility_mode(disable_warnings=True, no_processing=True)
    lens, model = Lens(bridge), family(family_name)
    for options in OPTIONS:
        for pattern in (*NAMES, own_pattern()):
            want = theirs(lens, tuple(IDS), pattern, **options)
            got = detect_head(model, IDS, pattern, **options)
            # Its forward is its own, so a score of three decimals may fall to the other side of a half.
            tolerance = 2e-6 if options["error_measure"] == "mul" else 1.001e-3
            torch.testing.assert_close(got, want, atol=tolerance, rtol=0)
            if options["error_measure"] == "abs":
                assert float((got == want).double().mean()) > 0.9
    heads = [(0, 1), (2, 0)]
    want = theirs(lens, tuple(IDS), "induction_head", heads=heads)
    torch.testing.assert_close(detect_head(model, IDS, "induction_head", heads=heads), want, atol=2e-6, rtol=0)
    both = [IDS, [7, 8, 7, 8, 9, 7, 8, 7, 8, 9, 1, 1, 1]]
    want = torch.stack([theirs(lens, tuple(ids), "duplicate_token_head") for ids in both]).mean(0)
    torch.testing.assert_close(detect_head(model, both, "duplicate_token_head"), want, atol=2e-6, rtol=0)


@pytest.mark.tl
@pytest.mark.parametrize("name", NAMES)
def test_masks_are_transformer_lens_own(name):
    from transformer_lens import head_detector

    from interp.maths.detect_head import detection_pattern

    theirs = getattr(head_detector, f"get_{name}_detection_pattern")(torch.tensor([IDS]))
    assert torch.equal(detection_pattern(name, torch.tensor(IDS)), theirs)


def test_text_without_repeats_is_said(family):
    from interp.runner.model import Model

    told = []
    model = Model(family("llama").hf, notify=told.append)
    got = detect_head(model, list(range(5, 15)), "induction_head")
    assert (got == 0).all()
    assert "text without repeats" in told[0]
    detect_head(model, list(range(5, 15)), torch.full((10, 10), 0.5).tril())
    assert "zeros and ones" in told[1]


def test_heads_that_were_not_asked_for_are_minus_one(family):
    got = detect_head(family("llama"), IDS, "previous_token_head", heads="L1H2, 0.1")
    whole = detect_head(family("llama"), IDS, "previous_token_head")
    kept = torch.zeros_like(got, dtype=torch.bool)
    kept[1, 2] = kept[0, 1] = True
    torch.testing.assert_close(got[kept], whole[kept])
    assert (got[~kept] == -1).all()


def test_a_head_with_nothing_left_is_nan():
    from interp.maths.detect_head import match_parts, match_scores

    rows = torch.zeros(1, 1, 3, 3)
    rows[..., 0] = 1.0
    options = {"measure": "mul", "exclude_bos": True, "exclude_current_token": False}
    parts = match_parts(rows, torch.eye(3), 0, **options)
    assert math.isnan(float(match_scores(parts, "mul")))


@pytest.mark.parametrize(
    ("prompt", "pattern", "options", "message"),
    [
        (IDS, "induction_heads", {}, "unknown detection pattern 'induction_heads' .did you mean 'induction_head'"),
        (IDS, "induction_head", {"error_measure": "sum"}, "unknown error measure 'sum'; valid: mul, abs"),
        (IDS, "induction_head", {"heads": "L9H0"}, "head L9H0 is out of range; valid: L0H0 to L2H"),
        ([5], "induction_head", {}, "prompt has one token"),
        ([], "induction_head", {}, "there is no prompt"),
        (IDS, torch.ones(3, 3).tril(), {}, "lower triangular matrix of 13 x 13.*got .3, 3."),
        (IDS, torch.ones(13, 13), {}, "with entries above the diagonal"),
        ([IDS, IDS], torch.ones(13, 13).tril(), {}, "fits one prompt, got 2"),
    ],
)
def test_bad_arguments_name_the_valid_values(family, prompt, pattern, options, message):
    with pytest.raises(UsageError, match=message) as caught:
        detect_head(family("llama"), prompt, pattern, **options)
    assert "\n" not in str(caught.value)

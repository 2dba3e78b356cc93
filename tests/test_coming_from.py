"""docs/how-to/coming-from.md: what it calls equivalent gives the same numbers on the default model."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import interp

pytestmark = [pytest.mark.model, pytest.mark.filterwarnings("ignore")]

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "how-to" / "coming-from.md").read_text(encoding="utf-8")
SECTION = PAGE[PAGE.index("## TransformerLens") : PAGE.index("These take several lines")]
ROWS = re.findall(r"^\| `(tl[^`]*)` \| `([^`]*)` \|$", SECTION, re.MULTILINE)
TOLERANCE = 1e-4
CLEAN = "The Eiffel Tower is located in the city of"
CORRUPTED = "The Colosseum is located in the city of"


def near(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    torch.testing.assert_close(ours, theirs, rtol=0, atol=TOLERANCE * float(theirs.abs().max()), check_dtype=False)


def twin(hf: Any) -> Any:
    """Modules of its own, which a bridge replaces, over the same parameters."""
    return copy.deepcopy(hf, {id(tensor): tensor for tensor in hf.parameters()})


def bridge_around(hf: Any, model) -> Any:
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    return build_bridge_from_module(hf, model.atlas.architecture, hf_config=hf.config, tokenizer=model.tokenizer).eval()


@pytest.fixture(scope="module")
def tl(model) -> Any:
    with torch.no_grad():
        yield bridge_around(twin(model.hf), model)


@pytest.fixture(scope="module")
def page_names(model, tl) -> dict[str, Any]:
    """What the page's own blocks define, and the bridge."""
    names: dict[str, Any] = {"tl": tl, "given": model}
    for body in re.findall(r"^```(?:python|py)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        exec(body.replace('interp.load("smollm2-135m")', "given"), names)
    return names


def test_every_row_is_found() -> None:
    assert len(ROWS) == SECTION.count("\n| `") == 15


@pytest.mark.tl
@pytest.mark.parametrize(("theirs", "ours"), ROWS, ids=[row[0] for row in ROWS])
def test_a_row_of_the_table(page_names: dict[str, Any], theirs: str, ours: str) -> None:
    with torch.no_grad():
        expected, got = eval(theirs, page_names), eval(ours, page_names)
    if isinstance(expected, list):
        assert got == expected
    elif not torch.as_tensor(expected).is_floating_point():
        assert torch.equal(torch.as_tensor(got), expected)
    else:
        near(torch.as_tensor(got), expected)


@pytest.mark.slow
@pytest.mark.tl
@pytest.mark.parametrize(("site", "by"), [("resid_pre", "position"), ("attn.z", "head")])
def test_patching_sweeps(model, tl, site: str, by: str) -> None:
    """Cells of ``get_act_patch_resid_pre`` and ``get_act_patch_attn_head_out_all_pos``, by the function both are made of."""
    import pandas as pd
    from transformer_lens import patching

    (paris,), (rome,) = (model.tokenizer(word)["input_ids"] for word in (" Paris", " Rome"))
    column, setter, name = {
        "position": ("pos", patching.layer_pos_patch_setter, "resid_pre"),
        "head": ("head_index", patching.layer_head_vector_patch_setter, "z"),
    }[by]
    cells = [(3, 2), (23, 4), (23, 8)]
    with torch.no_grad():
        _, cache = tl.run_with_cache(torch.tensor([model.tokens(CLEAN).ids]))
        expected = patching.generic_activation_patch(
            tl,
            torch.tensor([model.tokens(CORRUPTED).ids]),
            cache,
            lambda logits: logits[0, -1, paris] - logits[0, -1, rome],
            patch_setter=setter,
            activation_name=name,
            index_df=pd.DataFrame(cells, columns=["layer", column]),
        )
    found = interp.activation_patching(
        model, CLEAN, CORRUPTED, target=" Paris", against=" Rome", sites=site, by=by, layers=[3, 23]
    )
    places = found.patched[site][0]
    near(torch.stack([places[[3, 23].index(layer), place] for layer, place in cells]), expected)


@pytest.mark.slow
@pytest.mark.tl
def test_direct_logit_attribution(model) -> None:
    """Weights are folded into a model of their own: the norm's weight and the centring are in TransformerLens' directions only then."""
    folded = bridge_around(copy.deepcopy(model.hf), model)
    folded.enable_compatibility_mode(disable_warnings=True)
    (paris,), (rome,) = (model.tokenizer(word)["input_ids"] for word in (" Paris", " Rome"))
    with torch.no_grad():
        _, cache = folded.run_with_cache(torch.tensor([model.tokens(CLEAN).ids]))
        stack = cache.decompose_resid(layer=-1, pos_slice=-1)
        expected = cache.logit_attrs(stack, tokens=paris, incorrect_tokens=rome, pos_slice=-1)[:, 0]
    found = interp.direct_logit_attribution(model, CLEAN, target=" Paris", against=" Rome")
    near(found.contributions, expected)


def test_nnsight(model) -> None:
    nnsight = pytest.importorskip("nnsight", reason="nnsight is in the bench extra only")
    prompt = model.tokens(CLEAN)
    ids = torch.tensor([prompt.ids])
    direction = torch.ones(model.atlas.d_model)
    nn: Any = nnsight.NNsight(twin(model.hf))
    with torch.no_grad():
        with nn.trace(ids, use_cache=False):
            state = nn.model.layers[5].output.save()
            logits = nn.output.logits.save()
        with nn.trace(ids, use_cache=False) as tracer:
            stopped = nn.model.layers[5].output.save()
            tracer.stop()
        with nn.trace(ids, use_cache=False):
            nn.model.layers[5].mlp.output[:] = 0
            without = nn.output.logits.save()
        with nn.trace(ids, use_cache=False):
            nn.model.layers[5].output[:, -1] += direction
            steered = nn.output.logits.save()
    run = model.run(prompt, "resid_post@5")
    near(run.cache["resid_post@5"], state)
    near(run.logits, logits)
    near(model.run(prompt, "resid_post@5", logits=False).cache["resid_post@5"], stopped)
    near(model.run(prompt, interventions=interp.ZeroAblate("mlp_out@5")).logits, without)
    near(model.run(prompt, interventions=interp.Steer("resid_post@5", direction, positions=-1)).logits, steered)

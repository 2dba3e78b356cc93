"""Position encoding: angles and slopes from the papers, what ALiBi adds from the patterns of a run, learned rows from a run."""

import pytest
import torch

from interp.analyzers.position_encoding import PositionEncodingResult, position_encoding
from interp.errors import UsageError
from interp.maths.position_encoding import turning_angles
from interp.results import load_result
from interp.runner.model import Model
from interp.sites import name_layers, read_layers
from oracles import position_encoding as oracle
from tiny_models import build

ROTARY = {
    "llama": (10000.0, 8, 8),
    "gpt_neox": (10000.0, 2, 8),
    "gemma2": (10000.0, 16, 16),
    "qwen3": (10000.0, 16, 16),
}
"""Base, turned coordinates and width of a head."""


@pytest.mark.parametrize("name", ROTARY)
def test_angles_and_what_is_kept_are_the_papers(family, name):
    base, width, d_head = ROTARY[name]
    got = position_encoding(family(name))
    angles = oracle.rope_angles(base, width)
    (rotation,) = got.rotations
    assert rotation.layers == tuple(range(len(got.schemes)))
    assert set(got.schemes) == {"rotary"}
    assert rotation.angles.tolist() == pytest.approx(angles, rel=1e-5)
    assert got.d_head == d_head
    want = [oracle.kept(angles, d_head, distance) for distance in got.distances.tolist()]
    assert rotation.kept.tolist() == pytest.approx(want, abs=1e-5)


def test_what_is_kept_is_what_a_run_shows(family):
    """Equal queries and keys at every position: the scores of the model's own rotation, averaged over directions."""
    model = family("llama")
    got = position_encoding(model)
    cache = model.run([5] * 16, ["attn.q@0", "attn.rot_q@0"]).cache
    plain, turned = cache["attn.q@0"][0], cache["attn.rot_q@0"][0]
    assert torch.allclose(
        plain[0], plain[9], atol=1e-5
    )  # one token everywhere, so that one vector is rotated everywhere
    angles = got.rotations[0].angles
    pairs = plain[0].unflatten(-1, (2, -1)).square().sum(1)
    want = (pairs * torch.cos(9 * angles)).sum(-1)
    torch.testing.assert_close((turned[0] * turned[9]).sum(-1).double(), want.double(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["bloom", "mpt"])
def test_alibi_slopes_are_the_papers_and_the_runs(family, name):
    model = family(name)
    got = position_encoding(model)
    assert set(got.schemes) == {"alibi"}
    assert got.alibi_slopes.tolist() == pytest.approx(oracle.alibi_slopes(4), rel=1e-3)
    ids = [5, 9, 33, 71, 12, 44]
    cache = model.run(ids, ["attn.pattern@0", "attn.q@0", "attn.k@0"]).cache
    pattern, q, k = (cache[f"attn.{kind}@0"][0] for kind in ("pattern", "q", "k"))
    for head in range(4):
        scores = q[-1, head] @ k[:, head].T / model.atlas.d_head**0.5
        rest = pattern[head, -1].log() - scores  # what is left of the scores is linear in the place of the key
        steps = rest.diff()
        assert steps.tolist() == pytest.approx([float(got.alibi_slopes[head])] * 5, abs=1e-4)


def test_falcons_alibi_is_scaled():
    model = Model(build("falcon_rw"))
    got = position_encoding(model)
    scaled = [slope / model.atlas.d_head**0.5 for slope in oracle.alibi_slopes(4)]
    assert got.alibi_slopes.tolist() == pytest.approx(scaled, rel=1e-2)  # Falcon keeps them in bf16


@pytest.mark.parametrize(("name", "rows"), [("gpt2", "transformer.wpe"), ("opt", "model.decoder.embed_positions")])
def test_learned_rows_are_those_of_a_run(family, ids, name, rows):
    model = family(name)
    got = position_encoding(model)
    assert set(got.schemes) == {"learned"}
    seen = model.run(ids, ["pos_embed"]).cache["pos_embed"][0]
    torch.testing.assert_close(got.learned_norms[: len(ids)], seen.norm(dim=-1), atol=1e-5, rtol=1e-5)
    table = model.hf.get_submodule(rows).weight[-64:].tolist()
    assert len(got.learned_norms) == 64
    for distance in (1, 16, 63):
        place = got.distances.tolist().index(distance)
        assert float(got.learned_cosine[place]) == pytest.approx(oracle.cosine_at(table, distance), abs=1e-5)


def test_layers_differ_where_the_model_says_so():
    """Gemma 3 turns more slowly in its global layers; EXAONE 4 has layers without positions."""
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    local, whole = position_encoding(Model(build("gemma3_text", layer_types=kinds))).rotations
    assert (local.layers, whole.layers) == ((0, 2), (1,))
    bases = {"sliding": 10_000.0, "full": 1_000_000.0}
    assert local.angles.tolist() == pytest.approx(oracle.rope_angles(bases["sliding"], 16), rel=1e-4)
    assert whole.angles.tolist() == pytest.approx(oracle.rope_angles(bases["full"], 16), rel=1e-4)
    mixed = position_encoding(Model(build("exaone4")))
    assert mixed.schemes == ("rotary", "none", "rotary")


def test_a_rotation_that_cannot_be_called_is_said_to_be_unknown(family):
    got = position_encoding(family("gptj"))
    assert set(got.schemes) == {"rotary"}
    assert [rotation.angles for rotation in got.rotations] == [None]
    assert got.to_frame().empty
    with pytest.raises(UsageError, match="nothing to draw: positions enter by rotary"):
        got.figure()


def test_angles_of_a_scaled_partial_rotation_without_order():
    step = torch.eye(6) * 1.3
    for pair, angle in (((4, 1), 0.5), ((2, 3), 1e-5)):
        cosine, sine = 1.3 * torch.tensor(angle).cos(), 1.3 * torch.tensor(angle).sin()
        i, j = pair
        step[i, i] = step[j, j] = cosine
        step[i, j], step[j, i] = sine, -sine
    assert turning_angles(step).tolist() == pytest.approx([0.5, 1e-5], rel=1e-4)


@pytest.mark.parametrize("name", ["llama", "gpt2", "bloom"])
def test_table_figure_and_round_trip(family, tmp_path, name):
    result = position_encoding(family(name), longest=40)
    assert int(result.distances[-1]) == 40
    assert len(result.to_frame()) == len(result.curves) * len(result.distances)
    assert result.figure().data
    result.save(tmp_path / "p.safetensors")
    again = load_result(tmp_path / "p.safetensors")
    assert isinstance(again, PositionEncodingResult)
    assert again.to_json() == result.to_json()


def test_bad_distances_name_the_valid_ones(family):
    with pytest.raises(UsageError, match="longest is 64; valid: 1 to 63"):
        position_encoding(family("gpt2"), longest=64)
    with pytest.raises(UsageError, match="longest is 0"):
        position_encoding(family("bloom"), longest=0)


def test_layers_are_named_as_they_are_read():
    for layers in ((0, 1, 2, 3), (0, 2, 3, 5), (4,), ()):
        assert not layers or read_layers(name_layers(layers), 9) == layers
    assert name_layers((0, 2, 3, 5)) == "0,2-3,5"


@pytest.mark.model
def test_the_default_models_rotation(model):
    config = model.hf.config
    angles = oracle.rope_angles(config.rope_parameters["rope_theta"], config.head_dim or 64)
    (rotation,) = position_encoding(model).rotations
    assert rotation.angles.tolist() == pytest.approx(angles, rel=1e-4)

"""What an edit says of itself: norms, table, figure, file."""

import hashlib
import math

import pytest
import torch

import interp
import tiny_models
from interp.editing.edit import Edit, LayerEdit
from interp.editing.matrix import output_matrix
from interp.errors import UsageError
from interp.runner.model import Model
from random_edit import FACT, random_curve, random_edit


@pytest.fixture
def small() -> Model:
    return Model(tiny_models.build("gpt2"))


def test_norms_are_those_of_the_whole_matrices(small) -> None:
    edit = random_edit(small, [0, 2], ranks=[1, 5], size=0.25)
    for change in edit.layers:
        matrix = output_matrix(small, change.layer)
        assert change.norm == pytest.approx(float((change.left @ change.right).norm()), rel=1e-5)
        assert change.base_norm == pytest.approx(float(matrix.stored.norm()), rel=1e-6)
        assert change.relative_norm == pytest.approx(0.25, rel=1e-5)
        with edit.applied(small):
            assert float((matrix.stored - before(small, change.layer)).norm()) == pytest.approx(change.norm, rel=1e-4)
    frame = edit.to_frame()
    assert list(frame.columns) == ["layer", "rank", "update_norm", "base_norm", "relative_norm", "path"]
    assert frame["layer"].tolist() == [0, 2]
    assert frame["rank"].tolist() == [1, 5]
    assert frame["path"].tolist() == ["transformer.h.0.mlp.c_proj", "transformer.h.2.mlp.c_proj"]
    assert frame["relative_norm"].tolist() == [change.relative_norm for change in edit.layers]


def before(small, layer):
    matrix = output_matrix(small, layer)
    base = interp.editing.stack.base_values(small, layer)
    return base.T if matrix.transposed else base


def test_a_change_of_nothing_to_nothing(small) -> None:
    change = random_edit(small, [0]).layers[0]
    empty = LayerEdit(**{**vars(change), "left": torch.zeros(32, 1), "base_norm": 0.0})
    assert empty.norm == 0.0
    assert math.isnan(empty.relative_norm)


def test_factors_that_do_not_fit_each_other_are_refused(small) -> None:
    """Looked at directly: the shape checker of the tests would be first, and users do not have it."""
    change = random_edit(small, [0]).layers[0]
    object.__setattr__(change, "left", torch.zeros(32, 2))
    with pytest.raises(UsageError, match=r"must be \[d_model rank\] and \[rank d_mlp\], got \[32, 2\] and \[1, 128\]"):
        change.__post_init__()
    with pytest.raises(UsageError, match="counted from 0, got -1"):
        LayerEdit(**{**vars(random_edit(small, [0]).layers[0]), "layer": -1})


def test_an_edit_goes_through_its_file_and_does_the_same(small, tmp_path) -> None:
    edit = random_edit(small, [0, 1], ranks=[1, 3], facts=(FACT, FACT))
    path, again_path = tmp_path / "edit.safetensors", tmp_path / "again.safetensors"
    edit.save(path)
    again = Edit.load(path)
    again.save(again_path)
    assert path.read_bytes() == again_path.read_bytes()
    assert again.facts == edit.facts
    assert again.settings == edit.settings
    assert again.provenance == edit.provenance
    assert (again.method, again.layer_source, again.moments, again.seconds) == ("rome", "given", edit.moments, 1.25)
    for one, other in zip(edit.layers, again.layers, strict=True):
        assert torch.equal(one.left, other.left)
        assert torch.equal(one.right, other.right)
        assert (one.path, one.transposed, one.base_sha256) == (other.path, other.transposed, other.base_sha256)
    assert torch.equal(again.curves[1].probability, edit.curves[1].probability)
    ids = tiny_models.prompt_ids(1)
    with edit.applied(small):
        expected = small.hf(ids).logits
    with again.applied(small):
        assert torch.equal(small.hf(ids).logits, expected)
    with edit.applied(small), again.applied(small):  # two Edits, though equal: their changes add up
        assert not torch.equal(small.hf(ids).logits, expected)


def test_the_figure_shows_each_step(small) -> None:
    figure = random_edit(small, [0]).figure()
    curve = random_curve()
    lines = {trace.name: list(trace.y) for trace in figure.data}
    assert lines == {
        "probability over the contexts": curve.probability.double().tolist(),
        "probability of the bare prompt": curve.bare_probability.double().tolist(),
        "loss": curve.loss_nats.double().tolist(),
        "of the target": curve.target_nats.double().tolist(),
        "of what stays": curve.essence_nats.double().tolist(),
        "of the decay": curve.decay_nats.double().tolist(),
    }
    assert {trace.yaxis for trace in figure.data if "probability" in trace.name} == {"y"}
    assert "nats" in figure.layout.yaxis2.title.text


@pytest.mark.parametrize("n_facts", [2, 30])
def test_the_figure_of_several_facts_has_two_lines_each(small, n_facts: int) -> None:
    figure = random_edit(small, [0], facts=(FACT,) * n_facts).figure()
    assert len(figure.data) == 2 * n_facts
    assert [trace.yaxis for trace in figure.data] == ["y", "y2"] * n_facts
    assert figure.layout.showlegend == (n_facts == 2)
    assert list(figure.data[3].y) == random_curve(seed=1).loss_nats.double().tolist()


def test_hostile_names_stay_text_in_the_figure(small) -> None:
    fact = interp.Fact("<b>x</b>", "{} is <script>", " <i>")
    figure = random_edit(small, [0], facts=(fact, fact)).figure()
    assert figure.data[0].name == "&lt;b&gt;x&lt;/b&gt; is &lt;script&gt; &lt;i&gt;"


def test_without_curves_the_figure_shows_how_large_the_changes_are(small) -> None:
    figure = random_edit(small, [0, 2], size=0.3, curves=()).figure()
    assert list(figure.data[0].y) == pytest.approx([0.3, 0.3], rel=1e-4)
    assert list(figure.layout.xaxis.ticktext) == ["0", "2"]


def test_to_json_holds_everything(small) -> None:
    found = random_edit(small, [0]).to_json()
    assert found["kind"] == "edit"
    assert found["facts"] == [{"subject": FACT.subject, "template": FACT.template, "target": FACT.target}]
    assert len(found["layers"][0]["left"]) == 32


def test_an_edit_rebased_is_one_of_the_other_model(small) -> None:
    other = Model(tiny_models.build("gpt2", seed=1))
    edit = random_edit(small, [0, 1])
    rebased = edit.rebased(other)
    rebased.check(other)
    stored = output_matrix(other, 1).stored
    assert rebased.layers[1].base_sha256 == hashlib.sha256(stored.numpy().tobytes()).hexdigest()
    assert rebased.layers[1].base_norm == pytest.approx(float(stored.norm()), rel=1e-6)
    assert rebased.layers[1].left is edit.layers[1].left
    assert rebased.facts == edit.facts


@pytest.mark.model
def test_a_rank_one_edit_of_the_default_model_takes_kilobytes(model, tmp_path) -> None:
    edit = random_edit(model, [5], curves=(random_curve(steps=20),))
    edit.save(tmp_path / "edit.safetensors")
    factors = 4 * (model.atlas.d_model + model.atlas.d_mlp)
    assert factors == 8448
    assert factors < (tmp_path / "edit.safetensors").stat().st_size < factors + 5000

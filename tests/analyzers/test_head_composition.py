"""Composition of heads on tiny models and the default one."""

import pytest
import torch

from interp.analyzers.head_composition import HeadCompositionResult, head_composition
from interp.errors import UsageError
from interp.heads import Head
from interp.models.head_weights import read_head_weights
from interp.results import load_result
from interp.runner.model import Model
from oracles import head_circuits as oracle
from tiny_models import build


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "granite", "olmo2", "falcon"])
@pytest.mark.parametrize("kind", ["q", "k", "v"])
def test_pairs_are_the_whole_products(family, name: str, kind: str) -> None:
    model = family(name)
    result = head_composition(model, kind, heads=["2.1", "1.3"], draws=5)
    layers = [read_head_weights(model.hf, model.atlas, layer).expanded() for layer in range(3)]

    def whole(layer: int, head: int) -> tuple[list, list]:
        w = layers[layer]
        qk = oracle.qk(w.W_Q[head].tolist(), w.W_K[head].tolist())
        return qk, oracle.ov(w.W_V[head].tolist(), w.W_O[head].tolist())

    for reader in (Head(2, 1), Head(1, 3)):
        values = result.of(reader)
        for writer in (Head(0, 0), Head(1, 2)):
            got = float(values[writer.layer, writer.head])
            if writer.layer >= reader.layer:
                assert got != got
                continue
            expected = oracle.composition(kind, whole(*_place(writer))[1], *whole(*_place(reader)))
            assert got == pytest.approx(expected, rel=1e-4)


def _place(head: Head) -> tuple[int, int]:
    return head.layer, head.head


def test_all_readers_at_once_are_each_alone(family) -> None:
    model = family("gpt_neox")
    together = head_composition(model, "k", draws=3)
    assert len(together.readers) == 2 * 4
    alone = head_composition(model, "k", heads="1.2", draws=3)
    torch.testing.assert_close(together.of(Head(1, 2)), alone.of(Head(1, 2)), equal_nan=True)
    assert torch.equal(together.composition.isnan(), together.z.isnan())


def test_distance_turns_queries_against_keys_and_leaves_values_alone(family) -> None:
    model = family("llama")
    weights = [read_head_weights(model.hf, model.atlas, layer).expanded() for layer in range(2)]
    ov = oracle.ov(weights[0].W_V[3].tolist(), weights[0].W_O[3].tolist())
    turned = oracle.rotated_qk(weights[1].W_Q[0].tolist(), weights[1].W_K[0].tolist(), 5)
    for kind in ("q", "k"):
        at_0, at_5 = (head_composition(model, kind, heads="1.0", distance=n, draws=3).of(Head(1, 0)) for n in (0, 5))
        assert float(at_5[0, 3]) == pytest.approx(oracle.composition(kind, ov, turned, None), rel=1e-4)
        assert not torch.allclose(at_0[0], at_5[0])
    at_0, at_5 = (head_composition(model, "v", heads="1.0", distance=n, draws=3).of(Head(1, 0)) for n in (0, 5))
    torch.testing.assert_close(at_0, at_5, equal_nan=True)


def test_an_untrained_models_heads_stay_within_the_null(family) -> None:
    """Weights that were drawn know nothing of each other: composition has the null's mean and, over pairs, about its spread."""
    model = Model(build("llama", hidden_size=128, num_attention_heads=8, num_key_value_heads=8, head_dim=16))
    result = head_composition(model, "k", draws=200)
    z = result.z[~result.z.isnan()]
    assert abs(float(z.mean())) < 0.5
    assert float(z.abs().median()) < 1.5
    assert result.shape_mean == pytest.approx(float(result.null_mean.nanmean()), rel=0.02)


def test_a_circuit_set_by_hand_stands_out(family) -> None:
    """Head L0H1 writes along directions that the keys of L1H2 read: K-composition, and not Q or V, is far above everything."""
    model = Model(build("gpt2"))
    first, second, width = model.hf.transformer.h[0], model.hf.transformer.h[1], 8
    with torch.no_grad():
        keys = second.attn.c_attn.weight[:, 32 + 2 * width : 32 + 3 * width]
        shared = second.ln_1.weight[:, None] * keys
        first.attn.c_proj.weight[width : 2 * width] = (shared - shared.mean(0)).T
    strongest = {kind: head_composition(model, kind, heads="1.2", draws=50) for kind in ("q", "k", "v")}
    k = strongest["k"]
    assert k.strongest(Head(1, 2), 1) == (Head(0, 1),)
    assert float(k.z[0, 1]) > 5
    assert float(k.of(Head(1, 2))[0, 1]) > 1.3 * float(k.of(Head(1, 2))[0, [0, 2, 3]].max())
    assert float(strongest["v"].z[0, 1]) < 5


def test_table_figure_and_round_trip(family, tmp_path) -> None:
    result = head_composition(family("llama"), "q", draws=4)
    frame = result.to_frame()
    assert len(frame) == 4 * 4 + 4 * 8
    assert frame["composition"].between(0, 1).all()
    assert result.figure().data
    result.save(tmp_path / "pairs.safetensors")
    again = load_result(tmp_path / "pairs.safetensors")
    assert isinstance(again, HeadCompositionResult)
    assert again.to_json() == result.to_json()
    assert again.readers[0] == Head(1, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "o"}, r"unknown kind of composition 'o'; valid: q, k, v"),
        ({"heads": "0.1"}, r"L0H1 has no heads before it to compose with; valid: L1H0 to L2H3"),
        ({"heads": "9.1"}, r"head L9H1 is out of range; valid: L0H0 to L2H3"),
        ({"draws": 1}, r"draws is 1; a null needs 2 or more"),
        ({"distance": -1}, r"distance -1 is out of range; valid: 0 to 63"),
        ({"distance": 64}, r"distance 64 is out of range; valid: 0 to 63"),
    ],
)
def test_bad_arguments_name_the_valid_values(family, options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        head_composition(family("llama"), **options)


def test_a_distance_where_nothing_rotates_and_a_model_of_one_layer(family) -> None:
    with pytest.raises(UsageError, match="distance 3: only rotary models have a W_QK that depends on distance"):
        head_composition(family("gpt2"), distance=3)
    with pytest.raises(UsageError, match="this model has one layer"):
        head_composition(Model(build("gpt2", n_layer=1)))
    with pytest.raises(UsageError, match="L0H0 is not among the readers; valid: L1H1"):
        head_composition(family("gpt2"), heads="1.1", draws=2).of(Head(0, 0))


@pytest.mark.model
def test_the_default_models_strongest_pairs(model) -> None:
    """Over all pairs of the default model the strongest K-composition is of induction heads with heads that look one token back."""
    result = head_composition(model, "k", heads=["18.6", "17.3", "17.4", "18.7"], draws=20)
    for reader in result.readers:
        assert Head(16, 0) in result.strongest(reader, 2)
        assert float(result.of(reader)[16, 0]) == pytest.approx(0.163, abs=0.01)
    assert result.shape_mean == pytest.approx(576**-0.5, rel=0.02)

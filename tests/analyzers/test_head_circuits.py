"""Circuits of a head on tiny models and the default one: every number against explicit matrices made by hand from the model."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from interp.analyzers.head_circuits import HeadCircuitsResult, head_circuits
from interp.analyzers.ov_copying import ov_copying, ov_eigenvalue_scores
from interp.errors import ModelError, UsageError
from interp.heads import Head
from interp.results import load_result
from interp.runner.model import Model
from oracles import head_circuits as oracle
from tiny_models import VOCABULARY, build

LAYER, HEAD = 1, 2


@dataclass(frozen=True)
class ByHand:
    """The matrices of one head and of the vocabulary as nested lists, read off the Hugging Face model here."""

    W_Q: list
    W_K: list
    W_V: list
    W_O: list
    embed: list
    unembed: list


def llama_by_hand(hf, layer: int = LAYER, head: int = HEAD) -> ByHand:
    attention, gamma = hf.model.layers[layer].self_attn, hf.model.layers[layer].input_layernorm.weight.tolist()
    width = attention.head_dim
    rows = {
        name: slice(index * width, (index + 1) * width)
        for name, index in (("q_proj", head), ("k_proj", head // 2), ("v_proj", head // 2))
    }
    read = [
        oracle.read_through_norm(getattr(attention, name).weight[part].T.tolist(), gamma, centred=False)
        for name, part in rows.items()
    ]
    W_O = attention.o_proj.weight[:, head * width : (head + 1) * width].T.tolist()
    unembed = oracle.unembedding_through_norm(hf.lm_head.weight.tolist(), hf.model.norm.weight.tolist(), centred=False)
    return ByHand(*read, W_O, hf.model.embed_tokens.weight.tolist(), unembed)


def gpt2_by_hand(hf, layer: int = LAYER, head: int = HEAD) -> ByHand:
    block, width, total = hf.transformer.h[layer], 8, 32
    gamma = block.ln_1.weight.tolist()
    fused = block.attn.c_attn.weight  # Conv1D: [in, out], q | k | v
    columns = [slice(part * total + head * width, part * total + (head + 1) * width) for part in range(3)]
    read = [oracle.read_through_norm(fused[:, part].tolist(), gamma, centred=True) for part in columns]
    W_O = block.attn.c_proj.weight[head * width : (head + 1) * width].tolist()
    unembed = oracle.unembedding_through_norm(
        hf.lm_head.weight.tolist(), hf.transformer.ln_f.weight.tolist(), centred=True
    )
    return ByHand(*read, W_O, hf.transformer.wte.weight.tolist(), unembed)


BY_HAND = {"llama": llama_by_hand, "gpt2": gpt2_by_hand}


@pytest.fixture(scope="module")
def found(family):
    """The result and the matrices by hand of one tiny model."""
    made = {}

    def make(name: str) -> tuple[HeadCircuitsResult, ByHand, Model]:
        if name not in made:
            model = family(name)
            result = head_circuits(model, (LAYER, HEAD), directions=3, top_k=4, by="projection", copy_tokens=None)
            with torch.no_grad():
                made[name] = result, BY_HAND[name](model.hf), model
        return made[name]

    return make


@pytest.mark.parametrize("name", BY_HAND)
def test_singular_values_and_eigenvalue_scores_are_those_of_the_whole_matrices(found, name: str) -> None:
    result, hand, _ = found(name)
    for table, middle, write in (
        (result.qk, oracle.qk(hand.W_Q, hand.W_K), hand.embed),
        (result.ov, oracle.ov(hand.W_V, hand.W_O), hand.unembed),
    ):
        assert table.singular_values.tolist() == pytest.approx(oracle.singular_values(middle)[:8], rel=1e-4)
        tokens = oracle.token_map(hand.embed, middle, write)
        assert table.eigenvalue_score == pytest.approx(oracle.eigenvalue_score(tokens), abs=1e-3)
        centred = oracle.centred_columns(tokens)
        assert table.eigenvalue_score_centred == pytest.approx(oracle.eigenvalue_score(centred), abs=1e-3)


@pytest.mark.parametrize("name", BY_HAND)
def test_copying_is_counted_over_the_whole_table(found, name: str) -> None:
    result, hand, model = found(name)
    ranks = oracle.own_ranks(oracle.token_map(hand.embed, oracle.ov(hand.W_V, hand.W_O), hand.unembed))
    copying = result.copying
    assert (copying.top.n, copying.drawn) == (VOCABULARY, False)
    assert copying.top.value == pytest.approx(sum(rank == 0 for rank in ranks) / VOCABULARY)
    assert copying.top_percent.value == pytest.approx(sum(rank < VOCABULARY / 100 for rank in ranks) / VOCABULARY)
    assert copying.percentile.value == pytest.approx(sum(1 - rank / (VOCABULARY - 1) for rank in ranks) / VOCABULARY)
    assert copying.percentile.lower == copying.percentile.upper == copying.percentile.value
    some = ov_copying(model, Head(LAYER, HEAD), copy_tokens=40)
    assert some.drawn
    assert some.top.n == 40
    assert some.percentile.lower < some.percentile.value < some.percentile.upper
    assert 0 <= some.top.lower <= some.top.value < some.top.upper


@pytest.mark.parametrize("name", BY_HAND)
def test_tokens_are_the_ends_of_the_singular_directions(found, name: str) -> None:
    result, hand, _ = found(name)
    sides = (
        (result.qk, oracle.qk(hand.W_Q, hand.W_K), hand.embed, hand.embed),
        (result.ov, oracle.ov(hand.W_V, hand.W_O), hand.embed, hand.unembed),
    )
    for table, middle, read, write in sides:
        left, _, right = torch.linalg.svd(torch.tensor(middle, dtype=torch.float64))
        for direction in range(3):
            reads = torch.tensor(read, dtype=torch.float64) @ left[:, direction]
            writes = torch.tensor(write, dtype=torch.float64) @ right[direction]
            turn = 1.0 if float(reads.max()) > -float(reads.min()) else -1.0
            for pole, sign in enumerate((turn, -turn)):
                for ids, values in ((table.read_ids, reads), (table.write_ids, writes)):
                    assert ids[direction, pole].tolist() == (sign * values).topk(4).indices.tolist()
                torch.testing.assert_close(
                    table.read_scores[direction, pole].double(),
                    turn * reads[table.read_ids[direction, pole]],
                    rtol=1e-3,
                    atol=1e-4,
                )
        assert (table.read_scores[:, 0, 0] >= table.read_scores[:, 1, 0].abs()).all()


def test_a_rotary_circuit_is_the_rotated_matrix_at_each_distance(found) -> None:
    result, hand, _ = found("llama")
    assert result.no_profile is None
    for row, distance in enumerate(result.distances):
        whole = oracle.rotated_qk(hand.W_Q, hand.W_K, distance)
        assert float(result.profile.norm[row]) == pytest.approx(oracle.frobenius(whole), rel=1e-4)
        if distance in (0, 1, 7):
            table = torch.tensor(oracle.token_map(hand.embed, whole, hand.embed))
            assert float(result.profile.same_token[row]) == pytest.approx(float(table.diagonal().mean()), abs=1e-3)
            assert float(result.profile.any_token[row]) == pytest.approx(float(table.mean()), abs=1e-3)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gpt2", "this layer does not rotate"),
        ("gptj", "GPTJForCausalLM rotates queries and keys in a way that is only in its own"),
    ],
)
def test_a_profile_that_cannot_be_had_says_why(family, name: str, reason: str) -> None:
    result = head_circuits(family(name), "1.2")
    assert result.profile is None
    assert reason in result.no_profile
    with pytest.raises(UsageError, match="L1H2 has no W_QK by distance"):
        result.figure("distance")


@pytest.mark.parametrize("name", BY_HAND)
def test_partners_on_both_sides_are_the_whole_products(found, name: str) -> None:
    result, own, model = found(name)
    own_ov, own_qk = oracle.ov(own.W_V, own.W_O), oracle.qk(own.W_Q, own.W_K)
    with torch.no_grad():
        others = {layer: BY_HAND[name](model.hf, layer, 3) for layer in (0, 2)}
    for through in "qkv":
        before, after = result.partner(through), result.partner(through, reads=False)
        early, late = others[0], others[2]
        expected = oracle.composition(through, oracle.ov(early.W_V, early.W_O), own_qk, own_ov)
        assert float(before.composition[0, 3]) == pytest.approx(expected, rel=1e-4)
        late_qk, late_ov = oracle.qk(late.W_Q, late.W_K), oracle.ov(late.W_V, late.W_O)
        assert float(after.composition[2, 3]) == pytest.approx(
            oracle.composition(through, own_ov, late_qk, late_ov), rel=1e-4
        )
        assert before.composition[1:].isnan().all()
        assert after.composition[:2].isnan().all()
        assert before.strongest(1)[0].layer == 0
        best = before.strongest(4)
        assert [float(before.composition[h.layer, h.head]) for h in best] == sorted(
            before.composition[0].tolist(), reverse=True
        )


def test_a_head_that_copies_by_construction_is_found_to(family) -> None:
    """W_V and W_O made the two halves of a projection onto directions of the embeddings, W_E and W_U made the same."""
    model = Model(build("gpt2", n_layer=1))
    block, width = model.hf.transformer.h[0], 8
    basis = torch.linalg.qr(torch.randn(32, width, generator=torch.Generator().manual_seed(0))).Q
    with torch.no_grad():
        for norm in (block.ln_1, model.hf.transformer.ln_f):
            norm.weight.fill_(1.0)
        block.attn.c_attn.weight[:, 64:72] = basis
        block.attn.c_proj.weight[:width] = basis.T
        block.attn.c_attn.weight[:, 72:80] = basis
        block.attn.c_proj.weight[width : 2 * width] = -basis.T
    copies, suppresses = (head_circuits(model, (0, head), copy_tokens=None) for head in (0, 1))
    assert copies.ov.eigenvalue_score == pytest.approx(1.0, abs=1e-4)
    assert suppresses.ov.eigenvalue_score == pytest.approx(-1.0, abs=1e-4)
    assert copies.copying.percentile.value > 0.9
    assert suppresses.copying.percentile.value < 0.1
    assert all(not partner.strongest(3) for partner in copies.partners)


def test_scores_of_all_heads_are_those_of_each(family) -> None:
    model = family("qwen3")
    plain, centred = ov_eigenvalue_scores(model), ov_eigenvalue_scores(model, centred=True)
    assert plain.shape == (3, 4)
    one = head_circuits(model, "L2H1")
    assert float(plain[2, 1]) == pytest.approx(one.ov.eigenvalue_score, abs=1e-5)
    assert float(centred[2, 1]) == pytest.approx(one.ov.eigenvalue_score_centred, abs=1e-5)


def test_ranking_by_cosine_does_not_see_lengths(family) -> None:
    model = Model(build("llama", seed=3, tie_word_embeddings=False))
    before = head_circuits(model, "1.0", by="cosine")
    with torch.no_grad():
        scale = torch.rand(VOCABULARY, 1, generator=torch.Generator().manual_seed(0)) + 0.5
        model.hf.model.embed_tokens.weight.mul_(scale)
        model.hf.lm_head.weight.mul_(scale)
    after = head_circuits(model, "1.0", by="cosine")
    assert torch.equal(before.ov.read_ids, after.ov.read_ids)
    assert torch.equal(before.ov.write_ids, after.ov.write_ids)
    assert float(before.ov.read_scores.abs().max()) <= 1
    assert not torch.equal(head_circuits(model, "1.0", by="projection").ov.read_ids, after.ov.read_ids)


@pytest.mark.parametrize(
    ("name", "said", "unsaid"),
    [
        ("gpt2", ("biases", "position embeddings"), ("rotation", "softcap")),
        ("qwen3", ("the divisors (and biases) of the norms on queries and keys", "rotation"), ("position embeddings",)),
        (
            "gemma2",
            ("the softcap on the scores", "the softcap on the logits", "norm after attention", "sliding window"),
            (),
        ),
        ("bloom", ("ALiBi",), ("rotation",)),
        ("mpt", ("ALiBi",), ()),
        ("gpt_oss", ("learned sink",), ()),
    ],
)
def test_what_is_left_out_is_said(family, name: str, said: tuple[str, ...], unsaid: tuple[str, ...]) -> None:
    text = "; ".join(head_circuits(family(name), "0.1").left_out)
    assert "earlier layers" in text
    for words in said:
        assert words in text
    for words in unsaid:
        assert words not in text


def test_heads_that_share_keys_and_values_are_named(family) -> None:
    result = head_circuits(family("llama"), "l2h3")
    assert (str(result.head), result.kv_head, result.shared_with) == ("L2H3", 1, (Head(2, 2),))
    assert head_circuits(family("gpt2"), "2.3").shared_with == ()


@pytest.mark.parametrize("name", ["llama", "gpt2", "mixtral", "gemma3_text"])
def test_tables_figures_and_round_trip(family, tmp_path, name: str) -> None:
    result = head_circuits(family(name), "1.1", directions=2, top_k=3)
    frame = result.to_frame()
    assert len(frame) == 2 * 2 * 2 * 3
    partners = result.partners_frame()
    assert len(partners) == 3 * (4 + 4)
    assert partners["z"].notna().all()
    kinds = ("composition", "singular_values", "eigenvalues", *(["distance"] if result.profile is not None else []))
    for kind in kinds:
        assert result.figure(kind).data
    result.save(tmp_path / "head.safetensors")
    again = load_result(tmp_path / "head.safetensors")
    assert isinstance(again, HeadCircuitsResult)
    assert again.to_json() == result.to_json()
    assert (again.profile is None) == (result.profile is None)


def test_a_seed_gives_the_same_result(family) -> None:
    one, two = (head_circuits(family("llama"), "1.1", copy_tokens=30, seed=5).to_json() for _ in range(2))
    for changing in ("provenance",):
        one.pop(changing), two.pop(changing)
    assert one == two


@pytest.mark.parametrize(
    ("head", "options", "message"),
    [
        ("3.0", {}, r"head L3H0 is out of range; valid: L0H0 to L2H3"),
        ("1.4", {}, r"head L1H4 is out of range"),
        ("layer 1", {}, r"'layer 1' names no head; write L5H3 or 5.3"),
        ("1.1", {"directions": 9}, r"directions is 9; valid: 1 to 8"),
        ("1.1", {"top_k": 98}, r"top_k is 98; valid: 1 to 97"),
        ("1.1", {"by": "length"}, r"unknown way to rank tokens 'length'; valid: cosine, projection"),
        ("1.1", {"copy_tokens": 1}, r"copy_tokens is 1; valid: 2 to 97, or None"),
        ("1.1", {"distances": [0, 64]}, r"distance 64 is out of range; valid: one or more of 0 to 63"),
        ("1.1", {"draws": 1}, r"draws is 1; a null needs 2 or more"),
    ],
)
def test_bad_arguments_name_the_valid_values(family, head: str, options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        head_circuits(family("llama"), head, **options)


def test_an_unknown_figure_names_the_known_ones(family) -> None:
    with pytest.raises(UsageError, match="unknown figure of circuits 'pie'; valid: composition, singular_values"):
        head_circuits(family("llama"), "1.1").figure("pie")


def test_quantised_weights_are_refused_by_name(family) -> None:
    model = Model(build("llama"))

    class Packed(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    model.hf.model.layers[1].self_attn.q_proj = Packed()
    with pytest.raises(ModelError, match="self_attn.q_proj of LlamaForCausalLM is a Packed, not a plain linear map"):
        head_circuits(model, "1.1")


@pytest.fixture(scope="module")
def induction_and_previous(model) -> tuple[HeadCircuitsResult, HeadCircuitsResult]:
    """L18H6 of the default model, which does induction, and L16H0, which looks one token back."""
    induction, previous = (head_circuits(model, head, copy_tokens=512, directions=1) for head in ("18.6", "16.0"))
    return induction, previous


@pytest.mark.slow
@pytest.mark.model
def test_the_default_models_induction_head_reads_its_previous_token_head(induction_and_previous) -> None:
    result, _ = induction_and_previous
    partner = result.partner("k")
    assert Head(16, 0) in partner.strongest(2)
    assert float(partner.composition[16, 0]) > 3 * partner.typical
    assert float(partner.z[16, 0]) > 50
    assert result.ov.eigenvalue_score == pytest.approx(0.28, abs=0.02)
    assert result.ov.eigenvalue_score_centred == pytest.approx(0.59, abs=0.02)
    assert result.copying.percentile.value > 0.7


@pytest.mark.slow
@pytest.mark.model
def test_the_default_models_matching_circuit_hardly_turns_with_distance(induction_and_previous) -> None:
    """An induction head must find its token at any distance; a head that looks one back must not."""
    induction, previous = (result.profile for result in induction_and_previous)
    assert float((induction.directions[:, 0] / induction.directions[0, 0]).min()) > 0.99
    assert float((previous.directions[:5, 0] / previous.directions[0, 0]).min()) < 0.6

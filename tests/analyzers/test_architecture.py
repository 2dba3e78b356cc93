"""Architecture: every parameter once, with the role that its effect in the model proves."""

import pytest
import torch

from interp.analyzers.architecture import ArchitectureResult, architecture
from interp.models.tensor_roles import PARTS, tensor_roles
from interp.results import load_result
from interp.runner.model import Model
from tiny_models import FAMILIES, VARIANTS, build


@pytest.mark.parametrize("name", [*FAMILIES, *(name for name in VARIANTS if name != "opt_post_norm")])
def test_every_parameter_is_there_once(family, name):
    model = family(name) if name in FAMILIES else Model(build(name))
    got = architecture(model)
    assert got.parameters == sum(p.numel() for p in model.hf.parameters())
    assert got.bytes == sum(p.numel() * p.element_size() for p in model.hf.parameters())
    assert [tensor.name for tensor in got.tensors] == [name for name, _ in model.hf.named_parameters()]
    assert sum(got.parts().values()) == got.parameters == sum(group.parameters for group in got.groups())
    assert {tensor.part for tensor in got.tensors} <= set(PARTS) - {"other"}
    assert sum(group.count for group in got.groups()) == len(got.tensors)


SITES = {
    "makes each head's query: what a token looks for": ("attn.q",),
    "makes the keys: what a token is found by": ("attn.k",),
    "makes the values: what is read from a token": ("attn.v",),
    "makes queries, keys and values in one map": ("attn.q", "attn.k", "attn.v"),
    "writes what the heads have read to the stream": ("attn_out",),
    "decides how far each hidden unit is open": ("mlp.pre",),
    "makes what each hidden unit lets through": ("mlp.pre_linear",),
    "makes the hidden units from the stream": ("mlp.pre",),
    "writes the hidden units to the stream": ("mlp_out",),
    "scores the experts for each token": ("mlp.router",),
}
"""The first sites that change when a tensor of this role does: earlier ones of the same layer do not."""


@pytest.mark.parametrize("name", ["gpt2", "llama", "mixtral", "phi"])
def test_a_role_is_what_a_change_shows(ids, name):
    """Doubling a tensor changes the sites of its role, and of those named here none that come before them."""
    model = Model(build(name))
    wanted = [
        f"{kind}@1" for kind in ("attn.q", "attn.k", "attn.v", "attn_out", "mlp.pre", "mlp.pre_linear", "mlp_out")
    ]
    wanted = [spec for spec in (*wanted, "mlp.router@1") if spec.partition("@")[0] in model.sites.available]
    before = model.run(ids, wanted).cache
    seen = set()
    for tensor in tensor_roles(model.hf, model.atlas):
        if tensor.layer != 1 or tensor.role not in SITES or not tensor.name.endswith("weight"):
            continue
        parameter = model.hf.get_parameter(tensor.name)
        with torch.no_grad():
            parameter.mul_(2)
        after = model.run(ids, wanted).cache
        with torch.no_grad():
            parameter.div_(2)
        changed = [spec.partition("@")[0] for spec in wanted if not torch.equal(before[spec], after[spec])]
        sites = SITES[tensor.role]
        assert set(sites) <= set(changed), tensor.name
        if sites[0].startswith("attn."):
            assert [kind for kind in changed if kind in ("attn.q", "attn.k", "attn.v")] == list(sites), tensor.name
        elif sites[0].startswith("mlp."):
            assert not {"attn_out", "attn.q"} & set(changed), tensor.name
        seen.add(tensor.role)
    assert len(seen) >= 4


def test_biases_norms_and_what_the_map_does_not_name(family):
    roles = {tensor.name: tensor for tensor in architecture(family("gpt2")).tensors}
    assert roles["transformer.h.1.attn.c_attn.bias"].role == "adds a constant to queries, keys and values"
    assert roles["transformer.wpe.weight"].part == "positions"
    assert "end is the token's logit" in roles["transformer.wte.weight"].role
    assert {name for name in roles if name.startswith("lm_head")} == set()  # tied: counted once
    sinks = {t.name: t for t in architecture(family("gpt_oss")).tensors}["model.layers.0.self_attn.sinks"]
    assert (sinks.part, sinks.role) == ("attention", "part of attention")
    phi = {t.name: t.role for t in architecture(family("phi")).tensors}
    assert phi["model.layers.0.input_layernorm.weight"] == "scales the stream that attention and the MLP read"
    hf = build("llama")
    model = Model(hf)
    hf.register_parameter("spare", torch.nn.Parameter(torch.zeros(3)))
    spare = architecture(model).tensors[0]
    assert (spare.name, spare.part, spare.role) == ("spare", "other", "not on the map of this model's parts")


def test_experts_are_counted(family):
    assert architecture(family("mixtral")).n_experts == (4, 4, 4)
    assert architecture(family("llama")).n_experts == (0, 0, 0)


def test_table_figure_and_round_trip(family, tmp_path):
    result = architecture(family("qwen2_moe"))
    frame = result.to_frame()
    assert int(frame["parameters"].sum()) == result.parameters
    assert result.figure().data[0].x == tuple(result.parts().values())
    result.save(tmp_path / "a.safetensors")
    again = load_result(tmp_path / "a.safetensors")
    assert isinstance(again, ArchitectureResult)
    assert again.to_json() == result.to_json()


@pytest.mark.model
def test_the_default_models_tensors_are_those_of_its_file(model):
    """The headers of the file, read without the model, hold the same tensors."""
    from interp.models.tables import tensor_table

    got = architecture(model)
    stored = tensor_table("smollm2-135m")
    assert got.parameters == sum(row.parameters for row in stored) == 134_515_008
    assert len(got.tensors) == len(stored)
    assert got.parts() == {"embedding": 49152 * 576, "attention": 26_542_080, "MLP": 79_626_240, "norm": 35_136}

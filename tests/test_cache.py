"""The captured tensors as a mapping."""

import pytest
import torch

from interp.cache import ActivationCache
from interp.errors import UsageError
from interp.sites import Site


def cache() -> ActivationCache:
    tensors = {Site("resid_post", layer): torch.full((1, 2, 3), float(layer)) for layer in (2, 0, 1)}
    return ActivationCache(
        {**tensors, Site("embed"): torch.ones(1, 2, 3), Site("attn.z", 1): torch.ones(1, 2, 4, 8)}, 3
    )


def test_lookup_by_every_name() -> None:
    found = cache()
    for key in ("resid_post@1", "blocks.1.hook_resid_post", Site("resid_post", 1), "resid_post@-2"):
        assert found[key] is found[Site("resid_post", 1)]
        assert key in found
    assert found["z@1"] is found["attn.z@1"]
    assert found["embed"] is found["hook_embed"]
    for absent in ("resid_post@7", "nothing", "attn.z@0", "resid_post", 5, None):
        assert absent not in found


def test_it_is_a_mapping_in_forward_order() -> None:
    found = cache()
    assert list(found) == [
        "hook_embed",
        "blocks.0.hook_resid_post",
        "blocks.1.attn.hook_z",
        "blocks.1.hook_resid_post",
        "blocks.2.hook_resid_post",
    ]
    assert len(found) == 5
    assert dict(found)["hook_embed"] is found["embed"]
    assert [site.name for site in found.sites] == list(found)
    assert found.layers("resid_post") == (0, 1, 2)
    assert found.layers("mlp_out") == ()


def test_a_missing_key_has_a_default() -> None:
    assert cache().get("blocks.1.hook_mlp_out") is None
    assert cache().get("no such thing", 3) == 3
    found = cache()
    assert found.get("embed") is found["embed"]


def test_stacking() -> None:
    stacked = cache().stack("resid_post")
    assert stacked.shape == (3, 1, 2, 3)
    assert stacked[:, 0, 0, 0].tolist() == [0.0, 1.0, 2.0]
    with pytest.raises(UsageError, match="was not captured; captured: embed, resid_post, attn.z"):
        cache().stack("mlp_out")


def test_errors_say_what_is_there() -> None:
    found = cache()
    with pytest.raises(
        UsageError, match=r"blocks.1.hook_mlp_out was not captured; captured: embed, resid_post, attn.z. Add it"
    ):
        found["mlp_out@1"]
    with pytest.raises(
        UsageError, match=r"names several sites; add the layer \('resid_post@5'\) or use stack\('resid_post'\)"
    ):
        found["resid_post"]
    with pytest.raises(UsageError, match="did you mean 'resid_post'"):
        found["resid_pots"]
    with pytest.raises(UsageError, match="captured: nothing"):
        ActivationCache({}, 3)["embed"]


def test_bytes_count_each_storage_once() -> None:
    shared = torch.zeros(1, 4, 6)
    found = ActivationCache({Site("attn.q", 0): shared[:, :, :3], Site("attn.k", 0): shared[:, :, 3:]}, 1)
    assert found.bytes == shared.nbytes
    assert repr(found) == "ActivationCache(2 tensors, 0.0 MB: attn.q, attn.k)"

"""MEMIT's share of a layer: what the MLP's output must become so that the stream moves as wanted."""

import pytest
import torch

from interp.editing.memit import value_change
from interp.models.atlas import module_at


def updates_of(model, generator):
    return torch.randn(model.atlas.d_model, 3, generator=generator)


@pytest.mark.parametrize("name", ["gpt2", "llama", "granite"])
def test_an_output_that_is_added_as_it_is_changes_by_the_update_over_its_scale(family, name: str) -> None:
    model, generator = family(name), torch.Generator().manual_seed(0)
    values, updates = updates_of(model, generator), updates_of(model, generator)
    change = value_change(model, 1, values, updates)
    torch.testing.assert_close(change * model.atlas.blocks[1].mlp_scale, updates)


@pytest.mark.parametrize("name", ["gemma2", "olmo2", "gemma3_text", "glm4"])
def test_behind_a_norm_the_output_points_where_the_update_wants_it(family, name: str) -> None:
    model, generator = family(name), torch.Generator().manual_seed(0)
    norm = module_at(model.hf, model.atlas.blocks[1].ln2_post)
    values, updates = updates_of(model, generator), 0.3 * updates_of(model, generator)
    with torch.no_grad():
        wanted = (norm(values.T) + updates.T).detach()
        found = norm((values + value_change(model, 1, values, updates)).T)
    torch.testing.assert_close(torch.cosine_similarity(found, wanted), torch.ones(3), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close((values + value_change(model, 1, values, updates)).norm(dim=0), values.norm(dim=0))

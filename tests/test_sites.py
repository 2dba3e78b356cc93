"""The grammar of site names: TransformerLens' names, short forms, layers, groups and patterns."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.errors import UsageError
from interp.sites import (
    ALIASES,
    GROUPS,
    KINDS,
    ORDER,
    Site,
    SiteKind,
    name_layers,
    parse_site,
    parse_sites,
    read_layer,
    read_layers,
)

N_LAYERS = 12
EVERY = {kind: tuple(range(N_LAYERS)) if info.per_layer else (None,) for kind, info in KINDS.items()}
LAYERED = sorted(kind for kind, info in KINDS.items() if info.per_layer)
SINGLE = sorted(kind for kind, info in KINDS.items() if not info.per_layer)


def parse(spec: object) -> tuple[Site, ...]:
    return parse_sites(spec, EVERY, N_LAYERS)


def test_the_names_are_those_of_transformer_lens() -> None:
    expected = {
        ("embed", None): "hook_embed",
        ("pos_embed", None): "hook_pos_embed",
        ("resid_pre", 3): "blocks.3.hook_resid_pre",
        ("resid_mid", 3): "blocks.3.hook_resid_mid",
        ("resid_post", 11): "blocks.11.hook_resid_post",
        ("attn_out", 3): "blocks.3.hook_attn_out",
        ("mlp_out", 3): "blocks.3.hook_mlp_out",
        ("ln1.scale", 3): "blocks.3.ln1.hook_scale",
        ("ln2.normalized", 3): "blocks.3.ln2.hook_normalized",
        ("attn.q", 3): "blocks.3.attn.hook_q",
        ("attn.rot_k", 3): "blocks.3.attn.hook_rot_k",
        ("attn.scores", 3): "blocks.3.attn.hook_attn_scores",
        ("attn.pattern", 3): "blocks.3.attn.hook_pattern",
        ("attn.z", 3): "blocks.3.attn.hook_z",
        ("attn.result", 3): "blocks.3.attn.hook_result",
        ("mlp.pre", 3): "blocks.3.mlp.hook_pre",
        ("mlp.pre_linear", 3): "blocks.3.mlp.hook_pre_linear",
        ("mlp.post", 3): "blocks.3.mlp.hook_post",
        ("ln_final.scale", None): "ln_final.hook_scale",
        ("ln_final.normalized", None): "ln_final.hook_normalized",
    }
    assert {(kind, layer): Site(kind, layer).name for kind, layer in expected} == expected
    assert len({kind.hook for kind in KINDS.values()}) == len(KINDS)


@given(st.sampled_from(LAYERED), st.integers(-N_LAYERS, N_LAYERS - 1))
def test_every_way_to_write_a_site_is_the_same_site(kind: str, layer: int) -> None:
    site = Site(kind, layer % N_LAYERS)
    assert parse(f"{kind}@{layer}") == (site,)
    assert parse(site.name) == (site,)
    assert parse(site) == (site,)
    assert parse(f"  {kind}@{layer} ") == (site,)
    assert parse(KINDS[kind].hook.format(layer)) == (site,)
    assert str(site) == site.name
    for alias, target in ALIASES.items():
        if target == kind:
            assert parse(f"{alias}@{layer}") == (site,)
    assert parse_site(site.name, EVERY, N_LAYERS) == site


@given(st.sampled_from(SINGLE))
def test_sites_without_layers(kind: str) -> None:
    assert parse(kind) == parse(Site(kind)) == parse(KINDS[kind].hook) == (Site(kind),)


@given(
    st.lists(st.tuples(st.integers(0, N_LAYERS - 1), st.integers(0, N_LAYERS - 1)).map(sorted), min_size=1, max_size=4)
)
def test_lists_and_ranges_of_layers(parts: list[list[int]]) -> None:
    text = ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in parts)
    wanted = {layer for a, b in parts for layer in range(a, b + 1)}
    assert set(read_layers(text, N_LAYERS)) == wanted
    assert parse(f"attn.z@{text}") == tuple(Site("attn.z", layer) for layer in sorted(wanted))
    negative = ",".join(f"{a - N_LAYERS}" if a == b else f"{a - N_LAYERS}-{b - N_LAYERS}" for a, b in parts)
    assert set(read_layers(negative, N_LAYERS)) == wanted


@given(st.lists(st.sampled_from([f"{kind}@{layer}" for kind in LAYERED for layer in (0, 5, 11)] + SINGLE), max_size=8))
def test_many_specs_give_each_site_once_in_forward_order(specs: list[str]) -> None:
    found = parse(specs)
    assert len(set(found)) == len(found)
    assert list(found) == sorted(found, key=lambda site: site.order)
    assert {site for spec in specs for site in parse(spec)} == set(found)
    assert parse(reversed(specs)) == found


def test_forward_order() -> None:
    found = parse(["ln_final", "resid_post@1", "embed", "resid_pre@2", "attn.z@1", "pos_embed", "resid_pre@1"])
    assert [site.name for site in found] == [
        "hook_embed",
        "hook_pos_embed",
        "blocks.1.hook_resid_pre",
        "blocks.1.attn.hook_z",
        "blocks.1.hook_resid_post",
        "blocks.2.hook_resid_pre",
        "ln_final.hook_normalized",
    ]
    assert list(ORDER) == list(KINDS)


def test_open_layers_groups_and_patterns() -> None:
    assert len(parse("resid_post")) == N_LAYERS
    assert len(parse("blocks.*.hook_resid_post")) == N_LAYERS
    assert {site.kind for site in parse("resid")} == set(GROUPS["resid"])
    assert {site.kind for site in parse("all")} == set(KINDS) - {"attn.result", "attn.scores"}
    assert {site.kind for site in parse("*")} == set(KINDS)
    assert {site.kind for site in parse("ln?.scale@3")} == {"ln1.scale", "ln2.scale"}
    assert {site.kind for site in parse("attn.*")} == {kind for kind in KINDS if kind.startswith("attn.")}
    assert {site.layer for site in parse("attn.*@2,4")} == {2, 4}
    assert parse([]) == ()


def test_axes_of_a_kind() -> None:
    assert (KINDS["resid_post"].position_axis, KINDS["resid_post"].head_axis) == (1, None)
    assert (KINDS["attn.z"].position_axis, KINDS["attn.z"].head_axis) == (1, 2)
    assert (KINDS["attn.k"].position_axis, KINDS["attn.k"].head_axis) == (1, 2)
    assert (KINDS["attn.pattern"].position_axis, KINDS["attn.pattern"].head_axis) == (2, 1)
    assert all(isinstance(kind, SiteKind) and kind.meaning for kind in KINDS.values())


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("resid_pots", "unknown site 'resid_pots' (did you mean 'resid_post'?); valid: embed, pos_embed"),
        ("blocks.5.attn.hook_patern", "unknown site 'blocks.5.attn.hook_patern'"),
        ("", "unknown site ''"),
        ("@3", "unknown site ''"),
        ("resid_post@12", "layer 12 is out of range; valid: 0 to 11 (or -12 to -1 from the end)"),
        ("resid_post@-13", "layer -13 is out of range"),
        ("blocks.12.hook_resid_post", "layer 12 is out of range"),
        ("resid_post@", "cannot read the layers ''; write 5 or 5,7 or 0-4 or -1"),
        ("resid_post@x", "cannot read the layers 'x'"),
        ("resid_post@1,,2", "cannot read the layers '1,,2'"),
        ("resid_post@4-2", "the layers '4-2' run backwards; write 2-4"),
        ("blocks.3.hook_resid_post@4", "gives the layer twice; write resid_post@4"),
        ("nothing*", "unknown site 'nothing*'"),
    ],
)
def test_a_bad_spec_says_what_is_valid(spec: str, words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)) as caught:
        parse(spec)
    assert "\n" not in str(caught.value)


def test_a_site_that_this_model_lacks() -> None:
    some = {"resid_pre": (0, 1), "mlp.post": (1,), "embed": (None,)}
    with pytest.raises(UsageError, match=r"no site 'attn.z'; it has: resid_pre, mlp.post, embed"):
        parse_sites("attn.z", some, 2)
    with pytest.raises(UsageError, match=r"no site 'mlp.post' in layer 0; it has"):
        parse_sites("mlp.post@0", some, 2)
    with pytest.raises(UsageError, match=r"no site of this model matches 'ln\*'"):
        parse_sites("ln*", some, 2)
    assert parse_sites("mlp.post", some, 2) == (Site("mlp.post", 1),)
    assert parse_sites("all", some, 2) == (
        Site("embed"),
        Site("resid_pre", 0),
        Site("resid_pre", 1),
        Site("mlp.post", 1),
    )


def test_sites_check_themselves() -> None:
    with pytest.raises(UsageError, match="needs a layer"):
        Site("resid_post")
    with pytest.raises(UsageError, match="has no layer"):
        Site("embed", 0)
    with pytest.raises(UsageError, match="did you mean 'attn.z'"):
        Site("atn.z", 0)
    with pytest.raises(
        UsageError, match=r"'resid_post' names 12 sites, one is needed; add the layer, such as 'resid_post@5'"
    ):
        parse_site("resid_post", EVERY, N_LAYERS)


@given(st.integers(), st.integers(1, 200))
def test_a_layer_is_read_or_refused(layer: int, n_layers: int) -> None:
    if -n_layers <= layer < n_layers:
        assert read_layer(layer, n_layers) == list(range(n_layers))[layer]
    else:
        with pytest.raises(UsageError, match=f"valid: 0 to {n_layers - 1}"):
            read_layer(layer, n_layers)


# Pieces of the grammar in any order, beside any text at all: most are nearly a site.
PIECES = (
    *KINDS,
    *GROUPS,
    *ALIASES,
    *"@-,.*[]0123 ",
    "blocks.",
    "hook_",
    "5",
    "11",
    "12",
    "-1",
    "0-4",
    "9" * 5000,
    "١",
    "\n",
    "\x00",
)
GARBAGE = st.one_of(st.text(max_size=30), st.lists(st.sampled_from(PIECES), max_size=6).map("".join))


@settings(max_examples=150)
@given(GARBAGE)
def test_any_text_is_a_site_or_one_line_of_error_with_what_is_valid(spec: str) -> None:
    try:
        found = parse(spec)
    except UsageError as error:
        words = str(error)
        assert any(part in words for part in ("valid: ", "write ", "it has: ", "needs a layer", "has no layer"))
    else:
        assert found
        assert parse([site.name for site in found]) == found
        assert parse([str(site) for site in found]) == found
        return
    assert len(words.splitlines()) == 1


@given(GARBAGE)
def test_any_text_is_layers_or_one_line_of_error(text: str) -> None:
    try:
        found = read_layers(text, N_LAYERS)
    except UsageError as error:
        words = str(error)
    else:
        assert set(found) <= set(range(N_LAYERS))
        assert read_layers(name_layers(sorted(found)), N_LAYERS) == tuple(sorted(found))
        return
    assert len(words.splitlines()) == 1

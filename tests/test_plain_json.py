"""Results as plain JSON and back: the same result, and a clear error for what is none."""

import json
import math

import pytest
import torch
from torch.testing import assert_close

import interp
from interp.errors import ModelError
from interp.plain_json import from_plain, plain
from interp.results import load_result
from report import samples

KINDS = [
    *samples.all_results(layers=3),
    samples.attention(),
    samples.attention(exact=False),
    samples.causal_trace(layers=3),
    samples.generation(),
]


def through_json(result, path):
    path.write_text(json.dumps(result.to_json(), allow_nan=False), encoding="utf-8")
    return interp.load_result(path)


@pytest.mark.parametrize("result", KINDS, ids=lambda result: result.kind)
def test_a_result_comes_back_from_its_json(result, tmp_path) -> None:
    again = through_json(result, tmp_path / "result.json")
    assert type(again) is type(result)
    assert again.to_json() == result.to_json()
    for name, values in vars(result).items():
        if isinstance(values, torch.Tensor):
            assert_close(getattr(again, name), values.to(getattr(again, name).dtype), equal_nan=True, rtol=0, atol=0)


def test_what_a_command_prints_is_read_as_well(tmp_path) -> None:
    path = tmp_path / "printed.json"
    path.write_text(json.dumps({"schema_version": 1, "command": "lens", "result": samples.lens(layers=2).to_json()}))
    assert load_result(path).kind == "logit_lens"


def test_null_is_nan_in_tensors_and_numbers(tmp_path) -> None:
    lens = samples.lens(layers=2)
    lens.kl_nats[0, 0], lens.kl_nats[1, 1] = math.nan, math.inf
    again = through_json(lens, tmp_path / "lens.json")
    assert again.kl_nats.dtype == torch.float32
    assert again.kl_nats[0, 0].isnan()
    assert again.kl_nats[1, 1].isnan()
    trace = samples.causal_trace(layers=2, noise=math.nan)
    assert math.isnan(through_json(trace, tmp_path / "trace.json").noise)


def test_digits_decide_the_precision() -> None:
    story = samples.story(layers=1)
    wide = samples.story(layers=1, embed_norm=story.embed_norm.double() / 3)
    fields = {name: value for name, value in wide.to_json().items() if name not in ("kind", "schema_version")}
    again = from_plain(type(wide), json.loads(json.dumps(fields)))
    assert again.embed_norm.dtype == torch.float64
    assert torch.equal(again.embed_norm, wide.embed_norm)
    assert again.stream_norm.dtype == torch.float32


def test_bfloat16_is_written_as_the_number_it_is() -> None:
    assert plain(torch.tensor([0.1], dtype=torch.bfloat16)) == pytest.approx([0.1 + 0.00009765625], rel=1e-7)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not a readable result file"),
        ("[1]", "JSON but not a saved result"),
        ('{"a": 1}', "JSON but not a saved result"),
        ('{"kind": "nothing", "schema_version": 1}', "unknown kind 'nothing'"),
        ('{"kind": "logit_lens", "schema_version": 99}', "upgrade interp"),
        ('{"kind": "logit_lens", "schema_version": 1, "tokens": 3}', "needs the fields"),
    ],
)
def test_what_is_no_result_is_named(tmp_path, text: str, said: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ModelError, match="x.json") as raised:
        interp.load_result(path)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tuned", 1),
        ("sites", "x"),
        ("positions", [1.5]),
        ("kl_nats", [[1.0], [1.0, 2.0]]),
        ("kl_nats", [1.0]),
        ("vocabulary", []),
    ],
)
def test_a_field_of_another_type_is_named(tmp_path, field: str, value) -> None:
    found = samples.lens(layers=2).to_json() | {field: value}
    path = tmp_path / "x.json"
    path.write_text(json.dumps(found))
    with pytest.raises(ModelError, match=f"field '{field}'"):
        load_result(path)

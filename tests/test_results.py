"""Results: what is saved is what is loaded, the same result gives the same bytes, and no bad file gets through."""

import json
import pickle
import subprocess
import sys
from dataclasses import FrozenInstanceError, dataclass, fields
from typing import Any, ClassVar

import pytest
import torch
from jaxtyping import Float, Int
from safetensors.torch import save_file
from torch import Tensor
from torch.testing import assert_close

from interp.errors import ModelError, UsageError
from interp.results import Estimate, Provenance, Result, load_result, registered_kinds
from interp.tokens import Tokens

PROVENANCE = Provenance(
    model="tiny",
    weights_sha256=None,
    architecture="LlamaForCausalLM",
    dtype="float32",
    device="cpu",
    threads=1,
    seed=3,
    command=None,
    created="2026-01-02T03:04:05Z",
    versions={"torch": "2.13.0"},
    attention="sdpa",
)
TOKENS = Tokens(text="a \u202e<s>", ids=(1, 2), pieces=("a", " \u202e<s>"), spans=((0, 1), None))


@dataclass(frozen=True, kw_only=True, eq=False)
class Everything(Result):
    kind: ClassVar[str] = "test_everything"
    schema_version: ClassVar[int] = 2
    tokens: Tokens
    values: Float[Tensor, "layer pos"]
    ids: Int[Tensor, "pos k"]
    scores: dict[str, Estimate]
    parts: tuple[Tensor, ...]
    pairs: tuple[tuple[str, float], ...]
    note: str | None = None
    loss: float = 1.0

    def to_frame(self):
        raise NotImplementedError

    def figure(self):
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True, eq=False)
class Other(Everything):
    kind: ClassVar[str] = "test_other"


def everything(cls: type[Everything] = Everything, **changes: Any) -> Everything:
    both = torch.arange(6.0).reshape(2, 3)
    values: dict[str, Any] = {
        "provenance": PROVENANCE,
        "tokens": TOKENS,
        "values": torch.tensor([[0.1, float("nan")], [float("inf"), -1e-30]]),
        "ids": torch.tensor([[1, 2], [3, 2**40]]),
        "scores": {
            "b": Estimate(value=0.5, lower=0.25, upper=0.75, n=10),
            "a": Estimate(value=0.0, lower=0.0, upper=0.0, n=1),
        },
        "parts": (both[0], both[1], both),
        "pairs": (("x", 1.5), ("y", float("-inf"))),
    }
    return cls(**(values | changes))


@dataclass(frozen=True, kw_only=True, eq=False)
class Sized(Everything):
    kind: ClassVar[str] = "test_sized"
    several: tuple[Float[Tensor, " pos"], ...]


def rewrite(source, target, change) -> None:
    """The saved result at ``source``, its header changed by ``change``, written to ``target``."""
    from safetensors import safe_open

    with safe_open(source, "pt") as file:
        header = json.loads(file.metadata()["interp_result"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(header)
    save_file(tensors, target, {"interp_result": json.dumps(header)})


def test_what_is_saved_is_what_is_loaded(tmp_path):
    result = everything()
    result.save(tmp_path / "r.safetensors")
    loaded = load_result(tmp_path / "r.safetensors")
    assert type(loaded) is Everything
    for field in fields(result):
        before, after = getattr(result, field.name), getattr(loaded, field.name)
        if field.name in ("values", "ids", "parts"):
            assert_close(after, before, rtol=0, atol=0, equal_nan=True)
        else:
            assert after == before, field.name
    assert isinstance(Everything.load(tmp_path / "r.safetensors"), Everything)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_precision_survives(tmp_path, dtype):
    values = torch.tensor([[1 / 3, -0.0]], dtype=dtype)
    everything(values=values).save(tmp_path / "r")
    loaded = Everything.load(tmp_path / "r").values
    assert loaded.dtype == dtype
    assert torch.equal(loaded, values)


def test_same_result_same_bytes(tmp_path):
    everything().save(tmp_path / "one")
    everything().save(tmp_path / "two")
    load_result(tmp_path / "one").save(tmp_path / "three")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes() == (tmp_path / "three").read_bytes()


def test_json_is_strict_and_complete():
    plain = everything().to_json()
    text = json.dumps(plain, allow_nan=False)
    assert json.loads(text) == plain
    assert plain["kind"] == "test_everything"
    assert plain["schema_version"] == 2
    assert plain["provenance"]["versions"] == {"torch": "2.13.0"}
    assert plain["values"] == [[0.1, None], [None, -1e-30]]
    assert plain["ids"] == [[1, 2], [3, 2**40]]
    assert plain["pairs"] == [["x", 1.5], ["y", None]]
    assert plain["tokens"]["spans"] == [[0, 1], None]


def test_bfloat16_in_json():
    assert everything(values=torch.tensor([[0.5]], dtype=torch.bfloat16)).to_json()["values"] == [[0.5]]


def test_results_are_frozen():
    with pytest.raises(FrozenInstanceError):
        everything().note = "changed"


def test_registry_names_the_classes():
    assert registered_kinds()["test_everything"] is Everything


def test_a_kind_is_taken_once():
    with pytest.raises(AssertionError, match="test_everything"):

        class Twice(Everything):
            kind: ClassVar[str] = "test_everything"


def test_unknown_content_is_refused(tmp_path):
    result = everything()
    object.__setattr__(result, "note", object())
    with pytest.raises(TypeError, match="object"):
        result.save(tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_saving_where_there_is_no_folder(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        everything().save(tmp_path / "none" / "r")


def _swap(header, key, value):
    header["fields"][key] = value


CHANGES = {
    "unknown kind": (lambda h: h.update(kind="x"), "unknown kind 'x'.*test_everything"),
    "kind is no text": (lambda h: h.update(kind=[1]), "unknown kind"),
    "newer": (lambda h: h.update(schema_version=3), "version 3, this interp reads 2; upgrade interp"),
    "older": (lambda h: h.update(schema_version=1), "version 1.*make the result again"),
    "version is no number": (lambda h: h.update(schema_version="x"), "make the result again"),
    "no fields": (lambda h: h.pop("fields"), "not the JSON of a result"),
    "missing field": (lambda h: h["fields"].pop("note"), "needs the fields"),
    "extra field": (lambda h: _swap(h, "more", 1), "needs the fields"),
    "wrong type": (lambda h: _swap(h, "note", 3), "'note' of Everything is not"),
    "text for a number": (lambda h: _swap(h, "loss", "1"), "'loss' of Everything is not"),
    "missing tensor": (lambda h: _swap(h, "values", {"$tensor": "absent"}), "absent"),
    "tensor of other rank": (lambda h: _swap(h, "values", {"$tensor": "parts.0"}), "'values' of Everything is not"),
    "tensor of other type": (lambda h: _swap(h, "ids", {"$tensor": "values"}), "'ids' of Everything is not"),
    "foreign class": (lambda h: _swap(h, "tokens", {"$dataclass": "Popen"}), "Popen"),
    "wrong class": (lambda h: h["fields"]["scores"].update(a={"$dataclass": "Tokens"}), "Tokens needs the fields"),
    "bad inside": (lambda h: h["fields"]["tokens"].update(ids=["x"]), "'ids' of Tokens is not"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_header_is_one_clear_error(tmp_path, name):
    change, message = CHANGES[name]
    everything().save(tmp_path / "good")
    rewrite(tmp_path / "good", tmp_path / "bad", change)
    with pytest.raises(ModelError, match=message) as caught:
        load_result(tmp_path / "bad")
    assert "bad" in str(caught.value)
    assert "\n" not in str(caught.value)


CONTENTS = {
    "empty": b"",
    "text": b"hello",
    "html": b"<!doctype html><html>",
    "pickle": pickle.dumps({"a": 1}),
    "huge header": b"\xff" * 64,
    "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
}


@pytest.mark.parametrize("name", CONTENTS)
def test_other_files_are_one_clear_error(tmp_path, name):
    (tmp_path / "file").write_bytes(CONTENTS[name])
    with pytest.raises(ModelError, match="file is not a readable result file") as caught:
        load_result(tmp_path / "file")
    assert "\n" not in str(caught.value)


def test_a_truncated_file(tmp_path):
    everything().save(tmp_path / "r")
    whole = (tmp_path / "r").read_bytes()
    for length in range(0, len(whole), 97):
        (tmp_path / "part").write_bytes(whole[:length])
        with pytest.raises(ModelError):
            load_result(tmp_path / "part")


def test_no_file_and_no_result(tmp_path):
    with pytest.raises(ModelError, match="there is no file"):
        load_result(tmp_path / "absent")
    with pytest.raises(ModelError, match="there is no file"):
        load_result(tmp_path)
    save_file({"w": torch.zeros(1)}, tmp_path / "weights")
    with pytest.raises(ModelError, match="not a saved result"):
        load_result(tmp_path / "weights")


def test_loading_as_another_class(tmp_path):
    everything().save(tmp_path / "r")
    with pytest.raises(ModelError, match="'test_everything' result, not 'test_other'"):
        Other.load(tmp_path / "r")


@pytest.mark.long
def test_import_is_light():
    code = "import sys, interp.results; print([m for m in ('pandas', 'plotly', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_sizes_of_axes_agree_where_they_have_one_name(tmp_path) -> None:
    path = tmp_path / "sized.safetensors"
    several = (torch.ones(2), torch.ones(5))  # each of several has sizes of its own
    everything(Sized, several=several).save(path)
    assert_close(list(load_result(path).several), list(several))
    everything(Sized, several=several, ids=torch.ones(3, 2, dtype=torch.int64)).save(path)
    with pytest.raises(ModelError, match="the axis pos of Sized has [23] entries, and [23] in '(ids|values)'"):
        load_result(path)

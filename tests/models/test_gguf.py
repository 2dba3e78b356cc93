"""GGUF: its header read without weights, its damage named, its conversion exact, cached once and safe under concurrency."""

import json
import multiprocessing
import struct
from contextlib import suppress
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf.constants import GGML_QUANT_SIZES
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from interp.errors import ModelError
from interp.models.cache import file_sha256
from interp.models.convert import converted, converted_folder
from interp.models.gguf import QUANT_TYPES, read_gguf_header
from interp.models.loading import load_parts
from interp.models.progress import silent

D, F, V, LAYERS, HEADS = 32, 64, 40, 2, 4


def write_gguf(
    path: Path, *, architecture: str = "llama", pre: str = "smollm", broken: str = ""
) -> dict[str, np.ndarray]:
    """A Llama of two layers, matrices as Q4_1, with a byte-level tokenizer. Gives the values each tensor should have."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("tiny")
    writer.add_license("mit")
    writer.add_context_length(64)
    writer.add_embedding_length(D)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(F)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(D // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(V)
    pieces = ["<|endoftext|>", "Ġ", "Ċ", *"0123456789abcdefghijklmnopqrstuvwxyz"]
    pieces += ["ĠĠ"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(pieces)
    writer.add_token_types([gguf.TokenType.CONTROL, *[gguf.TokenType.NORMAL] * (len(pieces) - 1)])
    writer.add_token_merges(["Ġ Ġ"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(False)
    expected = _add_tensors(writer, broken)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return expected


def _add_tensors(writer: gguf.GGUFWriter, broken: str) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    shapes = {"token_embd.weight": (V, D), "output_norm.weight": (D,)}
    for layer in range(LAYERS):
        shapes |= {f"blk.{layer}.{name}.weight": (D,) for name in ("attn_norm", "ffn_norm")}
        shapes |= {f"blk.{layer}.attn_{name}.weight": (D, D) for name in ("q", "k", "v", "output")}
        shapes |= {f"blk.{layer}.ffn_{name}.weight": (F, D) for name in ("gate", "up")}
        shapes |= {f"blk.{layer}.ffn_down.weight": (D, F)}
    expected = {}
    for name, shape in shapes.items():
        values = random.normal(size=shape).astype(np.float32)
        if name == broken:
            values[..., 0] = np.nan
        if len(shape) == 1 or name == broken:
            writer.add_tensor(name, values)
            expected[name] = values
            continue
        kind = gguf.GGMLQuantizationType.Q4_1
        packed = gguf.quants.quantize(values, kind)
        writer.add_tensor(name, packed, raw_dtype=kind)
        expected[name] = gguf.quants.dequantize(packed, kind)
    return expected


@pytest.fixture
def tiny_gguf(tmp_path) -> Path:
    path = tmp_path / "tiny.gguf"
    write_gguf(path)
    return path


def test_quantisation_table_equals_the_gguf_package() -> None:
    known = {kind.value: sizes for kind, sizes in GGML_QUANT_SIZES.items() if kind.value in QUANT_TYPES}
    assert known == {kind: sizes[1:] for kind, sizes in QUANT_TYPES.items()}


def test_header_equals_the_gguf_package(tiny_gguf) -> None:
    ours = read_gguf_header(tiny_gguf)
    theirs = gguf.GGUFReader(tiny_gguf)
    assert [(info.name, info.shape, info.bytes) for info in ours.tensors] == [
        (tensor.name, tuple(int(size) for size in reversed(tensor.shape)), tensor.n_bytes) for tensor in theirs.tensors
    ]
    assert {info.dtype for info in ours.tensors} == {"float32", "Q4_1"}
    assert ours.text("general.architecture") == "llama"
    assert ours.metadata["llama.block_count"] == LAYERS
    assert ours.text("llama.block_count") is None  # a number is no text


def damaged(path: Path, at: int, code: str, value: int) -> Path:
    content = bytearray(path.read_bytes())
    struct.pack_into(f"<{code}", content, at, value)
    path.write_bytes(content)
    return path


def test_damage_is_named(tiny_gguf, tmp_path) -> None:
    whole = tiny_gguf.read_bytes()
    cases = {
        "0 bytes": b"",
        "truncated: it ends inside its header": whole[:300],
        "truncated: tensor": whole[:-64],
        "begin with 'GGUF'": b"GGML" + whole[4:],
        "format version is 99": whole[:4] + (99).to_bytes(4, "little") + whole[8:],
        "big-endian": whole[:4] + (3).to_bytes(4, "big") + whole[8:],
        "counts more tensors": whole[:8] + (1 << 50).to_bytes(8, "little") + whole[16:],
        "Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\n",
        "web page": b"<html></html>",
    }
    for expected, content in cases.items():
        path = tmp_path / "damaged.gguf"
        path.write_bytes(content)
        with pytest.raises(ModelError, match=expected) as caught:
            read_gguf_header(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_overlap_and_unknown_type_are_named(tiny_gguf) -> None:
    whole = tiny_gguf.read_bytes()
    at = whole.index(b"output_norm.weight") + len("output_norm.weight")  # n_dims, one size, type, offset follow
    damaged(tiny_gguf, at + 4 + 8, "I", 77)
    with pytest.raises(ModelError, match=r"'output_norm.weight' has the unknown GGUF type 77"):
        read_gguf_header(tiny_gguf)
    tiny_gguf.write_bytes(whole)
    damaged(tiny_gguf, at + 4 + 8 + 4, "Q", 0)
    with pytest.raises(ModelError, match="overlaps"):
        read_gguf_header(tiny_gguf)


@given(cut=st.integers(0, 100_000))
def test_a_cut_file_is_always_refused(tmp_path_factory, cut) -> None:
    path = tmp_path_factory.mktemp("cut") / "tiny.gguf"
    write_gguf(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: cut % len(whole)])
    with pytest.raises(ModelError):
        read_gguf_header(path)


@given(places=st.lists(st.tuples(st.integers(4, 2000), st.integers(0, 255)), min_size=1, max_size=5))
def test_flipped_bytes_never_raise_anything_else(tmp_path_factory, places) -> None:
    path = tmp_path_factory.mktemp("flipped") / "tiny.gguf"
    write_gguf(path)
    content = bytearray(path.read_bytes())
    for at, value in places:
        content[at] = value
    path.write_bytes(content)
    with suppress(ModelError):
        read_gguf_header(path)


def test_conversion_is_exact_and_done_once(tiny_gguf, tmp_path, empty_cache, capfd) -> None:
    expected = write_gguf(tiny_gguf)
    seen = []
    parts = load_parts(
        str(tiny_gguf), device="cpu", progress=lambda what, done, total: seen.append((what, done, total))
    )
    assert capfd.readouterr() == ("", "")
    saved = load_file(parts.source.path / "model.safetensors")
    for ours, theirs in {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.layers.1.mlp.down_proj.weight": "blk.1.ffn_down.weight",
        "model.layers.0.self_attn.v_proj.weight": "blk.0.attn_v.weight",
        "model.norm.weight": "output_norm.weight",
    }.items():
        assert torch.equal(saved[ours], torch.from_numpy(expected[theirs]))
    assert torch.equal(parts.hf.get_input_embeddings().weight, saved["model.embed_tokens.weight"])
    assert not hasattr(parts.hf.config, "quantization_config")
    assert parts.source.format == "gguf"
    assert parts.source.licence == "mit"
    assert ("converting tiny.gguf", 0) in [step[:2] for step in seen]
    assert seen[-1][1] == seen[-1][2]

    stamp = (parts.source.path / "model.safetensors").stat()
    again: list[str] = []
    load_parts(str(tiny_gguf), device="cpu", progress=lambda what, done, total: again.append(what))
    assert (parts.source.path / "model.safetensors").stat() == stamp
    assert again == []
    assert stamp.st_mode & 0o777 == 0o666 & ~_umask()
    assert [path.name for path in (empty_cache / "converted").iterdir()] == [parts.source.path.name]


def _umask() -> int:
    import os

    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def test_weights_sha256_is_the_files(tiny_gguf, empty_cache) -> None:
    import hashlib

    parts = load_parts(str(tiny_gguf), device="cpu", progress=silent)
    assert parts.source.weights_sha256 == hashlib.sha256(tiny_gguf.read_bytes()).hexdigest()


def test_digits_are_single_tokens_where_the_file_says_so(tmp_path, empty_cache) -> None:
    """A blank before a digit stands alone under SmolLM's pre-tokenizer and joins the blank before it otherwise."""
    write_gguf(tmp_path / "smollm.gguf")
    tokenizer = load_parts(str(tmp_path / "smollm.gguf"), device="cpu", progress=silent).tokenizer
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("a  1")) == ["a", "ĠĠ", "1"]
    write_gguf(tmp_path / "gpt2.gguf", pre="gpt-2")
    tokenizer = load_parts(str(tmp_path / "gpt2.gguf"), device="cpu", progress=silent).tokenizer
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("a  1")) == ["a", "Ġ", "Ġ", "1"]


def test_files_beside_it_are_not_used(tiny_gguf, empty_cache) -> None:
    (tiny_gguf.parent / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_layer": 7}))
    (tiny_gguf.parent / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "elsewhere"}))
    parts = load_parts(str(tiny_gguf), device="cpu", progress=silent)
    assert parts.hf.config.num_hidden_layers == LAYERS


def test_nan_in_a_gguf_file_is_named(tmp_path, empty_cache) -> None:
    from interp.errors import NumericsError

    write_gguf(tmp_path / "nan.gguf", broken="blk.1.ffn_up.weight")
    with pytest.raises(NumericsError, match=r"model.layers.1.mlp.up_proj.weight \(64 NaN, 0 infinite\)"):
        load_parts(str(tmp_path / "nan.gguf"), device="cpu", progress=silent)


def test_unknown_architecture_is_named_and_leaves_nothing(tmp_path, empty_cache) -> None:
    write_gguf(tmp_path / "odd.gguf", architecture="oddball")
    with pytest.raises(ModelError, match="architecture 'oddball'") as caught:
        load_parts(str(tmp_path / "odd.gguf"), device="cpu", progress=silent)
    assert "\n" not in str(caught.value)
    assert list((empty_cache / "converted").iterdir()) == []


def _convert(path: str) -> str:
    return str(converted(Path(path), silent))


@pytest.mark.slow
def test_processes_at_once_make_one_copy(tiny_gguf, empty_cache) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        folders = pool.map(_convert, [str(tiny_gguf)] * 3)
    assert len(set(folders)) == 1
    assert [path.name for path in (empty_cache / "converted").iterdir()] == [Path(folders[0]).name]
    assert load_file(Path(folders[0]) / "model.safetensors")


def test_an_interrupted_conversion_leaves_nothing(tiny_gguf, empty_cache) -> None:
    def interrupt(what: str, done: int, total: int | None) -> None:
        if what.startswith("converting") and done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        converted(tiny_gguf, interrupt)
    assert list((empty_cache / "converted").iterdir()) == []
    assert converted(tiny_gguf, silent).is_dir()


def test_a_damaged_conversion_says_how_to_mend_it(tiny_gguf, empty_cache) -> None:
    folder = converted(tiny_gguf, silent)
    assert folder == converted_folder(folder.name.split("-")[0])
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(ModelError, match=f"truncated.*remove {folder}, which is made again"):
        load_parts(str(tiny_gguf), device="cpu", progress=silent)


def test_a_missing_tensor_is_named_and_never_made_up(tiny_gguf, empty_cache) -> None:
    """transformers draws what is missing at random and says nothing."""
    content = tiny_gguf.read_bytes()
    tiny_gguf.write_bytes(content.replace(b"blk.1.attn_q.weight", b"blk.1.attn_x.weight"))
    with pytest.raises(ModelError, match=r"missing: model\.layers\.1\.self_attn\.q_proj\.weight") as caught:
        converted(tiny_gguf, silent)
    assert str(tiny_gguf) in str(caught.value)
    assert not list((empty_cache / "converted").iterdir())


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("llama.block_count", 1 << 30, "llama.block_count is 1073741824 and the file has tensors of 2 blocks"),
        ("llama.block_count", 1, "llama.block_count is 1 and the file has tensors of 2 blocks"),
        ("llama.embedding_length", 1 << 30, "llama.embedding_length is 1,073,741,824 and no tensor is longer than 64"),
        ("llama.rope.dimension_count", 1 << 31, "rope.dimension_count is 2,147,483,648 and no tensor is longer"),
    ],
)
def test_metadata_that_claim_more_than_there_is(tiny_gguf, empty_cache, key: str, value: int, said: str) -> None:
    at = tiny_gguf.read_bytes().index(key.encode()) + len(key) + 4
    with pytest.raises(ModelError, match=said):
        converted(damaged(tiny_gguf, at, "I", value), silent)
    assert not list((empty_cache / "converted").iterdir())


def test_what_a_killed_conversion_left_is_removed_by_the_next(tiny_gguf, empty_cache) -> None:
    parent = empty_cache / "converted"
    left = parent / f".{converted_folder(file_sha256(tiny_gguf)).name[:16]}.left"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half of it")
    folder = converted(tiny_gguf, silent)
    assert list(parent.iterdir()) == [folder]

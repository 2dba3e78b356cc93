"""Loading in another dtype than the file's, and how much memory loading takes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import tiny_models
from interp.models.loading import load_parts
from interp.models.reading import lazy_tensors

DTYPES = ("float32", "bfloat16", "float16")


@pytest.mark.parametrize("wanted", DTYPES)
@pytest.mark.parametrize("stored", DTYPES)
@pytest.mark.parametrize("family", ["llama", "gpt2", pytest.param("mixtral", marks=pytest.mark.slow)])
def test_weights_are_those_of_the_file_rounded_once(saved_model, tiny, family, stored, wanted) -> None:
    folder = saved_model(family)
    original = tiny(family).to(getattr(torch, stored))
    original.generation_config.max_new_tokens = 7
    original.save_pretrained(folder)
    found = load_parts(str(folder), device="cpu", dtype=wanted)
    for (name, ours), theirs in zip(found.hf.named_parameters(), original.parameters(), strict=True):
        assert torch.equal(ours, theirs.to(getattr(torch, wanted))), name
    for (name, ours), theirs in zip(found.hf.named_buffers(), original.buffers(), strict=True):
        assert torch.equal(ours, theirs.to(ours.dtype)) or "inv_freq" in name
    assert found.hf.generation_config.max_new_tokens == 7
    assert (lazy_tensors(folder, original.to(getattr(torch, wanted)), getattr(torch, wanted)) is None) == (
        stored == wanted
    )


def test_a_model_that_keeps_some_tensors_in_float32_is_left_to_transformers(saved_model) -> None:
    folder = saved_model()
    skeleton = tiny_models.build("llama").bfloat16()
    assert lazy_tensors(folder, skeleton, torch.bfloat16) is not None
    skeleton._keep_in_fp32_modules = ["norm"]
    assert lazy_tensors(folder, skeleton, torch.bfloat16) is None
    skeleton._keep_in_fp32_modules = None
    skeleton.register_buffer("table", torch.ones(3))
    assert lazy_tensors(folder, skeleton, torch.bfloat16) is None


CHILD = """
import sys, threading, time
import psutil, torch, transformers.models.llama.modeling_llama
from interp.models.loading import load_parts

me, peak, running = psutil.Process(), 0, True

def watch():
    global peak
    while running:
        peak = max(peak, me.memory_info().rss)
        time.sleep(0.001)

load_parts(sys.argv[2], device="cpu")  # what only the first loading takes
base = me.memory_info().rss
watcher = threading.Thread(target=watch, daemon=True)
watcher.start()
hf = load_parts(sys.argv[1], dtype=sys.argv[3], **eval(sys.argv[4])).hf
running = False
watcher.join()
print(peak - base, sum(parameter.nbytes for parameter in hf.parameters()))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stored", "wanted", "options", "most"),
    [
        ("float32", "float32", {"device": "cpu"}, 1.2),
        ("float32", "bfloat16", {"device": "cpu"}, 1.2),
        ("bfloat16", "float32", {"device": "cpu"}, 1.2),
        ("bfloat16", "bfloat16", {"device_map": "auto"}, 1.2),
        ("float32", "float32", {"device_map": {"": "disk"}}, 0.5),
    ],
)
def test_loading_never_holds_the_weights_twice(saved_model, tmp_path: Path, stored, wanted, options, most) -> None:
    """The greatest resident memory while loading, over that before it, in a process of its own; mapped files count."""
    folder, dtype = tmp_path / "large", getattr(torch, stored)
    layers = 320_000_000 // (getattr(torch, wanted).itemsize * 4 * (1024**2 + 3 * 1024 * 512))
    sizes = {"hidden_size": 1024, "intermediate_size": 2048, "num_hidden_layers": layers, "head_dim": 256}
    tiny_models.build("llama", **sizes).to(dtype).save_pretrained(folder, max_shard_size="100MB")
    small = saved_model()
    for path in small.glob("tokenizer*"):
        (folder / path.name).write_bytes(path.read_bytes())
    ended = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder), str(small), wanted, repr(options)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert ended.returncode == 0, ended.stderr
    taken, weights = map(int, ended.stdout.split())
    assert weights > 250_000_000, json.dumps({"weights": weights})
    assert taken <= most * weights, f"{taken / 1e6:.0f} MB for {weights / 1e6:.0f} MB of weights"

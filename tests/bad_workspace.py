"""A folder with good files of every kind that commands read, and damaged ones, made once for the tests of bad arguments."""

import contextlib
import io
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

import interp
from interp_cli.main import main
from random_edit import random_edit
from sweep_cases import FACTS, save_model, trace_of

PROMPT = "The tower of Pisa is in the"
SHORT = "The bridge is in the"
CASE = {"prompt": PROMPT, "subject": "tower of Pisa", "target_new": "city", "ground_truth": "lake"}
HTML = b"<!DOCTYPE html><html><body>404</body></html>" * 20


def build(folder: Path) -> None:
    """Everything that the tables name, in ``folder``, which is the working folder."""
    save_model(folder / "model")
    opened = interp.load("model", device="cpu", dtype="float32")
    _results(opened)
    for copy in ("cut", "nan", "pickled", "headless"):
        shutil.copytree("model", copy)
    weights = Path("model/model.safetensors").read_bytes()
    Path("cut/model.safetensors").write_bytes(weights[: len(weights) // 2])
    Path("headless/config.json").write_bytes(b'{"model_type": "llama",')
    Path("pickled/model.safetensors").rename("pickled/pytorch_model.bin")
    tensors = load_file("nan/model.safetensors")
    tensors["model.norm.weight"][3] = torch.nan
    save_file(tensors, "nan/model.safetensors", {"format": "pt"})
    _texts()
    _damaged()


def _results(opened: interp.Model) -> None:
    interp.logit_lens(opened, PROMPT).save("lens.safetensors")
    interp.attention_patterns(opened, SHORT).save("attention.safetensors")
    facts = (interp.Fact("tower of Pisa", "The {} is in the", "city"),)
    random_edit(opened, [1], facts=facts).save("edit.safetensors")
    random_edit(interp.load(save_model(Path("other"), seed=7), device="cpu"), [1], facts=facts).save(
        "other.safetensors"
    )
    interp.second_moments(opened, [1], [" ".join([SHORT] * 10)] * 101)[0].save("moments.safetensors")
    interp.collect(opened, [PROMPT, SHORT], ["resid_post@1"], "store")


def _texts() -> None:
    Path("texts.txt").write_text(f"{PROMPT}\n{SHORT}\n")
    Path("latin.txt").write_bytes("caf\xe9\n".encode("latin-1"))
    Path("empty.txt").write_bytes(b"")
    Path("blank.txt").write_bytes(b"\n \n")
    pair = {"clean": PROMPT, "corrupted": "The tower of Bob is in the", "target": "city", "against": "lake"}
    Path("pairs.jsonl").write_text(json.dumps(pair) + "\n")
    Path("keyless.jsonl").write_text(json.dumps({"clean": PROMPT}) + "\n")
    Path("broken.jsonl").write_text('{"prompt": "The"}\n{"prompt": \n')
    Path("cases.json").write_text(json.dumps([CASE]))
    Path("strange-cases.json").write_text(json.dumps([{"question": "Who?"}]))
    Path("talk.json").write_text(json.dumps([{"role": "user", "content": "The"}]))
    Path("role.json").write_text(json.dumps([{"role": "wizard", "content": "The"}]))
    Path("sweep.json").write_text(json.dumps(trace_of("model", FACTS[:1])))
    shutil.copy("sweep.json", "sweep.yaml")
    Path("misspelt.yaml").write_text(json.dumps(trace_of("model", FACTS[:1], analyser="x")))
    Path("unknown.yaml").write_text(json.dumps(trace_of("model", FACTS[:1]) | {"analyzer": "lense"}))
    Path("broken.toml").write_text('analyzer = "logit_lens\n')
    Path("broken.yaml").write_text("analyzer: [logit_lens\n")


def _damaged() -> None:
    for name in ("page.safetensors", "page.gguf", "page.json"):
        Path(name).write_bytes(HTML)
    Path("noise.json").write_text('{"kind": ')
    Path("half.gguf").write_bytes(b"GGUF\x03\x00\x00\x00\xff")
    for name in ("lens", "edit", "moments"):
        whole = Path(f"{name}.safetensors").read_bytes()
        Path(f"cut-{name}.safetensors").write_bytes(whole[:-9])
    shutil.copytree("store", "cut-store")
    shard = Path("cut-store/shard-000000.safetensors")
    shard.write_bytes(shard.read_bytes()[:-9])
    shutil.copytree("store", "bad-store")
    manifest = Path("bad-store/store.json")
    manifest.write_text(manifest.read_text().replace('"float32"', '"float16"', 1))
    for name in ("folder", "folder.html", "folder.json", "folder.safetensors"):
        Path(name).mkdir()
    Path("folder/of.mine").write_bytes(b"")


def quietly(*arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(list(arguments))
    return code, out.getvalue(), err.getvalue()

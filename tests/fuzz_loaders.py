"""Damages every kind of file that is read, in a process with little memory to spare, and prints what did not end as promised.

``python tests/fuzz_loaders.py FOLDER ROUNDS SEED [NAME...]``: each damaged file is to load or to raise the project's own error, in one
line that names it, in under a second, with nothing written. A line of JSON for each file that did otherwise, then one with the counts.
"""

import gc
import hashlib
import json
import os
import random
import resource
import shutil
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import interp
import mutations
import sweep_cases
from every_kind import every_kind
from interp.checkpoint import Checkpoint, hash_of
from interp.editing.cases import read_cases
from interp.editing.edit_file import load_edit
from interp.editing.folder import apply_to_folder, folder_edits
from interp.editing.second_moments import SecondMoment
from interp.errors import InterpError
from interp.models.folder import folder_tensors
from interp.models.gguf import read_gguf_header
from interp.models.headers import read_header
from interp.models.locate import locate
from interp.models.progress import silent
from interp.prompts import read_prompts
from interp.report import report
from interp.scale.sweep import sweep
from interp.scale.sweep_config import read_config
from interp_cli.patch_pairs import read_pairs
from interp_cli.prompt import read_prompt
from interp_cli.saved import load_saved, showing
from random_edit import random_edit

SPARE = 400 << 20
"""Bytes that reading a damaged file may take beyond what the process has."""
SECONDS = 1.0

Change = Callable[[bytes, random.Random], bytes]


@dataclass(frozen=True)
class Target:
    """A file to damage, what reads it, how its inside is changed beside its bytes, and how often compared with other files."""

    path: Path
    read: Callable[[], Any]
    inside: Change | None = None
    share: float = 1.0


def as_json(data: bytes, draw: random.Random) -> bytes:
    return mutations.json_of(json.loads(data), draw).encode("utf-8", "surrogatepass")


def as_lines(data: bytes, draw: random.Random) -> bytes:
    lines = data.splitlines()
    at = draw.randrange(len(lines))
    lines[at] = as_json(lines[at], draw)
    return b"\n".join(lines)


def with_header(inner: str | None = None) -> Change:
    return lambda data, draw: mutations.safetensors_of(data, draw, inner)


def sealed(data: bytes, draw: random.Random) -> bytes:
    return mutations.sealed(data, draw, hash_of, "sha256")


def sealed_by_record(store: Path) -> Change:
    """The index of a shard, with the digest of the damaged bytes put into its record."""

    def change(data: bytes, draw: random.Random) -> bytes:
        damaged = mutations.bytes_of(data, draw)
        record = json.loads((store / "shard-000000.json").read_text())
        record.pop("sha256")
        record["index_sha256"] = hashlib.sha256(damaged).hexdigest()
        (store / "shard-000000.json").write_text(json.dumps({**record, "sha256": hash_of(record)}))
        return damaged

    return change


def use(store: interp.ActivationStore) -> None:
    """All that is read of a store."""
    if store.n_rows:
        store.rows(0, min(3, store.n_rows))
    store.index()
    store.verify()


def targets(folder: Path) -> Iterator[tuple[str, Target]]:
    """Every kind of file, made in ``folder``."""
    model = _model(folder)
    saved = folder / "model"
    yield from _results(folder, model)
    yield from _pages(folder, model)
    yield (
        "safetensors header",
        Target(folder / "lone.safetensors", lambda: read_header(folder / "lone.safetensors"), with_header(), 3),
    )
    shutil.copy(saved / "model.safetensors", folder / "lone.safetensors")
    for name, share in (
        *(
            ("config.json", 0.5),
            ("tokenizer.json", 0.5),
            ("tokenizer_config.json", 0.5),
            ("generation_config.json", 0.3),
        ),
        ("model.safetensors", 0.5),
    ):
        inside = with_header() if name.endswith("tensors") else as_json
        yield f"model: {name}", Target(saved / name, lambda: interp.load(str(saved), device="cpu"), inside, share)
    sharded = folder / "sharded"
    model.hf.save_pretrained(sharded, max_shard_size="60KB")
    index = sharded / "model.safetensors.index.json"
    yield "model: index", Target(index, lambda: folder_tensors(sharded), as_json)
    yield from _gguf(folder)
    yield from _stores(folder, model)
    yield from _texts(folder)
    edited = folder / "edited"
    shutil.copytree(saved, edited)
    apply_to_folder(edited, random_edit(model, [1]))
    log = edited / "interp-edits.safetensors"
    yield "edits of a folder", Target(log, lambda: folder_edits(edited), with_header("interp_edits"))


def _model(folder: Path) -> Any:
    sweep_cases.save_model(folder / "model")
    return interp.load(str(folder / "model"), device="cpu")


def _results(folder: Path, model: Any) -> Iterator[tuple[str, Target]]:
    lens = interp.logit_lens(model, "The bridge is in")
    paths = {name: folder / f"{name}.safetensors" for name in ("lens", "attention", "edit", "moment", "work")}
    lens.save(paths["lens"])
    interp.attention_patterns(model, "The bridge is in").save(paths["attention"])
    random_edit(model, [1]).save(paths["edit"])
    interp.second_moments(model, [1], ["The bridge is in"])[0].save(paths["moment"])
    inside = with_header("interp_result")
    yield "result: lens", Target(paths["lens"], lambda: interp.load_result(paths["lens"]).to_json(), inside, 2)
    yield (
        "result: attention",
        Target(paths["attention"], lambda: interp.load_result(paths["attention"]).to_json(), inside),
    )
    written = folder / "lens.json"
    written.write_text(json.dumps(lens.to_json()))
    yield "result as JSON", Target(written, lambda: interp.load_result(written).to_json(), as_json, 2)
    yield "edit", Target(paths["edit"], lambda: load_edit(paths["edit"], model), inside, 2)
    yield "second moment", Target(paths["moment"], lambda: SecondMoment.load(paths["moment"]), inside)
    begun = Checkpoint(paths["work"], {"a": 1})
    begun.put("a", torch.ones(3))
    begun.__exit__(KeyboardInterrupt, None, None)
    yield "unfinished work", Target(paths["work"], lambda: Checkpoint(paths["work"], {"a": 1}), with_header())


def _pages(folder: Path, model: Any) -> Iterator[tuple[str, Target]]:
    """A result of each kind as a command writes it, read for the page, which draws what loading does not look at."""

    def read(path: Path) -> None:
        files = [str(path)]
        results = load_saved(files)
        with showing(files):
            report(results)

    for kind, result in every_kind(model, folder).items():
        path = folder / f"{kind}.json"
        path.write_text(json.dumps(result.to_json()))
        yield f"page of {kind}", Target(path, lambda path=path: read(path), as_json, 0.25)


def _gguf(folder: Path) -> Iterator[tuple[str, Target]]:
    from models.test_gguf import write_gguf

    path = folder / "tiny.gguf"
    write_gguf(path)
    yield "GGUF header", Target(path, lambda: read_gguf_header(path), None, 3)
    own = folder / "whole.gguf"
    shutil.copy(path, own)

    def convert() -> None:
        try:
            locate(str(own), revision=None, offline=True, step=silent)
        finally:
            shutil.rmtree(Path(os.environ["INTERP_CACHE"]) / "converted", ignore_errors=True)

    yield "GGUF file", Target(own, convert, None, 0.4)


def _stores(folder: Path, model: Any) -> Iterator[tuple[str, Target]]:
    texts = ["The tower of Pisa is in the", "The bridge is in", "Ann gave a plum"]
    stores = {name: folder / name for name in ("store", "resealed")}
    for path in stores.values():
        interp.collect(model, texts, ["resid_post@1"], path)
    store = stores["store"]
    for name, inside in (
        *(("store.json", sealed), ("shard-000000.json", sealed)),
        *(("index-000000.parquet", None), ("shard-000000.safetensors", with_header())),
    ):
        yield f"store: {name}", Target(store / name, lambda: use(interp.open_store(store)), inside)
    index = stores["resealed"] / "index-000000.parquet"
    inside = sealed_by_record(stores["resealed"])
    yield "store: index with its digest", Target(index, lambda: use(interp.open_store(stores["resealed"])), inside)
    config = sweep_cases.trace_of(str(folder / "model"), sweep_cases.FACTS[:2])
    done = folder / "swept"
    sweep(config, str(done))
    for name, inside in (("sweep.json", as_json), ("items.jsonl", as_lines), ("rows.parquet", None)):
        yield f"sweep: {name}", Target(done / name, lambda: sweep(config, str(done), resume=True), inside, 0.5)


def _texts(folder: Path) -> Iterator[tuple[str, Target]]:
    config = sweep_cases.trace_of("model", sweep_cases.FACTS[:2], grid={"window": [1, 2]})
    sources: dict[str, tuple[bytes, Callable[[Path], Any], Change | None]] = {
        "sweep.yaml": (json.dumps(config).encode(), read_config, as_json),
        "sweep.toml": (TOML.encode(), read_config, None),
        "sweep.yml": (YAML.encode(), read_config, None),
        "prompts.jsonl": (PROMPTS.encode(), read_prompts, as_lines),
        "cases.json": (json.dumps([CASE]).encode(), read_cases, as_json),
        "pairs.jsonl": (PAIRS.encode(), lambda path: read_pairs(path, None, None, None, None, "kl"), as_lines),
        "talk.json": (b'[{"role": "user", "content": "Hi"}]', lambda path: read_prompt(f"@{path}"), as_json),
        "corpus.jsonl": (b'{"text": "one"}\n{"text": "two"}\n', lambda path: list(_corpus(path)), as_lines),
        "corpus.txt": (b"one\ntwo\n", lambda path: list(_corpus(path)), None),
    }
    for name, (data, read, inside) in sources.items():
        path = folder / name
        path.write_bytes(data)
        yield name, Target(path, lambda read=read, path=path: read(path), inside)
    import pyarrow
    from pyarrow import parquet

    path = folder / "corpus.parquet"
    parquet.write_table(pyarrow.table({"text": ["one", "two"]}), path)
    yield "corpus.parquet", Target(path, lambda: list(_corpus(path)))


def _corpus(path: Path) -> Any:
    from interp.corpora import open_documents

    return open_documents(path)


TOML = """analyzer = "logit_lens"
model = "model"
seed = 1
items = ["The tower", "The bridge"]
[settings]
top_k = 3
[grid]
site = ["resid_post", "resid_pre"]
"""
YAML = """analyzer: logit_lens
models: [{name: model, dtype: float32}]
items:
  - prompt: The tower
  - &one {prompt: The bridge}
  - *one
settings: {top_k: 3}
"""
PROMPTS = '{"prompt": "Hi"}\n{"messages": [{"role": "user", "content": "Hi"}]}\n{"ids": [1, 2]}\n'
PAIRS = '{"clean": "a b", "corrupted": "a c", "target": "d"}\n'
CASE = {
    "case_id": 1,
    "requested_rewrite": {
        "prompt": "{} is in",
        "subject": "Pisa",
        "target_new": {"str": "Rome"},
        "target_true": {"str": "Tuscany"},
    },
    "paraphrase_prompts": ["Pisa lies in"],
    "neighborhood_prompts": ["Siena is in"],
    "generation_prompts": ["Pisa, in"],
}


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of each file, locks and the cache folder left out."""
    files = (
        path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock" and "cache" not in path.parts
    )
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def faults(name: str, target: Target, folder: Path) -> tuple[str, list[str]]:
    """How reading the file ended, and what was wrong with that."""
    before, begun, found, how = tree(folder), time.process_time(), [], "loaded"
    try:
        target.read()
    except InterpError as error:
        said = str(error)
        how = type(error).__name__
        if "\n" in said or not said:
            found.append("not one line")
        names = {target.path.name, *({target.path.parent.name} if target.path.parent != folder else ())}
        if not any(name in said for name in names):
            found.append(f"the file is not named: {said[:200]}")
        if len(said) > 1500:
            found.append(f"{len(said)} characters")
    except BaseException as error:  # noqa: BLE001 - whatever else it is, it is reported
        how = type(error).__name__
        where = traceback.extract_tb(error.__traceback__)[-6:]
        found.append(f"{how}: {str(error)[:200]} at {[f'{Path(step.filename).name}:{step.lineno}' for step in where]}")
    spent = time.process_time() - begun
    if spent > SECONDS:
        found.append(f"{spent:.2f} s")
    if tree(folder) != before:
        found.append("something was written")
    return how, found


def main(folder: Path, rounds: int, seed: int, only: list[str]) -> None:
    warnings.simplefilter("ignore")
    os.environ["INTERP_CACHE"] = str(folder / "cache")
    made = {name: target for name, target in targets(folder) if not only or name in only}
    counts: dict[str, dict[str, int]] = {}
    for name, target in made.items():
        how, wrong = faults(name, target, folder)  # undamaged; also whatever is imported or made once
        assert (how, wrong) == ("loaded", []) or "store" in name or "sweep" in name, (name, how, wrong)
    torch.set_num_threads(1)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + SPARE, used + SPARE))
    for name, target in made.items():
        whole = target.path.read_bytes()
        draw = random.Random(f"{seed} {name}")
        beside = {path: path.read_bytes() for path in target.path.parent.glob("shard-*.json")}
        for number in range(max(1, round(rounds * target.share))):
            change = mutations.bytes_of if number % 2 or not target.inside else target.inside
            damaged = change(whole, draw)
            target.path.write_bytes(damaged)
            how, wrong = faults(name, target, folder)
            counts.setdefault(name, {}).setdefault(how, 0)
            counts[name][how] += 1
            for fault in wrong:
                kept = folder / "cache" / f"{name.replace('/', ' ')}-{number}"
                kept.write_bytes(damaged)
                print(json.dumps({"name": name, "round": number, "fault": fault, "file": str(kept)}), flush=True)
            for path, data in beside.items():
                path.write_bytes(data)
        target.path.write_bytes(whole)
        gc.collect()
    print(json.dumps({"counts": counts}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])

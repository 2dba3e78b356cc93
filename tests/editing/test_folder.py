"""Edits on disk: any order, byte for byte back, and a kill at any moment leaves a folder that goes on or back."""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import interp
import tiny_models
import word_model
from interp.editing import folder as edit_folder
from interp.editing.folder import apply_to_folder, folder_edits, undo_in_folder
from interp.editing.folder_log import LOG
from interp.editing.matrix import output_matrix
from interp.errors import ModelError, NumericsError, UsageError, VerificationError
from interp.runner.model import Model
from random_edit import FACT, random_edit

IDS = tiny_models.prompt_ids(2)
HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """``made(family, dtype)`` is a sharded folder, saved once; tests copy it."""
    parent = tmp_path_factory.mktemp("models")

    def make(family="llama", dtype=torch.float32):
        folder = parent / f"{family}-{dtype}"
        if not folder.exists():
            model = word_model.build(family)
            model.hf.to(dtype).save_pretrained(folder, max_shard_size=f"{12 * dtype.itemsize}KB")
            model.tokenizer.save_pretrained(folder)
            assert len(list(folder.glob("*.safetensors"))) > 2
        return folder

    return make


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(made, tmp_path: Path) -> Path:
    return shutil.copytree(made(), tmp_path / "model")


def loaded(folder: Path, dtype="float32") -> Model:
    return interp.load(str(folder), device="cpu", dtype=dtype)


def listing(folder: Path) -> dict[str, str]:
    """Each file with its SHA-256 and permissions."""
    return {
        path.name: f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.stat().st_mode:o}"
        for path in sorted(folder.iterdir())
    }


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for path in folder.glob("model*.safetensors") for name, tensor in load_file(path).items()}


@pytest.mark.parametrize("name", ["gpt2", "llama", "gpt_neox"])
def test_the_folder_gives_the_logits_of_the_applied_edit(name: str, made, tmp_path: Path) -> None:
    folder = shutil.copytree(made(name), tmp_path / "model")
    before, model = listing(folder), loaded(folder)
    first, second = random_edit(model, [0, 2], rank=2), random_edit(model, [2], seed=1)
    with first.applied(model), second.applied(model), torch.no_grad():
        expected = model.hf(IDS).logits
    done = apply_to_folder(folder, first)
    assert set(done.written) == {name for name, state in listing(folder).items() if state != before.get(name)} - {LOG}
    apply_to_folder(folder, second)
    with torch.no_grad():
        assert torch.equal(loaded(folder).hf(IDS).logits, expected)
    assert [edit.facts for edit in folder_edits(folder)] == [(FACT,), (FACT,)]
    done = undo_in_folder(folder, first)
    assert (len(done.edits), done.restored, done.finished) == (1, None, False)
    with second.applied(model), torch.no_grad():
        assert torch.equal(loaded(folder).hf(IDS).logits, model.hf(IDS).logits)
    done = undo_in_folder(folder)
    assert listing(folder) == before
    assert done.restored == {name: before[name].split()[0] for name in done.restored}
    assert done.taken_back[0].tensors == (f"{second.layers[0].path}.weight",)


@settings(max_examples=20)
@given(moves=st.lists(st.tuples(st.booleans(), st.integers(0, 2)), min_size=1, max_size=6))
@pytest.mark.long
def test_any_order_of_apply_and_undo(moves, made, tmp_path_factory) -> None:
    folder = shutil.copytree(made(), tmp_path_factory.mktemp("any") / "model")
    before, base, model = listing(folder), weights(folder), Model(word_model.build().hf)
    edits = [random_edit(model, layers, seed=seed) for seed, layers in enumerate([[0, 1], [1, 2], [2]])]
    there = []
    for is_apply, which in moves:
        edit = edits[which]
        if is_apply and edit not in there:
            apply_to_folder(folder, edit)
            there.append(edit)
        elif not is_apply and edit in there:
            undo_in_folder(folder, edit)
            there.remove(edit)
        else:
            with pytest.raises(UsageError, match="already" if is_apply else r"is not in|no edit is in"):
                (apply_to_folder if is_apply else undo_in_folder)(folder, edit)
        expected = dict(base)
        for layer in range(3):
            for edit in there:
                for change in edit.layers:
                    if change.layer == layer:
                        name = f"{change.path}.weight"
                        expected[name] = expected[name] + change.left @ change.right
        torch.testing.assert_close(weights(folder), expected, atol=0, rtol=0)
    while there:
        undo_in_folder(folder)
        there.pop()
    assert listing(folder) == before


def test_an_edit_made_in_float32_of_a_folder_in_bfloat16(made, tmp_path: Path) -> None:
    folder = shutil.copytree(made("llama", torch.bfloat16), tmp_path / "model")
    before, base, model = listing(folder), weights(folder), loaded(folder)
    edit = random_edit(model, [1])
    assert edit.layers[0].base_dtype == "float32"
    apply_to_folder(folder, edit)
    name = f"{edit.layers[0].path}.weight"
    expected = (base[name].float() + edit.layers[0].left @ edit.layers[0].right).bfloat16()
    assert torch.equal(weights(folder)[name], expected)
    half = random_edit(loaded(made("llama", torch.bfloat16), "bfloat16"), [1], seed=1)
    apply_to_folder(folder, half)
    undo_in_folder(folder, edit)
    undo_in_folder(folder, half)
    assert listing(folder) == before


def test_a_checkpoint_that_leaves_out_the_first_part_of_each_name(tmp_path: Path) -> None:
    memory = word_model.build("gpt2")
    memory.hf.transformer.save_pretrained(tmp_path / "model")
    memory.tokenizer.save_pretrained(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps({**config, "architectures": ["GPT2LMHeadModel"]}))
    with safe_open(tmp_path / "model" / "model.safetensors", "pt") as file:
        assert "h.1.mlp.c_proj.weight" in file.keys()  # noqa: SIM118
    before, model = listing(tmp_path / "model"), loaded(tmp_path / "model")
    edit = random_edit(model, [1])
    assert edit.layers[0].path == "transformer.h.1.mlp.c_proj"
    apply_to_folder(tmp_path / "model", edit)
    with edit.applied(model), torch.no_grad():
        assert torch.equal(loaded(tmp_path / "model").hf(IDS).logits, model.hf(IDS).logits)
    undo_in_folder(tmp_path / "model")
    assert listing(tmp_path / "model") == before


KILLER = """
import os, shutil, signal, sys
from pathlib import Path

import torch

from interp.editing.edit_file import load_edit
from interp.editing.folder import apply_to_folder, undo_in_folder

work, todo, parent = Path(sys.argv[1]), sys.argv[2], os.getpid()
edits = [load_edit(work / f"{name}.safetensors") for name in ("first", "second")]


def killing(function, left):
    def counted(*arguments, **options):
        if os.getpid() != parent:
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
        return function(*arguments, **options)

    return counted


def change(folder):
    if todo == "apply":
        apply_to_folder(folder, edits[1])
    elif todo == "undo":
        undo_in_folder(folder, edits[1])
    elif todo == "undo first":
        undo_in_folder(folder, edits[0])
    else:
        undo_in_folder(folder)


left = [0]
for module, name in ((os, "replace"), (os, "fsync"), (shutil, "copyfile"), (Path, "unlink")):
    setattr(module, name, killing(getattr(module, name), left))
for point in range(100):
    folder = shutil.copytree(work / "start", work / f"killed-{point}")
    left[0] = point
    child = os.fork()
    if child == 0:
        change(folder)
        os._exit(0)
    if os.WIFEXITED(os.waitpid(child, 0)[1]):
        break
print(point)
"""


def kill_everywhere(work: Path, todo: str) -> int:
    """Kills ``todo`` on a copy of ``start`` before each call that reaches the disk; the number of copies killed."""
    command = [sys.executable, "-W", "ignore", "-c", KILLER, str(work), todo]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes to kill are forked")
@pytest.mark.parametrize(
    ("todo", "n_edits"),
    [
        pytest.param("apply", 1, id="second apply", marks=pytest.mark.slow),
        pytest.param("apply", 0, id="first apply", marks=pytest.mark.slow),
        pytest.param("undo", 2, id="undo the last", marks=pytest.mark.slow),
        pytest.param("undo first", 2, id="undo the first", marks=pytest.mark.slow),
        pytest.param("undo last", 1, id="undo the only one", marks=pytest.mark.slow),
    ],
)
def test_a_kill_at_any_moment(todo: str, n_edits: int, made, tmp_path: Path) -> None:
    """From each remainder the same command ends where it would have, and undo ends in the files from before."""
    start = shutil.copytree(made(), tmp_path / "start")
    before, model = listing(start), loaded(start)
    first, second = random_edit(model, [0, 1, 2]), random_edit(model, [1, 2], rank=2, seed=1)
    first.save(tmp_path / "first.safetensors")
    second.save(tmp_path / "second.safetensors")
    for edit in (first, second)[:n_edits]:
        apply_to_folder(start, edit)
    whole, wanted = weights(start), shutil.copytree(start, tmp_path / "wanted")
    changed = {"apply": second, "undo": second, "undo first": first, "undo last": first}[todo]
    (apply_to_folder if todo == "apply" else undo_in_folder)(wanted, changed)
    after, after_edits = weights(wanted), [edit.name for edit in folder_edits(wanted)]
    n_killed = kill_everywhere(tmp_path, todo)
    assert n_killed > 12
    mixed = 0
    for point in range(n_killed):
        left = tmp_path / f"killed-{point}"
        now = weights(left)
        mixed += any(not torch.equal(now[name], whole[name]) for name in now) and any(
            not torch.equal(now[name], after[name]) for name in now
        )
        again = shutil.copytree(left, tmp_path / f"again-{point}")
        all_done = list(now) and all(torch.equal(now[name], after[name]) for name in now)
        with contextlib.suppress(UsageError) if all_done else contextlib.nullcontext():  # "already in it", "not in it"
            done = (apply_to_folder if todo == "apply" else undo_in_folder)(again, changed)
            assert [edit.name for edit in done.edits] == after_edits
        torch.testing.assert_close(weights(again), after, atol=0, rtol=0)
        for ended in (left, again):
            while (ended / LOG).exists():
                undo_in_folder(ended)
            if (ended / edit_folder.PART).exists():  # killed before anything was written but this
                with pytest.raises(UsageError, match="no edit is in"):
                    undo_in_folder(ended)
            assert listing(ended) == before
    assert mixed > 0, "no kill fell between two files"


@pytest.mark.parametrize("undoing", [False, True])
def test_a_disk_that_fills_up_is_one_line_and_nothing_is_lost(undoing, folder: Path, monkeypatch) -> None:
    before, model = listing(folder), loaded(folder)
    edit = random_edit(model, [0, 1, 2])
    if undoing:
        apply_to_folder(folder, edit)
    copyfile, calls = shutil.copyfile, []

    def filling(source, target):
        calls.append(source)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return copyfile(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", filling)
        with pytest.raises(UsageError, match=r"No space left on device; the file is as it was"):
            (undo_in_folder if undoing else apply_to_folder)(folder, edit)
    assert not (folder / edit_folder.PART).exists()
    done = (undo_in_folder if undoing else apply_to_folder)(folder, edit)
    assert done.finished
    if not undoing:
        undo_in_folder(folder)
    assert listing(folder) == before


def test_another_edit_after_a_stopped_one_brings_both(folder: Path, monkeypatch) -> None:
    before, model = listing(folder), loaded(folder)
    first, second = random_edit(model, [0, 1, 2]), random_edit(model, [1], seed=1)
    stop_after(monkeypatch, 1, lambda: apply_to_folder(folder, first))
    done = apply_to_folder(folder, second)
    assert (done.finished, len(done.edits)) == (True, 2)
    with first.applied(model), second.applied(model), torch.no_grad():
        assert torch.equal(loaded(folder).hf(IDS).logits, model.hf(IDS).logits)
    stop_after(monkeypatch, 1, lambda: undo_in_folder(folder, first))
    done = undo_in_folder(folder)  # goes on with what was stopped, and takes nothing more out
    assert (done.finished, done.taken_back, len(done.edits)) == (True, (), 1)
    undo_in_folder(folder)
    assert listing(folder) == before


def stop_after(monkeypatch, files: int, change) -> None:
    """Runs ``change`` and interrupts it after it has replaced this many weight files."""
    replace, calls = edit_folder.replace_tensors, []

    def stopping(*arguments):
        if len(calls) == files:
            raise KeyboardInterrupt
        calls.append(1)
        replace(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(edit_folder, "replace_tensors", stopping)
        with pytest.raises(KeyboardInterrupt):
            change()


def test_weights_that_something_else_changed_are_not_overwritten(folder: Path) -> None:
    model = loaded(folder)
    edit, other = random_edit(model, [1]), random_edit(model, [1], seed=1)
    apply_to_folder(folder, edit)
    name = f"{edit.layers[0].path}.weight"
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    path = folder / index[name]
    tensors = load_file(path)
    tensors[name][0, 0] += 1
    save_file(tensors, path, {"format": "pt"})
    changed = listing(folder)
    for change in (lambda: undo_in_folder(folder), lambda: apply_to_folder(folder, other)):
        with pytest.raises(ModelError, match=r"is not what the last edit wrote .* something else changed it"):
            change()
    assert listing(folder) == changed


def test_other_bytes_of_a_file_that_changed_are_told(folder: Path) -> None:
    model = loaded(folder)
    edit = random_edit(model, [1])
    name = f"{edit.layers[0].path}.weight"
    file = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"][name]
    base = load_file(folder / file)[name]
    apply_to_folder(folder, edit)
    tensors = load_file(folder / file)
    save_file(tensors, folder / file, {"format": "pt", "note": "rewritten by another program"})
    with pytest.raises(VerificationError, match=r"are as before, but other bytes of model-0.* changed"):
        undo_in_folder(folder)
    assert torch.equal(load_file(folder / file)[name], base)
    assert not (folder / LOG).exists()


def test_another_base_or_shape(folder: Path) -> None:
    before = listing(folder)
    other = Model(tiny_models.build("llama", seed=1))
    edit = random_edit(other, [1])
    with pytest.raises(ModelError) as raised:
        apply_to_folder(folder, edit)
    own = hashlib.sha256(output_matrix(loaded(folder), 1).stored.numpy().tobytes()).hexdigest()
    for said in (edit.layers[0].base_sha256, own, "--other-base"):
        assert said in str(raised.value)
    wide = random_edit(Model(tiny_models.build("llama", intermediate_size=48)), [1])
    with pytest.raises(UsageError, match=r"changes a matrix of 32 x 48, .* is 32 x 64"):
        apply_to_folder(folder, wide, other_base=True)
    with pytest.raises(ModelError, match=r"no tensor for transformer.h.1.mlp.c_proj"):
        apply_to_folder(folder, random_edit(Model(tiny_models.build("gpt2")), [1]), other_base=True)
    deep = random_edit(Model(tiny_models.build("llama", num_hidden_layers=5)), [4])
    with pytest.raises(ModelError, match=r"no tensor for model.layers.4.mlp.down_proj"):
        apply_to_folder(folder, deep, other_base=True)
    bad = random_edit(loaded(folder), [1])
    bad.layers[0].left[0] = float("nan")
    with pytest.raises(
        NumericsError, match="NaN or infinite weights of model.layers.1.mlp.down_proj.weight in float32"
    ):
        apply_to_folder(folder, bad)
    assert listing(folder) == before
    apply_to_folder(folder, edit, other_base=True)
    undo_in_folder(folder, edit)
    assert listing(folder) == before


def test_folders_that_cannot_be_edited(folder: Path, tmp_path: Path, monkeypatch) -> None:
    edit = random_edit(loaded(folder), [1])

    def error(path, kind=ModelError) -> str:
        with pytest.raises(kind) as raised:
            apply_to_folder(path, edit)
        assert "\n" not in str(raised.value)
        return str(raised.value)

    assert "does not exist; give the folder" in error(tmp_path / "none")
    assert "is a file; give the folder" in error(folder / "config.json")
    (tmp_path / "empty").mkdir()
    assert "holds no model.safetensors" in error(tmp_path / "empty")
    (tmp_path / "empty" / "pytorch_model.bin").write_bytes(b"x")
    assert "a pickle, which is never read" in error(tmp_path / "empty")
    linked = shutil.copytree(folder, tmp_path / "linked")
    shard = sorted(linked.glob("*.safetensors"))[0]
    shard.rename(linked / "elsewhere")
    shard.symlink_to(linked / "elsewhere")
    assert "is a link to" in error(linked, UsageError)
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path))
    assert "is in interp's cache, which every command reads; copy the folder" in error(folder, UsageError)
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UsageError, match="no edit is in .*; apply one with: interp edit apply FILE"):
        undo_in_folder(folder)
    with pytest.raises(ModelError, match="does not exist"):
        undo_in_folder(tmp_path / "none")
    apply_to_folder(folder, edit)
    with pytest.raises(UsageError, match="is not in .*, which holds 1 other"):
        undo_in_folder(folder, random_edit(loaded(folder), [0], seed=5))
    whole = (folder / LOG).read_bytes()
    for damaged in (whole[:100], whole[:-4], b"", whole.replace(b"undoing", b"undoinG")):
        (folder / LOG).write_bytes(damaged)
        for call in (lambda: undo_in_folder(folder), lambda: folder_edits(folder)):
            with pytest.raises(ModelError, match=r"interp-edits.safetensors is damaged .* fetch the folder again"):
                call()


@pytest.mark.slow
def test_two_processes_on_one_folder_lose_nothing(folder: Path, tmp_path: Path) -> None:
    before, model = listing(folder), loaded(folder)
    code = (
        "import sys, interp; from interp.editing.folder import apply_to_folder\n"
        "for path in sys.argv[2:]: apply_to_folder(sys.argv[1], interp.load_edit(path))"
    )
    paths = [tmp_path / f"{number}.safetensors" for number in range(8)]
    for number, path in enumerate(paths):
        random_edit(model, [number % 3, 1], ranks=[1, 2], seed=number).save(path)
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
    command = [sys.executable, "-c", code, str(folder)]
    running = [subprocess.Popen([*command, *paths[half::2]], env=environment) for half in (0, 1)]
    assert [process.wait(timeout=120) for process in running] == [0, 0]
    assert len(folder_edits(folder)) == 8
    for path in paths:
        undo_in_folder(folder, interp.load_edit(path))
    assert listing(folder) == before

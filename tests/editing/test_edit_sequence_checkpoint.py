"""A sequence of edits that was stopped, at any moment and in any way, goes on to the same bits; other work is refused."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import word_model
from interp.editing import edit_sequence as module
from interp.editing import edit_sequence_kept, edit_sequence_watch, rome, stack
from interp.editing.edit_sequence import edit_sequence
from interp.editing.second_moments import second_moments
from interp.editing.settings import EditSettings
from interp.errors import ModelError, UsageError
from interp.prompts import Fact
from random_edit import random_edit
from small_cases import CASES as ALL_CASES
from small_cases import TEXTS

CASES = ALL_CASES[:3]
FACTS = tuple(case.fact for case in CASES)
CONTEXTS = ("", "one two ", "near lake ")
QUICK = EditSettings(
    min_tokens=1, shrinkage=0.01, steps=3, near_misses=2, near_miss_weight=0.03, noise=0.5, keep_weight=0.01,
    enough_probability=0.1,
)  # fmt: skip
TIMES = ("seconds", "created")
TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def asked():
    """A tiny model, and what is asked of it: everything that a sequence can be asked, and quick."""
    made = {}

    def make(name="llama", **changes):
        if name not in made:
            model, chance = word_model.build(name), random.Random(0)
            texts = [" ".join(chance.choices(word_model.WORDS, k=20)) for _ in range(40)]
            made[name] = model, second_moments(model, [0, 1], texts)
        model, moments = made[name]
        options = {"layers": [1], "moments": moments, "settings": QUICK, "contexts": CONTEXTS, "cases": CASES}
        return model, {"facts": FACTS, **options, "texts": TEXTS[:2], "every": 2, **changes}

    return make


def weights(model):
    return {name: value.clone() for name, value in model.hf.state_dict().items()}


def same_bits(one, other):
    """Whether two sequences are the same but for the time that they took and when."""

    def timeless(value):
        if isinstance(value, dict):
            return {name: timeless(part) for name, part in value.items() if name not in TIMES}
        return [timeless(part) for part in value] if isinstance(value, list) else value

    (text, tensors), (other_text, others) = one.packed(), other.packed()
    assert timeless(json.loads(text)) == timeless(json.loads(other_text))
    assert tensors.keys() == others.keys()
    for name, tensor in tensors.items():
        assert (tensor.dtype, tensor.shape) == (others[name].dtype, others[name].shape), name
        assert tensor.numpy().tobytes() == others[name].numpy().tobytes(), name
    return True


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("llama", {}),
        ("gpt2", {"method": "rome-original", "settings": replace(QUICK, averaged=False, keep_weight=0.0), "every": 3}),
        ("llama", {"method": "memit", "layers": [0, 1], "batch": 2, "cases": (), "texts": ()}),
    ],
)
def test_killed_after_any_edit_it_goes_on_to_the_same_bits(asked, tmp_path, monkeypatch, name, changes) -> None:
    model, options = asked(name, **changes)
    whole = edit_sequence(model, **options)
    path, states = tmp_path / "kept.safetensors", []

    def look(what, done, total):
        states.append(tmp_path / f"state-{len(states)}")
        shutil.copy(path, states[-1])  # what a kill would leave now

    assert same_bits(edit_sequence(model, **options, checkpoint=path, progress=look), whole)
    assert not path.exists()
    assert len(states) == len(whole.edits) + 1
    made, checks, really, measured = [], [], module.edit_facts, edit_sequence_watch.hear
    monkeypatch.setattr(module, "edit_facts", lambda *given, **also: made.append(given[1]) or really(*given, **also))
    monkeypatch.setattr(edit_sequence_watch, "hear", lambda *given: checks.append(given) or measured(*given))
    for kept, state in enumerate(states):
        made.clear()
        checks.clear()
        assert same_bits(edit_sequence(model, **options, checkpoint=state), whole)
        assert len(made) == len(whole.edits) - kept
        edited = sum(len(edit.facts) for edit in whole.edits[:kept])
        assert len(checks) == sum(int(at) > edited for at in whole.checked)
        assert not state.exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_stopped_within_an_edit_it_keeps_those_before_and_leaves_the_model(asked, tmp_path, monkeypatch, error) -> None:
    model, options = asked()
    earlier = random_edit(model, [0], seed=5)
    clean = weights(model)
    with earlier.applied(model):
        before, whole, path = weights(model), edit_sequence(model, **options), tmp_path / "kept.safetensors"
        really, calls = rome.optimise_value, []

        def stopped(*given, **named):
            calls.append(given)
            if len(calls) == 3:
                raise error
            return really(*given, **named)

        monkeypatch.setattr(rome, "optimise_value", stopped)
        with pytest.raises(error):
            edit_sequence(model, **options, checkpoint=path)
        monkeypatch.setattr(rome, "optimise_value", really)
        assert stack.applied_edits(model) == (earlier,)
        assert all(torch.equal(value, before[name]) for name, value in weights(model).items())
        steps = []
        again = edit_sequence(model, **options, checkpoint=path, progress=lambda *step: steps.append(step))
        assert same_bits(again, whole)
        assert steps[-1] == ("facts edited", 3, 3)
        assert [path.name for path in tmp_path.iterdir()] == []
        assert all(torch.equal(value, before[name]) for name, value in weights(model).items())
    assert all(torch.equal(value, clean[name]) for name, value in weights(model).items())


@pytest.fixture
def drawn(monkeypatch):
    """Edits with random factors in place of computed ones; the list holds what each was made with."""
    made = []

    def random(model, facts, method, **given):
        made.append((given["layers"], given["moments"], given["contexts"]))
        return replace(random_edit(model, [1], seed=FACTS.index(facts[0]), size=0.4), facts=tuple(facts))

    monkeypatch.setattr(module, "edit_facts", random)
    return made


def stop_at(edited):
    """A listener that stops the sequence where so many facts are edited."""

    def stop(what, done, total):
        if done == edited:
            raise KeyboardInterrupt

    return stop


@pytest.mark.parametrize("limited", ["norm, stop", "norm, warn", "perplexity, stop"])
def test_limits_stop_and_warn_in_the_same_place_after_going_on(asked, drawn, tmp_path, limited) -> None:
    model, options = asked(cases=(), texts=())
    drift, path = edit_sequence(model, **options).drift[:, 0], tmp_path / "kept.safetensors"
    limits = {
        "norm, stop": {"limit_norm_ratio": float(drift[2]) * 0.999, "on_limit": "stop"},
        "norm, warn": {"limit_norm_ratio": float(drift[1]) * 0.999},
        "perplexity, stop": {"limit_perplexity_ratio": 1e-3, "on_limit": "stop"},
    }
    model, options = asked(**limits[limited])
    whole = edit_sequence(model, **options)
    with pytest.raises(KeyboardInterrupt):
        edit_sequence(model, **options, checkpoint=path, progress=stop_at(2))
    assert path.exists()
    again = edit_sequence(model, **options, checkpoint=path)
    assert same_bits(again, whole)
    assert len(again.warnings) == 1
    assert (again.stop_reason, len(again.edits)) == {
        "norm, stop": ("drift", 2),
        "norm, warn": ("end", 3),
        "perplexity, stop": ("perplexity", 2),
    }[limited]


def test_what_the_first_call_sampled_and_chose_is_not_sampled_and_chosen_again(
    asked, drawn, tmp_path, monkeypatch
) -> None:
    model, options = asked(layers="auto", contexts=None, moments=None)
    found, path, contexts = [], tmp_path / "kept.safetensors", ("", "one “two” ")
    monkeypatch.setattr(module, "sample_contexts", lambda *given: found.append(given) or contexts)
    monkeypatch.setattr(module, "cached_moments", lambda model, layers, *, seed: f"moments of {layers}")
    with pytest.raises(KeyboardInterrupt):
        edit_sequence(model, **options, checkpoint=path, progress=stop_at(2))
    edit_sequence(model, **options, checkpoint=path)
    assert len(found) == 1
    later = ([1], "moments of [1]", contexts)
    assert drawn == [("auto", None, contexts), later, later]


def test_seconds_are_those_of_all_calls(asked, tmp_path, monkeypatch) -> None:
    model, options = asked(every=9)
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(edit_sequence_kept, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    with pytest.raises(KeyboardInterrupt):  # from the start to the last of a check and two edits: 30 s
        edit_sequence(model, **options, checkpoint=tmp_path / "kept", progress=stop_at(2))
    # From the start over an edit and a check to the end: 30 s more.
    assert edit_sequence(model, **options, checkpoint=tmp_path / "kept").seconds == 60.0


def test_a_checkpoint_of_other_work_is_refused(asked, tmp_path) -> None:
    model, options = asked()
    path = tmp_path / "kept.safetensors"
    with pytest.raises(KeyboardInterrupt):
        edit_sequence(model, **options, checkpoint=path, progress=stop_at(1))
    kept = path.read_bytes()
    moments = options["moments"]
    for changes in (
        {"facts": FACTS[::-1], "cases": CASES[::-1]},
        {"facts": FACTS[:2], "cases": CASES[:2]},
        {"facts": (*FACTS, Fact("store", "the {} is", " five")), "cases": ()},
        {"cases": ()},
        {"cases": (*CASES[:2], replace(CASES[2], true=" five"))},
        {"texts": TEXTS},
        {"texts": ()},
        {"method": "rome-original"},
        {"batch": 2},
        {"every": 1},
        {"limit_norm_ratio": 9.0},
        {"limit_perplexity_ratio": 9.0},
        {"on_limit": "stop"},
        {"layers": [0]},
        {"layers": "auto"},
        {"moments": moments[1:]},
        {"moments": [moments[0], replace(moments[1], matrix=moments[1].matrix * 1.001)]},
        {"settings": replace(QUICK, steps=4)},
        {"contexts": CONTEXTS[:2]},
        {"contexts": None},
        {"seed": 1},
        {"allow_known": False},
    ):
        with pytest.raises(UsageError, match=r"^\S+kept\.safetensors is not a checkpoint of this work"):
            edit_sequence(model, **{**options, **changes}, checkpoint=path)
    other = word_model.build("llama", seed=1)
    with pytest.raises(UsageError, match="not a checkpoint of this work"):
        edit_sequence(other, **options, checkpoint=path)
    with (
        random_edit(model, [0]).applied(model),
        pytest.raises(UsageError, match="not a checkpoint of this work"),
    ):
        edit_sequence(model, **options, checkpoint=path)
    assert path.read_bytes() == kept
    edit_sequence(
        model, **{**options, "layers": 1, "moments": tuple(moments)}, checkpoint=path
    )  # the same, said otherwise


def test_an_edit_of_a_loaded_model_is_told_by_its_factors(asked, monkeypatch) -> None:
    """The hash of a loaded model's files, unlike that of a model in memory, does not see what is applied to it."""
    model, options = asked()
    monkeypatch.setattr(edit_sequence_kept, "request_key", lambda model, **asked: asked)

    def key():
        return edit_sequence_kept.sequence_key(model, FACTS, CASES, (), options["moments"], QUICK)

    found = [key()]
    for seed in (1, 2):
        with random_edit(model, [0], seed=seed).applied(model):
            found.append(key())
    assert found[0] == key()
    assert found[0] != found[1] != found[2] != found[0]


def test_what_cannot_be_read_or_written_is_said_before_any_edit(asked, tmp_path, monkeypatch) -> None:
    model, options = asked()
    path = tmp_path / "kept.safetensors"
    with pytest.raises(KeyboardInterrupt):
        edit_sequence(model, **options, checkpoint=path, progress=stop_at(1))
    monkeypatch.setattr(module, "edit_facts", None)
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    with pytest.raises(ModelError, match=r"kept\.safetensors is not a readable checkpoint .*; remove it$"):
        edit_sequence(model, **options, checkpoint=path)
    path.write_bytes(whole.replace(b'"method"', b'"methud"'))
    with pytest.raises(ModelError, match=r"kept\.safetensors is not a readable checkpoint .*methud.*; remove it$"):
        edit_sequence(model, **options, checkpoint=path)
    with pytest.raises(UsageError, match="the folder .* does not exist"):
        edit_sequence(model, **options, checkpoint=tmp_path / "none" / "kept.safetensors")
    assert stack.applied_edits(model) == ()


KILLED = """
import os, signal, sys, torch
import interp
torch.set_num_threads(1)
FACTS = [
    interp.Fact("The Eiffel Tower", "{} is located in the city of", " Rome"),
    interp.Fact("The Louvre", "{} is located in the city of", " London"),
    interp.Fact("The Colosseum", "{} is located in the city of", " Paris"),
]
def kill(what, done, total):
    if what == "facts edited" and done == 2:
        os.kill(os.getpid(), signal.SIGKILL)
model = interp.load("smollm2-135m", device="cpu", dtype="float32")
checkpoint, name, killed = sys.argv[1:]
result = interp.edit_sequence(
    model, FACTS, texts=["When water freezes, it grows."], every=1,
    checkpoint=checkpoint or None, progress=kill if killed else None,
)
result.save(name)
"""


@pytest.mark.slow
def test_a_kill_on_the_default_model(tmp_path) -> None:
    from interp.editing.edit_sequence_result import EditSequence

    def run(checkpoint, name, killed):
        command = [sys.executable, "-c", KILLED, checkpoint, str(tmp_path / name), killed]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(TESTS.parent)}
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    kept = str(tmp_path / "kept.safetensors")
    assert run(kept, "none", "killed").returncode == -signal.SIGKILL
    assert not (tmp_path / "none").exists()
    done = run(kept, "resumed", "")
    assert done.returncode == 0, done.stderr
    assert not Path(kept).exists()
    assert run("", "whole", "").returncode == 0
    resumed, whole = (EditSequence.load(tmp_path / name) for name in ("resumed", "whole"))
    assert same_bits(resumed, whole)

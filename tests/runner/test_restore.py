"""Whatever is raised, the model, torch and the logging are as they were: hooks, modes, settings, forwards, random state."""

import logging
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from interp.errors import UsageError
from interp.interventions import Apply, Patch, Scale
from interp.runner import attention
from interp.runner.generation import stream
from interp.runner.model import Model
from interp.runner.plan import Capture
from oracles.runner import plain_logits
from tiny_models import build, prompt_ids

NAMES = ("gpt2", "llama", "gemma2", "bloom", "falcon", "mixtral")


def state(hf: nn.Module) -> dict[str, Any]:
    """All that a run might leave behind, as plain values that compare."""
    found: dict[str, Any] = {}
    for path, module in hf.named_modules():
        for key, value in vars(module).items():
            if key.endswith("_hooks") or "_hooks_" in key:
                found[f"{path}.{key}"] = list(value.values()) if hasattr(value, "values") else value
            elif key not in ("_parameters", "_buffers", "_modules"):
                found[f"{path}.{key}"] = value if isinstance(value, bool | int | float | str | None) else id(value)
    for path, parameter in hf.named_parameters():
        found[f"weight {path}"] = (id(parameter), parameter._version, parameter.requires_grad, parameter.grad)
    found["config"] = hf.config.to_dict()
    found["config keys"] = sorted(vars(hf.config))
    found["attention"] = hf.config._attn_implementation
    found["grad"] = (torch.is_grad_enabled(), torch.is_inference_mode_enabled())
    found["random"] = torch.random.get_rng_state().tolist()
    found["threads"] = (torch.get_num_threads(), torch.get_default_dtype())
    found["loggers"] = {
        name: (logger.level, logger.disabled, list(logger.handlers))
        for name, logger in logging.root.manager.loggerDict.items()
        if isinstance(logger, logging.Logger)
    }
    found["warnings"] = list(warnings.filters)
    found["watching"] = (attention._ports.get(None), attention._session.get(None))
    return found


class Boom(Exception):
    """Raised by a user's own function."""


def _raise(error: BaseException) -> Callable[..., Any]:
    def function(*_: Any) -> Any:
        raise error

    return function


def _ids() -> torch.Tensor:
    return prompt_ids(1, 9)[0]


def _gradients(model: Model) -> None:
    model.gradients(_ids(), _raise(Boom()), ["resid_post", "attn.z"])


def _resume(model: Model) -> None:
    base = model.run(_ids(), resumable=True)
    base.resume([Apply("resid_pre@2", _raise(Boom()), positions=4), Scale("resid_pre@1", 2.0, positions=4)])


def _resume_reducer(model: Model) -> None:
    base = model.run(_ids(), resumable=True)
    base.resume([Scale("resid_pre@2", 2.0, positions=4)], capture=Capture("resid_post@2", _raise(KeyboardInterrupt())))


def _wrong_value_in_resume(model: Model) -> None:
    model.run(_ids(), resumable=True).resume([Patch("resid_pre@2", torch.zeros(31), positions=4)])


def _generation(model: Model) -> None:
    model.generate(_ids(), max_new_tokens=3, temperature=1.0, interventions=Apply("mlp_out@1", _third_time(Boom())))


def _half_a_stream(model: Model) -> None:
    for _ in stream(model, _ids(), max_new_tokens=5, temperature=1.0, capture="resid_post"):
        raise Boom


def _third_time(error: BaseException) -> Callable[[torch.Tensor], torch.Tensor]:
    calls: list[int] = []

    def function(x: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 3:
            raise error
        return x

    return function


def _own_hook(model: Model) -> None:
    handle = model.hf.get_submodule(model.atlas.blocks[1].block).register_forward_hook(_raise(KeyboardInterrupt()))
    try:
        model.run(_ids(), "all", resumable=True)
    finally:
        handle.remove()


FAILURES: dict[str, tuple[Callable[[Model], Any], type[BaseException]]] = {
    "reducer": (lambda m: m.run(_ids(), ["all", Capture("resid_post@1", _raise(Boom()))]), Boom),
    "reducer of a pattern": (lambda m: m.run(_ids(), Capture("attn.pattern@1", _raise(Boom()))), Boom),
    "apply": (lambda m: m.run(_ids(), "all", Apply("resid_pre@1", _raise(Boom()))), Boom),
    "interrupt in apply": (
        lambda m: m.run(_ids(), "all", Apply("attn.z@1", _raise(KeyboardInterrupt()))),
        KeyboardInterrupt,
    ),
    "interrupt in a hook of the user's": (_own_hook, KeyboardInterrupt),
    "resumable": (lambda m: m.run(_ids(), "all", Apply("mlp_out@2", _raise(Boom())), resumable=True), Boom),
    "resume": (_resume, Boom),
    "interrupt in a resumed reducer": (_resume_reducer, KeyboardInterrupt),
    "resumed value of a wrong shape": (_wrong_value_in_resume, UsageError),
    "gradients": (_gradients, Boom),
    "apply under gradients": (
        lambda m: m.gradients(_ids(), lambda x: x.sum(), "attn.z", interventions=Apply("mlp_out@1", _raise(Boom()))),
        Boom,
    ),
    "generation": (_generation, Boom),
    "a stream left half way": (_half_a_stream, Boom),
    "wrong shape": (lambda m: m.run(_ids(), "all", Patch("resid_pre@1", torch.zeros(31))), UsageError),
    "wrong site": (lambda m: m.run(_ids(), "resid_pots"), UsageError),
    "wrong prompt": (lambda m: m.run([3, 99]), UsageError),
}


@pytest.fixture
def untouched() -> Callable[[str], Model]:
    """A model in training mode that has run once, so that what it keeps by itself is there."""

    def make(name: str) -> Model:
        model = Model(build(name))
        model.hf.train()
        model.hf.get_submodule(model.atlas.blocks[0].block).eval()
        _ = model.sites
        model.run(_ids(), "all", resumable=True).resume([[]], start=(1, 2))
        model.generate(_ids(), max_new_tokens=2)
        return model

    return make


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_left_behind_by_any_failure(untouched, name: str) -> None:
    model = untouched(name)
    for what, (fail, error) in FAILURES.items():
        before = state(model.hf)
        with pytest.raises(error):
            fail(model)
        after = state(model.hf)
        left = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
        assert not left, f"{what}: {sorted(left)[:5]}"


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_left_behind_by_success(untouched, name: str) -> None:
    model = untouched(name)
    before = state(model.hf)
    with torch.enable_grad():
        run = model.run(_ids(), "*", Scale("resid_pre@1", 2.0), resumable=True)
        run.resume([Scale("resid_pre@2", 2.0, positions=4)], capture="resid_post@2")
        model.run(_ids(), "resid_post@0", logits=False)
        model.run(_ids(), stop_at_layer=1)
        model.gradients(_ids(), lambda x: x.sum(), ["attn.z", "resid_post"])
        model.generate(_ids(), max_new_tokens=3, temperature=1.0, seed=3)
    after = state(model.hf)
    assert {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)} == set()


def test_a_forward_that_was_replaced_on_a_block_is_put_back(family) -> None:
    model = Model(build("llama"))
    block = model.hf.model.layers[0]
    original = block.forward

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return original(*args, **kwargs)

    block.forward = wrapped
    base = model.run(_ids(), resumable=True)
    base.resume([[]], start=(2, 3))
    assert block.__dict__["forward"] is wrapped
    with pytest.raises(Boom):
        base.resume([Apply("resid_pre@2", _raise(Boom()), positions=4)])
    assert block.__dict__["forward"] is wrapped
    assert "forward" not in model.hf.model.layers[1].__dict__


def test_the_model_works_as_before_after_failures(family) -> None:
    model = family("llama")
    plain = plain_logits(model.hf, _ids()[None])
    for fail, error in FAILURES.values():
        with pytest.raises(error):
            fail(model)
    assert torch.equal(plain_logits(model.hf, _ids()[None]), plain)
    assert torch.equal(model.run(_ids(), "all").logits, plain)

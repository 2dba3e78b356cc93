"""Every test runs with the shape checker on, one thread a process, no hub, and warnings as errors (pyproject.toml)."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one thread a worker; set before torch is imported anywhere
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_OFFLINE"] = "1"  # no test may need the hub; the default model does not come from it

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

install_import_hook("interp", "beartype.beartype")

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from interp.models.loading import ModelParts
    from interp.runner.model import Model

DEFAULT_MODEL = "smollm2-135m"

settings.register_profile(
    "suite",
    deadline=None,  # the first example pays imports
    derandomize=True,
    database=None,
    max_examples=int(os.environ.get("INTERP_TEST_EXAMPLES", "50")),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("suite")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips ``gpu`` tests, with the reason, where there is no CUDA device."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no CUDA device here")


@pytest.fixture(scope="session")
def fetch_lock(tmp_path_factory: pytest.TempPathFactory) -> FileLock:
    """A lock that all workers of one run share, so that only one fetches the default model."""
    folder = tmp_path_factory.getbasetemp()
    shared = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    return FileLock(shared / "default-model.lock")


@pytest.fixture(scope="session")
def default_model_parts(fetch_lock: FileLock) -> "ModelParts":
    """The default model's weights and tokenizer on the CPU in fp32, before the runner wraps them."""
    from interp.models.loading import load_parts

    with fetch_lock:
        return load_parts(DEFAULT_MODEL, device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def model(fetch_lock: FileLock) -> "Model":
    """The default model on the CPU in fp32, loaded as a user loads it. Tests leave it as they found it."""
    import interp

    with fetch_lock:
        return interp.load(DEFAULT_MODEL, device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def tiny() -> "Callable[..., PreTrainedModel]":
    """``tiny(family, attn=None, seed=0)`` makes a fresh small random model of one of ``tiny_models.FAMILIES``."""
    from tiny_models import build

    return build


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of data sets that lie beside a checkout, or where INTERP_TEST_DATA says."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("INTERP_TEST_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no test data in {folder}; set INTERP_TEST_DATA to a folder that has it")
    return folder


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder for one test, in place of the user's."""
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setenv("INTERP_CACHE", str(folder))
    return folder

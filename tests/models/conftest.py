"""Small real models on disk: a Llama of three layers with a word tokenizer, saved the way ``save_pretrained`` does."""

from collections.abc import Callable
from pathlib import Path
from shutil import copytree

import pytest

WORDS = ["<unk>", "<s>", "</s>", "the", "tower", "is", "in", "paris", "rome"]


def save_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="session")
def _saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for each family asked for, made once; tests get copies."""
    return tmp_path_factory.mktemp("saved")


@pytest.fixture
def saved_model(_saved: Path, tmp_path: Path, tiny) -> Callable[..., Path]:
    """``saved_model("llama", max_shard_size="20KB")`` is a folder of a tiny model and its tokenizer, free to be damaged."""

    def save(family: str = "llama", name: str = "model", **options) -> Path:
        kept = _saved / "-".join([family, *(f"{key}={value}" for key, value in sorted(options.items()))])
        if not kept.exists():
            tiny(family).save_pretrained(kept, **options)
            save_tokenizer(kept)
        return Path(copytree(kept, tmp_path / name))

    return save

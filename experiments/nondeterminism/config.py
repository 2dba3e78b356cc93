"""The settings of the experiment."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
PROMPTS = FOLDER / "prompts.txt"


@dataclass(frozen=True, kw_only=True)
class Config:
    """So many of the ``prompts`` of the file are computed in each of the ``dtypes``.

    ``copies`` are the sizes of batches of the same prompt, ``beside`` the tokens of the longer prompt that it is padded beside, and
    ``threads`` the number of threads that is tried in place of one.
    """

    model: str = "smollm2-135m"
    prompts: int = 8
    dtypes: tuple[str, ...] = ("float32", "bfloat16", "float16")
    copies: tuple[int, ...] = (4,)
    beside: int = 64
    threads: int = 2

    def quick(self) -> "Config":
        """Two prompts: it shows that everything runs, in less than a minute."""
        return replace(self, prompts=2)

    def to_json(self) -> dict[str, Any]:
        """The settings as JSON gives them back."""
        return json.loads(json.dumps(asdict(self)))


def read_prompts(path: Path = PROMPTS) -> tuple[str, ...]:
    """The prompts of a file, parted by empty lines."""
    return tuple(path.read_text(encoding="utf-8").strip("\n").split("\n\n"))

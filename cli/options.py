"""Options and arguments that several commands share."""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

DEFAULT_MODEL = "smollm2-135m"

PromptArgument: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="PROMPT",
        help="The text; '-' reads it from stdin; '@FILE.json' is a conversation, a list of {role, content}.",
    ),
]
ModelArgument: TypeAlias = Annotated[
    str, typer.Argument(metavar="MODEL", help="A short name, a hub id, a folder of safetensors or a .gguf file.")
]
ModelOption: TypeAlias = Annotated[
    str,
    typer.Option(
        "--model", "-m", metavar="MODEL", help="A short name, a hub id, a folder of safetensors or a .gguf file."
    ),
]
Chat: TypeAlias = Annotated[bool, typer.Option("--chat", help="Put the prompt through the tokenizer's chat template.")]
System: TypeAlias = Annotated[
    str | None, typer.Option("--system", metavar="TEXT", help="A system message before the prompt; implies --chat.")
]
Target: TypeAlias = Annotated[
    str | None,
    typer.Option("--target", "-t", metavar="TEXT", help="Follow this token, such as ' Paris'; it must be one token."),
]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
OutputPath: TypeAlias = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the result to FILE.", dir_okay=True)
]
Device: TypeAlias = Annotated[
    str, typer.Option("--device", metavar="DEVICE", help="auto (cuda, then mps, then cpu), cpu, cuda, cuda:N or mps.")
]
DeviceMap: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--device-map",
        metavar="MAP",
        help="Spread the weights over GPUs, memory and disk: auto, balanced, sequential, or @FILE.json (module path: device).",
    ),
]
Dtype: TypeAlias = Annotated[
    str,
    typer.Option(
        "--dtype", metavar="DTYPE", help="auto (as stored; float32 on the CPU), float32, bfloat16 or float16."
    ),
]
Seed: TypeAlias = Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Seed of every random draw.")]
Quiet: TypeAlias = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]
Revision: TypeAlias = Annotated[
    str | None, typer.Option("--revision", metavar="REV", help="Branch, tag or commit of a hub model.")
]
Offline: TypeAlias = Annotated[
    bool, typer.Option("--offline", help="Use only what is cached; never reach the network.")
]
Workers: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--workers", "-w", metavar="N", min=1, help="Pieces of work done at once; default 1, on Ray all it has."
    ),
]
EngineName: TypeAlias = Annotated[
    str, typer.Option("--engine", metavar="ENGINE", help="embedded (processes of this machine) or ray.")
]
Address: TypeAlias = Annotated[
    str | None,
    typer.Option("--address", metavar="ADDRESS", help="A Ray cluster, such as auto; default: one made here."),
]

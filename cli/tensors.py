"""``interp tensors``: every tensor of a model, from the headers of its files."""

from collections import Counter
from typing import Any

import typer

from .options import Json, ModelArgument, OutputPath, Quiet
from .output import Output, check_writable, table

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def tensors(model: ModelArgument, as_json: Json = False, output: OutputPath = None, quiet: Quiet = False) -> None:
    """List a model's tensors without loading the weights.

    MODEL may also be one .safetensors file. Short names and hub ids must be cached.
    """
    from interp.models.tables import tensor_table

    check_writable(output)
    rows = tensor_table(model)
    sizes: Counter[str] = Counter()
    for row in rows:
        sizes[row.dtype] += row.bytes
    totals = {
        "tensors": len(rows),
        "parameters": sum(row.parameters for row in rows),
        "bytes": sum(row.bytes for row in rows),
        "bytes_by_dtype": dict(sizes),
    }
    payload = {
        "model": model,
        "tensors": [
            {"name": row.name, "shape": row.shape, "dtype": row.dtype, "bytes": row.bytes, "file": row.file}
            for row in rows
        ],
        "totals": totals,
    }
    speaker = Output(command="tensors", as_json=as_json, path=output, quiet=quiet)
    speaker.show(payload, lambda target: _draw(target, rows, totals))


def _draw(target: Any, rows: list[Any], totals: dict[str, Any]) -> None:
    """One line a tensor, the file only where there are several, and the totals."""
    several = len({row.file for row in rows}) > 1
    columns = ("tensor", "shape", "dtype", "bytes", *(("file",) if several else ()))
    cells = [
        (row.name, " x ".join(map(str, row.shape)) or "scalar", row.dtype, f"{row.bytes:,}")
        + ((row.file,) if several else ())
        for row in rows
    ]
    target.print(table(columns, cells, right="<><>"[: len(columns)]))
    formats = ", ".join(f"{name} {size:,}" for name, size in sorted(totals["bytes_by_dtype"].items()))
    target.print(
        f"{totals['tensors']:,} tensors, {totals['parameters']:,} parameters, {totals['bytes']:,} bytes ({formats})",
        soft_wrap=True,
    )

"""What is kept of the benchmarks: results.json, and docs/benchmarks.md made of it and of the scaling figures."""

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any

import psutil

from experiments.benchmarks.config import FOLDER, ROOT
from experiments.benchmarks.rows import Row, page
from experiments.scaling.tables import scaling_section

PAGE = ROOT / "docs" / "benchmarks.md"


def page_of(data: Mapping[str, Any]) -> str:
    """The page of these results."""
    return page([Row.of(row) for row in data["rows"]], data["about"], data["failures"], scaling_section())


def write_page() -> None:
    """docs/benchmarks.md anew, from the results that are there."""
    PAGE.write_text(page_of(json.loads((FOLDER / "results.json").read_text())))


def renewed(old: Mapping[str, Any], new: Sequence[Row], failures: Sequence[str]) -> dict[str, Any]:
    """Results with some rows measured again: they stand where the old ones stood, at the end where there were none, and it says when."""
    keys = {row.key for row in new}
    before = [Row.of(row) for row in old["rows"]]
    place = next((index for index, row in enumerate(before) if row.key in keys), len(before))
    rows = [*before[:place], *new, *(row for row in before[place:] if row.key not in keys)]
    seen = f"{', '.join(sorted(keys))}: {datetime.datetime.now(datetime.UTC).date().isoformat()}"
    earlier = [part for part in old["about"].get("measured again", "").split("; ") if part and seen not in part]
    entry = f"{seen}, load average before {psutil.getloadavg()[0]:.1f}"
    return {
        "about": {**old["about"], "measured again": "; ".join([*earlier, entry])},
        "rows": [row.to_json() for row in rows],
        "failures": [*old["failures"], *failures],
    }

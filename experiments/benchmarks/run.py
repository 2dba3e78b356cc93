"""``python -m experiments.benchmarks.run [--quick]``: measures and writes docs/benchmarks.md and results.json.

``--quick`` takes about a minute and writes into experiments/benchmarks/out/ instead. ``--again lens`` (or another group)
measures only these rows and puts them in place of those in results.json.
"""

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from experiments.benchmarks import editing, faults, heads, lens, moments, patching, starting, store, tracing
from experiments.benchmarks.config import FOLDER, ROOT, SEED, Config, Shape, read_goals
from experiments.benchmarks.harness import PEER_FAULTS, Side, Spread, Timing, check_equal, measure, threads
from experiments.benchmarks.kept import PAGE, page_of, renewed
from experiments.benchmarks.least import held_bytes, least
from experiments.benchmarks.machine import about
from experiments.benchmarks.rows import Row, shown, timed_row
from experiments.benchmarks.sides import OURS, PEERS, PLAIN, Work, ours, plain, random_ids, reference
from interp.runner.model import Model, load

FORWARD_ROWS = ("residual", "everything", "stop", "restart")
PROMPT = "The Eiffel Tower is located in the city of"


class Bench:
    """One run of the benchmarks: the model, the settings, what could not run."""

    def __init__(self, model: Model, config: Config, say: Callable[[str], None]) -> None:
        self.model, self.config, self.say = model, config, say
        self.goals = read_goals()
        self.failures: list[str] = []

    def title(self, key: str) -> str:
        """A row's title with this run's numbers in it."""
        c = self.config
        return self.goals[key]["title"].format(
            layers=self.model.atlas.n_layers, stop=c.stop_layer, start=c.start_layer, positions=c.lens_positions
        )

    def forward_rows(self, shape: Shape) -> Iterator[Row]:
        """The rows about one forward, for one shape of the batch."""
        ids = random_ids(self.model, shape.rows, shape.tokens, SEED)
        work = Work(model=self.model, ids=ids, stop=self.config.stop_layer, start=self.config.start_layer)
        baseline, truth = plain(work), reference(work)
        expected = Side(row="plain", name="Hugging Face", call=lambda: truth, read=lambda numbers: numbers)
        sides, far = [], []
        for side in (*ours(work), *least(work)):
            far.append((side.row, check_equal(side, expected)))
            sides.append(side)
        missing: dict[str, str] = {}
        for name in self.config.peers:
            try:
                for side in PEERS[name](work):
                    far.append((side.row, check_equal(side, expected)))
                    sides.append(side)
            except PEER_FAULTS as fault:
                reason = f"{type(fault).__name__}: {fault}".splitlines()[0][:200]
                self.failures.append(f"{name}, {shape}: {reason}")
                missing[name] = "did not run"
        timings = measure(sides, baseline, shape.rounds, seed=SEED)
        for key in FORWARD_ROWS:
            absent = {name: why for name, why in missing.items() if (key, name) not in timings}
            yield timed_row(
                key,
                f"{self.title(key)}, {shape}",
                self.goals[key],
                timings,
                (OURS, ("plain", PLAIN)),
                absent,
                max(value for row, value in far if row == key),
            )

    def lens_rows(self) -> Iterator[Row]:
        """The lens against the matrix products, and its memory."""
        n_pos, atlas = self.config.lens_positions, self.model.atlas
        ids = random_ids(self.model, 1, n_pos, SEED)
        normed = lens.normed_streams(self.model, ids)
        side, baseline, formulas = lens.lens_sides(normed, self.model.unembedding, ids[0].roll(-1), OURS)
        far = check_equal(side, formulas)
        sides = [side, *lens.least_sides(normed, self.model.unembedding)]
        timings: dict[tuple[str, str], Timing] = measure(sides, baseline, self.config.lens_rounds, seed=SEED)
        goal = self.goals["lens"]
        yield timed_row("lens", self.title("lens"), goal, timings, (OURS, baseline.key), {}, far)
        sizes = (atlas.n_layers, n_pos, atlas.d_model, atlas.d_vocab, self.config.threads)
        yield self._attempt("lens_memory", lambda: Spread.of([starting.printed_number(lens.__name__, sizes)]))

    def fault_rows(self) -> Iterator[Row]:
        """Everything at the longest shape once more, in processes of their own: as it is, and where freed memory is kept."""
        c = self.config
        longest = max(shape.tokens for shape in c.shapes)
        arguments = (c.model, longest, c.fault_rounds, c.threads)
        for key, environment in (("faults", {}), ("no_faults", faults.KEPT)):
            row = self._attempt(
                key, lambda extra=environment: Spread.of([starting.printed_number(faults.__name__, arguments, extra)])
            )
            yield replace(row, title=f"{row.title}, 1x{longest}")

    def scan_rows(self) -> Iterator[Row]:
        """The scan of all heads for induction, and the memory it needs beside the forward's own."""
        c, goal = self.config, self.goals[heads.ROW]
        work = heads.ScanWork.of(self.model, c.scan.rows, c.scan.tokens)
        mine, stored = heads.ours(work), heads.stored_patterns(work)
        far = [check_equal(mine, stored)]
        sides, missing = [mine, stored, heads.forward_side(work)], {}
        if "TransformerLens" in c.peers:
            try:
                for side in heads.transformer_lens(work):
                    far.append(check_equal(mine, side))
                    sides.append(side)
            except PEER_FAULTS as fault:
                missing["TransformerLens"] = "did not run"
                self.failures.append(f"TransformerLens, scan: {type(fault).__name__}: {fault}".splitlines()[0][:200])
        baseline = heads.plain_side(work)
        timings = measure(sides, baseline, c.scan.rounds, seed=SEED)
        title = f"{self.title(heads.ROW)}, {c.scan}"
        yield timed_row(heads.ROW, title, goal, timings, (OURS, baseline.key), missing, max(far))
        arguments = (c.model, c.scan_memory_tokens, c.threads)
        row = self._attempt(
            "scan_memory", lambda: Spread.of([starting.printed_number(heads.__name__, arguments) for _ in range(3)])
        )
        patterns = 4e-6 * self.model.atlas.n_layers * self.model.atlas.n_heads * c.scan_memory_tokens**2
        title = f"{row.title}, 1x{c.scan_memory_tokens}"
        yield replace(row, title=title, others={"size of all patterns": Spread.of([patterns])})

    def trace_rows(self) -> Iterator[Row]:
        """Causal traces beside one full forward a cell."""
        yield from tracing.rows(self.model, self.config.traces, self.goals)

    def patching_rows(self) -> Iterator[Row]:
        """Activation patching sweeps beside TransformerLens', and attribution patching beside them."""
        with threads(self.config.patch_threads):
            yield from patching.rows(self.model, self.config, self.goals, self.failures)

    def editing_rows(self) -> Iterator[Row]:
        """One edit of a fact beside full forwards."""
        with threads(self.config.edit_threads):
            yield from editing.rows(self.model, self.config.edited, self.goals)

    def moment_rows(self) -> Iterator[Row]:
        """The second moment of a layer's keys beside the forward alone."""
        with threads(self.config.edit_threads):
            yield from moments.rows(self.model, self.config.measured, self.goals)

    def store_rows(self) -> Iterator[Row]:
        """An activation store beside the forward alone."""
        with threads(self.config.edit_threads):
            yield from store.rows(self.model, self.config.collected, self.goals)

    def starting_rows(self) -> Iterator[Row]:
        """Fresh processes."""
        c = self.config
        yield self._attempt("load", lambda: starting.load_time(c.model, c.threads, c.starts))
        yield self._attempt("help", lambda: starting.wall_time(["--help"], c.threads, c.help_starts))
        command = ["lens", PROMPT, "--model", c.model, "--quiet"]
        yield self._attempt("command", lambda: starting.wall_time(command, c.threads, c.starts))

    def _attempt(self, key: str, measured: Callable[[], Spread]) -> Row:
        goal = self.goals[key]
        try:
            value: Spread | str = measured()
        except starting.FailedStart as fault:
            self.failures.append(f"{self.title(key)}: {fault}")
            value = "did not run"
        return Row(key=key, title=self.title(key), unit=goal["unit"], ours=value, goal=goal["goal"])

    def memory_rows(self) -> Iterator[Row]:
        """Bytes that a cache holds, each storage counted once."""
        n_tokens = self.config.memory_tokens
        work = Work(
            model=self.model,
            ids=random_ids(self.model, 1, n_tokens, SEED),
            stop=self.config.stop_layer,
            start=self.config.start_layer,
        )
        held: dict[str, dict[str, Spread | str]] = {"residual": {}, "everything": {}}
        counts: dict[str, str] = {}
        for side in ours(work):
            if side.row in held:
                held[side.row][OURS] = Spread.of([held_bytes(side.call().cache.values()) / 1e6])
        if "TransformerLens" in self.config.peers:
            try:
                for side in PEERS["TransformerLens"](work):
                    if side.row in held:
                        cache = side.call()[1]
                        held[side.row][side.name] = Spread.of([held_bytes(cache.values()) / 1e6])
                        counts[side.row] = f"; {len(cache)} tensors in TransformerLens's"
            except PEER_FAULTS as fault:
                self.failures.append(f"TransformerLens, memory: {type(fault).__name__}: {fault}".splitlines()[0][:200])
        for key, values in held.items():
            mine = values.pop(OURS)
            title = (
                f"cache of the {self.title(key)}, 1x{n_tokens}"
                if key == "residual"
                else f"cache of {self.title(key)}, 1x{n_tokens}"
            )
            yield Row(key=f"{key}_memory", title=title + counts.get(key, ""), unit="MB", ours=mine, others=values)

    def run_rows(self) -> Iterator[Row]:
        """One run of every shape, with all that can be captured of it."""
        for shape in self.config.shapes:
            yield from self.forward_rows(shape)


GROUPS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "run": Bench.run_rows,
    "faults": Bench.fault_rows,
    "lens": Bench.lens_rows,
    "scan": Bench.scan_rows,
    "trace": Bench.trace_rows,
    "patching": Bench.patching_rows,
    "moments": Bench.moment_rows,
    "store": Bench.store_rows,
    "editing": Bench.editing_rows,
    "starting": Bench.starting_rows,
    "memory": Bench.memory_rows,
}
"""The rows that are measured together, in the page's order."""


def _told(rows: Iterator[Row], say: Callable[[str], None]) -> list[Row]:
    found = []
    with torch.no_grad():
        for row in rows:
            found.append(row)
            goal = "" if row.goal is None else f", goal {row.goal:g}"
            say(f"{row.title}: {shown(row.ours, row.unit)} {row.unit}{goal}")
    return found


def bench(model: Model, config: Config, command: str, say: Callable[[str], None]) -> tuple[str, dict[str, Any]]:
    """Measures everything; the page and the same as data."""
    described = about(model, command)
    runner = Bench(model, config, say)
    rows = _told((row for group in GROUPS.values() for row in group(runner)), say)
    data = {"about": described, "rows": [row.to_json() for row in rows], "failures": runner.failures}
    return page_of(data), data


def again(
    model: Model, config: Config, folder: Path, group: str, say: Callable[[str], None]
) -> tuple[str, dict[str, Any]]:
    """One group of rows measured again and put in place of the old ones, at the end where there were none; the page says which and when."""
    old = json.loads((folder / "results.json").read_text())
    runner = Bench(model, config, say)
    data = renewed(old, _told(GROUPS[group](runner), say), runner.failures)
    return page_of(data), data


def main(arguments: list[str] | None = None) -> int:
    """Returns 0; whether goals are met stands on the page."""
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmarks.run", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds and short prompts, written to out/")
    parser.add_argument("--again", choices=sorted(GROUPS), help="measure only these rows; the others stay as they are")
    asked = parser.parse_args(arguments)
    config = Config().quick() if asked.quick else Config()
    torch.set_num_threads(config.threads)
    logging.disable(logging.WARNING)  # other tools warn about what they find
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    model = load(config.model, device="cpu", dtype="float32")
    command = "python -m experiments.benchmarks.run --quick" if asked.quick else "make bench"
    folder = FOLDER / "out" if asked.quick else FOLDER
    say = partial(print, flush=True)
    text, data = again(model, config, folder, asked.again, say) if asked.again else bench(model, config, command, say)
    folder.mkdir(exist_ok=True)
    target = folder / "benchmarks.md" if asked.quick else PAGE
    target.write_text(text)
    (folder / "results.json").write_text(json.dumps(data, indent=1) + "\n")
    print(f"wrote {target.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

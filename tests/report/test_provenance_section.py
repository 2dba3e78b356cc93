"""Where the figures come from: what all results share stands once, what differs stands beside the results that it belongs to."""

from interp.report.findings import plain
from interp.report.sections.provenance import build
from report import samples

EARLY, LATE = "2026-01-02T03:04:05+00:00", "2026-01-02T03:06:00+00:00"


def rows_of(table) -> list[list[str]]:
    return [[plain(cell) for cell in row] for row in table.rows]


def test_results_of_one_run_have_one_table() -> None:
    lens = samples.lens(layers=2, provenance=samples.provenance(created=LATE))
    story = samples.story(layers=2, provenance=samples.provenance(created=EARLY))
    (table,) = build([lens, story]).blocks
    values = dict(rows_of(table))
    assert values["model"] == "smollm2-135m"
    assert values["made at"] == f"{EARLY} to {LATE}"
    assert values["seed"] == "not set"
    assert len(values) == 11


def test_what_differs_stands_beside_its_results() -> None:
    seeded = samples.provenance(seed=0, created=LATE)
    results = [samples.lens(layers=2), samples.causal_trace(layers=2, provenance=seeded), samples.story(layers=2)]
    shared, own = build(results).blocks
    assert "seed" not in dict(rows_of(shared))
    assert dict(rows_of(shared))["SHA-256 of the weights"] == samples.provenance().weights_sha256
    assert own.columns == ("results", "seed", "made at")
    assert rows_of(own) == [
        ["logit lens, residual story", "not set", samples.provenance().created],
        ["causal trace", "0", LATE],
    ]


def test_every_field_is_told() -> None:
    other = samples.provenance(
        model="other",
        weights_sha256="b" * 64,
        architecture="A",
        dtype="bfloat16",
        device="cuda",
        threads=7,
        attention="eager",
        seed=3,
        command="interp lens Hi",
        created=LATE,
        versions={"torch": "1"},
    )
    (own,) = build([samples.lens(layers=2), samples.lens(layers=2, provenance=other)]).blocks
    assert len(own.columns) == 12
    assert rows_of(own)[1][1:4] == ["other", "b" * 64, "A"]

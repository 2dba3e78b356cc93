"""Error wording and exit codes."""

import pytest

from interp import errors
from interp.errors import InterpError, out_of_range, unknown


def test_each_kind_has_its_exit_code() -> None:
    codes = {
        "InterpError": 1,
        "UsageError": 2,
        "ModelError": 3,
        "NumericsError": 4,
        "MemoryLimitError": 5,
        "VerificationError": 6,
    }
    for name, code in codes.items():
        kind = getattr(errors, name)
        assert issubclass(kind, InterpError)
        assert kind.exit_code == code
    assert issubclass(errors.UsageError, ValueError)
    assert issubclass(errors.MemoryLimitError, MemoryError)


def test_an_unknown_name_gets_the_nearest_and_all_valid_ones() -> None:
    error = unknown("device", "cdua", ["cpu", "cuda", "mps"])
    assert str(error) == "unknown device 'cdua' (did you mean 'cuda'?); valid: cpu, cuda, mps"
    assert str(unknown("device", "xyz", ["cpu"])) == "unknown device 'xyz'; valid: cpu"
    assert str(unknown("layer", 7, [1, 2])) == "unknown layer '7'; valid: 1, 2"


def test_an_index_out_of_range_gets_both_ways_to_count() -> None:
    error = out_of_range("layer", 99, 30)
    assert str(error) == "layer 99 is out of range; valid: 0 to 29 (or -30 to -1 from the end)"
    with pytest.raises(ValueError, match="out of range"):
        raise error

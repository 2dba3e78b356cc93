"""Values of a sweep's tables, each held to its kind, with the one line that says what is wrong with it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from interp.errors import UsageError, unknown


@dataclass(frozen=True)
class Values:
    """Reads tables; ``where`` begins the messages."""

    where: str

    def known(self, what: str, given: Mapping[str, Any], valid: Sequence[str]) -> None:
        """Raises UsageError for a name that is not among the valid ones."""
        for name in given:
            if name not in valid:
                raise unknown(what, name, valid)

    def of(self, given: Mapping[str, Any], name: str, kind: Any, said: str, default: Any = None) -> Any:
        """The value of a name, or its default. Raises UsageError for one of another kind, ``said`` in words; true is no number."""
        value = given.get(name, default)
        if value is default or (isinstance(value, kind) and (kind is bool or not isinstance(value, bool))):
            return value
        raise UsageError(f"{self.where}: {name!r} must be {said}, got {value!r}")

    def at_least(self, least: int, given: Mapping[str, Any], name: str, default: int) -> int:
        """The whole number of a name. Raises UsageError for one below ``least``."""
        value = self.of(given, name, int, "a whole number", default)
        if value < least:
            raise UsageError(f"{self.where}: {name} is {value}; give {least} or more")
        return value

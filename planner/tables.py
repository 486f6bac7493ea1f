"""Reading plain nested data, as a TOML or JSON reader returns it, with every problem at once."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from planner.amounts import BUILT_IN, CPU_UNIT, in_units, parse_size
from planner.findings import Findings

__all__ = ["Table", "describe"]


def describe(value: object) -> str:
    """What a value is, for an error: its kind and, when it is short, itself."""
    if isinstance(value, Mapping):
        return f"a table with {len(value)} keys"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"a list of {len(value)}"
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


class Table:
    """One table of the data; each reader returns None for what is absent or wrong.

    What is wrong is recorded as a finding, so reading goes on to the end. ``finish`` then
    reports the keys that nobody asked for.

    Args:
        data: The table.
        path: Where it is, such as ``nodes[3]``.
        findings: Takes what is wrong.
    """

    def __init__(self, data: Mapping[object, object], path: str, findings: Findings) -> None:
        self.path = path
        self._data = data
        self._findings = findings
        self._known: list[str] = []

    def at(self, key: str) -> str:
        """The path of a key."""
        return f"{self.path}.{key}" if self.path else key

    def wrong(self, key: str, problem: str, remedy: str) -> None:
        """Record that a key is wrong."""
        self._findings.add(self.at(key), problem, remedy)

    def value(self, key: str) -> object:
        """What is under a key, whatever it is; None when it is absent."""
        self._known.append(key)
        return self._data.get(key)

    def text(self, key: str, *, required: bool = False) -> str | None:
        """A text that is not empty."""
        value = self.value(key)
        if isinstance(value, str) and value.strip():
            return value
        if value is not None or required:
            problem = "it is missing" if value is None else f"{describe(value)} is not a name"
            self.wrong(key, problem, "give a text that is not empty")
        return None

    def whole(self, key: str, *, smallest: int = 0) -> int | None:
        """A whole number of at least ``smallest``."""
        value = self.value(key)
        if isinstance(value, int) and not isinstance(value, bool) and value >= smallest:
            return value
        if value is not None:
            remedy = f"give a whole number of {smallest} or more"
            self.wrong(key, f"{describe(value)} is not such a number", remedy)
        return None

    def amount(self, key: str, unit: int = CPU_UNIT) -> int | None:
        """A number, such as 8 or 0.5 CPUs, in whole parts of ``1 / unit``."""
        value = self.value(key)
        return None if value is None else self._amount(key, value, unit)

    def _amount(self, key: str, value: object, unit: int) -> int | None:
        if isinstance(value, int | float) and not isinstance(value, bool):
            scaled = in_units(value, unit)
            if scaled is not None and scaled >= 0:
                return scaled
        remedy = f"give a number of 0 or more in steps of {1 / unit:g}, such as 8 or 0.5"
        self.wrong(key, f"{describe(value)} is not an amount", remedy)
        return None

    def size(self, key: str) -> int | None:
        """A size in bytes from a whole number or a text such as ``80GiB``."""
        value = self.value(key)
        if value is None:
            return None
        size = parse_size(value) if isinstance(value, str) else None
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            size = value
        if size is None:
            remedy = "give whole bytes, or a text such as 80GiB"
            self.wrong(key, f"{describe(value)} is not a size", remedy)
        return size

    def flag(self, key: str) -> bool:
        """True or false; false when absent."""
        value = self.value(key)
        if value is not None and not isinstance(value, bool):
            self.wrong(key, f"{describe(value)} is not a flag", "give true or false")
        return value is True

    def amounts(self, key: str) -> dict[str, int]:
        """A table of custom resources, in thousandths."""
        found: dict[str, int] = {}
        for name, value in self._entries(key).items():
            if not name or name in BUILT_IN:
                self.wrong(f"{key}.{name}", "it is not a custom resource", "give it its own name")
                continue
            amount = self._amount(f"{key}.{name}", value, CPU_UNIT)
            if amount is not None:
                found[name] = amount
        return found

    def texts(self, key: str) -> dict[str, str]:
        """A table of texts by name."""
        texts: dict[str, str] = {}
        for name, value in self._entries(key).items():
            if isinstance(value, str):
                texts[name] = value
            else:
                self.wrong(f"{key}.{name}", f"{describe(value)} is not a text", "give a text")
        return texts

    def _entries(self, key: str) -> dict[str, object]:
        value = self.value(key)
        if isinstance(value, Mapping):
            return {str(name): each for name, each in value.items()}
        if value is not None:
            self.wrong(key, f"{describe(value)} is not a table", "give names with values")
        return {}

    def table(self, key: str) -> "Table | None":
        """A table inside this one."""
        value = self.value(key)
        if isinstance(value, Mapping):
            return Table(value, self.at(key), self._findings)
        if value is not None:
            self.wrong(key, f"{describe(value)} is not a table", "give names with values")
        return None

    def tables(self, key: str) -> list["Table"]:
        """A list of tables inside this one; a single table stands for a list of one."""
        value = self.value(key)
        if value is None:
            return []
        if isinstance(value, Mapping):
            return [Table(value, self.at(key), self._findings)]
        if isinstance(value, str) or not isinstance(value, Sequence):
            self.wrong(key, f"{describe(value)} is not a list of tables", "give a list of tables")
            return []
        found: list[Table] = []
        for position, each in enumerate(value):
            if isinstance(each, Mapping):
                found.append(Table(each, f"{self.at(key)}[{position}]", self._findings))
            else:
                path = f"{key}[{position}]"
                self.wrong(path, f"{describe(each)} is not a table", "give names with values")
        return found

    def finish(self) -> None:
        """Report every key that was not read, with the nearest one that exists."""
        for key in self._data:
            if key not in self._known:
                near = get_close_matches(str(key), self._known, n=1)
                known = ", ".join(self._known)
                remedy = f"write {near[0]!r}" if near else f"the keys are {known}"
                self.wrong(str(key), "there is no such key", remedy)

"""What a plan file says about itself: its format, its version, and a digest of all of it."""

import re
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches

from attrs import frozen

from planner.exact_values import shown
from planner.findings import Findings
from planner.plan_text import digest_of

__all__ = ["PlanFormat", "envelope_of", "open_envelope"]

_KEYS = ("format", "version", "digest", "plan")
_VERSION = re.compile(r"([0-9]{1,9})\.([0-9]{1,9})")
_AS_WRITTEN = "take the file as it was written, or plan again"


@frozen(kw_only=True)
class PlanFormat:
    """One type of plan as a file format.

    Attributes:
        plan: The type.
        major: A change of what was there before raises it.
        minor: A field more raises it; readers of an older minor version ignore that field.
        check: Records what contradicts itself in a plan that was read.
    """

    plan: type
    major: int
    minor: int
    check: Callable[[object, Findings], None]

    @property
    def name(self) -> str:
        """What a file says it holds."""
        return f"rankplan/{self.plan.__name__}"

    @property
    def version(self) -> str:
        """What a file says of its version."""
        return f"{self.major}.{self.minor}"


def envelope_of(form: PlanFormat, plan: object) -> dict[str, object]:
    """The envelope around a plan's plain data."""
    sealed = {"format": form.name, "version": form.version, "plan": plan}
    return {
        "format": form.name,
        "version": form.version,
        "digest": digest_of(sealed),
        "plan": plan,
    }


def open_envelope(
    data: object, formats: Sequence[PlanFormat], kind: type | None, findings: Findings
) -> tuple[PlanFormat, bool, object]:
    """The format of a file, whether it is of a newer minor version, and the plan's plain data.

    Problems that leave the plan readable, such as a digest that does not match, are recorded.

    Raises:
        PlanError: The plan can't be read: what was recorded is in the error too.
    """
    if not isinstance(data, dict):
        findings.fail("text", f"{shown(data)} is no plan file", "give what plan_to_json wrote")
    for key in _KEYS:
        if key not in data:
            findings.add(key, "it is missing", _AS_WRITTEN)
    _check_digest(data, findings)
    form = _form(data.get("format"), formats, kind, findings)
    newer = _is_newer(data.get("version"), form, findings)
    for key in () if newer else sorted(data.keys() - set(_KEYS)):
        findings.add(key, "a plan file has no such key", f"the keys are {', '.join(_KEYS)}")
    if "plan" not in data:
        findings.check()
    return form, newer, data.get("plan")


def _check_digest(data: Mapping[str, object], findings: Findings) -> None:
    given = data.get("digest")
    if "digest" not in data:
        return
    found = digest_of({key: value for key, value in data.items() if key != "digest"})
    if given != found:
        problem = f"the file was changed after it was written: its contents give {found}"
        findings.add("digest", problem, _AS_WRITTEN)


def _form(
    name: object, formats: Sequence[PlanFormat], kind: type | None, findings: Findings
) -> PlanFormat:
    found = next((form for form in formats if form.name == name), None)
    if found is None:
        names = [form.name for form in formats]
        near = get_close_matches(str(name), names, n=1) or names
        problem = f"{shown(name)} is no format that is known here"
        findings.fail("format", problem, f"known: {', '.join(near)}")
    if kind is not None and found.plan is not kind:
        problem = f"it holds a {found.plan.__name__}, and a {kind.__name__} was asked for"
        findings.fail("format", problem, f"read it as {found.plan.__name__}")
    return found


def _is_newer(version: object, form: PlanFormat, findings: Findings) -> bool:
    match = _VERSION.fullmatch(version) if isinstance(version, str) else None
    understood = f"version {form.major}.x of {form.name} is understood here"
    if match is None:
        findings.fail("version", f"{shown(version)} is no version", understood)
    major, minor = int(match[1]), int(match[2])
    if major != form.major:
        newer = "write it again with this version of rankplan"
        remedy = "read it with a newer rankplan" if major > form.major else newer
        findings.fail("version", f"{major}.{minor} is not understood: {understood}", remedy)
    return minor > form.minor

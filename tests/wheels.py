"""Writes tiny packages as wheels, without a network or a build tool."""

import zipfile
from pathlib import Path

__all__ = ["write_wheel"]


def write_wheel(folder: Path, name: str, version: str, source: str) -> str:
    """Write a wheel with one module of the package's name; its path."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": source,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{each},,\n" for each in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(path, "w") as wheel:
        for each, content in (files | {f"{info}/RECORD": record}).items():
            # A fixed date, so that equal packages are equal bytes.
            wheel.writestr(zipfile.ZipInfo(each), content)
    return str(path)

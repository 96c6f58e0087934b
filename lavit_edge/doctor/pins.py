"""The versions that the package was tested with, as its own metadata has them, beside those that are installed."""

from __future__ import annotations

import platform
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from lavit_edge.doctor.findings import Finding

DISTRIBUTION = "lavit-edge"
BASE = ""  # the requirements that every install has
APART = ("litert",)  # extras that want an environment of their own, and are not in ``all``
TORCH = "torch"  # the extra that the toolchains' extras rest on


def requirements() -> dict[str, list[Requirement]]:
    """Extra -> what it requires, for each that ``all`` is made of and :data:`APART`, :data:`TORCH` first; :data:`BASE` -> what is
    always required. An extra that asks for another requires what that one does."""
    parsed = [Requirement(line) for line in _declared()[1]]

    base = [wanted for wanted in parsed if wanted.marker is None or wanted.marker.evaluate({"extra": BASE})]

    def of(extra: str) -> list[Requirement]:
        own = [wanted for wanted in parsed if wanted.marker and wanted not in base and wanted.marker.evaluate({"extra": extra})]
        others = [each for wanted in own if wanted.name == DISTRIBUTION for name in sorted(wanted.extras) for each in of(name)]
        return [*others, *(wanted for wanted in own if wanted.name != DISTRIBUTION)]

    (everything,) = (
        wanted for wanted in parsed if wanted.name == DISTRIBUTION and wanted.marker and wanted.marker.evaluate({"extra": "all"})
    )
    extras = sorted({*everything.extras, *APART}, key=lambda extra: (extra != TORCH, extra))
    return {BASE: base} | {extra: of(extra) for extra in extras}


def _declared() -> tuple[str, list[str]]:
    """The Python versions and the requirements, from the installed package, or from ``pyproject.toml`` in a mere checkout."""
    try:
        package = metadata.metadata(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        file = Path(__file__).resolve().parents[2] / "pyproject.toml"
        project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
        optional = project["optional-dependencies"].items()
        extras = [_for_extra(Requirement(line), extra) for extra, lines in optional for line in lines]
        return project["requires-python"], [*project["dependencies"], *extras]
    return package["Requires-Python"], package.get_all("Requires-Dist") or []


def _for_extra(wanted: Requirement, extra: str) -> str:
    """As a build of the package writes it into its metadata."""
    condition = f'extra == "{extra}"'
    wanted.marker = Marker(f"({wanted.marker}) and {condition}" if wanted.marker else condition)
    return str(wanted)


def installed(name: str) -> str | None:
    """The version of a distribution, None when there is none."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def missing(extra: str) -> list[str]:
    """What an extra requires and what is not installed."""
    return [wanted.name for wanted in requirements()[extra] if installed(wanted.name) is None]


def install(extra: str) -> str:
    """The command that installs an extra."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"


def repair(extra: str) -> str:
    """The command that puts back the versions which an extra was tested with, torch among them."""
    return "pip install " + " ".join(f"'{wanted.name}{wanted.specifier}'" for wanted in requirements()[extra])


def versions() -> Iterator[Finding]:
    """One finding per requirement, and one for Python."""
    wanted, python = SpecifierSet(_declared()[0]), platform.python_version()
    if wanted.contains(python):
        yield Finding("versions", "python", "OK", f"{python} ({wanted})")
    else:
        yield Finding(
            "versions", "python", "FAIL", f"{python}, wanted {wanted}", f"make a virtual environment with Python {wanted}"
        )
    told = set()
    for extra, lines in requirements().items():
        for requirement in lines:
            if requirement.name not in told:
                told.add(requirement.name)
                yield _version(extra, requirement)


def _version(extra: str, requirement: Requirement) -> Finding:
    name, found, specifier = requirement.name, installed(requirement.name), requirement.specifier
    step = f"pip install '{name}{specifier}'"
    if found is None and extra != BASE:
        return Finding("versions", name, "not installed", f"wanted {specifier} for {extra}", install(extra))
    if found is None:
        return Finding("versions", name, "FAIL", f"not installed, wanted {specifier}", step)
    if not specifier.contains(found, prereleases=True):
        return Finding("versions", name, "FAIL", f"{found}, wanted {specifier}", step)
    return Finding("versions", name, "OK", f"{found} ({specifier})")

"""Constraints for the oldest versions that pyproject.toml admits; all else as constraints.txt pins it."""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement


def oldest_versions(root: Path) -> list[str]:
    """Lines `name==version`, the project's own dependencies at their lower bounds."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    oldest = {}
    for requirement in map(Requirement, project["dependencies"]):
        [lower] = [bound.version for bound in requirement.specifier if bound.operator == ">="]
        oldest[requirement.name] = f"{requirement.name}=={lower}"
    pinned = [line for line in (root / "constraints.txt").read_text().split() if _name(line) not in oldest]
    return [*oldest.values(), *pinned]


def _name(line: str) -> str:
    return line.partition("==")[0].replace("_", "-")


if __name__ == "__main__":
    print("\n".join(oldest_versions(Path(__file__).parents[2])))

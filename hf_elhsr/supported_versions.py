"""Which versions of torch and transformers the package works with, checked at import before anything else."""

import importlib.metadata

from packaging.requirements import Requirement

_DISTRIBUTION = "hf-elhsr"
# Of the others, pip sees to it; with these two, private methods may have changed without an error that says so
_CHECKED = ("torch", "transformers")


def check_versions() -> None:
    """Refuse torch and transformers outside of the ranges in pyproject.toml, as the installed package records them.

    A bare checkout that was never installed has no such record, and is not checked.

    Raises:
        ImportError: Names the range, the version found, and what to do.
    """
    try:
        requirements = importlib.metadata.requires(_DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return
    for requirement in map(Requirement, requirements):
        if requirement.name in _CHECKED and requirement.marker is None:
            check_version(requirement, importlib.metadata.version(requirement.name))


def check_version(requirement: Requirement, found: str) -> None:
    """Refuse a version, such as "5.23.0", that does not satisfy a requirement, such as "transformers>=5.23,<5.24".

    Raises:
        ImportError: Names the range, the version found, and what to do.
    """
    if not requirement.specifier.contains(found, prereleases=True):
        raise ImportError(
            f"hf_elhsr works with {requirement}, and {requirement.name} {found} is installed: it stands on private "
            "methods of generate, which change between minor versions, and would go wrong without a word. Run "
            f"`pip install '{requirement}'`, or install an hf_elhsr made for {requirement.name} {found}."
        )

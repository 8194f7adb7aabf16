"""The versions of torch and transformers that the package works with, checked at import before anything else."""

import importlib.metadata

from packaging.requirements import Requirement

_DISTRIBUTION = "hf-elhsr"
# pip checks the others; an unsupported version of these two can give incorrect results instead of errors
_CHECKED = ("torch", "transformers")


def check_versions() -> None:
    """Refuse versions of torch and transformers outside the ranges that the installed package records.

    A checkout that was never installed has no such record, and is not checked.

    Raises:
        ImportError: A version is outside its range; says what to install.
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
        ImportError: It does not; says what to install.
    """
    if not requirement.specifier.contains(found, prereleases=True):
        raise ImportError(
            f"hf_elhsr works with {requirement}, and {requirement.name} {found} is installed. It relies on private "
            "methods of generate, which change between minor versions, so results could be incorrect without an error. "
            f"Run `pip install '{requirement}'`, or install an hf_elhsr made for {requirement.name} {found}."
        )

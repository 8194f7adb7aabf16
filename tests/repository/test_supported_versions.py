"""Versions outside of pyproject.toml's range are refused at import; the oldest admitted ones are those that CI has."""

import importlib.metadata
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from hf_elhsr.supported_versions import check_version
from oldest_versions import oldest_versions

ROOT = Path(__file__).parents[2]


def requirement(name: str) -> Requirement:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [found] = [one for one in map(Requirement, project["dependencies"]) if one.name == name]
    return found


@pytest.mark.parametrize(
    ("name", "version"), [("transformers", "5.23.0"), ("transformers", "5.23.7"), ("torch", "2.13.0+cpu")]
)
def test_versions_inside(name, version):
    check_version(requirement(name), version)


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("transformers", "5.22.2"),
        ("transformers", "5.24.0"),
        ("transformers", "5.24.0.dev0"),
        ("transformers", "4.57.6"),
        ("torch", "2.12.1+cu130"),
    ],
)
def test_versions_outside(name, version):
    with pytest.raises(ImportError) as error:
        check_version(requirement(name), version)
    for part in (str(requirement(name)), f"{name} {version} is installed", f"pip install '{requirement(name)}'"):
        assert part in str(error.value)


def fake_distribution(folder: Path, name: str, version: str, *lines: str) -> None:
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("\n".join(["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *lines]))


@pytest.mark.parametrize(("version", "works"), [("5.22.2", False), ("5.23.4", True)])
def test_at_import(tmp_path, version, works):
    fake_distribution(tmp_path, "hf-elhsr", "0.1.0", "Requires-Dist: transformers<5.24,>=5.23")
    fake_distribution(tmp_path, "transformers", version)
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    run = subprocess.run(
        [sys.executable, "-c", "import hf_elhsr"], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert (run.returncode == 0) == works, run.stderr
    if not works:
        assert "ImportError: hf_elhsr works with transformers<5.24,>=5.23, and transformers 5.22.2 is" in run.stderr


def test_the_oldest_versions_are_the_lower_bounds():
    oldest = dict(line.split("==") for line in oldest_versions(ROOT) if line.partition("==")[0] in ("numpy", "torch"))
    assert oldest == {"numpy": "2.0", "torch": "2.13"}
    others = [line for line in oldest_versions(ROOT) if line.startswith("pytest==")]
    assert others == [f"pytest=={importlib.metadata.version('pytest')}"]


@pytest.mark.parametrize("name", ["torch", "transformers"])
def test_ci_has_the_oldest_admitted_version(name):
    """Once the range is wider than what constraints.txt pins, CI must run `make test-oldest` as well."""
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    oldest = dict(line.split("==") for line in oldest_versions(ROOT))
    assert Version(pins[name]) == Version(oldest[name])

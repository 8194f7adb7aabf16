"""The content of the wheel and the source distribution. `make test-dist` builds them and runs this."""

import os
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DIST = os.environ.get("DIST")

pytestmark = pytest.mark.skipif(DIST is None, reason="needs DIST, a folder with distributions: run `make test-dist`")


@pytest.fixture(scope="module")
def committed():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(listed.stdout.splitlines())


def names_in(pattern):
    [file] = Path(ROOT, DIST).glob(pattern)
    if file.suffix == ".whl":
        return set(zipfile.ZipFile(file).namelist())
    with tarfile.open(file) as archive:
        return {member.name.partition("/")[2] for member in archive if member.isfile()}


def test_the_wheel_is_the_package_and_nothing_else(committed):
    names = {name for name in names_in("*.whl") if ".dist-info/" not in name}
    assert names == {name for name in committed if name.startswith("hf_elhsr/")}
    assert {"hf_elhsr/py.typed", "hf_elhsr/hub/card_template.md", "hf_elhsr/explanation/page.html"} <= names


def test_the_wheel_has_the_license_and_the_command():
    names = {name.partition(".dist-info/")[2] for name in names_in("*.whl") if ".dist-info/" in name}
    assert {"METADATA", "entry_points.txt", "licenses/LICENSE"} <= names


def test_the_source_distribution_has_all_that_was_committed(committed):
    names = names_in("*.tar.gz")
    added = {name for name in names if name == "PKG-INFO" or name.startswith("hf_elhsr.egg-info/")}
    tools = {name for name in committed if name.startswith(".")}
    assert names - added == committed - tools

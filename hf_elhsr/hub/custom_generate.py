"""Build `custom_generate/`, the code that a published head carries, so that plain transformers can use it.

transformers takes a folder `custom_generate/` with `generate.py` and flat siblings that import one another as
`from .name import`. They are built from the package's own modules: `custom_generate_entry.py` and those that it
imports, directly or not, each under a flat name, with its relative imports rewritten and nothing else changed. Rooms of
small modules become one file.
"""

import ast
import importlib.metadata
import os
from graphlib import TopologicalSorter
from pathlib import Path

from packaging.requirements import Requirement

from .. import __version__
from .._files import write_text

_PACKAGE = Path(__file__).resolve().parents[1]
_ENTRY = "hub.custom_generate_entry"
# These rooms are one file each: transformers downloads file by file, and prints a warning for each
_MERGED = ("decisions", "rewards")
_MADE_BY = "# Made by hf_elhsr "
_HEADER = (
    _MADE_BY + "{version} from its {paths}, where changes belong.\n"
    "# Copyright the hf_elhsr authors, Apache License 2.0: https://www.apache.org/licenses/LICENSE-2.0\n"
)


def write_custom_generate(folder: str | os.PathLike[str], repo_id: str | None = None) -> Path:
    """Write `custom_generate/` into a head's folder; one that is there already is made anew.

    Then `model.generate(custom_generate=<folder or repository>, best_of_n=8, trust_remote_code=True)` works in plain
    transformers. The head is read from the folder, or from the repository at the commit that the code came from.

    Args:
        folder: The head's, with `config.json` and `model.safetensors`.
        repo_id: "org/name", as which the head is published. Only needed where the code is loaded by
            `model.load_custom_generate`; a call of `generate` names its repository itself.

    Returns:
        The path of `custom_generate/`.

    Raises:
        ValueError: The folder holds no head, or a `custom_generate/` that was not made here.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise ValueError(f"The folder {str(folder)!r} has no config.json, so it holds no reward head.")
    target = folder / "custom_generate"
    files = custom_generate_files(repo_id)
    if foreign := foreign_files(target):
        raise ValueError(
            f"{str(target)!r} has files that were not made by hf_elhsr ({', '.join(foreign)}): move them away."
        )
    target.mkdir(exist_ok=True)
    for name, text in files.items():
        write_text(target / name, text)
    for file in target.glob("*.py"):
        if file.name not in files:
            file.unlink()
    return target


def custom_generate_files(repo_id: str | None = None) -> dict[str, str]:
    """What is in `custom_generate/`: the files' texts by their names, for a head that is published as `repo_id`."""
    texts: dict[str, str] = {}
    imported: dict[str, list[str]] = {}
    waiting = [_ENTRY]
    while waiting:
        module = waiting.pop()
        if module not in texts:
            texts[module], imported[module] = _flattened(module)
            waiting += imported[module]
    modules: dict[str, list[str]] = {}
    # In a file of several modules each comes after those that it imports
    for module in TopologicalSorter(imported).static_order():
        modules.setdefault(f"{_flat_name(module)}.py", []).append(module)
    files = {name: _header(parts) + "\n\n".join(texts[module] for module in parts) for name, parts in modules.items()}
    if repo_id is not None:
        files["generate.py"] = _with_repo_id(files["generate.py"], repo_id)
    return {"requirements.txt": _requirements(), **dict(sorted(files.items()))}


def foreign_files(target: Path) -> list[str]:
    """What a `custom_generate/` has that was not made here."""
    return [file.name for file in sorted(target.glob("*")) if file.name != "__pycache__" and not _is_made_here(file)]


def _is_made_here(file: Path) -> bool:
    return file.is_file() and file.read_text(errors="replace").startswith(_MADE_BY)


def _flat_name(module: str) -> str:
    if module == _ENTRY:
        return "generate"
    room = module.partition(".")[0]
    return room if room in _MERGED else module.replace(".", "_")


def _header(modules: list[str]) -> str:
    paths = ", ".join(f"hf_elhsr/{_source(module).relative_to(_PACKAGE).as_posix()}" for module in sorted(modules))
    return _HEADER.format(version=__version__, paths=paths) + "\n"


def _source(module: str) -> Path:
    """The file of a module, named from the package on."""
    path = _PACKAGE.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _flattened(module: str) -> tuple[str, list[str]]:
    """A module's text with its relative imports rewritten, and the modules of the package that it imports."""
    path = _source(module)
    text = path.read_text()
    lines = text.splitlines(keepends=True)
    needed: list[str] = []
    imports = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom) and node.level]
    for node in sorted(imports, key=lambda node: node.lineno, reverse=True):
        by_module: dict[str, list[str]] = {}
        for alias in node.names:
            defining = _defining_module(_absolute(module, node), alias.name)
            by_module.setdefault(defining, []).append(ast.unparse(alias))
        needed += by_module
        rewritten = [
            f"from .{_flat_name(target)} import {', '.join(names)}"
            for target, names in by_module.items()
            # What is in the same file needs no import
            if _flat_name(target) != _flat_name(module)
        ]
        indent = " " * node.col_offset
        lines[node.lineno - 1 : node.end_lineno] = [f"{indent}{statement}\n" for statement in rewritten]
    return "".join(lines), needed


def _absolute(module: str, node: ast.ImportFrom) -> str:
    """The module that a relative import inside `module` names, from the package on."""
    parents = module.split(".")[: -node.level]
    return ".".join([*parents, *([node.module] if node.module else [])])


def _defining_module(module: str, name: str) -> str:
    """The module that a name comes from: `module` itself, or the one that its `__init__.py` imports the name from."""
    path = _source(module)
    if path.name != "__init__.py":
        return module
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and name in [alias.asname or alias.name for alias in node.names]:
            # Inside a package's __init__.py, one dot is the package itself
            return _defining_module(_absolute(f"{module}.__init__", node), name)
    raise ValueError(f"hf_elhsr/{path.relative_to(_PACKAGE)} does not import {name}: import it from where it is made.")


def _with_repo_id(text: str, repo_id: str) -> str:
    before = "PUBLISHED_AS: str | None = None\n"
    return text.replace(before, f"PUBLISHED_AS: str | None = {repo_id!r}\n")


def _requirements() -> str:
    """Those of the package that the code has, one condition a line: transformers checks them before it runs it."""
    lines = []
    for text in importlib.metadata.requires("hf-elhsr") or []:
        requirement = Requirement(text)
        if requirement.marker is None and requirement.name in ("torch", "transformers"):
            lines += [f"{requirement.name}{specifier}" for specifier in sorted(map(str, requirement.specifier))]
    return "\n".join([_MADE_BY + f"{__version__}.", *sorted(lines)]) + "\n"

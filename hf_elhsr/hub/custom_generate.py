"""Build `custom_generate/`, the code that a published head carries, so that plain transformers can use it.

transformers takes a folder `custom_generate/` with `generate.py` and flat siblings that import one another as
`from .name import`. They are built from the package's own modules: `custom_generate_entry.py` and those that it
imports, directly or not. The modules of a folder become one file, since transformers downloads the files one by one
and prints a warning for each. Only their relative imports are rewritten.
"""

import ast
import importlib.metadata
import os
import textwrap
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

from packaging.requirements import Requirement

from .. import __version__
from .._files import is_leftover
from ..head.files import current_file
from .whole_save import owning_head_folder, replacing_together

_PACKAGE = Path(__file__).resolve().parents[1]
_ENTRY = "hub.custom_generate_entry"
_MADE_BY = "# Made by hf_elhsr "
_LICENSE = "# Copyright the hf_elhsr authors, Apache License 2.0: https://www.apache.org/licenses/LICENSE-2.0\n"


def write_custom_generate(folder: str | os.PathLike[str], repo_id: str | None = None) -> Path:
    """Write `custom_generate/` into a head's folder, in the place of an earlier one.

    Then `model.generate(custom_generate=<folder or repository>, best_of_n=8, trust_remote_code=True)` works in plain
    transformers. The head is read from the folder, or from the repository at the commit that the code came from.

    Args:
        folder: The head's folder, with `config.json` and `model.safetensors`.
        repo_id: The repository that the head is published as, "org/name". Only needed where the code is loaded by
            `model.load_custom_generate`; a call of `generate` names its repository itself.

    Returns:
        The path of `custom_generate/`.

    Raises:
        ValueError: The folder holds no head, or a `custom_generate/` with files that hf_elhsr has not made; or another
            process is writing into it.
        OSError: The folder cannot be written.
    """
    folder = Path(folder)
    if not current_file(folder, "config.json").is_file():
        raise ValueError(f"The folder {str(folder)!r} has no config.json, so it holds no reward head.")
    target = folder / "custom_generate"
    files = custom_generate_files(repo_id)
    with owning_head_folder(folder):
        if foreign := foreign_files(target):
            raise ValueError(
                f"{str(target)!r} has files that were not made by hf_elhsr ({', '.join(foreign)}): move them away."
            )
        with replacing_together(folder) as staged:
            (staged / target.name).mkdir()
            for name, text in files.items():
                (staged / target.name / name).write_text(text, encoding="utf-8")
    return target


def custom_generate_files(repo_id: str | None = None) -> dict[str, str]:
    """The texts of the files in `custom_generate/` by their names, for a head that is published as `repo_id`.

    Raises:
        ValueError: Two modules that become one file define the same name differently.
    """
    texts: dict[str, str] = {}
    imported: dict[str, list[str]] = {}
    waiting = [_ENTRY]
    while waiting:
        module = waiting.pop()
        if module not in texts:
            texts[module], imported[module] = _flattened(module)
            waiting += imported[module]
    parts: dict[str, dict[str, str]] = {}
    # Each module comes after those that it imports, which the names at its top level may depend on
    for module in TopologicalSorter(imported).static_order():
        parts.setdefault(f"{_flat_name(module)}.py", {})[module] = texts[module]
    files = {name: _merged(modules) for name, modules in parts.items()}
    if repo_id is not None:
        files["generate.py"] = _with_repo_id(files["generate.py"], repo_id)
    return {"requirements.txt": _requirements(), **dict(sorted(files.items()))}


def foreign_files(target: Path) -> list[str]:
    """The names of files in a `custom_generate/` that hf_elhsr has not made."""
    return [
        file.name
        for file in sorted(target.glob("*"))
        if file.name != "__pycache__" and not is_leftover(file.name) and not _is_made_here(file)
    ]


def _is_made_here(file: Path) -> bool:
    return file.is_file() and file.read_text(errors="replace").startswith(_MADE_BY)


def _flat_name(module: str) -> str:
    return "generate" if module == _ENTRY else module.partition(".")[0]


def _merged(modules: dict[str, str]) -> str:
    """One file of several modules' texts."""
    bound: dict[str, str] = {}
    for module, text in modules.items():
        for name, statement in _top_level_names(text):
            if bound.setdefault(name, statement) != statement:
                raise ValueError(
                    f"hf_elhsr.{module} defines {name}, and so does another module of its folder, differently, but "
                    "custom_generate/ has both in one file: rename one of them."
                )
    paths = ", ".join(f"hf_elhsr/{_source(module).relative_to(_PACKAGE).as_posix()}" for module in modules)
    header = textwrap.wrap(
        f"{_MADE_BY}{__version__} from these of its files, where changes belong: {paths}.", 118, subsequent_indent="# "
    )
    return "\n".join([*header, _LICENSE, "\n\n".join(modules.values())])


def _top_level_names(text: str) -> Iterator[tuple[str, str]]:
    """The names that a module's statements bind, each with its statement."""
    for node in ast.parse(text).body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield name, ast.unparse(node)
            case ast.Import(names=aliases):
                yield from ((alias.asname or alias.name, f"import {ast.unparse(alias)}") for alias in aliases)
            case ast.ImportFrom(module=source, names=aliases):
                yield from ((alias.asname or alias.name, f"{source}: {ast.unparse(alias)}") for alias in aliases)
            case ast.Assign() | ast.AnnAssign():
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                yield from ((target.id, ast.unparse(node)) for target in targets if isinstance(target, ast.Name))


def _source(module: str) -> Path:
    """The file of a module, which is named from the package on."""
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
            # Modules of the same file need no import
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
    """The module that defines a name: `module` itself, or the one that its `__init__.py` imports the name from."""
    path = _source(module)
    if path.name != "__init__.py":
        return module
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and name in [alias.asname or alias.name for alias in node.names]:
            # Inside a package's __init__.py, one dot is the package itself
            return _defining_module(_absolute(f"{module}.__init__", node), name)
    raise ValueError(
        f"hf_elhsr/{path.relative_to(_PACKAGE)} does not import {name}: import it from the module that defines it."
    )


def _with_repo_id(text: str, repo_id: str) -> str:
    before = "PUBLISHED_AS: str | None = None\n"
    return text.replace(before, f"PUBLISHED_AS: str | None = {repo_id!r}\n")


def _requirements() -> str:
    """The package's requirements that this code has, a condition a line; transformers checks them before running it."""
    lines = []
    for text in importlib.metadata.requires("hf-elhsr") or []:
        requirement = Requirement(text)
        if requirement.marker is None and requirement.name in ("torch", "transformers"):
            lines += [f"{requirement.name}{specifier}" for specifier in sorted(map(str, requirement.specifier))]
    return "\n".join([_MADE_BY + f"{__version__}.", *sorted(lines)]) + "\n"

"""Private and undocumented names of transformers are used in one file alone, read off the package's syntax trees."""

import ast
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import transformers

import hf_elhsr

PACKAGE = Path(hf_elhsr.__file__).parent
INTERNALS = PACKAGE / "transformers_internals.py"
TREES = {
    path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text())
    for path in sorted(PACKAGE.rglob("*.py"))
    if path != INTERNALS
}

# What transformers' documentation has, beside the names at its top level
DOCUMENTED = {
    "transformers.generation": {"BaseStreamer", "GenerationMixin", "GenerationMode"},
    "transformers.utils": {"ModelOutput", "logging"},
    "transformers.utils.logging": {"tqdm"},
}
# Private names of others
ALLOWED = {
    # torch
    "_apply",
    "_foreach_lerp_",
    "_is_mkldnn_bf16_supported",
    "_linear_pointwise",
    "_orig_mod",
    "_reorder_linear_weight",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_version",
    # os documents it, for processes that a fork made
    "_exit",
    # IPython: what a notebook displays
    "_repr_html_",
    # transformers documents it, as the method that a model of one's own overrides
    "_init_weights",
}
TRANSFORMERS_CLASSES = (
    transformers.PreTrainedModel,
    transformers.PreTrainedConfig,
    transformers.GenerationConfig,
    transformers.GenerationMixin,
    transformers.Cache,
    transformers.LogitsProcessor,
    transformers.StoppingCriteria,
)
OF_TRANSFORMERS = {name for cls in TRANSFORMERS_CLASSES for name in dir(cls)} | vars(
    transformers.GenerationConfig()
).keys()


def is_private(name: object) -> bool:
    """One underscore at the start, as a name and not as text."""
    return isinstance(name, str) and name.startswith("_") and not name.startswith("__") and name.isidentifier()


def defined_names(tree: ast.Module) -> Iterator[str]:
    """Functions, classes, arguments, variables and attributes that a file makes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            # What is written to other objects was there before
            yield node.attr


def used_names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Attributes, keywords, definitions and texts, since a text may be for getattr, with their lines."""
    parts_of_texts = {part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.lineno, node.attr
        elif isinstance(node, ast.keyword):
            yield node.value.lineno, node.arg or ""
        elif isinstance(node, ast.FunctionDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in parts_of_texts:
            yield node.lineno, node.value


OWN = {name for tree in TREES.values() for name in defined_names(tree) if is_private(name)}
OWN |= {"_original_class"}


def is_documented(module: str, name: str) -> bool:
    if module == "transformers":
        # Its modules are attributes, too
        return not is_private(name) and not isinstance(getattr(transformers, name), ModuleType)
    return name in DOCUMENTED.get(module, ())


def undocumented_imports(tree: ast.Module) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.startswith("transformers.")]
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module.partition(".")[0] == "transformers":
            names = [alias.name for alias in node.names if not is_documented(node.module, alias.name)]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "transformers":
            names = [] if is_documented("transformers", node.attr) else [node.attr]
        else:
            continue
        found += [f"{node.lineno}: {name}" for name in names]
    return found


def private_names(tree: ast.Module) -> list[str]:
    return [
        f"{line}: {name}"
        for line, name in used_names(tree)
        if is_private(name) and name not in ALLOWED and (name not in OWN or name in OF_TRANSFORMERS)
    ]


@pytest.mark.parametrize("path", TREES)
def test_no_other_file_imports_what_is_undocumented(path):
    assert undocumented_imports(TREES[path]) == []


@pytest.mark.parametrize("path", TREES)
def test_no_other_file_uses_a_private_name(path):
    assert private_names(TREES[path]) == []


def test_all_that_is_allowed_is_used():
    used = {name for tree in TREES.values() for _, name in used_names(tree)}
    assert used >= ALLOWED


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("from transformers.cache_utils import DynamicLayer", "DynamicLayer"),
        ("from transformers import masking_utils", "masking_utils"),
        ("import transformers.generation.utils", "transformers.generation.utils"),
        ("def f():\n    from transformers.utils import extract_commit_hash", "extract_commit_hash"),
        ("transformers.cache_utils.DynamicLayer()", "cache_utils"),
    ],
)
def test_an_undocumented_import_is_found(code, name):
    [found] = undocumented_imports(ast.parse(code))
    assert found.endswith(f": {name}")


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("model._prefill(input_ids)", "_prefill"),
        ("getattr(config, '_commit_hash', None)", "_commit_hash"),
        ("config._attn_implementation_internal = 'sdpa'", "_attn_implementation_internal"),
        ("GenerationConfig(_from_model_config=False)", "_from_model_config"),
        ("class Model:\n    def _sample(self): ...", "_sample"),
        ("vars(model) & {'_get_stopping_criteria'}", "_get_stopping_criteria"),
    ],
)
def test_a_private_name_is_found(code, name):
    [found] = private_names(ast.parse(code))
    assert found.endswith(f": {name}")

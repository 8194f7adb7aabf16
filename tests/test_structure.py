"""What only `head/` knows, read off the package's syntax trees: the signals' names, W, and the gate-weighted mean."""

import ast
from pathlib import Path

import pytest

import hf_elhsr
from hf_elhsr.head.configuration_elhsr import SIGNALS

PACKAGE = Path(hf_elhsr.__file__).parent
TREES = {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}
OUTSIDE_HEAD = [path for path in TREES if not path.startswith("head/")]
# Of the linear heads: `weight` and `bias` are names of other layers, too
PARAMETERS = {"value_weight", "value_bias"}


def signal_names(node: ast.AST) -> set[str]:
    """Names of signals written out below a node, and attributes and variables that hold one."""
    inside = list(ast.walk(node))
    names = {part.value for part in inside if isinstance(part, ast.Constant) and part.value in SIGNALS}
    names |= {"config.signal" for part in inside if isinstance(part, ast.Attribute) and part.attr == "signal"}
    return names


def comparisons_of_signals(tree: ast.Module) -> list[str]:
    """Comparisons, membership tests, matches and tables by a signal's name. Formatting one or passing it on is fine."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            parts: list[ast.AST] = [node.left, *node.comparators]
        elif isinstance(node, ast.Match):
            parts = [node.subject, *(case.pattern for case in node.cases)]
        elif isinstance(node, ast.Dict):
            parts = [key for key in node.keys if key is not None]
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in ("startswith", "endswith")
        ):
            parts = [node.func.value, *node.args]
        elif isinstance(node, ast.Set):
            parts = list(node.elts)
        else:
            continue
        if any(signal_names(part) for part in parts):
            found.append(f"{node.lineno}: {ast.unparse(node)}")
    return found


def gate_weighted_means(tree: ast.Module) -> list[str]:
    """Quotients by a sum of gates, and floors of eps, as the equation of R has them."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            parts: list[ast.AST] = [node.right]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in (
            "clamp_min",
            "clamp",
            "maximum",
            "max",
            "div",
            "divide",
            "true_divide",
            "clip",
            "average",
        ):
            parts = [*node.args, *(keyword.value for keyword in node.keywords), node.func]
        else:
            continue
        words = {word for part in parts for word in _words(part)}
        if "eps" in words or (isinstance(node, ast.BinOp) and any("gate" in word for word in words)):
            found.append(f"{node.lineno}: {ast.unparse(node)}")
    return found


def _words(node: ast.AST) -> set[str]:
    names = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
    return names | {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)}


def test_a_files_name_says_one_thing():
    """The files of commands are named after these, and may share a name with what the command calls."""
    names = [Path(path).name for path in TREES if not path.startswith("cli/") and not path.endswith("__init__.py")]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("path", OUTSIDE_HEAD)
def test_only_the_head_asks_which_signal_it_is(path):
    assert comparisons_of_signals(TREES[path]) == []


def test_the_gate_weighted_mean_stands_once():
    found = {path: means for path, tree in TREES.items() if (means := gate_weighted_means(tree))}
    assert list(found) == ["head/token_outputs.py"]
    [mean] = [line for line in found["head/token_outputs.py"] if " / " in line]
    assert mean.endswith("weighted_sum / gate_sum.clamp_min(self.eps)")


@pytest.mark.parametrize("path", OUTSIDE_HEAD)
def test_only_the_head_knows_its_parameters(path):
    attributes = [node for node in ast.walk(TREES[path]) if isinstance(node, ast.Attribute)]
    named = [node.attr for node in attributes if node.attr in PARAMETERS]
    of_heads = [
        ast.unparse(node)
        for node in attributes
        if node.attr in ("weight", "bias")
        and ast.unparse(node.value).rpartition(".")[2].lstrip("_") in ("head", "reward_head")
    ]
    assert named == []
    assert of_heads == []


@pytest.mark.parametrize(
    "code",
    [
        "config.signal == 'logits'",
        "if signal in ('logits', 'hidden_states'): pass",
        "match config.signal:\n    case 'logits': pass",
        "config.signal != default",
        "{'logits': 1}[signal]",
        "config.signal.startswith('top')",
        "set(names) & {'logits'}",
    ],
)
def test_a_comparison_of_signals_is_found(code):
    assert len(comparisons_of_signals(ast.parse(code))) == 1


@pytest.mark.parametrize("code", ["f'signal:{config.signal}'", "SIGNALS[config.signal]", "describe(config.signal)"])
def test_formatting_and_passing_on_a_signals_name_is_fine(code):
    assert comparisons_of_signals(ast.parse(code)) == []


@pytest.mark.parametrize(
    "code",
    [
        "(gates * rewards).sum() / gates.sum()",
        "weighted / total.clamp_min(config.eps)",
        "np.average(rewards, weights=gates) / np.maximum(gate_sum, eps)",
    ],
)
def test_a_gate_weighted_mean_is_found(code):
    assert gate_weighted_means(ast.parse(code))

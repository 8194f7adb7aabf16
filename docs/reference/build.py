"""The API reference: HTML made from docstrings. `make docs` puts it into docs/_build.

python docs/reference/build.py docs/_build
"""

import sys
import warnings
from pathlib import Path

import pdoc

ROOT = Path(__file__).parents[2]

#: A page each. Names at top level come first; the rooms are for those who train heads and write tasks.
MODULES = (
    "hf_elhsr",
    "hf_elhsr.models",
    "hf_elhsr.tasks",
    "hf_elhsr.rollouts",
    "hf_elhsr.training",
    "hf_elhsr.evaluation",
    "hf_elhsr.explanation",
    "hf_elhsr.rewards",
    "hf_elhsr.hub",
)


def main() -> None:
    # This checkout's package, whatever is installed
    sys.path.insert(0, str(ROOT))
    # A docstring that pdoc does not understand is an error
    warnings.filterwarnings("error", module=r"pdoc\b")
    pdoc.render.configure(
        docformat="google",
        show_source=False,
        template_directory=Path(__file__).parent,
    )
    pdoc.pdoc(*MODULES, output_directory=Path(sys.argv[1]))


if __name__ == "__main__":
    main()

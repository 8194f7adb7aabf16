"""The API reference: HTML made from docstrings. `make docs` puts it into docs/_build.

python docs/reference/build.py docs/_build
"""

import sys
import warnings
from pathlib import Path

import pdoc

ROOT = Path(__file__).parents[2]

#: A page each. What the package exports itself comes first; the others are for those who make heads and tasks.
MODULES = (
    "hf_elhsr",
    "hf_elhsr.rollouts",
    "hf_elhsr.tasks",
    "hf_elhsr.training",
    "hf_elhsr.evaluation",
    "hf_elhsr.hub",
)


def main() -> None:
    # This checkout's package, whatever is installed
    sys.path.insert(0, str(ROOT))
    # A reference with a hole in it is not made
    warnings.filterwarnings("error", module=r"pdoc\b")
    pdoc.render.configure(
        docformat="google",
        show_source=False,
        template_directory=Path(__file__).parent,
    )
    pdoc.pdoc(*MODULES, output_directory=Path(sys.argv[1]))


if __name__ == "__main__":
    main()

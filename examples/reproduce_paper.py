"""The paper's comparison on your own machine, from a configuration file.

    python examples/reproduce_paper.py examples/reproduction/small.json rollouts/reproduction
    python examples/reproduce_paper.py examples/reproduction/paper.json rollouts/paper --dry-run

For every task: rollouts with features, a reward head, heads on fewer prompts, heads that read other signals, a linear
probe of the last token and a fine-tuned text reward model, all from the same training prompts; then all of them, and
the heads of the other tasks, on the same rollouts of unseen prompts. The folder gets report.md with all tables and
report.json with all numbers. The same command resumes a run that was killed.

--dry-run checks the model, the tasks and the disk, estimates what everything takes, and then rehearses every step with
a tiny random model of the same architecture, a few prompts and labels drawn at random.
"""

import argparse
from pathlib import Path

from reproduction.dry_run import dry_run
from reproduction.plan import Plan
from reproduction.steps import Reproduction


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path, help="a configuration file, as in examples/reproduction")
    parser.add_argument("folder", type=Path, help="for rollouts, heads and the report")
    parser.add_argument(
        "--dry-run", action="store_true", help="check, estimate and rehearse every step; sample nothing"
    )
    args = parser.parse_args()
    plan = Plan.from_json(args.plan.read_text())
    if args.dry_run:
        for line in dry_run(plan, args.folder):
            print(line)
    else:
        Reproduction(plan, args.folder).run()
        print((args.folder / "report.md").read_text())


if __name__ == "__main__":
    main()

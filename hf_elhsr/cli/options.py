"""Options that several commands take, with their help."""

from typing import Annotated

import typer

from ..rollouts.tasks import TASKS

Model = Annotated[str, typer.Option(help="Folder or Hub id of the language model; 'smollm2-demo' is the demo's.")]
Dtype = Annotated[str, typer.Option(help="The language model's dtype: bfloat16, float32 or float16.")]
Task = Annotated[str, typer.Option(help=f"The task that makes problems and verifies answers: {', '.join(TASKS)}.")]
Verifier = Annotated[
    str | None, typer.Option(help="For one's own prompts in FILE.jsonl: 'file.py:function', which says what is right.")
]
Head = Annotated[str, typer.Option(help="The reward head: a folder, 'org/name' or 'org/name@revision'.")]
Signal = Annotated[
    str,
    typer.Option(help="What the head to be trained reads: hidden_states, logits or top_log_probabilities (of 20)."),
]
N = Annotated[int, typer.Option("--n", min=2, help="Candidates per prompt.")]
Temperature = Annotated[float, typer.Option(help="Sampling temperature.")]
TopP = Annotated[float, typer.Option(help="Nucleus sampling: keep the most likely tokens up to this mass.")]
MaxNewTokens = Annotated[int, typer.Option(min=1, help="Length limit of a completion, in tokens.")]
Skip = Annotated[
    int,
    typer.Option(min=0, help="Leave out the first prompts of the split, e.g. those an earlier head was measured on."),
]
Seed = Annotated[int, typer.Option(help="Of all random numbers.")]

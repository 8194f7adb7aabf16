"""Options that several commands share, with the same meaning and the same help everywhere."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from transformers.utils import logging

from .._checks import quoted
from .._locks import refuse_owned
from ..head.configuration_elhsr import SIGNALS
from ..head.files import is_hub_id
from ..hub.measurements import folder_of_measurement
from ..models import DTYPES, base_model_id
from ..rollouts import PromptFormat
from ..tasks import task_forms
from .paths import expanded, expanded_task

logger = logging.get_logger(__name__)


def one_of(values: Iterable[str]) -> Callable[[], list[str]]:
    """The known values for `autocompletion`; typer offers those that begin with the typed letters.

    Unknown values are rejected by the function that receives them, in Python and on the command line alike.
    """
    known = list(values)
    return lambda: known


def _free_folder(folder: Path) -> Path:
    """Refuse a folder that another process is writing into before a model is loaded."""
    folder = expanded(folder)
    refuse_owned(folder)
    return folder


def _free_numbers_file(file: Path | None) -> Path | None:
    if file is None:
        return None
    file = expanded(file)
    refuse_owned(folder_of_measurement(file))
    return file


# 'reasoning_gym:DATASET' and 'FILE.jsonl' are patterns: a shell can complete only what comes before the capitals
_TASK_BEGINNINGS = dict.fromkeys(task.partition("DATASET")[0] for task in task_forms() if not task.startswith("FILE"))
_PROMPTS = "How many prompts."

Model = Annotated[
    str,
    typer.Option(help="Folder or Hub id of the language model; 'smollm2-demo' is the demo's model.", callback=expanded),
]
BaseModel = Annotated[
    str | None,
    typer.Option(
        help="The model's id on the Hub, org/name, if --model is something else: a published head names it.",
        show_default="the value of --model",
    ),
]
Dtype = Annotated[
    str,
    typer.Option(help=f"The language model's dtype: {', '.join(DTYPES)}.", autocompletion=one_of(DTYPES)),
]
Task = Annotated[
    str,
    typer.Option(
        help=f"The task that makes problems and verifies answers: {', '.join(task_forms())}.",
        autocompletion=one_of(_TASK_BEGINNINGS),
        callback=expanded_task,
    ),
]
Verifier = Annotated[
    str | None,
    typer.Option(
        help="For your own prompts in FILE.jsonl: 'file.py:function' that verifies answers.", callback=expanded
    ),
]
Extract = Annotated[
    str | None,
    typer.Option(
        help="'file.py:function' that extracts a completion's final answer. A majority vote needs it.",
        callback=expanded,
    ),
]
Split = Annotated[str, typer.Option(help="The task's split.")]
Prompts = Annotated[int, typer.Option(min=1, help=_PROMPTS)]
#: An interval needs two prompts.
MeasuredPrompts = Annotated[int, typer.Option(min=2, help=_PROMPTS)]
TrainingPrompts = Annotated[int | None, typer.Option(help=_PROMPTS, show_default="all")]
Skip = Annotated[
    int,
    typer.Option(min=0, help="Skip this many prompts of the split, e.g. those an earlier head was measured on."),
]
SkipOverlong = Annotated[
    bool,
    typer.Option(
        "--skip-overlong",
        help="Leave out prompts that do not fit the model's context with --max-new-tokens more, and count them.",
    ),
]
SystemPrompt = Annotated[
    str | None, typer.Option(help="A system message for the chat template, before the question.", show_default="none")
]
TemplateOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="A variable of the chat template, such as enable_thinking=false; repeatable.",
        show_default="the template's own",
    ),
]
Head = Annotated[
    str, typer.Option(help="The reward head: a folder, 'org/name' or 'org/name@revision'.", callback=expanded)
]
#: None means the signal of the head that pools, or the default of a new head.
Signal = Annotated[
    str | None,
    typer.Option(
        help=f"The signal that the new head will read: {', '.join(SIGNALS)} (the highest 20).",
        autocompletion=one_of(SIGNALS),
        show_default="hidden_states",
    ),
]
Layer = Annotated[
    list[int] | None,
    typer.Option(help="A layer that the head reads, an index into hidden_states; repeatable.", show_default="all"),
]
N = Annotated[int, typer.Option("--n", min=2, help="Candidates per prompt.")]
Temperature = Annotated[float, typer.Option(help="Sampling temperature.")]
TopP = Annotated[float, typer.Option(help="Nucleus sampling: keep the most likely tokens up to this probability mass.")]
MaxNewTokens = Annotated[int, typer.Option(min=1, help="Length limit of a completion, in tokens.")]
Seed = Annotated[int, typer.Option(help="Seed of all random numbers.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object, and nothing else.")]
NumbersFile = Annotated[
    Path | None,
    typer.Option(
        "--numbers", help="Also write the numbers to this file, in the form of --json.", callback=_free_numbers_file
    ),
]
PlotFile = Annotated[
    Path | None,
    typer.Option("--plot", help="Also draw the curves to this file, .svg or .png.", callback=expanded),
]
Prompt = Annotated[str, typer.Argument(help="The question; '-' reads standard input.")]
RolloutsFolder = Annotated[
    Path, typer.Argument(help="Folder for the rollouts; an unfinished one is resumed.", callback=_free_folder)
]
HeadFolder = Annotated[Path, typer.Argument(help="Folder for the head.", callback=_free_folder)]


def recorded_base_model(name: str, given: str | None = None) -> str:
    """The model id that a new head will record, with an early warning if it does not allow publishing the head.

    Args:
        name: The value of `--model`.
        given: The value of `--base-model`.

    Raises:
        ValueError: `given` is not an id on the Hub.
    """
    if given is not None and not is_hub_id(given):
        raise ValueError(f'--base-model {given}: expected the model\'s id on the Hub, "org/name", not a local folder.')
    base_model = given or base_model_id(name)
    if not is_hub_id(base_model):
        logger.warning(
            f"The head will record {base_model!r} as its language model, which is not an id on the Hub: publishing "
            'needs one. Pass it now, as --base-model "org/name".'
        )
    return base_model


def prompt_format(system_prompt: str | None, template_options: list[str] | None) -> PromptFormat:
    """What the chat template is told, by the values of `--system-prompt` and `--template-option`.

    A value is JSON if it can be read as such (false, 3, "text"), and else text.

    Raises:
        ValueError: An option is not of the form NAME=VALUE.
    """
    told: dict[str, Any] = {}
    for option in template_options or []:
        name, equals, value = option.partition("=")
        if not equals or not name.strip():
            raise ValueError(f"--template-option {quoted(option)}: expected NAME=VALUE, e.g. enable_thinking=false.")
        try:
            told[name.strip()] = json.loads(value)
        except ValueError:
            told[name.strip()] = value
    return PromptFormat(system_prompt, told)

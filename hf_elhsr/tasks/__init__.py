"""Tasks: problems with a prompt, split by prompt, and verifiers that label completions as correct or incorrect."""

from .arithmetic import ArithmeticTask
from .coin_flip import CoinFlipTask
from .json_lines import JsonLinesTask
from .math_problems import Gsm8kTask, MathTask
from .multiple_choice import AquaRatTask, HellaSwagTask, MultipleChoiceTask
from .reasoning_gym import ReasoningGymTask
from .registry import TASKS, find_task, register_task, task_forms
from .task import Problem, Task
from .verification import VerifierFailure, verify

__all__ = [
    "TASKS",
    "AquaRatTask",
    "ArithmeticTask",
    "CoinFlipTask",
    "Gsm8kTask",
    "HellaSwagTask",
    "JsonLinesTask",
    "MathTask",
    "MultipleChoiceTask",
    "Problem",
    "ReasoningGymTask",
    "Task",
    "VerifierFailure",
    "find_task",
    "register_task",
    "task_forms",
    "verify",
]

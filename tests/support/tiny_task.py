"""Tasks for tiny models, in a module that a verifier's process imports without torch."""

from hf_elhsr.tasks import Problem


class TinyTask:
    """Problems of a few words; a completion is correct where its first word is of even number."""

    name = "tiny"
    splits = ("train",)

    def problems(self, split, count, seed=0):
        return [Problem(f"p{i}", f"w{i + 5} w{i + 6} w{i + 20}", "", "t") for i in range(count)]

    def extract(self, completion):
        return completion.split()[0] if completion else None

    def verify(self, problem, completion):
        answer = self.extract(completion)
        return answer is not None and int(answer.removeprefix("w")) % 2 == 0


class OffsetTask(TinyTask):
    """TinyTask's problems, starting at an offset."""

    def __init__(self, offset="0"):
        self.name = f"toy:{offset}"
        self.offset = int(offset)

    def problems(self, split, count, seed=0):
        return super().problems(split, count + self.offset, seed)[self.offset :]

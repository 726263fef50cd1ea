"""One question about one image, with its one right answer."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Turn:
    """A question and its answer.

    Attributes:
        question: what the model is asked, without any image placeholder.
        answer: the only right answer, in the form the model is trained to give.
        group: the task group, one of `mixlens.spec.TaskGroup`.
        kind: the question type inside the group, such as `left_of`.
        complexity: of the group, 1 to 4.
        prompt: id of the phrasing in `prompts.yaml`, such as `left_of.2`.
        choices: all answers that could be right for such a question; empty for free-form answers.
            Chance accuracy is 1 / len(choices).
    """

    question: str
    answer: str
    group: str
    kind: str
    complexity: int
    prompt: str
    choices: tuple[str, ...] = ()

"""How good a model is on one split: figures, the prediction for each example, the confusion matrix."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.errors import ToolkitError
from toolkit.evaluation.confusion import draw_confusion
from toolkit.evaluation.files import encode, remove_file, replace_file, strict_json, table_text
from toolkit.evaluation.predict import outputs, require_finite
from toolkit.tasks.objective import Objective

FORMAT = 1
CONFIDENCE = 0.95
TOP_K = (2, 3, 5)
EVERY_CLASS_UP_TO = 20  # classes; with more, predictions.csv leaves out the column per class


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassFigures:
    """Figures of one class. None where nothing is defined: recall and F1 of a class that the split has no example of.

    Attributes:
        precision: share of the answers "this class" that are right; 0.0 where the model never gives that answer
            although the split has examples of it.
        recall: share of the examples of this class that are answered right.
        f1: harmonic mean of the two.
        support: examples of this class in the split.
    """

    name: str
    precision: float | None
    recall: float | None
    f1: float | None
    support: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Average:
    """Mean of a figure over the classes that the split has examples of."""

    precision: float
    recall: float
    f1: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Figures of one split; shares are in [0, 1].

    Attributes:
        loss: mean cross-entropy in nats, without label smoothing or class weights.
        accuracy_interval: 95 % Wilson interval.
        top_k: for k = 2, 3, 5 below the number of classes: share of examples whose label is among the k likeliest.
        macro: every class counts the same. weighted: every class counts by its examples.
        confusion: row is the label, column the answer.
        seconds: of the pass over the decoded examples, with a backend's compilation.
    """

    split: str
    examples: int
    seconds: float
    loss: float
    accuracy: float
    accuracy_interval: tuple[float, float]
    top_k: Mapping[int, float]
    macro: Average
    weighted: Average
    classes: tuple[ClassFigures, ...]
    confusion: tuple[tuple[int, ...], ...]

    def to_dict(self) -> dict[str, Any]:
        """As it stands in `evaluation.json`: plain values, the format first."""
        fields = dataclasses.asdict(self)
        fields["accuracy_interval"] = list(self.accuracy_interval)
        fields["top_k"] = {str(k): share for k, share in self.top_k.items()}
        fields["classes"] = list(fields["classes"])
        fields["confusion"] = [list(row) for row in self.confusion]
        return {"format": FORMAT, **fields}


def evaluate(
    model: Any,
    objective: Objective,
    batches: Iterable[Any],
    *,
    labels: np.ndarray,
    ids: Sequence[str],
    class_names: Sequence[str],
    directory: Path,
    split: str,
    weights: str = "best",
    report: Callable[[int], None] | None = None,
) -> Evaluation:
    """Measure `model` in one pass and leave `evaluation.json`, `predictions.csv` and `confusion.png` in `directory`.

    Files of another split than `test`, or of other weights than the `best`, carry their names
    (`evaluation-validation.json`), so the test's stay. The JSON is written last: where it stands, the two others are of
    the same evaluation.

    Args:
        batches: `(inputs, labels)` of the whole split in the order of `labels` and `ids`, nothing left out.
        labels: of every example, (n,).
        report: called after each batch with the number of examples done.

    Raises:
        ToolkitError: the split is empty.
        RunFailed: an output is NaN or infinite, or a file cannot be written.
    """
    if len(labels) == 0:
        raise ToolkitError(f"the split {split!r} has no example, so there is nothing to evaluate: use another split.")
    start = time.perf_counter()
    logits, seen = outputs(model, batches, report=report)
    seconds = time.perf_counter() - start
    labels = np.asarray(labels, dtype=np.int64)
    if seen is None or len(ids) != len(labels) or not np.array_equal(seen, labels):
        # A mix-up would look like a bad model, and predictions.csv would accuse the wrong examples.
        raise ValueError(f"the batches of split {split!r} do not hold the given examples in the given order")
    require_finite(logits, ids)
    evaluation = measure(logits, labels, objective=objective, class_names=class_names, split=split, seconds=seconds)
    _write(evaluation, objective.decode(logits), labels, ids, class_names, directory, weights)
    return evaluation


def measure(
    logits: np.ndarray,
    labels: np.ndarray,
    *,
    objective: Objective,
    class_names: Sequence[str],
    split: str,
    seconds: float,
) -> Evaluation:
    """The figures alone: finite `logits` (n, classes), int `labels` (n,)."""
    from scipy import stats
    from sklearn.metrics import confusion_matrix

    answers = logits.argmax(axis=1)
    correct = int((answers == labels).sum())
    interval = stats.binomtest(correct, len(labels)).proportion_ci(CONFIDENCE, method="wilson")
    confusion = confusion_matrix(labels, answers, labels=np.arange(len(class_names)))
    classes = _class_figures(confusion, class_names)
    macro, weighted = _averages(classes)
    return Evaluation(
        split=split,
        examples=len(labels),
        seconds=seconds,
        loss=float(objective.losses(logits, labels).mean()),
        accuracy=correct / len(labels),
        accuracy_interval=(float(interval.low), float(interval.high)),
        top_k=_top_k(logits, labels),
        macro=macro,
        weighted=weighted,
        classes=classes,
        confusion=tuple(tuple(row) for row in confusion.tolist()),
    )


def _top_k(logits: np.ndarray, labels: np.ndarray) -> dict[int, float]:
    own = logits[np.arange(len(labels)), labels][:, None]
    # Of equal logits the first comes first, as argmax has it: k = 1 would be the accuracy.
    earlier = np.arange(logits.shape[1]) < labels[:, None]
    rank = (logits > own).sum(axis=1) + ((logits == own) & earlier).sum(axis=1)
    return {k: float((rank < k).mean()) for k in TOP_K if k < logits.shape[1]}


def _class_figures(confusion: np.ndarray, class_names: Sequence[str]) -> tuple[ClassFigures, ...]:
    figures = []
    for i, name in enumerate(class_names):
        right, support, answered = int(confusion[i, i]), int(confusion[i].sum()), int(confusion[:, i].sum())
        never = 0.0 if support else None
        figures.append(
            ClassFigures(
                name=name,
                precision=right / answered if answered else never,
                recall=right / support if support else None,
                f1=2 * right / (support + answered) if support else None,
                support=support,
            )
        )
    return tuple(figures)


def _averages(classes: Sequence[ClassFigures]) -> tuple[Average, Average]:
    present = [one for one in classes if one.support]
    figures = np.array([(one.precision, one.recall, one.f1) for one in present], dtype=np.float64)  # (present, 3)
    support = np.array([one.support for one in present], dtype=np.float64)
    averages = (figures.mean(axis=0), support @ figures / support.sum())
    macro, weighted = (Average(precision=float(p), recall=float(r), f1=float(f)) for p, r, f in averages)
    return macro, weighted


def _write(
    evaluation: Evaluation,
    probabilities: np.ndarray,
    labels: np.ndarray,
    ids: Sequence[str],
    class_names: Sequence[str],
    directory: Path,
    weights: str,
) -> None:
    suffix = "".join(f"-{name}" for name in (evaluation.split, weights) if name not in ("test", "best"))
    leading = {"id": ids, "label": [class_names[label] for label in labels]}
    table = table_text(leading, probabilities, class_names, every_class=len(class_names) <= EVERY_CLASS_UP_TO)
    low, high = evaluation.accuracy_interval
    title = (
        f"{evaluation.split} split, {evaluation.examples:,} examples{'' if weights == 'best' else ', ' + weights}\n"
        f"accuracy {100 * evaluation.accuracy:.2f} % (95 % interval {100 * low:.2f} % to {100 * high:.2f} %)"
    )
    picture = draw_confusion(np.array(evaluation.confusion), class_names, title=title)
    figures = directory / f"evaluation{suffix}.json"
    remove_file(figures)  # it stands only beside the table and the picture of the same evaluation
    replace_file(directory / f"predictions{suffix}.csv", encode(table))
    replace_file(directory / f"confusion{suffix}.png", picture)
    replace_file(figures, encode(strict_json(evaluation.to_dict())))

"""What a model says about examples."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.errors import RunFailed, ToolkitError
from toolkit.evaluation.files import encode, table_text
from toolkit.runs import trust
from toolkit.tasks.objective import Objective


@dataclasses.dataclass(frozen=True)
class Prediction:
    """Answers to examples without labels.

    Attributes:
        ids: what was read, in order.
        probabilities: float64 (n, classes).
        bad: what could not be read, with the reason.
    """

    ids: Sequence[str]
    probabilities: np.ndarray
    class_names: Sequence[str]
    bad: Sequence[tuple[str, str]] = ()

    @property
    def answers(self) -> list[str]:
        """The likeliest class of each example, by name."""
        return [self.class_names[best] for best in self.probabilities.argmax(axis=1)]

    def to_csv(self) -> str:
        """`file`, `answer` (a class name), `probability` (of the answer), and `p(name)` for every class."""
        return table_text({"file": self.ids}, self.probabilities, self.class_names, every_class=True)


def outputs(
    model: Any, batches: Iterable[Any], *, report: Callable[[int], None] | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """One pass: the model's outputs, float32 (n, classes), and the labels (n,) where the batches have any.

    Only these are kept, never an input. `batches` is a `tf.data.Dataset` or any iterable of `inputs` or
    `(inputs, labels)` in NumPy arrays.

    Args:
        report: called after each batch with the number of examples done.
    """
    logits: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    done = 0
    for batch in numpy_batches(batches):
        inputs, label = batch if isinstance(batch, tuple) else (batch, None)
        logits.append(np.asarray(model.predict_on_batch(inputs), dtype=np.float32))
        if label is not None:
            labels.append(np.asarray(label))
        done += len(logits[-1])
        if report is not None:
            report(done)
    if not logits:
        raise ToolkitError("there is nothing to predict: the data holds no example that could be read.")
    return np.concatenate(logits), np.concatenate(labels) if labels else None


def numpy_batches(batches: Iterable[Any]) -> Iterator[Any]:
    """The batches of a `tf.data.Dataset`, or of any iterable, in NumPy arrays."""
    # JAX and torch cannot take TensorFlow's tensors; as NumPy arrays all three take them without a copy.
    as_numpy = getattr(batches, "as_numpy_iterator", None)
    return as_numpy() if as_numpy is not None else iter(batches)


def require_finite(logits: np.ndarray, ids: Sequence[str] | None) -> None:
    """Refuse outputs (n, …) with NaN or infinity.

    Raises:
        RunFailed: with the number of such examples and the first one's id (its position, where `ids` is None).
    """
    bad = np.flatnonzero(~np.isfinite(logits).reshape(len(logits), -1).all(axis=1))
    if len(bad):
        first = f"number {bad[0]}" if ids is None else repr(ids[int(bad[0])])
        raise RunFailed(
            f"the model's output is not finite for {len(bad)} of {len(logits)} examples, first {first}: its weights or "
            "these inputs hold NaN or infinity, or numbers too large for its precision; train again with a smaller "
            "optimizer.learning_rate, or look at that example."
        )


def predict(
    model: Any,
    objective: Objective,
    batches: Iterable[Any],
    *,
    ids: Sequence[str] | None = None,
    report: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Probability of each class for each example, float64 (n, classes), in the order of `batches`.

    Args:
        ids: name the examples in an error.
        report: called after each batch with the number of examples done.

    Raises:
        ToolkitError: no example came.
        RunFailed: an output is NaN or infinite.
    """
    logits, _ = outputs(model, batches, report=report)
    require_finite(logits, ids)
    shares: np.ndarray = objective.decode(logits)
    return shares


def refuse_existing(path: Path) -> None:
    """To be asked before a long prediction as well: `write_new` overwrites nothing.

    Raises:
        ToolkitError: `path` exists, or its folder does not, or there can be no such file.
    """
    try:
        exists = path.exists() or path.is_symlink()
    except OSError as error:
        raise ToolkitError(
            f"{trust.shown(str(path))} cannot be written ({error.strerror}): choose another name for the output."
        ) from error
    if exists:
        raise ToolkitError(f"{path} exists already: remove it or choose another name for the output.")
    if not path.parent.is_dir():
        raise ToolkitError(f"{path} cannot be written, there is no folder {path.parent}: make it first.")


def write_new(path: Path, table: str) -> None:
    """Write a table of answers to a file that does not exist yet.

    Raises:
        ToolkitError: `path` exists already, or cannot be made there.
        RunFailed: the disk is full.
    """
    refuse_existing(path)
    try:
        file = path.open("xb")  # refuses what appeared since the check
    except OSError as error:
        raise ToolkitError(
            f"{path} cannot be written ({error.strerror}): choose another name for the output."
        ) from error
    try:
        with file:
            file.write(encode(table))
    except OSError as error:
        path.unlink(missing_ok=True)
        raise RunFailed(
            f"{path} could not be written ({error.strerror}): free space or choose another folder."
        ) from error

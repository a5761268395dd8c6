"""What a run directory holds for a report. It may be somebody else's: every file is checked before it is believed."""

from __future__ import annotations

import dataclasses
import json
import operator
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, FailFast, TypeAdapter, ValidationError

from toolkit.config import RunConfig, load_run
from toolkit.data.spec import MAX_BYTES, DataSpec
from toolkit.errors import ToolkitError
from toolkit.evaluation.evaluate import ClassFigures, Evaluation
from toolkit.evaluation.transcripts import Confusion, Transcription
from toolkit.explain.report import tables
from toolkit.explain.report.tables import Mistake
from toolkit.runs import metrics, trust
from toolkit.runs import run as runs
from toolkit.runs.metrics import Row

EVALUATION = "evaluation"
PREDICTIONS = "predictions.csv"
LOOK = "look"
MAX_ROWS = 1000  # of metrics.jsonl, of each kind; of more every so many are taken
_OWN_JSON = (runs.SPEC, runs.RECORD)

_T = TypeVar("_T")
_Tuple = Annotated[tuple[_T, ...], FailFast()]  # a million entries of a wrong type are one error


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Evaluation(Evaluation):
    classes: _Tuple[ClassFigures]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Transcription(Transcription):
    confusions: _Tuple[Confusion]


class Best(BaseModel):
    """The epoch whose weights were kept."""

    metric: str
    value: float | None
    epoch: int | None


class Record(BaseModel):
    """What a report tells of `record.json`; what a run has not come to yet is None."""

    model_config = ConfigDict(strict=True)

    state: str = "training"
    error: str | None = None
    started: str | None = None
    command: list[str] = []
    commit: str | None = None
    python: str | None = None
    versions: dict[str, str] = {}
    machine: dict[str, str | int | float | None] = {}
    backend: str | None = None
    seed: int | None = None
    model: str | None = None
    parameters: int | None = None
    fingerprints: dict[str, str]
    epochs: int | None = None
    stopped_early: bool = False
    seconds: float | None = None
    best: Best | None = None
    resumed: list[dict[str, Any]] = []


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """What one run left.

    Attributes:
        label: what the report calls it.
        evaluations: by what their files are called beyond `evaluation`: "" for the test part and the best weights.
        steps: rows of `metrics.jsonl`, at most about `MAX_ROWS`, evenly taken; `epochs` alike, and also the last and
            that of the best epoch.
        epochs_seen: how many rows of epochs there are.
        mistakes: the worst of the test part, the worst first.
        pictures: PNG files by name, `look/filters.png`.
        tables: `bad_examples.csv` and `duplicates.csv`: head and first rows.
        documents: what other JSON files hold, by name.
    """

    label: str
    directory: Path
    config: RunConfig
    spec: DataSpec
    record: Record
    evaluations: dict[str, Evaluation | Transcription]
    steps: list[Row]
    epochs: list[Row]
    epochs_seen: int
    mistakes: list[Mistake]
    pictures: dict[str, Path]
    tables: dict[str, list[list[str]]]
    documents: dict[str, Any]

    @property
    def evaluation(self) -> Evaluation | Transcription | None:
        """Of the test part, with the weights of the best epoch."""
        return self.evaluations.get("")


def gather(run_dir: Path, label: str) -> Found:
    """Read what the run in `run_dir` has left so far.

    Raises:
        ToolkitError: it is no run that began to train, or one of its files is not what train and the other verbs write.
    """
    directory = runs.check_begun(run_dir)
    spec_file = directory / runs.SPEC
    evaluations = {
        path.stem.removeprefix(EVALUATION).removeprefix("-"): _evaluation(path)
        for path in sorted(directory.glob(f"{EVALUATION}*.json"))
    }
    others = [
        path
        for path in sorted(directory.glob("*.json"))
        if path.name not in _OWN_JSON and not path.name.startswith(EVALUATION)
    ]
    lists = [directory / name for name in (runs.BAD_EXAMPLES, runs.DUPLICATES)]
    record = _checked(TypeAdapter(Record), trust.read_record(directory / runs.RECORD), directory / runs.RECORD)
    steps, epochs, epochs_seen = _rows(directory / runs.METRICS, record.best.epoch if record.best else None)
    return Found(
        label=label,
        directory=directory,
        config=load_run(directory),
        spec=DataSpec.from_json(trust.read_text(spec_file, limit=MAX_BYTES), where=trust.shown(spec_file)),
        record=record,
        evaluations=evaluations,
        steps=steps,
        epochs=epochs,
        epochs_seen=epochs_seen,
        mistakes=_mistakes(directory / PREDICTIONS, evaluations.get("")),
        pictures={
            path.relative_to(directory).as_posix(): path
            for path in (*sorted(directory.glob("*.png")), *sorted((directory / LOOK).glob("*.png")))
        },
        tables={path.name: tables.first_rows(path) for path in lists if path.exists()},
        documents={path.name: trust.read_json(path) for path in others},
    )


def _evaluation(path: Path) -> Evaluation | Transcription:
    if path.stat().st_size > trust.MAX_EVALUATION:
        raise ToolkitError(
            f"{trust.shown(path)} has more than {trust.MAX_EVALUATION:,} bytes, which a report does not read: move it "
            "out of the run directory."
        )
    document = trust.read_json(path, limit=trust.MAX_EVALUATION)
    if not isinstance(document, dict):
        raise ToolkitError(f"{trust.shown(path)} holds no evaluation: let `toolkit evaluate` write it anew.")
    fields = {name: value for name, value in document.items() if name not in ("format", "task")}
    if any(isinstance(value, dict) and len(value) > trust.MAX_PARTS for value in fields.values()):
        raise ToolkitError(
            f"{trust.shown(path)} has a field of more than {trust.MAX_PARTS:,} parts: let `toolkit evaluate` write it "
            "anew."
        )
    if document.get("task") == "transcription":
        transcription: Transcription = _checked(TypeAdapter(_Transcription), fields, path)
        return transcription
    matrix: Any = fields.get("confusion")
    if isinstance(matrix, list):
        fields["confusion"] = []  # that of many classes would take gigabytes where the rest is checked
    evaluation: Evaluation = _checked(TypeAdapter(_Evaluation), fields, path)
    confusion, classes = _counts(matrix, path), len(evaluation.classes)
    if len(confusion) != classes or any(len(row) != classes for row in confusion):
        raise ToolkitError(
            f"{trust.shown(path)}: confusion has not a row and a column for each of {classes:,} classes: let "
            "`toolkit evaluate` write it anew."
        )
    return dataclasses.replace(evaluation, confusion=confusion)


def _counts(matrix: list[Any], path: Path) -> tuple[tuple[int, ...], ...]:
    """The rows of a confusion matrix, which take the places of its lists, so that few are held twice."""
    for i, row in enumerate(matrix):
        if not isinstance(row, list) or not set(map(type, row)) <= {int}:
            raise ToolkitError(
                f"{trust.shown(path)}: confusion.{i}: it is no list of whole numbers: let `toolkit evaluate` write it "
                "anew."
            )
        matrix[i] = tuple(row)
    return tuple(matrix)


def _checked(schema: TypeAdapter[Any], fields: dict[str, Any], path: Path) -> Any:
    try:
        # A class may be called by bytes that are no UTF-8.
        text = json.dumps(fields, ensure_ascii=False).encode("utf-8", "replace")
        if len(text) > 2 * trust.MAX_JSON:  # only an evaluation can have so many
            raise ToolkitError(
                f"{trust.shown(path)} has more than {2 * trust.MAX_JSON:,} bytes without its confusion matrix: move it "
                "out of the run directory."
            )
        return schema.validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = trust.shown(".".join(map(str, first["loc"])), length=80)
        raise ToolkitError(
            f"{trust.shown(path)}: {place}: {trust.shown(first['msg'])}: use the run directory as train left it."
        ) from error


def _mistakes(path: Path, evaluation: Evaluation | Transcription | None) -> list[Mistake]:
    if evaluation is None or not path.exists():
        return []  # without the figures nothing says what the table is of
    return tables.worst(path, transcripts=isinstance(evaluation, Transcription))


def _rows(path: Path, best: int | None) -> tuple[list[Row], list[Row], int]:
    """The rows of steps and of epochs, that of the epoch `best` among them, and how many epochs there are."""
    if not path.exists():
        return [], [], 0
    steps, epochs = _Thinned(), _Thinned()
    kept: dict[int, Row] = {}
    last: dict[int, Row] = {}
    for row in metrics.read(path):
        if row["kind"] == "step":
            steps.add(row)
        elif row["kind"] == "epoch":
            last = {epochs.seen: row}
            if best is not None and row.get("epoch") == best:
                kept = last
            epochs.add(row)
    rows = sorted({**epochs.rows, **kept, **last}.items(), key=operator.itemgetter(0))
    return list(steps.rows.values()), [row for _, row in rows], epochs.seen


class _Thinned:
    """Rows, every so many of them once there are more than `MAX_ROWS`: memory stays bounded.

    Attributes:
        rows: by their places among all.
        seen: how many there were.
    """

    def __init__(self) -> None:
        self.rows: dict[int, Row] = {}
        self.seen = 0
        self._stride = 1

    def add(self, row: Row) -> None:
        if self.seen % self._stride == 0:
            self.rows[self.seen] = row
        self.seen += 1
        if len(self.rows) > MAX_ROWS:
            self._stride *= 2
            self.rows = {place: row for place, row in self.rows.items() if place % self._stride == 0}


def labels(run_dirs: Iterable[Path]) -> list[str]:
    """What to call each run: its folder's name, or all of the path where names are the same."""
    paths = [path.absolute() for path in run_dirs]
    names = [path.name for path in paths]
    return [path.name if names.count(path.name) == 1 else str(path) for path in paths]

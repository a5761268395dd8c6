"""Run directories as train leaves them, written by hand so that a test knows every figure and every name in them."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.config import load
from toolkit.data.spec import DataSpec
from toolkit.evaluation.evaluate import Average, ClassFigures, Evaluation
from toolkit.evaluation.files import csv_text, encode, strict_json, table_text
from toolkit.evaluation.transcripts import Confusion, ErrorRate, Transcription

CONFIG = """
seed: 3
data: {source: synthetic_images, classes: 3, examples: 90, height: 12, width: 12, batch_size: 16}
model: {name: mnist_dense, hidden: 4}
optimizer: {name: adam, learning_rate: 1e-2, schedule: {name: cosine, warmup_steps: 2}}
training: {epochs: 3}
"""
SPEECH = """
data: {source: synthetic_speech, words: 3, examples: 90, transcript_units: words, batch_size: 16, buckets: 1}
model: {name: speech_ctc, convolutions: [16], layers: 1, units: 24, mels: 16}
optimizer: {name: adam, learning_rate: 1e-2}
training: {epochs: 3}
"""
CLASSES = ("cat", "dog", "owl")
# A row per label: 10 cats, 20 dogs, no owl; what follows is worked out by hand.
CONFUSION = ((7, 2, 1), (4, 16, 0), (0, 0, 0))
FIGURES = ("76.67 %", "59.07 %", "88.21 %", "93.33 %", "75.33 %", "77.13 %", "0.6931")


def plant(folder: Path, *, class_names: Sequence[str] = CLASSES, overrides: Sequence[str] = (), **record: Any) -> Path:
    """A run that is finished and evaluated, without pictures."""
    start(folder, class_names=class_names, overrides=overrides, **{"state": "finished", "epochs": 3, **record})
    rows: list[dict[str, Any]] = []
    for epoch in (1, 2, 3):
        rate = {"learning_rate": 0.01 / epoch}
        rows += [
            {"kind": "step", "epoch": epoch, "step": 10 * epoch - 5, "loss": 1.25 / epoch, "accuracy": 0.5, **rate}
        ]
        mean = {"loss": 1.0 / epoch, "accuracy": 0.25 * epoch, "val_loss": 0.5 / epoch, "val_accuracy": 0.3 * epoch}
        rows += [{"kind": "epoch", "epoch": epoch, "step": 10 * epoch, **mean, **rate, "seconds": 1.5}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    evaluate(folder, class_names)
    return folder


def start(
    folder: Path,
    *,
    text: str = CONFIG,
    class_names: Sequence[str] = CLASSES,
    overrides: Sequence[str] = (),
    **record: Any,
) -> Path:
    """What stands in the directory once a run has begun to train."""
    folder.mkdir(parents=True)
    (folder.parent / "planted.yaml").write_text(text)
    (folder / "config.yaml").write_text(load(folder.parent / "planted.yaml", overrides).to_yaml())
    examples = {"train": 45, "validation": 15, "test": 30}
    if text is SPEECH:
        spec = DataSpec(
            kind="audio", task="transcription", shape=(None,), dtype="float32", class_names=(), units="words",
            vocabulary=("one", "two"), sample_rate=8000, lengths=(8000,), examples=examples,
        )  # fmt: skip
    else:
        spec = DataSpec(
            kind="image", shape=(12, 12, 1), dtype="uint8", class_names=tuple(class_names), examples=examples
        )
    (folder / "data_spec.json").write_text(spec.to_json(), encoding="utf-8")
    known = {
        "started": "2026-11-20T12:00:00+00:00",
        "command": ["toolkit", "train", "planted.yaml"],
        "commit": "0123456789ab",
        "python": "3.11.7",
        "versions": {"keras": "3.15.1", "numpy": "2.4.6"},
        "machine": {"processor": "Intel Xeon", "cores": 2, "memory_gib": 7.5},
        "backend": "tensorflow",
        "seed": 3,
        "model": "mnist_dense",
        "parameters": 1234567,
        "fingerprints": {"train": "a" * 64, "validation": "b" * 64, "test": "c" * 64},
        "seconds": 61.5,
        "best": {"metric": "val_loss", "value": 0.125, "epoch": 2},
    }
    (folder / "record.json").write_text(json.dumps({**known, "state": "training", **record}))
    return folder


def evaluate(folder: Path, class_names: Sequence[str] = CLASSES) -> None:
    """`evaluation.json` and `predictions.csv`: 30 test examples, 23 of them right."""
    cat, dog, owl = class_names
    evaluation = Evaluation(
        split="test",
        examples=30,
        seconds=0.5,
        loss=0.69314,
        accuracy=23 / 30,
        accuracy_interval=(0.59067, 0.88206),
        top_k={2: 28 / 30},
        macro=Average(precision=0.76, recall=0.75, f1=0.7533),
        weighted=Average(precision=0.78, recall=0.7667, f1=0.7713),
        classes=(
            ClassFigures(name=cat, precision=7 / 11, recall=0.7, f1=2 / 3, support=10),
            ClassFigures(name=dog, precision=16 / 18, recall=0.8, f1=16 / 19, support=20),
            ClassFigures(name=owl, precision=0.0, recall=None, f1=None, support=0),
        ),
        confusion=CONFUSION,
    )
    labels, rows = [], []
    for label, counts in enumerate(CONFUSION):
        for answer, count in enumerate(counts):
            for i in range(count):
                # The answer's probability falls from 0.9 on, so every mistake has one of its own.
                own = 0.9 - 0.02 * i - 0.02 * label - 0.01 * answer
                shares = np.full(3, (1 - own) / 2)
                shares[answer] = own
                labels.append(class_names[label])
                rows.append(shares)
    ids = [f"example-{i:02d}" for i in range(30)]
    table = table_text({"id": ids, "label": labels}, np.array(rows), class_names, every_class=True)
    (folder / "predictions.csv").write_bytes(encode(table))
    (folder / "evaluation.json").write_bytes(encode(strict_json(evaluation.to_dict())))


def plant_speech(folder: Path, said: Sequence[str], written: Sequence[str]) -> Path:
    """A run of speech to text, evaluated; the figures do not belong to the texts."""
    start(folder, text=SPEECH, state="finished", epochs=3)
    rate = ErrorRate(rate=0.1234, interval=(0.05, 0.25), substitutions=3, deletions=2, insertions=1, reference=50)
    evaluation = Transcription(
        split="test", examples=len(said), seconds=0.5, decoding="greedy", loss=1.5, words=rate, characters=rate,
        right=0.4321, confusions=(Confusion(said="<b>two", written="", times=7),),
    )  # fmt: skip
    ids = [f"clip-{i}.wav" for i in range(len(said))]
    (folder / "predictions.csv").write_bytes(encode(csv_text({"id": ids, "text": said, "answer": written})))
    (folder / "evaluation.json").write_bytes(encode(strict_json(evaluation.to_dict())))
    return folder


def png(width: int = 40, height: int = 30, *, noise: bool = False) -> bytes:
    """A picture; noise is what no format makes small."""
    from PIL import Image

    shape = (height, width, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape) if noise else np.full(shape, 90)
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(document))

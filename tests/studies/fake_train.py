"""Stands in for `toolkit train` in the tests of a sweep: what it measures is a formula, so it is known what is best.

The loss of epoch e is (log10(rate) + 2)² + dropout + 1 ÷ e. What is told by `FAKE_TRAIN`, in JSON: seconds of an epoch;
drop-outs at which it does not learn, cannot be trained, or breaks.
"""

import argparse
import json
import math
import os
import signal
import sys
import time
from pathlib import Path

import filelock

from toolkit.config import load
from toolkit.runs.files import write_text

RECORD = {"state": "training", "total_steps": 1, "order_version": 1}


def main(arguments):
    """The exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=["train"])
    parser.add_argument("config")
    parser.add_argument("--run-dir", type=Path)
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--evaluate", choices=["validation"], required=True)
    parser.add_argument("--set", action="append", default=[])
    asked = parser.parse_args(arguments)
    told = json.loads(os.environ.get("FAKE_TRAIN", "{}"))
    run, config = asked.run_dir or asked.resume, load(asked.config, asked.set)
    rate, dropout = config.optimizer.optimizer.arguments["learning_rate"], config.model.arguments["dropout"]
    if dropout == told.get("unfit"):
        print("model.dropout is of no use: take another.")
        return 2
    fingerprints = {"validation": f"of seed {config.data.source.arguments['seed']}"}

    def write(**fields):
        write_text(run / "record.json", json.dumps({**RECORD, "fingerprints": fingerprints, **fields}))

    def stop(*_):
        write(state="stopped")
        os._exit(143)

    if asked.run_dir:
        run.mkdir()
    with filelock.FileLock(run / "lock", timeout=0):
        if asked.run_dir:
            write_text(run / "config.yaml", config.to_yaml())
            (run / "metrics.jsonl").touch()
        write()
        if __name__ == "__main__":
            signal.signal(signal.SIGTERM, stop)
        done = len((run / "metrics.jsonl").read_text().splitlines())
        for epoch in range(done + 1, config.training.epochs + 1):
            time.sleep(told.get("seconds", 0))
            if dropout in (told.get("diverges"), told.get("breaks")):
                diverged = dropout == told.get("diverges")
                write(state="failed", diverged=diverged)
                print("step 1 gave a loss that is not finite." if diverged else "the disk is full.")
                return 1
            loss = (math.log10(rate) + 2) ** 2 + dropout + 1 / epoch
            row = {"kind": "epoch", "epoch": epoch, "step": epoch, "val_loss": loss, "pid": os.getpid()}
            with (run / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")
        write(state="finished", epochs=config.training.epochs)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

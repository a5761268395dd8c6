"""What a run was: versions, commit, command, machine."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

_CODE = ("toolkit", "configs", "scripts", "pyproject.toml", "requirements")
_PACKAGES = ("toolkit", "keras", "tensorflow", "tensorflow-datasets", "numpy", "jax", "torch", "scikit-learn")


def environment() -> dict[str, Any]:
    """Versions, commit, command and machine, as they are now: the part of `record.json` that no config tells."""
    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "directory": _directory(),
        "commit": commit(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _PACKAGES if _version(name)},
        "machine": {
            "system": platform.platform(),
            "processor": _processor(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "memory_gib": _memory_gib(),
        },
    }


def commit(root: Path | None = None) -> str | None:
    """The commit of the toolkit's checkout, `-dirty` where what a run depends on was changed since.

    None for an installed package. Documents and results do not count: a run's own figures are written there.

    Args:
        root: the folder of the checkout; None for this package's.
    """
    root = root or Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        head = git("rev-parse", "--short=12", "HEAD")
        return f"{head}-dirty" if git("status", "--porcelain", "--", *_CODE) else head
    except (OSError, subprocess.SubprocessError):
        return None  # no git, or a checkout without a commit: the record then says that it does not know


def _directory() -> str | None:
    try:
        return str(Path.cwd())
    except FileNotFoundError:
        return None  # it was removed


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError):
        return None

"""Choose Keras's backend before Keras is imported."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator

from toolkit.errors import ToolkitError

_STARTUP_NOTE = re.compile(
    r"^I\d{4} |^WARNING: All log messages before absl::InitializeLog|cuInit|^To enable the following instructions"
)


def select(
    backend: str, *, key: str = "training.backend", threads: int | None = None, deterministic: bool = False
) -> None:
    """Make `backend` (tensorflow, jax, torch) the one that Keras runs on in this process.

    Args:
        key: where the choice stands, for messages.
        threads: of one operation; None leaves it to the backend.
        deterministic: ask the backend for operations that give the same bits each time; on the CPU it has no others
            that the toolkit uses.

    Raises:
        ToolkitError: `KERAS_BACKEND` says otherwise, Keras was imported with another one, the backend is not
            installed, or `threads` is given for JAX, which has no such setting.
    """
    said = os.environ.get("KERAS_BACKEND")
    if said and said != backend:
        raise ToolkitError(
            f"{key} is {backend} but the environment variable KERAS_BACKEND is {said}: unset it, or make the two agree."
        )
    if "keras" in sys.modules:
        running = sys.modules["keras"].config.backend()
        if running != backend:
            raise ToolkitError(
                f"{key} is {backend} but Keras runs on {running} in this process already: start a new process."
            )
    os.environ["KERAS_BACKEND"] = backend
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")  # no informational lines; warnings and errors stay
    if deterministic:
        _prepare_determinism(backend)
    try:
        with _startup_notes_dropped():
            import keras  # noqa: F401 - the first import fixes the backend
            import tensorflow as tf

            if backend != "tensorflow":
                _hide_gpus(key, backend)
            if threads:
                _limit_threads(backend, threads)
            if deterministic:
                _demand_determinism(backend)
            tf.config.list_logical_devices()  # looks for accelerators now, so that its notes are dropped, too
    except ModuleNotFoundError as error:
        raise ToolkitError(
            f"{key} is {backend}, which is not installed ({error.name}): pip install 'toolkit[{backend}]'."
        ) from error


def _prepare_determinism(backend: str) -> None:
    """What is read when the backend starts."""
    if backend == "jax":
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_deterministic_ops=true".strip()
    elif backend == "torch":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def _demand_determinism(backend: str) -> None:
    """Operations that have no deterministic form raise an error from now on, in this process."""
    if backend == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    elif backend == "torch":
        import torch

        torch.use_deterministic_algorithms(True)


def _hide_gpus(key: str, backend: str) -> None:
    """TensorFlow only feeds the other backend, which needs the memory."""
    import tensorflow as tf

    try:
        tf.config.set_visible_devices([], "GPU")
    except RuntimeError as error:
        raise ToolkitError(
            f"{key} is {backend}, but TensorFlow has taken the GPU in this process: start a new process."
        ) from error


@contextlib.contextmanager
def _startup_notes_dropped() -> Iterator[None]:
    """Keep what TensorFlow prints on every start (which instructions it uses, that there is no GPU) from the person.

    It writes to the file descriptor before its own log level holds. Every other line goes to stderr afterwards.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            caught.seek(0)
            for line in caught.read().decode(errors="replace").splitlines():
                if line.strip() and not _STARTUP_NOTE.search(line):
                    sys.stderr.write(line + "\n")


def _limit_threads(backend: str, threads: int) -> None:
    if backend == "jax":
        raise ToolkitError("training.threads cannot be set for jax: start the process with taskset instead.")
    if backend == "torch":
        import torch

        torch.set_num_threads(threads)
        return
    import tensorflow as tf

    if tf.config.threading.get_intra_op_parallelism_threads() == threads:
        return
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
    except RuntimeError as error:
        raise ToolkitError("training.threads cannot change once TensorFlow has run: start a new process.") from error

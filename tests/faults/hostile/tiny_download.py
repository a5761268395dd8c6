"""Makes a TFDS dataset that has to be downloaded, from a server on this machine that behaves as it is told."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

CONTENT = "".join(f"sentence number {i}\t{i % 2}\n" for i in range(2000)).encode()

_BUILDER = """
import os, pathlib, time
import tensorflow_datasets as tfds

class TinyDownload(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {"text": tfds.features.Text(), "label": tfds.features.ClassLabel(names=["a", "b"])}
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features), supervised_keys=("text", "label")
        )

    def _split_generators(self, manager):
        path = manager.download(os.environ["TINY_URL"])
        return {"train": self._generate_examples(path), "test": self._generate_examples(path)}

    def _generate_examples(self, path):
        said = os.environ.get("TINY_SAID")  # a file that says how far it is, for who wants to kill it there
        for i, line in enumerate(pathlib.Path(path).read_text().splitlines()):
            if said and i == 1000:
                pathlib.Path(said).write_text("half")
                time.sleep(600)
            words, label = line.split("\\t")
            yield i, {"text": words, "label": int(label)}
"""


def write_builder(folder: Path, url: str) -> None:
    """A package `tiny_download` in `folder`, with the checksum of `CONTENT` for `url`."""
    package = folder / "tiny_download"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "tiny_download.py").write_text(textwrap.dedent(_BUILDER))
    checksum = hashlib.sha256(CONTENT).hexdigest()
    (package / "checksums.tsv").write_text(f"{url}\t{len(CONTENT)}\t{checksum}\ttiny.tsv\n")


class Server:
    """Answers with `CONTENT`, in the way that `behaviour` names; `asked` counts requests."""

    def __init__(self) -> None:
        self.behaviour = "good"
        self.asked = 0
        self.release = threading.Event()
        self.url = ""

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        """good, slow, cut, wrong, stall (in the middle), silent (from the start), missing."""
        self.asked += 1
        if self.behaviour == "silent":
            self.release.wait(60)
            return
        if self.behaviour == "missing":
            request.send_error(404)
            return
        content = CONTENT.replace(b"number 7\t1", b"number 7\t0") if self.behaviour == "wrong" else CONTENT
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        half = len(content) // 2
        request.wfile.write(content[:half])
        request.wfile.flush()
        if self.behaviour == "stall":
            self.release.wait(60)
        if self.behaviour in ("cut", "stall"):
            return
        if self.behaviour == "slow":
            time.sleep(2)
        request.wfile.write(content[half:])


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """A server on a free port of this machine."""
    told = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with contextlib.suppress(OSError):  # who asked may be gone
                told.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    told.url = f"http://127.0.0.1:{server.server_address[1]}/tiny.tsv"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield told
    finally:
        told.release.set()
        server.shutdown()
        server.server_close()
        thread.join(10)

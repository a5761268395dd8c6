"""`toolkit report`: where the page goes, and how large it may be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from toolkit.errors import ToolkitError
from toolkit.evaluation.files import replace_file
from toolkit.explain.report import pictures
from toolkit.explain.report.gather import gather, labels
from toolkit.explain.report.page import GENERATOR, Page
from toolkit.runs import trust

REPORT = "report.html"
MAX_BYTES = 5_000_000
_MARK = f'name="generator" content="{GENERATOR}"'.encode()
_HEAD = 512  # bytes, within which a report says what wrote it


def write_report(run_dirs: Sequence[Path], output: Path | None = None, *, say: Callable[[str], object] = print) -> Path:
    """Write one page about a run, or one that compares several.

    Args:
        output: the file; None is `report.html` in the run's directory, of several runs in the current folder. An
            earlier report there is replaced, any other file is not.
        say: told where the page is, and what found no room in it.

    Returns:
        The path of the page.

    Raises:
        ToolkitError: a folder is no run, is named twice, or holds a damaged file; or `output` is somebody else's file.
        RunFailed: the page cannot be written.
    """
    if not run_dirs:
        raise ToolkitError("no run directory is given: name at least one folder that train printed.")
    absolute = [path.resolve() for path in run_dirs]
    twice = next((path for path in absolute if absolute.count(path) > 1), None)
    if twice:
        raise ToolkitError(f"the run directory {twice} is given twice: name each run once.")
    if output is None:
        output = Path(run_dirs[0] if len(run_dirs) == 1 else ".") / REPORT
    found = [gather(path, label) for path, label in zip(run_dirs, labels(run_dirs), strict=True)]
    replaces = _refuse_other_file(output)
    page = Page(found)
    room = MAX_BYTES - len(page.to_html().encode()) - sum(picture.reserve() for picture in page.pictures)
    if room < 0:
        raise ToolkitError(
            f"the texts and curves of {len(found):,} runs leave no room for pictures within {MAX_BYTES:,} bytes: give "
            "fewer."
        )
    left_out = pictures.fit(page.pictures, room)
    content = page.to_html().encode()
    replace_file(output, content)
    for path in left_out:
        say(f"left out, too large for the page: {trust.shown(path)}")
    say(f"{output}: {len(content) / 1e6:.1f} MB{', in place of an earlier report' if replaces else ''}")
    return output


def _refuse_other_file(output: Path) -> bool:
    """Whether an earlier report stands in `output`.

    Raises:
        ToolkitError: something else does.
    """
    if not output.exists() and not output.is_symlink():
        return False
    if output.is_dir():
        raise ToolkitError(f"--output {output} is a folder: name a file in it, such as {output / REPORT}.")
    with trust.open_file(output, what="name another file with --output") as file:
        if _MARK not in file.read(_HEAD):
            raise ToolkitError(
                f"{output} exists and is no report of this toolkit: name another file with --output, or remove it."
            )
    return True

"""The page: one file that needs no network, and is forbidden to use one."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources
from xml.etree.ElementTree import Element

from toolkit.explain.report import compare, curves, parts
from toolkit.explain.report.gather import Found
from toolkit.explain.report.markup import element, html, raw
from toolkit.explain.report.pictures import Picture

GENERATOR = "toolkit report"


class Page:
    """A report of one run or several; its pictures are still to be fitted in.

    Attributes:
        pictures: what `toolkit.explain.report.pictures.fit` fills.
    """

    def __init__(self, found: Sequence[Found]) -> None:
        self.pictures: list[Picture] = []
        drawn = curves.curves(found)
        hovered = _plot(drawn) if drawn else None
        title = found[0].label if len(found) == 1 else f"{len(found)} runs"
        body = element("body", element("header", element("h1", title), element("p", _told(found))))
        body.extend(self._sections(found, hovered))
        scripts = _Scripts(body, drawn) if drawn else None
        self._tree = element("html", _head(title, scripts.policy if scripts else "'none'"), body, lang="en")

    def _sections(self, found: Sequence[Found], hovered: Element | None) -> Sequence[Element]:
        if len(found) == 1:
            return list(parts.sections(found[0], self.pictures, hovered=hovered))
        made = list(compare.sections(found, hovered=hovered))
        for run in found:
            own = list(parts.sections(run, self.pictures, hovered=None))
            made.append(element("details", element("summary", element("b", run.label)), *own, class_="run"))
        return made

    def to_html(self) -> str:
        """The text of the page, with those pictures that have been fitted in."""
        return html(self._tree)


class _Scripts:
    """Puts Plotly, its figure and our script at the end of `body`; `policy` lets these run and nothing else."""

    def __init__(self, body: Element, drawn: str) -> None:
        packed, plotly_hash = curves.plotly()
        script = _resource("page.js")
        own_hash = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        body.append(raw("script", drawn, id="curves", type="application/json"))
        body.append(raw("script", packed, id="plotly", type="text/plain"))
        body.append(raw("script", script))
        self.policy = f"'sha256-{own_hash}' 'sha256-{plotly_hash}'"


def _head(title: str, scripts: str) -> Element:
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {scripts}; "
        "base-uri 'none'; form-action 'none'"
    )
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="generator", content=GENERATOR),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{title} – toolkit report"),
        raw("style", _resource("page.css")),
    )


def _plot(drawn: str) -> Element:
    label = "Curves over the steps of the training, read out by the tables of this page"
    return element("div", id="plot", hidden="", role="img", aria_label=label)


def _told(found: Sequence[Found]) -> str:
    if len(found) > 1:
        return "Side by side first, then each run by itself."
    run = found[0]
    return f"{run.config.name}: {run.record.model or run.config.model.name}, {run.record.state}"


def _resource(name: str) -> str:
    return resources.files("toolkit.explain.report").joinpath(name).read_text(encoding="utf-8")

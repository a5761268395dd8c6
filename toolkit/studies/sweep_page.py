"""What a sweep has found: the best config, and a page of Optuna's plots."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.config import load
from toolkit.errors import RunFailed
from toolkit.evaluation.files import replace_file
from toolkit.studies.space import Space
from toolkit.training.progress import figures

if TYPE_CHECKING:
    from optuna import Study

BEST = "best.yaml"
PAGE = "sweep.html"
_STATES = {"COMPLETE": "trained to the end", "PRUNED": "pruned", "FAIL": "that cannot be trained"}


def write_results(study: Study, space: Space, folder: Path, say: Callable[[str], object]) -> Path:
    """Write and say what is best; the path of its config.

    Raises:
        RunFailed: no trial was trained to its end.
    """
    from toolkit.studies.sweep import places, shown

    trials = study.get_trials(deepcopy=False)
    last = dict(zip(places(trials), trials, strict=True))
    counts = Counter(trial.state.name for trial in last.values())
    told = (
        f"{len(last)} trials: {', '.join(f'{counts[name]} {text}' for name, text in _STATES.items() if counts[name])}"
    )
    say(told)
    if not counts["COMPLETE"]:
        raise RunFailed(
            f"no trial was trained to its end; what they said is in {folder}: look there, or make the space smaller."
        )
    best = study.best_trial
    place = next(place for place, trial in last.items() if trial.number == best.number)
    found = f"{figures({space.metric: float(best.value or 0)})} in epoch {best.user_attrs['epoch']}"
    settings = space.settings(best.params)
    head = (
        f"# The best of a sweep over {space.config.name}: trial-{place:04d}, {found} (validation).\n"
        f"# {told}. Train it: toolkit train {BEST}\n"
    )
    replace_file(folder / BEST, (head + load(space.config, settings).to_yaml()).encode())
    replace_file(folder / PAGE, page(study, space, told).encode())
    say(f"best: trial-{place:04d}, {found}")
    width = max(map(len, best.params))
    for key, value in best.params.items():
        say(f"  {key:<{width}}  {shown(value)}")
    say(f"its config: {folder / BEST}; plots: {folder / PAGE}")
    return folder / BEST


def page(study: Study, space: Space, told: str) -> str:
    """Optuna's plots of the trials in one HTML file that needs no network."""
    import plotly.io
    from optuna import visualization

    plots = {
        "What came of each trial": visualization.plot_optimization_history,
        "How much each key matters": visualization.plot_param_importances,
        "All keys of all trials": visualization.plot_parallel_coordinate,
    }
    parts: list[str] = []
    for title, plot in plots.items():
        with warnings.catch_warnings():
            # Of few trials, or such that are all as good: the bars then say so by being equal.
            warnings.filterwarnings("ignore", ".*Parameter importances will be equal", UserWarning)
            figure = plot(study, target_name=space.metric)
        figure.update_layout(title=None, margin={"t": 40})
        html = plotly.io.to_html(figure, full_html=False, include_plotlyjs=not parts, config={"displaylogo": False})
        parts.append(f"<h2>{title}</h2>\n{html}")
    name = escape(space.base.name)
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>sweep of {name}</title>\n'
        "<style>body { font-family: sans-serif; max-width: 1000px; margin: 2em auto; }</style></head>\n"
        f"<body><h1>Sweep of {name}</h1>\n<p>{escape(told)}, compared by {space.metric} of the validation part.</p>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )

"""The page that `toolkit report` writes, opened in a real Chromium that may not use a network."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.explain import planted_run
from tests.explain.planted_run import plant, png
from toolkit import workflow
from toolkit.config import load
from toolkit.explain.report.write import write_report

pytestmark = pytest.mark.long

CONFIG = """
seed: 3
data: {source: synthetic_images, classes: 3, examples: 150, height: 12, width: 12, batch_size: 16}
model: {name: mnist_dense, hidden: 4}
optimizer: {name: adam, learning_rate: 1e-2}
training: {epochs: 3, backend: %s, log_every: 2}
"""
HOSTILE = '<script>window.taken="yes"</script><img src=x onerror="window.taken=1">'
SECONDS = 30  # that drawing may take on a busy machine
PHONE, DESK = 390, 1000


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if not all(programs):
        pytest.skip("needs a browser: install the Debian packages chromium and chromium-driver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    # As root Chromium starts only without its sandbox; no name has an address here.
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "host-resolver-rules=MAP * ~NOTFOUND"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(programs[1]))
    yield driver
    driver.quit()


@pytest.fixture
def show(browser) -> Callable[..., Any]:
    """Opens a page, and waits until its curves are drawn."""
    from selenium.webdriver.support.wait import WebDriverWait

    def open_page(
        page: Path, *, width: int = DESK, dark: bool = False, scripts: bool = True, drawn: bool = True
    ) -> Any:
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width == PHONE}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not scripts})
        for kind in ("browser", "performance"):
            browser.get_log(kind)  # of the page before
        browser.get(page.absolute().as_uri())
        if scripts and drawn:
            WebDriverWait(browser, SECONDS).until(
                lambda driver: driver.execute_script("return document.documentElement.classList.contains('drawn')")
            )
        return browser

    return open_page


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The page of a run that was really trained, with a picture beside those of train."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "small.yaml").write_text(CONFIG % os.environ["KERAS_BACKEND"])
    run = workflow.train(load(folder / "small.yaml"), run_dir=folder / "run")
    (run / "look").mkdir()
    (run / "look" / "filters.png").write_bytes(png())
    write_report([run], say=lambda text: None)
    return run


def shot(driver) -> np.ndarray:
    """What the window shows, (height, width, 3)."""
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(base64.b64decode(driver.get_screenshot_as_base64()))).convert("RGB"))


def requests(driver) -> list[str]:
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


def text(driver) -> str:
    return driver.execute_script("return document.body.innerText")


def test_the_page_of_a_run_is_whole_and_asks_nobody(trained, show):
    driver = show(trained / "report.html")
    evaluation = json.loads((trained / "evaluation.json").read_text())

    told = text(driver)
    low, high = evaluation["accuracy_interval"]
    figures = [evaluation["accuracy"], low, high, evaluation["macro"]["f1"], *evaluation["top_k"].values()]
    figures += [one[name] for one in evaluation["classes"] for name in ("precision", "recall", "f1")]
    assert all(f"{100 * figure:.2f} %" in told for figure in figures)
    assert f"{evaluation['loss']:.4f}" in told
    rows = driver.execute_script(
        "const cells = (row) => [...row.cells].slice(1).map((cell) => Number(cell.innerText));"
        "return [...document.querySelectorAll('.counts tbody tr')].map(cells)"
    )
    assert rows == evaluation["confusion"]
    assert driver.get_log("browser") == []
    page = (trained / "report.html").as_uri()
    assert {url for url in requests(driver) if not url.startswith("data:image/")} == {page}
    assert shot(driver).std() > 10  # a blank page has one colour


def test_curves_answer_the_mouse_with_the_figures_of_the_metrics(trained, show):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.support.wait import WebDriverWait

    driver = show(trained / "report.html")
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    last = [row for row in rows if row["kind"] == "epoch"][-1]
    driver.execute_script("document.getElementById('plot').scrollIntoView()")
    point = driver.find_elements("css selector", "#plot .scatterlayer .trace:last-child .point")[-1]
    ActionChains(driver).move_to_element(point).perform()
    hovered = WebDriverWait(driver, SECONDS).until(
        lambda d: d.execute_script("return document.querySelector('#plot .hoverlayer').textContent")
    )

    assert str(last["step"]) in hovered and f"epoch {last['epoch']}" in hovered
    assert "validation" in hovered


def test_scripts_in_names_do_not_run(tmp_path, show):
    names = (HOSTILE, "dog", "owl")
    first = plant(tmp_path / "<b>first", class_names=names, command=[HOSTILE], versions={HOSTILE: HOSTILE})
    second = plant(tmp_path / "second", class_names=names)

    driver = show(write_report([first, second], tmp_path / "both.html", say=lambda text: None))

    assert driver.execute_script("return window.taken") is None
    driver.execute_script("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert HOSTILE in text(driver)
    legend = driver.execute_script("return [...document.querySelectorAll('#plot .legendtext')].map(t => t.textContent)")
    assert "<b>first, validation" in legend
    assert driver.get_log("browser") == []


def test_the_policy_stops_what_would_run_or_load(tmp_path, show):
    page = write_report([plant(tmp_path / "run")], say=lambda text: None)
    script = '<script>window.taken = 1</script><img src="http://example.org/x.png"></body>'
    page.write_text(page.read_text().replace("</body>", script))

    driver = show(page)

    assert driver.execute_script("return window.taken") is None
    told = [entry["message"] for entry in driver.get_log("browser")]
    assert len(told) == 2 and all("violates the following Content Security Policy" in message for message in told)


@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_shows_all_in_light_and_dark(tmp_path, show, dark):
    run = plant(tmp_path / "run", class_names=("cat " * 20, "d" * 200, "owl"))
    (run / "wide.png").write_bytes(png(3000, 200))
    planted_run.write_json(run / "other.json", {"key" * 50: "value" * 100})

    driver = show(write_report([run], say=lambda text: None), width=PHONE, dark=dark)

    assert driver.execute_script("return document.scrollingElement.scrollWidth") == PHONE
    colours = driver.execute_script("const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]")
    paper, ink = (np.mean([int(part) for part in colour.strip("rgb()").split(",")]) for colour in colours)
    assert (paper < 50 and ink > 200) if dark else (paper > 200 and ink < 50)
    legend = driver.execute_script("return getComputedStyle(document.querySelector('#plot .legendtext')).fill")
    assert legend == colours[1]
    assert abs(shot(driver).mean() - paper) < 40


def test_without_scripts_pictures_and_tables_are_there(trained, show):
    driver = show(trained / "report.html", scripts=False)

    assert "Figures of the test part" in text(driver)
    pictures = driver.execute_script(
        "return [...document.images].map(one => [one.alt, one.naturalWidth > 0, one.offsetHeight > 0])"
    )
    assert all(loaded and shown for _, loaded, shown in pictures[:1])
    assert pictures[0][0].startswith("Curves of the training")
    assert driver.execute_script("return document.getElementById('plot').offsetHeight") == 0


def test_without_pictures_their_texts_are_there(trained, show):
    page = trained / "report.html"
    bare = trained / "bare.html"
    bare.write_text(page.read_text().replace("data:image/png;base64,", "data:image/png;base64,broken"))

    driver = show(bare, scripts=False)

    shown = driver.execute_script(
        "return [...document.images].map(one => [one.alt, one.naturalWidth, one.offsetWidth])"
    )
    assert [(alt, width) for alt, width, _ in shown][1:] == [("look: filters", 0)]
    assert all(box > 50 for *_, box in shown)  # the text takes its room

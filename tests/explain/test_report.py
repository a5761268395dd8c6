"""The page that `toolkit report` writes, read as text: what is in it, what is not, and what is refused."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.explain import planted_run
from tests.explain.planted_run import plant, plant_speech, png, start
from toolkit.cli import cli
from toolkit.errors import ToolkitError
from toolkit.explain.report import gather
from toolkit.explain.report.curves import curves
from toolkit.explain.report.page import Page
from toolkit.explain.report.write import MAX_BYTES, write_report
from toolkit.runs import trust

HOSTILE = '<script>document.title="taken"</script>'
VOID = {"meta", "img", "br", "link", "hr", "input"}


class Parsed(HTMLParser):
    """A page as a browser has it: its elements with their attributes, and its text by section."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self.cells: list[list[str]] = []
        self._open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        assert not self._open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag == "tr":
            self.cells.append([])
        elif tag in ("th", "td"):
            self.cells[-1].append("")
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open[-1:] in (["script"], ["style"]):
            self.scripts += [data] if self._open[-1] == "script" else []
            return
        self.texts.append(data)
        if {"th", "td"} & set(self._open):
            self.cells[-1][-1] += data

    @property
    def text(self) -> str:
        return " ".join(self.texts)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def policy(self) -> str:
        return next(meta["content"] for meta in self.all("meta") if "http-equiv" in meta)


def report(*runs: Path, output: Path | None = None) -> Parsed:
    return Parsed(write_report(runs, output, say=lambda text: None))


@pytest.fixture
def run(tmp_path):
    return plant(tmp_path / "run")


def test_figures_of_the_evaluation_stand_in_the_page(run):
    page = report(run)

    assert all(figure in page.text for figure in planted_run.FIGURES)
    assert ["cat", "63.64 %", "70.00 %", "66.67 %", "10"] in page.cells
    assert ["dog", "88.89 %", "80.00 %", "84.21 %", "20"] in page.cells
    assert ["owl", "0.00 %", "–", "–", "0"] in page.cells
    assert ["cat", "7", "2", "1"] in page.cells and ["dog", "4", "16", "0"] in page.cells
    assert page.cells.index(["dog", "cat", "4"]) < page.cells.index(["cat", "dog", "2"])  # the most confused first


def test_what_was_trained_config_and_environment_stand_in_the_page(run):
    page = report(run)

    for row in (
        ["model", "mnist_dense"],
        ["parameters", "1,234,567"],
        ["splits", "45 train, 15 validation, 30 test"],
        ["optimizer", "adam, learning rate 0.01, cosine"],
        ["epochs", "3 of 3"],
        ["kept", "epoch 2 (val_loss 0.1250)"],
        ["training", "61.5 s"],
        ["command", "toolkit train planted.yaml"],
        ["commit", "0123456789ab"],
        ["keras", "3.15.1"],
        ["processor", "Intel Xeon"],
    ):
        assert row in page.cells
    assert (run / "config.yaml").read_text() in page.text


def test_worst_mistakes_are_the_surest_wrong_answers(run):
    page = report(run)
    mistakes = [row for row in page.cells if row[0].startswith("example-")]

    # Of (cat, dog) 0.89 and 0.87; (cat, owl) 0.88; (dog, cat) 0.88 to 0.82: equal ones as they stand in the table.
    assert len(mistakes) == 7
    assert [row[3] for row in mistakes] == ["89.00 %", "88.00 %", "88.00 %", "87.00 %", "86.00 %", "84.00 %", "82.00 %"]
    assert mistakes[0] == ["example-07", "cat", "dog", "89.00 %", "5.50 %"]


def test_the_page_needs_nothing_else_and_may_reach_nothing_else(run):
    (run / "curves.png").write_bytes(png())
    page = report(run)

    addresses = [
        value for _, attributes in page.elements for name, value in attributes.items() if name in ("src", "href")
    ]
    assert addresses and all(address.startswith("data:image/") for address in addresses)
    assert not page.all("link") and not any("src" in script for script in page.all("script"))
    assert page.policy().startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-")
    assert "unsafe-inline" not in page.policy().partition("script-src")[2]
    own = base64.b64encode(hashlib.sha256(page.scripts[-1].encode()).digest()).decode()
    assert f"'sha256-{own}'" in page.policy()


def test_names_and_texts_of_others_are_only_text(tmp_path):
    run = plant(tmp_path / "<img src=x onerror=alert(1)>", class_names=(HOSTILE, "</td><b>dog", '"><i>owl'))
    record = json.loads((run / "record.json").read_text())
    versions, machine = {HOSTILE: HOSTILE}, {'" onload="x': HOSTILE}
    planted_run.write_json(
        run / "record.json", {**record, "command": [HOSTILE], "versions": versions, "machine": machine}
    )
    (run / "look").mkdir()
    (run / "look" / "<svg onload=x>.png").write_bytes(png())
    planted_run.write_json(run / "other.json", {HOSTILE: {"a": [HOSTILE, 1.5, None]}})
    (run / "bad_examples.csv").write_text(f"split,id,reason\ntrain,{HOSTILE},\x1b[31m\u202egnp\n".replace('"', ""))

    with (run / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps({"kind": "epoch", "step": 40, f"{HOSTILE}{i}": 1.0}) + "\n" for i in range(999))

    page = report(run)

    assert page.text.count(HOSTILE) >= 8
    assert len(page.all("script")) == 3
    assert not page.all("svg") and not page.all("i") and not page.all("b")
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert "\x1b" not in page.text and "\u202e" not in page.text and r"\x1b[31m\u202egnp" in page.text
    assert {"look: <svg onload=x>"} == {image["alt"] for image in page.all("img")}
    assert all("<" not in script for script in page.scripts[:2])  # no name ends the script that holds the curves


def test_a_class_whose_name_is_no_utf8_is_shown(run):
    classes = json.loads((run / "evaluation.json").read_text())["classes"]
    change(run / "evaluation.json", classes=[{**classes[0], "name": "caf\udce9"}, *classes[1:]])

    assert ["caf?", "63.64 %", "70.00 %", "66.67 %", "10"] in report(run).cells


def test_curves_have_the_figures_of_the_metrics(run):
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "epoch", "epoch": 4, "step": 40, "loss": NaN, "val_loss": 0.1}\n')
    figure = json.loads(curves([gather.gather(run, "run")]))

    lines = {(line["name"], line["yaxis"]): line for line in figure["data"]}
    assert lines["validation", "y"]["x"] == [10, 20, 30, 40]
    assert lines["validation", "y"]["y"] == [0.5, 0.25, 0.5 / 3, 0.1]
    assert lines["training, mean of the epoch", "y"]["y"] == [1.0, 0.5, 1 / 3, None]
    assert lines["training, by step", "y"]["y"] == [1.25, 0.625, 1.25 / 3]
    assert lines["validation", "y2"]["y"] == pytest.approx([0.3, 0.6, 0.9])
    titles = [figure["layout"][axis]["title"]["text"] for axis in ("yaxis", "yaxis2", "yaxis3")]
    assert titles == ["loss", "accuracy", "learning rate"]
    assert {shape["x0"] for shape in figure["layout"]["shapes"]} == {20}  # the epoch that was kept


def test_a_long_training_is_thinned_evenly(run):
    with (run / "metrics.jsonl").open("w") as file:
        file.writelines(json.dumps({"kind": "step", "step": i, "loss": 1.0}) + "\n" for i in range(10_000))

    steps = [row["step"] for row in gather.gather(run, "run").steps]

    assert gather.MAX_ROWS // 2 <= len(steps) <= gather.MAX_ROWS
    assert steps == list(range(0, 10_000, steps[1]))


def test_of_many_epochs_the_last_and_the_best_stay_and_all_are_counted(tmp_path):
    best = {"metric": "val_loss", "value": 0.125, "epoch": 1238}
    run = start(tmp_path / "run", overrides=["training.epochs=5000"], best=best)
    with (run / "metrics.jsonl").open("w") as file:
        file.writelines(
            json.dumps({"kind": "epoch", "epoch": i, "step": 10 * i, "loss": 1 / i}) + "\n" for i in range(1, 2601)
        )

    found = gather.gather(run, "run")
    page = report(run)

    epochs = [row["epoch"] for row in found.epochs]
    assert epochs == sorted({*range(1, 2601, epochs[1] - 1), 1238, 2600}) and epochs[1] > 2
    assert {shape["x0"] for shape in json.loads(curves([found]))["layout"]["shapes"]} == {12380}
    assert ["epochs", "2,600 of 5,000 so far"] in page.cells
    shown = [row for row in page.cells if len(row) == 3 and row[0][0].isdigit()]
    assert shown[0][:2] == ["1,238", "12,380"] and shown[-1][:2] == ["2,600", "26,000"]
    assert len(shown) == 201 and "201 of 2,600 epochs; metrics.jsonl in the run directory has all." in page.text


def test_the_matrix_of_many_classes_is_read(run):
    classes = json.loads((run / "evaluation.json").read_text())["classes"]
    confusion = [[0] * 1700 for _ in range(1700)]
    confusion[1500][7], confusion[3][1600] = 8, 9
    change(
        run / "evaluation.json",
        classes=[{**classes[0], "name": f"class {i}"} for i in range(1700)],
        confusion=confusion,
    )
    assert (run / "evaluation.json").stat().st_size > trust.MAX_JSON

    page = report(run)

    assert page.cells.index(["class 3", "class 1600", "9"]) < page.cells.index(["class 1500", "class 7", "8"])


def test_only_what_has_been_computed_has_a_section(tmp_path):
    page = report(start(tmp_path / "run", seconds=None, best=None))

    assert [text for text in page.texts if text in ("Figures of the test part", "Curves", "Worst mistakes")] == []
    assert ["state", "training"] in page.cells and ["epochs", "0 of 3 so far"] in page.cells
    assert not page.all("script")
    assert "script-src 'none'" in page.policy()


def test_a_run_that_failed_says_why(tmp_path):
    page = report(start(tmp_path / "run", state="failed", error="the loss is not finite"))

    assert ["state", "failed: the loss is not finite"] in page.cells


def test_what_other_verbs_left_is_shown(run):
    (run / "look").mkdir()
    for name in ("robustness.png", "gradients.png", "curves.png", "look/first_layer-filters.png"):
        (run / name).write_bytes(png())
    passes = [{"name": "fog", "figures": {"error": 0.91234, "bins": [1, 2]}}, {"name": "<i>rain"}]
    document = {"passes": passes, "settings": [1, 0.5], "examples": 1000, "baseline": None}
    planted_run.write_json(run / "robustness.json", document)
    (run / "duplicates.csv").write_text("split,id,also_in\ntest,example-03,train\n")

    page = report(run)

    pictures = {image["alt"]: image["src"] for image in page.all("img")}
    assert {"robustness", "gradients", "look: first_layer-filters"} < set(pictures)
    assert "Curves of the training over its steps; kept: epoch 2 (val_loss 0.1250)" in pictures
    inline = f"data:image/png;base64,{base64.b64encode(png()).decode()}"
    assert set(pictures.values()) == {inline}
    for row in (["name", "figures › error"], ["fog", "0.9123"], ["<i>rain", "–"], ["settings › 2", "0.5"]):
        assert row in page.cells
    for row in (["examples", "1,000"], ["baseline", "–"]):
        assert row in page.cells
    assert ["test", "example-03", "train"] in page.cells


def test_pictures_of_any_size_fit_into_five_megabytes(run):
    (run / "look").mkdir()
    for i in range(3):
        (run / "look" / f"noise{i}.png").write_bytes(png(900, 900, noise=True))
    (run / "curves.png").write_bytes(png())
    told: list[str] = []

    path = write_report([run], say=told.append)

    assert sum(file.stat().st_size for file in (run / "look").iterdir()) > MAX_BYTES
    assert path.stat().st_size <= MAX_BYTES == 5_000_000
    page = Parsed(path)
    assert len([image for image in page.all("img") if image["src"].startswith("data:image/webp")]) == 3
    assert len(told) == 1


def test_a_picture_without_room_is_told(run, monkeypatch):
    (run / "curves.png").write_bytes(png(900, 900, noise=True))
    bare = write_report([run], say=lambda text: None).stat().st_size  # with the picture, made smaller
    monkeypatch.setattr("toolkit.explain.report.write.MAX_BYTES", 2_010_000)
    told: list[str] = []

    path = write_report([run], say=told.append)

    assert path.stat().st_size <= 2_010_000 < bare
    assert told[0] == f"left out, too large for the page: {run / 'curves.png'}"
    assert "(left out, too large for this page: Curves of the training" in Parsed(path).text


def padded(size: int) -> bytes:
    """A picture of so many bytes, most of them a comment."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    def made(characters: int) -> bytes:
        buffer, told = io.BytesIO(), PngInfo()
        told.add_text("Comment", "x" * characters)
        Image.new("RGB", (40, 30)).save(buffer, "PNG", pnginfo=told)
        return buffer.getvalue()

    return made(size - len(made(0)))


def test_a_picture_as_long_as_its_room_and_those_around_it_fit(tmp_path, monkeypatch):
    run = start(tmp_path / "run", best=None)  # without curves: Plotly takes its time
    (run / "look.png").write_bytes(padded(3000))
    address = Parsed(write_report([run], say=lambda text: None)).all("img")[0]["src"]
    rest = (run / "report.html").stat().st_size - len(address)
    monkeypatch.setattr("toolkit.explain.report.write.MAX_BYTES", rest + 22 + 4 * 2000)  # of that of 6,000 bytes

    found = {}
    for size in range(5940, 6060, 3):  # four characters each
        (run / "look.png").write_bytes(padded(size))
        path = write_report([run], say=lambda text: None)
        found[size] = path.stat().st_size - rest - 22 - 4 * 2000, Parsed(path).all("img")[0]["src"][:15]

    assert all(above <= 0 for above, _ in found.values())
    assert found[5940] == (-80, "data:image/png;") and found[6057][1] == "data:image/webp"


def test_sentences_in_place_of_pictures_have_their_room(tmp_path, monkeypatch):
    run = start(tmp_path / "run", best=None)
    (run / "look").mkdir()
    for i in range(4):
        (run / "look" / f"<&{i}>.png").write_bytes(png(noise=True))
    bare = len(Page([gather.gather(run, "run")]).to_html().encode())

    told = []
    for more in range(0, 400, 20):
        monkeypatch.setattr("toolkit.explain.report.write.MAX_BYTES", bare + more)
        try:
            path = write_report([run], say=lambda text: None)
        except ToolkitError as error:
            told.append(str(error))
        else:
            assert path.stat().st_size <= bare + more
            assert Parsed(path).text.count("(left out, too large for this page: look: <&") == 4

    assert 0 < len(told) < 20 and all("leave no room for pictures within" in text for text in told)


def test_several_runs_are_compared_and_what_differs_is_marked(tmp_path):
    first = plant(tmp_path / "first")
    second = plant(
        tmp_path / "second",
        overrides=["optimizer.learning_rate=0.5", "training.epochs=7"],
        versions={"keras": "3.15.0", "numpy": "2.4.6"},
        seconds=99.0,
    )
    page = report(first, second, output=tmp_path / "both.html")

    beside = [row for row in page.cells if len(row) == 3]
    assert ["optimizer.learning_rate", "0.01", "0.5"] in beside and ["training.epochs", "3", "7"] in beside
    assert ["keras", "3.15.1", "3.15.0"] in beside
    assert ["training", "61.5 s", "99.0 s"] in beside
    differing = [row[0] for row in beside if "." in row[0]]
    assert differing == ["optimizer.learning_rate", "training.epochs"]
    marked = re.findall(r"<mark>(.*?)</mark>", (tmp_path / "both.html").read_text())
    assert set(marked) == {"0.5", "7", "3.15.0"}
    assert len(page.scripts) == 3  # Plotly stands in it once
    assert page.text.count("Worst mistakes") == 2


def test_runs_measured_on_other_test_parts_are_told_apart(tmp_path):
    first = plant(tmp_path / "first")
    prints = {"train": "a" * 64, "validation": "b" * 64, "test": "d" * 64}
    second = plant(tmp_path / "second", fingerprints=prints)

    assert "different test parts" in report(first, second).text
    assert "different test parts" not in report(first, plant(tmp_path / "third")).text


def test_curves_of_several_runs_carry_their_names_as_text(tmp_path):
    runs = [plant(tmp_path / name) for name in ("<b>bold", "plain")]
    with (runs[0] / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "epoch", "step": 40, "<i>score": 1.0}\n')

    figure = json.loads(curves([gather.gather(run, run.name) for run in runs]))

    # Plotly reads tags, and these are none.
    assert {"&lt;b&gt;bold, validation", "plain, validation"} < {line["name"] for line in figure["data"]}
    assert figure["layout"]["yaxis2"]["title"]["text"] == "&lt;i&gt;score"


def test_no_name_can_end_the_script_that_holds_the_curves(tmp_path, monkeypatch):
    monkeypatch.setattr("html.escape", str)  # which leaves nothing to do here
    found = [gather.gather(plant(tmp_path / name), f"</script>{name}") for name in ("a", "b")]

    text = curves(found)

    assert "<" not in text and "</script>a, validation" in [line["name"] for line in json.loads(text)["data"]]


def test_runs_of_one_name_are_called_by_their_paths(tmp_path):
    first, second = plant(tmp_path / "a/run"), plant(tmp_path / "b/run")

    assert {str(first), str(second)} <= set(report(first, second).texts)


def test_speech_to_text(tmp_path):
    said = ["one two", "two two one", "one", "two"]
    page = report(plant_speech(tmp_path / "run", said, ["one two", "<i>one", "", "two"]))

    assert "12.34 % (95 % interval 5.00 % to 25.00 %)" in page.text and "43.21 %" in page.text
    # "two two one" → "<i>one": all three words are wrong or gone; "one" → "": one.
    assert [row for row in page.cells if row[0].startswith("clip")] == [
        ["clip-1.wav", "two two one", "<i>one", "3"],
        ["clip-2.wav", "one", "", "1"],
    ]
    assert ["<b>two", "–", "7"] in page.cells


def test_the_page_of_one_run_lies_in_it_and_of_several_in_the_current_folder(run, tmp_path):
    assert write_report([run], say=lambda text: None) == run / "report.html"
    assert write_report([run, plant(tmp_path / "other")], say=lambda text: None) == Path("report.html")


def test_an_earlier_report_is_replaced_and_nothing_else(run, tmp_path):
    told: list[str] = []
    write_report([run], say=told.append)
    write_report([run], say=told.append)
    assert [text.partition("MB")[2] for text in told] == ["", ", in place of an earlier report"]

    notes = tmp_path / "notes.html"
    notes.write_text("mine")
    with pytest.raises(ToolkitError, match="notes.html exists and is no report of this toolkit"):
        write_report([run], notes)
    with pytest.raises(ToolkitError, match="is a folder: name a file in it"):
        write_report([run], tmp_path)
    assert notes.read_text() == "mine"


def change(path, **changes):
    planted_run.write_json(path, {**json.loads(path.read_text()), **changes})


DAMAGE = {
    "no run": (lambda run: (run / "record.json").unlink(), "record.json is missing"),
    "figures": (lambda run: change(run / "evaluation.json", accuracy="high"), "evaluation.json: accuracy: "),
    "many figures": (lambda run: change(run / "evaluation.json", confusion=[[""] * 10**6]), "confusion.0: "),
    "many shares": (lambda run: change(run / "evaluation.json", top_k=dict.fromkeys(range(10**5), "")), "10,000 parts"),
    "matrix": (lambda run: change(run / "evaluation.json", confusion=[[1, 2]]), "confusion has not a row and a column"),
    "many lists": (lambda run: (run / "evaluation.json").write_text(f"[{'{},' * 3 * 10**6}0]"), "1,000,000 lists"),
    "large": (lambda run: os.truncate(run / "evaluation.json", 2**27 + 1), "more than 134,217,728 bytes"),
    "long": (lambda run: change(run / "evaluation.json", split="x" * 2**24), "bytes without its confusion matrix"),
    "list": (lambda run: (run / "evaluation.json").write_text("[]"), "evaluation.json holds no evaluation"),
    "predictions": (lambda run: (run / "predictions.csv").write_text("id,x\n1,2\n"), "no table of predictions"),
    "short row": (lambda run: (run / "predictions.csv").write_text("id,label,answer,probability\na,b\n"), "no table"),
    "no UTF-8": (lambda run: (run / "duplicates.csv").write_bytes(b"split\n\xff\n"), "duplicates.csv cannot be read"),
    "no head": (lambda run: (run / "duplicates.csv").write_text("\nsplit,id\n"), "duplicates.csv has no names of"),
    "metrics": (lambda run: (run / "metrics.jsonl").write_text("{}\n"), "metrics.jsonl:1 is no row"),
    "record": (lambda run: change(run / "record.json", best="x"), "record.json: best: "),
    "picture": (lambda run: (run / "look.png").write_bytes(b"GIF89a"), "look.png is no PNG picture"),
    "cut picture": (lambda run: (run / "look.png").write_bytes(png(noise=True)[:300]), "look.png is no PNG picture"),
    "link": (lambda run: (run / "look.png").symlink_to("/etc/hostname"), "is a symbolic link"),
    "deep": (lambda run: (run / "other.json").write_text("[" * 100_000), "other.json cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_file_is_named_and_nothing_is_written(run, what):
    damage, told = DAMAGE[what]
    damage(run)

    with pytest.raises(ToolkitError, match=re.escape(told)):
        write_report([run])
    assert not (run / "report.html").exists()


def test_wrong_requests_are_one_sentence(run, tmp_path):
    def answer(*arguments: str) -> tuple[str, int]:
        with pytest.raises(ToolkitError) as caught:
            cli.main([*arguments], standalone_mode=False)
        return str(caught.value), caught.value.exit_code

    assert answer("report", str(tmp_path / "nowhere")) == (
        f"there is no run directory {tmp_path / 'nowhere'}: give the folder that train printed.",
        2,
    )
    assert answer("report", str(run), f"{run}/")[0].endswith("is given twice: name each run once.")


def test_command_line_says_where_the_page_is(run):
    result = CliRunner().invoke(cli, ["report", str(run)])

    assert result.exit_code == 0
    assert result.output == f"{run}/report.html: 2.0 MB\n"

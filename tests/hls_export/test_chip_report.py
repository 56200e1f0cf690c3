"""report: the page stands alone and says what its CSV and JSON say."""

import csv
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from strategies import TINY, random_graph

from hls_export.__main__ import main
from hls_export.bundle import pack_bundle, read_bundle
from hls_export.npu import load_chip
from hls_export.planner import Options, plan_stripes
from hls_export.report import layer_rows, make_report, render_report, report_document
from starlight.pages import grouped

REFERENCE = load_chip("reference")
DATA = pack_bundle(random_graph(1, TINY), REFERENCE)
REPORT = make_report(read_bundle(DATA), REFERENCE, 37, 50)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


class Page(HTMLParser):
    """Rows of cells, texts of figures, and every attribute that could ask for another file."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: list[str] = []
        self.asked: list[str] = []
        self.in_cell = False
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.asked += [
            value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "data")
        ]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.in_cell = True

    def handle_endtag(self, tag: str) -> None:
        self.in_cell = self.in_cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.in_cell:
            self.rows[-1][-1] += data

    def cells(self, title: str) -> list[str]:
        (found,) = [row for row in self.rows if row[:1] == [title]]
        return [cell.replace("\u2009", "") for cell in found[1:]]


PAGE = Page(render_report(REPORT))


def test_the_page_needs_nothing_beside_it() -> None:
    html = render_report(REPORT)
    assert all(place.startswith("#") for place in PAGE.asked)
    assert not {"script", "link", "img", "iframe"} & set(PAGE.tags)
    assert "url(" not in html.replace("url(#", "")
    assert "default-src 'none'" in html
    assert 'name="viewport"' in html
    assert html == render_report(make_report(read_bundle(DATA), REFERENCE, 37, 50))


def test_every_figure_of_the_page_is_that_of_the_cost() -> None:
    for column, cost in enumerate(REPORT.schedules.values()):
        assert PAGE.cells("ms")[column] == f"{1e3 * cost.seconds:.2f}"
        assert PAGE.cells("MACs")[column] == str(cost.macs)
        assert PAGE.cells("DRAM read, B")[column] == str(cost.traffic.dram_read)
        assert PAGE.cells("energy, mJ")[column] == f"{1e3 * cost.energy.total:.2f}"
    rows = [row for row in PAGE.rows if len(row) == 13]
    assert len(rows) == 1 + len(REPORT.cost.layers)
    for row, layer in zip(rows[1:], REPORT.cost.layers, strict=True):
        numbers = [cell.replace("\u2009", "") for cell in row]
        assert numbers[1] == layer.layer
        assert numbers[2:4] == [str(layer.macs), str(layer.compute_cycles)]
        assert numbers[5:7] == [str(layer.dma_cycles), str(layer.stall_cycles)]
        gain = REPORT.weight_gain["layers"][layer.layer]
        share = 100 * gain["compressed_bytes"] / gain["plain_bytes"]
        assert numbers[10:12] == [str(gain["plain_bytes"]), f"{share:.0f} %"]


def test_figures_are_drawn_with_their_words() -> None:
    html = render_report(REPORT)
    for label in (
        "array and DMA by layer over the time of a frame",
        "roofline of the chip",
        "memory map",
    ):
        assert f'aria-label="{label}' in html
    identifiers = re.findall(r'\bid="([^"]*)"', html)
    assert len(identifiers) == len(set(identifiers))
    for layer in REPORT.cost.layers:
        assert f">{layer.layer}<" in html


def test_a_plan_comes_first_with_its_addresses() -> None:
    graph = random_graph(1, TINY)
    performance = REFERENCE.performance.model_copy(update={"sram_bytes": 24_000})
    tight = REFERENCE.model_copy(update={"performance": performance})
    plan = plan_stripes(graph, tight, Options(frame=(37, 50)))
    report = make_report(read_bundle(pack_bundle(graph, tight, plan)), tight, 37, 50)
    assert report.title == "stripe plan"
    assert report.cost.sram_bytes == plan.sram
    html = render_report(report)
    assert 'aria-label="SRAM map: addresses over the loads and layers of each group"' in html
    assert "SRAM held while each layer runs" not in html
    page = Page(html)
    assert page.cells("SRAM, most live, B")[0] == str(plan.sram)
    assert layer_rows(report)[0]["schedule"] == "stripe plan"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["report", *map(str, arguments)])


def test_command_writes_page_table_and_document(tmp_path: Path) -> None:
    file, page = tmp_path / "model.slb", tmp_path / "out.html"
    file.write_bytes(DATA)
    result = run(file, page, "--frame", "50x37")
    assert result.exit_code == 0, result.output
    assert page.read_text(encoding="utf-8") == render_report(REPORT)
    document = json.loads(page.with_suffix(".json").read_text())
    assert document == json.loads(json.dumps(report_document(REPORT)))
    saved = document["saved_by_joins"]["concatenation_bytes"]
    assert f"{grouped(saved)} bytes of concatenation" in page.read_text(encoding="utf-8")
    assert document["frame"] == {"width": 50, "height": 37}
    with page.with_suffix(".csv").open(newline="") as table:
        rows = list(csv.DictReader(table))
    assert rows == [{key: str(value) for key, value in row.items()} for row in layer_rows(REPORT)]
    for title, cost in REPORT.schedules.items():
        assert f"{title}: {1e3 * cost.seconds:.2f} ms" in result.output
    assert set(tmp_path.iterdir()) == {
        file,
        *(page.with_suffix(s) for s in (".html", ".csv", ".json")),
    }


@pytest.mark.parametrize(
    ("content", "out", "arguments", "message"),
    [
        (None, "out.html", [], "bundle: file must exist, got"),
        (b"", "out.html", [], "size must be at least 128, got 0"),
        (DATA[:-1], "out.html", [], "bundle: size must be"),
        (DATA, "out.pdf", [], "report: file must end in .html, got"),
        (DATA, "no/out.html", [], "folder must exist"),
        (DATA, "out.html", ["--frame", ""], "report: frame must be WIDTHxHEIGHT in pixels, got ''"),
        (DATA, "out.html", ["--chip", "nosuch"], "give the bundle's chip with --chip FILE.toml"),
    ],
)
def test_command_refuses_in_one_line_and_writes_nothing(
    tmp_path: Path, content: bytes | None, out: str, arguments: list[str], message: str
) -> None:
    if content is not None:
        (tmp_path / "model.slb").write_bytes(content)
    before = set(tmp_path.iterdir())
    result = run(tmp_path / "model.slb", tmp_path / out, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert set(tmp_path.iterdir()) == before


@pytest.mark.skipif(CHROMIUM is None, reason="chromium must be installed")
def test_a_browser_opens_it_without_a_word(tmp_path: Path) -> None:
    """The console stays empty; an inserted fault shows that it would not."""
    assert CHROMIUM is not None

    def console(html: str) -> list[str]:
        page = tmp_path / "page.html"
        page.write_text(html, encoding="utf-8")
        done = subprocess.run(
            [
                *(
                    CHROMIUM,
                    "--headless",
                    "--no-sandbox",
                    "--disable-gpu",
                    "--enable-logging=stderr",
                ),
                *(f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        assert "</svg>" in done.stdout
        return [line for line in done.stderr.splitlines() if "CONSOLE" in line]

    html = render_report(REPORT)
    assert console(html) == []
    assert console(html.replace("<body>", '<body><img src="absent.png">')) != []

"""The report of a run: what it says, that it stands alone, that it repeats to the byte."""

import base64
import dataclasses
import html
import io
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from strategies import FORMS, images, random_graph, random_image

from hls_export.bundle import pack_bundle, read_bundle
from hls_export.costs import frame_costs
from hls_export.cycles import summary
from hls_export.document import bundle_document
from hls_export.export import layer_rows
from hls_export.npu import load_chip
from quant.ranges import BINS, buffer_ranges, sum_bits
from quant.report import (
    CROP,
    DETAIL,
    GAIN,
    Picture,
    Run,
    busiest_window,
    condition_families,
    edges,
    overall_verdict,
    render_report,
    write_report,
)
from starlight.evaluation.metrics import psnr
from starlight.noise import NoiseCondition

PSNR = {
    "noisy": {"iso_25600": 20.5, "sigma_50": 14.9, "sigma_5": 34.1},
    "float": {"iso_25600": 28.5, "sigma_50": 25.0, "sigma_5": 35.26},
    "ptq": {"iso_25600": 28.25, "sigma_50": 24.5, "sigma_5": 34.5},
    "qat": {"iso_25600": 28.375, "sigma_50": 25.125, "sigma_5": 35.125},
}


def picture(seed: int = 0, height: int = 250, width: int = 230) -> Picture:
    clean = random_image(seed, height, width)
    noisy = NoiseCondition.parse("sigma_25").apply(clean, seed)
    near = [np.clip(clean.astype(int) + step, 0, 255).astype(np.uint8) for step in (2, 5, 3)]
    return Picture("sigma_25", "waves", clean, noisy, *near)


def run_of(seed: int = 0) -> Run:
    graph, chip = random_graph(seed), load_chip("reference")
    bundle = read_bundle(pack_bundle(graph, chip))
    return Run(
        name="tiny",
        chip=chip.model_dump(),
        model={"parameters": 1234567, "config": {"widths": (4, 6), "skip": "post_up"}},
        settings={"seed": 20240101, "learning_rate": 0.0002, "data": (), "minutes": None},
        psnr=PSNR,
        loss=[(10, 0.05), (20, 0.03), (30, 0.025)],
        layers=layer_rows(bundle, (54, 96)),
        ranges=buffer_ranges(graph, [random_image(seed, 21, 34)]),
        sensitivity={
            buffer.name: 0.5**index
            for index, buffer in enumerate(graph.buffers)
            if buffer.name != "image"
        },
        accumulator_bits={layer.name: graph.accumulator_bits(layer) for layer in graph.layers},
        sum_bits=sum_bits(graph, [random_image(seed, 21, 34)]),
        verdicts=[
            {"check": "QAT == interpreter", "verdict": "PASS", "detail": "every layer"},
            {"check": "interpreter == RTL", "verdict": "SKIP", "detail": "no simulator"},
        ],
        costs={
            title: summary(cost)
            for title, cost in frame_costs(bundle.graph(), chip, 54, 96).items()
        },
        bundle={"file": "model.slb", "buffers": bundle_document(bundle)["buffers"]},
        pictures=[picture(seed)],
        worst=None,
        files={"model.slb": "the bundle", "a file #1.txt": "notes"},
    )


class Page(HTMLParser):
    """Tables as rows of texts, images as arrays, every attribute, all text outside <style>.

    Typographic characters come back as the ASCII ones they stand for.
    """

    PLAIN = str.maketrans({0x2009: "", 0x2212: "-", 0x2013: "-", 0xD7: "x", 0x2192: "to"})
    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" in self.open:
            return
        data = data.translate(self.PLAIN)
        self.text += data
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data

    def row(self, title: str, columns: int | None = None) -> list[str]:
        """The one row, of so many columns, whose first or second cell reads `title`."""
        (found,) = [row for row in self.rows if title in row[:2] and columns in (None, len(row))]
        return found

    def images(self) -> list[np.ndarray]:
        sources = [v for tag, name, v in self.attributes if (tag, name) == ("img", "src")]
        prefix = "data:image/png;base64,"
        assert all(source.startswith(prefix) for source in sources)
        data = [base64.b64decode(source[len(prefix) :], validate=True) for source in sources]
        return [np.array(Image.open(io.BytesIO(one))) for one in data]


@pytest.fixture(scope="module")
def run() -> Run:
    return run_of()


@pytest.fixture(scope="module")
def page(run) -> Page:
    return Page(render_report(run))


def test_costs_on_the_chip_stand_beside_db(run, page):
    (title, cost), *_ = run.costs.items()
    row = page.row(f"{title}, 96x54")
    assert row[1:3] == [f"{cost['milliseconds']:.2f}", f"{cost['frames_per_second']:.1f}"]
    assert row[4:] == [str(cost["dram_bytes"]), f"{cost['millijoules']:.1f}"]
    without = render_report(dataclasses.replace(run, costs={}))
    assert "On reference" not in without
    assert "On reference" in page.text


def test_psnr_table_has_every_figure_and_what_it_loses_against_float(page):
    assert page.row("sigma_5") == ["sigma_5", "34.10", "35.26", "34.50", "35.12", "-0.76", "-0.13"]
    assert page.row("sigma_50")[-2:] == ["-0.50", "+0.12"]
    assert page.row("mean of sigma")[1:5] == ["24.50", "30.13", "29.50", "30.12"]
    assert "mean of iso" not in page.text  # one condition has no mean
    assert "worst -0.13 at sigma_5" in " ".join(page.text.split())


def test_conditions_stand_by_family_in_ascending_noise():
    names = dict.fromkeys(("iso_25600", "sigma_50", "iso_1600", "iso_1600_dg2", "sigma_7.5"))
    assert condition_families(names) == [
        ["iso_1600", "iso_1600_dg2", "iso_25600"],
        ["sigma_7.5", "sigma_50"],
    ]


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([], "SKIP"),
        (["SKIP"], "SKIP"),
        (["SKIP", "PASS"], "PASS"),
        (["PASS", "SKIP", "FAIL"], "FAIL"),
    ],
)
def test_the_page_opens_with_the_verdict(run, verdicts, expected):
    rows = [{"check": "a == b", "verdict": verdict, "detail": "x"} for verdict in verdicts]
    assert overall_verdict(verdicts) == expected
    text = Page(render_report(dataclasses.replace(run, verdicts=rows, pictures=()))).text.split()
    title = ["tiny", "on", "reference:", expected]
    assert text[: len(title)] == title
    assert text[len(title) :][:4] == ["tiny", "on", "reference", expected]


def test_layers_have_their_exact_numbers(run, page):
    for row in run.layers:
        cells = page.row(row["name"], columns=13)
        assert cells[0] == str(row["index"])
        assert cells[3:6] == [
            f"{row['in_channels']} to {row['out_channels']}",
            f"{row['width']}x{row['height']}",
            str(row["macs"]),
        ]
        assert cells[7:] == [
            str(row["input_bytes"]),
            str(row["join_bytes"]),
            str(row["weight_bytes"] + row["channel_bytes"]),
            str(row["output_bytes"]),
            str(run.accumulator_bits[row["name"]]),
            str(run.sum_bits[row["name"]]),
        ]
    assert int(page.row("all")[5]) == sum(row["macs"] for row in run.layers)


@pytest.mark.parametrize("form", FORMS)
def test_buffers_have_bits_exponent_range_and_histogram(run, form):
    graph = random_graph(2, form=form)
    ranges = buffer_ranges(graph, [random_image(2, 21, 34)])
    run = dataclasses.replace(run, ranges=ranges, bundle={}, pictures=())
    page = Page(render_report(run))
    assert form == "plain" or {buffer.bits for buffer in graph.buffers} == {8, 16}
    for buffer, shown in zip(graph.buffers, run.ranges, strict=True):
        found = page.row(buffer.name, columns=7 if form == "multiplier" else 8)
        half = 1 << buffer.bits - 1
        exponent = [] if form == "multiplier" else [str(buffer.exponent)]
        ends = (-half * buffer.scale, (half - 1) * buffer.scale)
        assert found[1:-2] == [
            "",
            str(buffer.bits),
            *exponent,
            f"{buffer.scale:.6g}",
            f"{ends[0]:.6g} … {ends[1]:.6g}",
        ]
        assert len(shown.counts) == BINS
        assert ("svg", "aria-label", f"histogram of {buffer.name}") in page.attributes
    paths = [v for tag, name, v in page.attributes if (tag, name) == ("path", "d")]
    bars = [path for path in paths if path.startswith("M0 16V") and path.endswith("V16Z")]
    assert [path.count("h1") for path in bars] == [BINS] * len(graph.buffers)


def test_a_range_of_unknown_scale_says_so(run):
    unknown = [dataclasses.replace(shown, exponent=None, scale=None) for shown in run.ranges]
    page = Page(render_report(dataclasses.replace(run, ranges=unknown)))
    assert page.row("encoder.0.dense", columns=7)[3:5] == ["-", "unknown"]


def test_shares_at_the_ends_never_round_to_none(run):
    few = [dataclasses.replace(shown, at_low=1e-9, at_high=0.0) for shown in run.ranges]
    page = Page(render_report(dataclasses.replace(run, ranges=few)))
    assert page.row("encoder.0.dense", columns=8)[-2:] == ["<0.01", "0.00"]


def test_the_worst_picture_comes_first_with_what_it_loses(run):
    shown = picture(1)
    found = Page(render_report(dataclasses.replace(run, worst=shown)))
    lost = psnr(shown.clean, shown.qat) - psnr(shown.clean, shown.float_model)
    title = f"Worst of all evaluated: waves, sigma_25, QAT {lost:+.2f} dB"
    assert found.text.index(title) < found.text.index("waves, sigma_25 230x250")
    assert len(found.images()) == 24
    assert shown.figures()["psnr"]["qat"] == psnr(shown.clean, shown.qat)


def test_the_worst_pictures_detail_is_where_integers_err(run):
    flat = np.full((100, 120, 3), 100, np.uint8)
    hurt = flat.copy()
    hurt[60:70, 70:80] = 200
    shown = Picture("sigma_5", "flat", flat, flat, flat + np.uint8(1), flat, hurt)
    found = Page(render_report(dataclasses.replace(run, worst=shown, pictures=())))
    assert (found.images()[7] == 200).sum() == 3 * 100  # the second of the fourth panel


def test_buffers_have_address_and_size(run, page):
    cells = 54 * 96 // 4  # TINY has one level
    for buffer in run.bundle["buffers"]:
        found = page.row(buffer["name"], columns=6)
        address = str(buffer["address_per_cell"] * cells)
        assert found[3] == ("input" if buffer["name"] == "image" else address)
        assert found[4] == str(buffer["bytes_per_cell"] * cells)


def test_pictures_are_the_pixels_that_were_given(run, page):
    (shown,) = run.pictures
    top, left = busiest_window(edges(shown.clean), DETAIL)
    given = [shown.noisy, shown.float_model, shown.ptq, shown.qat, shown.clean]
    step = shown.qat.astype(int) - shown.float_model
    given.append(np.clip(128 + GAIN * step, 0, 255).astype(np.uint8))
    found = page.images()
    assert len(found) == 2 * len(given)
    for image, crop, detail in zip(given, found[::2], found[1::2], strict=True):
        assert crop.shape == (CROP, CROP, 3)
        np.testing.assert_array_equal(detail, image[top : top + DETAIL, left : left + DETAIL])
        windows = np.lib.stride_tricks.sliding_window_view(image, crop.shape)
        assert (windows == crop).all(axis=(3, 4, 5)).any()
    for image in given[:4]:
        assert f"{psnr(shown.clean, image):.2f} dB" in page.text
    assert f"at most {np.abs(step).max()}, {100 * (step != 0).mean():.1f} %" in page.text


def test_settings_and_files_are_listed(page):
    assert page.row("parameters")[1] == "1234567"
    assert page.row("config.widths")[1] == "4, 6"
    assert page.row("capability.channel_block")[1] == "8"
    assert page.row("seed")[1] == "20240101"
    assert page.row("learning_rate")[1] == "0.0002"
    assert page.row("minutes")[1] == "-"
    assert page.row("a file #1.txt")[1] == "notes"
    links = [value for _, name, value in page.attributes if name == "href"]
    assert links == ["./model.slb", "./a%20file%20%231.txt"]


def test_the_file_needs_nothing_beside_it(run, page):
    assert "://" not in render_report(run)
    assert not {"script", "link", "iframe", "object", "image", "foreignobject"} & set(page.tags)
    for tag, name, value in page.attributes:
        if name in ("src", "srcset", "href", "xlink:href") and tag not in ("img", "a"):
            assert value.startswith("#")
        if name == "style" and "url(" in value:
            assert "url(#" in value


def test_plots_name_what_they_show_and_share_no_identifier(run, page):
    plots = [value for tag, _, value in page.attributes if (tag, value) == ("svg", "plot")]
    assert len(plots) == 5
    identifiers = [value for _, name, value in page.attributes if name == "id"]
    assert len(identifiers) == len(set(identifiers))
    referred = [value[1:] for _, name, value in page.attributes if name == "xlink:href"]
    assert referred
    assert set(referred) <= set(identifiers)
    for label in (
        "PSNR, dB",
        "loss, smoothed",
        "multiply-accumulates",
        "address, KiB",
        "foreseen loss, dB",
    ):
        assert label in page.text


def test_without_training_pictures_sensitivity_or_addresses_the_rest_stands(run):
    bare = dataclasses.replace(
        run, loss=(), pictures=(), sensitivity={}, bundle={"file": "model.slb"}
    )
    page = Page(render_report(bare))
    assert ("svg", "class", "plot") in page.attributes
    assert "Sensitivity" not in page.text
    assert "Memory" not in page.text
    assert "Nothing was trained" in page.text
    assert page.images() == []
    assert page.row("encoder.0.dense", columns=8)


def test_figures_that_are_not_finite_are_shown_as_such(run):
    infinite = {**PSNR, "qat": dict.fromkeys(PSNR["qat"], float("inf"))}
    page = Page(render_report(dataclasses.replace(run, psnr=infinite, pictures=())))
    assert page.row("sigma_5")[4:] == ["inf", "-0.76", "+inf"]


def test_names_are_text_whatever_they_hold(run):
    evil = """<script>alert("1")</script>&amp;'$x_$ -->"""
    renamed = [{**row, "name": evil} for row in run.layers[:1]] + list(run.layers[1:])
    page = Page(
        render_report(
            dataclasses.replace(
                run,
                name=evil,
                psnr={series: {evil: 30.0} for series in PSNR},
                layers=renamed,
                accumulator_bits={**run.accumulator_bits, evil: 20},
                sum_bits={**run.sum_bits, evil: 18},
                settings={evil: evil},
                verdicts=[{"check": evil, "verdict": "FAIL", "detail": evil}],
                pictures=[dataclasses.replace(run.pictures[0], photograph=evil)],
                files={f"javascript:{evil}": evil},
            )
        )
    )
    assert "script" not in page.tags
    # title, heading, verdict; check and detail; settings twice, files twice; psnr: worst twice,
    # table, axis; layers: axis, table; picture.
    assert page.text.count(evil) == 16
    (link,) = [value for tag, name, value in page.attributes if (tag, name) == ("a", "href")]
    assert link.startswith("./javascript%3A")


@given(images(max_side=12), st.integers(1, 9))
def test_busiest_window_has_the_most_squared_gradient(image, size):
    green = image[..., 1].astype(int)
    energy = np.zeros_like(green)
    for row, column in np.ndindex(*green.shape):
        if row:
            energy[row, column] += (green[row, column] - green[row - 1, column]) ** 2
        if column:
            energy[row, column] += (green[row, column] - green[row, column - 1]) ** 2
    rows, columns = (max(1, side - size + 1) for side in green.shape)
    sums = {
        (top, left): energy[top : top + size, left : left + size].sum()
        for top, left in np.ndindex(rows, columns)
    }
    assert busiest_window(edges(image), size) == max(sums, key=sums.__getitem__)


def test_a_picture_of_one_pixel_is_shown(run):
    page = Page(render_report(dataclasses.replace(run, pictures=[picture(0, 1, 1)])))
    assert all(image.shape == (1, 1, 3) for image in page.images())


WITNESS = """
import sys
from quant.report import write_report
assert not {"torch", "hls_export", "matplotlib.pyplot"} & set(sys.modules), "loads too much"
sys.path.insert(0, sys.argv[1])
from test_report import run_of
write_report(run_of(), sys.argv[2])
"""


def test_another_process_writes_the_same_bytes_without_torch(run, tmp_path):
    write_report(run, tmp_path / "here.html")
    environment = {
        **os.environ,
        "PYTHONHASHSEED": "7",
        "TZ": "Asia/Tokyo",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    (tmp_path / "matplotlibrc").write_text("font.size: 20\naxes.facecolor: red\n")
    subprocess.run(
        [sys.executable, "-c", WITNESS, os.path.dirname(__file__), "there.html"],
        cwd=tmp_path,
        env=environment,
        check=True,
    )
    assert (tmp_path / "here.html").read_bytes() == (tmp_path / "there.html").read_bytes()
    assert (tmp_path / "here.html").read_text(encoding="utf-8") == render_report(run)


def test_a_missing_folder_is_refused(run, tmp_path):
    with pytest.raises(FileNotFoundError, match="folder must exist"):
        write_report(run, tmp_path / "none" / "report.html")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"psnr": {"float": {"a": 1.0}}}, "psnr must have noisy, float, ptq, qat, got"),
        ({"psnr": {series: {} for series in PSNR}}, "at least one condition"),
        ({"psnr": {**PSNR, "qat": {"sigma_5": 1.0}}}, "psnr of qat must have the conditions"),
        ({"verdicts": [{"check": "a", "verdict": "ok", "detail": ""}]}, "one of PASS, FAIL, SKIP"),
        ({"layers": []}, "at least one row"),
        ({"accumulator_bits": {}}, "accumulator_bits must have layer head"),
        ({"sum_bits": {}}, "sum_bits must have layer head"),
        ({"ranges": ()}, "ranges must have the bundle's buffers"),
        ({"sensitivity": {"absent": 1.0}}, "sensitivity must have buffers of"),
    ],
)
def test_a_run_with_something_missing_is_refused(run, changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(run, **changes)


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), TypeError, "qat must be uint8, got float32"),
        (np.zeros((4, 4), np.uint8), ValueError, r"must have shape \[H, W, 3\], got \[4, 4\]"),
        (np.zeros((4, 5, 3), np.uint8), ValueError, r"clean image's shape \[4, 4, 3\]"),
    ],
)
def test_a_picture_of_another_kind_is_refused(image, error, message):
    with pytest.raises(error, match=message):
        dataclasses.replace(picture(0, 4, 4), qat=image)


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
MEASURE = """
const frame = document.querySelector("iframe");
frame.onload = () => {
  const page = frame.contentDocument;
  const shown = [...page.images].filter((image) => image.naturalWidth > 0).length;
  document.body.dataset.found = [page.images.length, shown, page.documentElement.scrollWidth,
    page.documentElement.clientWidth];
};
"""


@pytest.mark.skipif(CHROMIUM is None, reason="chromium must be installed")
@pytest.mark.parametrize("width", [1280, 360])
def test_a_browser_shows_every_picture_without_a_word(run, tmp_path, width):
    """In a frame of that width; an inserted fault shows that the console would not stay empty."""

    def opened(report: str) -> tuple[list[int], list[str]]:
        page = tmp_path / "page.html"
        frame = f'<iframe style="width:{width}px;border:0" srcdoc="{html.escape(report)}"></iframe>'
        page.write_text(
            f'<!DOCTYPE html><meta charset="utf-8"><body>{frame}<script>{MEASURE}</script>',
            encoding="utf-8",
        )
        options = ("--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr")
        profile = f"--user-data-dir={tmp_path / 'profile'}"
        done = subprocess.run(
            [CHROMIUM, *options, profile, "--dump-dom", page.as_uri()],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        found = re.search(r'data-found="(\d+),(\d+),(\d+),(\d+)"', done.stdout)
        assert found is not None
        console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        return [int(number) for number in found.groups()], console

    report = render_report(dataclasses.replace(run, worst=picture(1)))
    found, console = opened(report)
    assert console == []
    assert found[:2] == [24, 24]
    assert found[2] == found[3] <= width  # nothing reaches beyond the frame
    found, console = opened(report.replace("<body>", '<body><img src="absent.png">'))
    assert found[:2] == [25, 24]
    assert console != []

"""The report: numbers and text, and the page in a browser."""

import base64
import dataclasses
import html
import io
import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from sdit_jax import report
from sdit_jax.errors import InputError
from sdit_jax.metrics import neighbours
from sdit_jax.report import charts, comparison
from sdit_jax.report import pictures as pictures_of
from sdit_jax.report.numbers import number, quantity, si, words
from sdit_jax.sampling.samples import read_samples
from sdit_jax.scoring import Scoring, evaluate_samples

GENERATOR = np.random.default_rng(0)
EVIL = "<script>window.pwned = 1</script>"
TIMESTEPS = [0, 333, 666, 999]
FEATURES = {"network": "classifier of mnist", "sha256": "ab" * 32}
CHANGES = {"as they are": 0.5, "Gaussian noise of 8 grey levels": 2.0, "shifted by one pixel": 4.0}


def pictures(*shape):
    return GENERATOR.integers(0, 256, shape, np.uint8)


def record(name, value, split="test", **more):
    reference = split and {"source": "mnist", "split": split, "n": 10_000, "sha256": "8d" * 32}
    return {"name": name, "value": value, "n": 500, "reference": reference, "features": FEATURES, **more}


def full_report(title="SDiT on MNIST"):
    """A report with every part, and long names."""
    train, samples = pictures(50, 8, 8, 1), pictures(40, 8, 8, 1)
    accounts = {name: 1e6 for pair in report.ACCOUNTS.values() for name in pair}
    layers = [
        {"name": f"blocks.{i}.{'very_long_name_' * 4}", "macs": 3_000_000 * i, "binary": False, "rate": None, **accounts}
        | {"pJ": 1.38e7 * i}
        for i in range(30)
    ]
    return report.Report(
        title=title,
        subtitle="runs/" + "long-name-" * 30,
        results=[
            record("is_classifier", 9.7, None, std=0.05),
            *(record("fd_classifier", 3.0, split, distance=True) for split in ("train", "test")),
            record("kid_classifier", 0.00123, std=0.0002), record("precision_classifier", 0.9),
        ],
        yardsticks=[
            {"images": "mnist train", "change": change, "reference": split, "scores": {"fd_classifier": fd, "is_classifier": 9}}
            for split in ("train", "test")
            for change, fd in CHANGES.items()
        ],
        samples=samples,
        labels=np.arange(40) % 10,
        frames=pictures(8, 5, 8, 8, 1),
        frame_timesteps=np.linspace(999, 0, 8).astype(int),
        neighbours=neighbours.compare(samples, train, pictures(30, 8, 8, 1)),
        timesteps=TIMESTEPS,
        losses={"mse": [0.9, 0.1, 0.05, 0.01], "vb": np.array([2.0, 0.1, 0.01, 0.001])},
        firing_rates={f"{'long_name_' * 5}{i}": GENERATOR.uniform(0, 0.2, 4) for i in range(6)},
        raster=GENERATOR.random((4, 17, 12)) < 0.2,
        raster_caption="the middle block",
        spikes={f"{'long_name_' * 5}{i}": GENERATOR.integers(-1, 2, (4, 17, 12)) for i in range(6)},
        energy={
            "summary": "No layer is spike-driven.", "per_forward": {"macs": 4_047_100_000, "pJ": 1.8617e10},
            "neuron_updates": 605_184, "layers": layers, "neurons": [{"name": "a", "with_memory_pJ": 3e6}],
            "left_out": ["norms"],
        },
        protocol={"n": 500, "seed": 4_294_967_295, "config_sha256": "9f" * 32, "versions": {"jax": "0.10.2"}},
    )  # fmt: skip


@pytest.mark.parametrize(
    "value, text",
    [
        (0, "0"), (1234, "1,234"), (3.14159, "3.142"), (12345.678, "12,346"), (1234567.8, "1,234,568"), (0.5, "0.5"),
        (0.00123456, "0.001235"), (0.0000123456, "1.235e-5"), (-2.5, "-2.5"), (0.0, "0"), (1000.0, "1,000"),
        (float("nan"), "nan"), (float("inf"), "inf"),
    ],
)  # fmt: skip
def test_numbers_are_short_and_grouped(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    "value, unit, text",
    [
        (4.0471e9, "", "4.05 G"), (0.018617, "J", "18.6 mJ"), (9.2e-13, "J", "0.92 pJ"), (640e-12, "J", "640 pJ"),
        (0, "J", "0 J"), (12, "", "12"), (999.9, "", "1 k"), (51e-6, "J", "51 µJ"),
    ],
)  # fmt: skip
def test_large_and_small_numbers_get_a_prefix(value, unit, text):
    assert si(value, unit) == text


@pytest.mark.parametrize(
    "name, value, text",
    [
        ("pJ", 1.8617e10, "18.6 mJ"), ("dram_pJ", 640, "640 pJ"), ("macs", 4_047_100_000, "4.05 G"), ("rate", 0.0317, "3.17 %"),
        ("learning_rate", 0.0001, "0.0001"), ("seed", 4_294_967_295, "4294967295"), ("step", 93750, "93,750"),
        ("clip_x0", True, "yes"), ("rate", None, "-"), ("size", [28, 28, 1], "28, 28, 1"), ("layers", [], "none"),
        ("versions", {"jax": "0.10.2", "flax": "0.12.8"}, "jax 0.10.2 · flax 0.12.8"),
    ],
)  # fmt: skip
def test_a_field_is_formatted_by_its_name(name, value, text):
    assert quantity(name, value) == text


def test_names_of_fields_become_words():
    assert [words(name) for name in ("neuron_updates", "sram_pJ", "pJ")] == ["neuron updates", "SRAM", "energy"]
    assert words("twin") == "non-spiking baseline" and words("pJ_per") == "pJ per"
    assert words("MembraneUpdates") == "Membrane Updates" and words("Effective_MACs") == "Effective MACs"


def test_samples_are_sorted_among_the_yardsticks_of_their_reference():
    page = full_report()
    train, test = comparison.comparisons(page.results, page.yardsticks)
    assert train.names == ["fd_classifier", "is_classifier"]  # Scores without a reference are in both.
    assert test.names == ["fd_classifier", "kid_classifier", "precision_classifier", "is_classifier"]
    assert [row.name for row in test.rows] == [*list(CHANGES)[:2], comparison.SAMPLES, "shifted by one pixel"]
    assert [row.scores["fd_classifier"] for row in test.rows] == [0.5, 2, 3, 4]
    assert test.samples.stds == {"is_classifier": 0.05, "kid_classifier": 0.0002}
    assert test.sentence == "between real images “Gaussian noise of 8 grey levels” (2) and “shifted by one pixel” (4)"
    assert "500 samples. 10,000 real images (sha256 8d8d8d8d8d8d…). Yardsticks: mnist train" in test.made_of


@pytest.mark.parametrize("value, sentence", [(0.1, "nearer than real images “a” (1)"), (9, "farther than real images “b” (2)")])
def test_the_sentence_of_samples_beyond_all_yardsticks(value, sentence):
    yard = lambda change, fid: {"images": "digits test", "change": change, "reference": None, "scores": {"fid": fid}}
    yards = [yard("b", 2), yard("a", 1)]
    (found,) = comparison.comparisons([{"name": "fid", "value": value, "n": 5, "distance": True}], yards)
    assert found.sentence == sentence


def test_scores_without_reference_or_yardsticks_are_a_table_alone():
    (found,) = comparison.comparisons([record("accuracy", 0.9, None)], [])
    assert (found.chart, found.distance, found.samples.scores) == (None, None, {"accuracy": 0.9})


def dots(svg):
    """x of the points in a chart, from top to bottom: every marker that is not a tick."""
    tree = ElementTree.fromstring(svg.replace("xlink:href", "href"))
    ticks = {
        path.get("id")
        for path in tree.iter("path")
        if path.get("id") and (path.get("d") or "").split()[:6] == ["M", "0", "0", "L", "0", "3.5"]
    }
    return [float(use.get("x")) for use in tree.iter("use") if use.get("href")[1:] not in ticks]


def test_the_chart_is_logarithmic_and_its_text_is_escaped():
    svg = charts.comparison([("b", 10.0), (EVIL + '" $x$', 1.0), ("c", 100.0), ("d", 0.0), ("e", float("inf"))], "b", number)
    nothing, one, ten, hundred, endless = dots(svg)
    assert ten - one == pytest.approx(hundred - ten, abs=1e-3) and nothing < one and endless > hundred
    assert "<script" not in svg and "&lt;script" in svg and "$x$" in html.unescape(svg)
    assert "http" not in svg and "http" not in charts.lines([0, 1], {"a": [1, 9]}, "t")


def test_charts_take_the_colours_of_the_page():
    for svg in (charts.lines([0, 1], {"a": [1, 9], "b": [2, 3]}, "t"), charts.densities({"a": [1, 2], "b": [2, 3]}, "x")):
        assert set(re.findall(r"(?:fill|stroke): ([^;\"]+)", svg)) <= {"none", *charts.COLORS.values()}
        assert "var(--accent)" in svg and "var(--second)" in svg


def images_of(page):
    return [Image.open(io.BytesIO(base64.b64decode(data))) for data in re.findall(r'src="data:image/png;base64,([^"]+)"', page)]


def test_every_image_is_in_the_page_bit_for_bit():
    samples = pictures(6, 8, 5, 3)
    page = report.render(report.Report("t", samples=samples, labels=[2, 0, 2, 0, 1, 1]))
    for image, i in zip(images_of(page), [1, 3, 4, 5, 0, 2], strict=True):  # Label by label.
        np.testing.assert_array_equal(np.asarray(image), samples[i])


@pytest.mark.parametrize("tokens, channels", [(17, 12), (9, 20)])
def test_a_raster_shows_every_spike_in_its_place(tokens, channels):
    raster = GENERATOR.random((3, tokens, channels)) < 0.3
    page = report.render(report.Report("t", raster=raster))
    for image, step_LC in zip(images_of(page), raster, strict=True):
        alpha = np.asarray(image.convert("RGBA"))[..., 3]
        shown = step_LC.T if tokens > channels else step_LC  # The longer axis is horizontal.
        np.testing.assert_array_equal(alpha, np.where(shown, 255, 0))
        assert f"{number(100 * float(step_LC.mean()), 3)} % fire" in page
    assert ("tokens from left to right" if tokens > channels else "channels from left to right") in page


def test_spikes_of_all_layers_are_strips_of_their_steps():
    spikes = {name: GENERATOR.integers(-1, 2, (3, 20, channels)) for name, channels in (("narrow", 5), ("wide", 64))}
    page = report.render(report.Report("t", raster=np.zeros((3, 20, 5)), spikes=spikes))
    strips, colours = images_of(page)[:2], np.array([[0, 0, 0, 0], [*pictures_of.SPIKE, 255], [*pictures_of.NEGATIVE, 255]])
    for strip, (name, spikes_TLC), channels in zip(strips, spikes.items(), (slice(None), slice(None, None, 9)), strict=True):
        shown = np.asarray(strip.convert("RGBA"))
        for step in range(3):  # After each step, but the last, a column is left empty.
            found = shown[:, 21 * step : 21 * step + 20]
            np.testing.assert_array_equal(found, colours[spikes_TLC[step, :, channels].T])
        assert (shown[:, [20, 41], 3] == 0).all() and shown.shape[1] == 62
        fire = number(100 * float((spikes_TLC != 0).mean()), 3)
        assert f"spikes of {name}: {fire} % of the neurons fire in a step" in page
    assert "blue a negative one" in page and page.index("step 3") < page.index("narrow")


def test_a_strip_of_many_tokens_keeps_its_size():
    page = report.render(report.Report("t", raster=np.zeros((2, 9, 5)), spikes={"many": np.ones((64, 784, 40))}))
    assert images_of(page)[0].size[0] <= 600 and "blue" not in page


def bars_of(page):
    """[(share, other share)] of every bar, row by row."""
    return [tuple(map(float, pair)) for pair in re.findall(r"--share:([\d.]+);--other:([\d.]+)", page)]


def test_the_energy_of_layers_is_drawn_in_every_account():
    """Bars are shares of the column's greatest energy, membranes cost memory alone, and the last row is the sum."""
    names = [name for pair in report.ACCOUNTS.values() for name in pair]
    first, second = dict(zip(names, range(1, 9), strict=True)), dict(zip(names, (4, 1, 4, 1, 4, 1, 4, 1), strict=True))
    energy = {"layers": [{"name": "a", **first}, {"name": "b", **second}], "neurons": [{"name": "n", "with_memory_pJ": 10.0}]}
    page = report.render(report.Report("t", energy=energy))
    a, b = (
        [(1 / 4, 2 / 4), (3 / 10, 4 / 10), (5 / 6, 6 / 6), (7 / 10, 8 / 10)],
        [(1, 1 / 4), (0.4, 0.1), (4 / 6, 1 / 6), (0.4, 0.1)],
    )
    membranes = [(0, 0), (1, 0), (0, 0), (1, 0)]
    np.testing.assert_allclose(bars_of(page)[:12], [*a, *b, *membranes], atol=1e-4)
    totals = page[page.index('class="sum"') :]
    assert re.findall(r"<b>(.*?)</b><span>(.*?)</span>", totals) == [
        ("5 pJ", "3 pJ"), ("17 pJ", "5 pJ"), ("9 pJ", "7 pJ"), ("21 pJ", "9 pJ"),
    ]  # fmt: skip


def test_energy_of_an_older_evaluation_has_no_bars():
    layer = {"name": "a", "macs": 3, "binary": False, "rate": None, "pJ": 13.8}
    page = report.render(report.Report("t", energy={"summary": "s", "layers": [layer]}))
    assert "13.8 pJ" in page and not bars_of(page)


def test_large_images_are_reduced_and_many_samples_are_cut_evenly():
    labels = [f"class {i % 7}" for i in range(210)]
    page = report.render(report.Report("t", samples=pictures(210, 130, 130, 3), labels=labels))
    found = images_of(page)
    assert len(found) == 7 * 14 and {image.size for image in found} == {(64, 64)}
    assert "98 of 210" in page and len(page) < 4e6


def test_more_than_20_labels_are_below_their_images():
    page = report.render(report.Report("t", samples=pictures(30, 4, 4, 1), labels=np.arange(30)))
    assert re.findall(r"<figcaption>(\d+)</figcaption>", page) == [str(i) for i in range(30)]


def test_labels_and_timesteps_must_match_the_images():
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        report.render(report.Report("t", samples=pictures(3, 4, 4, 1), labels=[1, 2]))
    with pytest.raises(ValueError, match="found 2 of 'mse' at 4 timesteps"):
        report.render(report.Report("t", timesteps=TIMESTEPS, losses={"mse": [1, 2]}))


@pytest.mark.parametrize("left_out", list(report.PARTS))
def test_a_part_that_is_missing_is_left_out_with_its_reason(left_out):
    page = report.render(dataclasses.replace(full_report(), **{left_out: None}, missing={left_out: f"no <{left_out}>"}))
    assert set(re.findall(r'<section id="(\w+)"', page)) == set(report.PARTS) - {left_out}
    assert f"{report.PARTS[left_out]}: not computed (no &lt;{left_out}&gt;)." in page
    assert page.count("not computed") == 1


def test_an_empty_report_names_every_missing_part():
    page = report.render(report.Report("t"))
    assert page.count("not computed") == len(report.PARTS) and "<section" not in page


def test_the_page_loads_nothing():
    page = report.render(full_report())
    assert not re.findall(r"""https?://|//[a-z]+\.|@import|(?:src|href|action)=["'](?!data:|#)|url\((?!#)""", page)
    assert "default-src 'none'" in page and "<script" not in page and "<link" not in page


def test_text_of_users_is_escaped():
    page = full_report(EVIL)
    page = dataclasses.replace(
        page, subtitle=EVIL, labels=[EVIL] * 40, raster_caption=EVIL, frames_caption=EVIL,
        protocol={EVIL: EVIL, "list": [EVIL], "map": {EVIL: EVIL}},
        firing_rates={EVIL: [0, 0, 0, 0]}, losses={EVIL: [1, 2, 3, 4]}, energy={"summary": EVIL, EVIL: {EVIL: EVIL}},
        results=[{"name": "fid", "value": 1, "distance": True, "reference": {"source": EVIL, "split": EVIL}}],
        yardsticks=[{"images": EVIL, "change": EVIL, "reference": EVIL, "scores": {"fid": 2}}], missing={"results": EVIL},
    )  # fmt: skip
    text = report.render(page)
    assert "<script" not in text and text.count("&lt;script&gt;") > 15


HOSTILE = [
    EVIL, "<img src=x onerror='window.pwned = 1'>", "\" onload=\"window.pwned = 1\" x=\"", "' autofocus onfocus='x",
    "</style></title><svg onload=window.pwned=1>", "--><b>", "&lt;script&gt;", "{{ 7 * 7 }}{% raw %}", "javascript:x",
]  # fmt: skip


def elements(page):
    """The tags of a page, with the names of their attributes."""
    found = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: found.append((tag, [name for name, _ in attributes]))
    parser.feed(page)
    return found


@pytest.mark.parametrize("text", HOSTILE)
def test_no_element_or_attribute_comes_from_a_name(text):
    base = full_report()

    def page(name):
        return report.render(
            dataclasses.replace(
                base, title=name, subtitle=name, labels=[name] * 40, raster_caption=name, frames_caption=name,
                protocol={name: name, "list": [name], "map": {name: name}}, spikes={name: np.ones((4, 17, 12))},
                firing_rates={name: [0, 0, 0, 0]}, losses={name: [1, 2, 3, 4]}, missing={"results": name},
                energy={"summary": name, "layers": [{"name": name, "pJ": 1.0}], "left_out": [name], name: {name: name}},
                results=[{"name": "fid", "value": 1, "distance": True, "reference": {"source": name, "split": name}}],
                yardsticks=[{"images": name, "change": name, "reference": name, "scores": {"fid": 2}}],
            )
        )  # fmt: skip

    def parts(page):
        """The elements around the charts, and the kinds of elements in charts, whose ticks depend on the space for names."""
        charts = "".join(re.findall("<svg aria-label.*?</svg>", page, re.DOTALL))
        return elements(re.sub("<svg aria-label.*?</svg>", "", page, flags=re.DOTALL)), {tag for tag, _ in elements(charts)}

    (around, inside), (expected, drawn) = parts(page(text)), parts(page("harmless"))
    assert around == expected and len(around) > 300 and inside == drawn


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory):
    """The page of an evaluation of which samples, real images and output are in folders with hostile names."""
    folder = (
        tmp_path_factory.mktemp("hostile") / "<script>window.pwned = 1<" / "script>" / "<img src=x onerror='window.pwned = 1'>"
    )
    images = pictures(160, 8, 8, 1)
    for i, image in enumerate(images[:80]):
        path = folder / f"<b onclick='window.pwned = 1'>{i % 2}" / f'" onload="window.pwned = 1" {i}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(path)
    np.savez(folder / "samples.npz", images[80:], labels=np.arange(80) % 2)
    samples, scoring = read_samples(folder / "samples.npz"), Scoring(reference=f"folder:{folder}", classifier="digits")
    found = evaluate_samples(samples, folder.with_name("out"), scoring)
    return found.report.read_text("utf-8")


def test_hostile_names_of_folders_and_files_are_text(hostile_page):
    tags = elements(hostile_page)
    assert not {tag for tag, _ in tags} & {"script", "iframe", "object", "embed", "link", "b", "form"}
    assert not [name for _, names in tags for name in names if name.startswith("on")]
    assert all(source.startswith("data:image/png") for source in re.findall(r'<img[^>]* src="([^"]*)"', hostile_page))
    assert "&lt;img src=x onerror=" in hostile_page


def test_a_browser_runs_nothing_of_hostile_names(browse, hostile_page):
    found = browse(hostile_page, 1000)
    assert not found["pwned"] and found["faults"] == []


def test_a_page_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"nowhere/report.html: cannot be written \(No such file"):
        report.write_report(tmp_path / "nowhere" / "report.html", report.Report("t"))
    (tmp_path / "report.html").mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        report.write_report(tmp_path / "report.html", report.Report("t"))
    with pytest.raises(ValueError, match="found 0 of 'mse' at 1 timesteps"):
        report.write_report(tmp_path / "other.html", report.Report("t", timesteps=[1], losses={"mse": []}))
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_an_older_page_is_replaced_whole(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("older")
    report.write_report(path, report.Report("Räume · 数字"))
    assert "<title>Räume · 数字</title>" in path.read_text("utf-8") and path.read_text("utf-8").endswith("</html>\n")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


PROBE = """<script>
const faults = [];
window.addEventListener("error", event => faults.push(String(event.message || event.target.outerHTML)), true);
addEventListener("load", () => top.document.body.setAttribute("data-probe", JSON.stringify({
  faults, width: innerWidth, scroll: document.documentElement.scrollWidth,
  dark: matchMedia("(prefers-color-scheme: dark)").matches,
  images: [...document.images].map(image => [image.naturalWidth, image.clientWidth, image.alt]),
  sections: [...document.querySelectorAll("section")].map(part => part.id + ":" + (part.clientHeight > 60)),
  drawings: [...document.querySelectorAll("svg")].map(drawing => drawing.clientWidth * drawing.clientHeight),
  outside: [...document.querySelectorAll("body *")].filter(one => !one.closest(".scroll, svg") &&
    one.getBoundingClientRect().right > innerWidth + 1).map(one => one.outerHTML.slice(0, 80)),
  unnamed: document.querySelectorAll("img:not([alt]), svg:not([aria-label]), th:not([scope]), table:not(:has(caption))").length,
  pwned: "pwned" in window, background: getComputedStyle(document.body).backgroundColor,
})));
</script>"""


@pytest.fixture(scope="module")
def browse(tmp_path_factory):
    """browse(page, width, *flags) -> results of PROBE in a headless browser, without the page's ban on scripts."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no browser on PATH: chromium, chromium-browser or google-chrome")
    folder = tmp_path_factory.mktemp("browser")

    def call(page, width, *flags):
        ban = re.search(r'<meta http-equiv="Content-Security-Policy"[^>]*>', page)
        assert ban is not None
        inner = html.escape(page.replace(ban[0], PROBE))  # In a frame, as no window may be narrower than 500.
        frame = f'<body style="color-scheme: light dark"><iframe width="{width}" height="900" frameborder="0" srcdoc="{inner}">'
        path = folder / "page.html"
        path.write_text(f'<!DOCTYPE html><meta charset="utf-8">{frame}</iframe>', encoding="utf-8")
        command = [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1500,1000",
            f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=3000", *flags, "--dump-dom", path.as_uri(),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        found = re.search(r'data-probe="([^"]*)"', done.stdout)
        assert found is not None, done.stdout[:2000] + done.stderr[-2000:]
        return json.loads(html.unescape(found[1]))

    return call


@pytest.mark.parametrize("width", [400, 1400])
def test_a_browser_shows_every_part(browse, width):
    page = report.render(full_report())
    found = browse(page, width)
    assert found["faults"] == []
    assert found["sections"] == [f"{name}:true" for name in report.PARTS]
    assert len(found["images"]) == len(images_of(page)) > 100
    assert all(natural > 0 and shown > 10 and words for natural, shown, words in found["images"])
    assert len(found["drawings"]) == 4 and min(found["drawings"]) > 10_000
    assert found["width"] == width and found["scroll"] <= width and found["outside"] == []
    assert found["unnamed"] == 0


def test_a_browser_runs_no_script_from_a_label_and_goes_dark(browse):
    page = dataclasses.replace(full_report(EVIL), labels=[EVIL] * 40, losses={EVIL: [1, 2, 3, 4]}, subtitle=EVIL)
    light, dark = browse(report.render(page), 1000), browse(report.render(page), 1000, "--force-dark-mode")
    assert not light["pwned"] and not dark["pwned"] and light["faults"] == dark["faults"] == []
    assert (light["dark"], dark["dark"]) == (False, True)
    assert (
        min(map(int, re.findall(r"\d+", light["background"])))
        > 200
        > 50
        > max(map(int, re.findall(r"\d+", dark["background"])))
    )

"""The page in a real browser: it opens from disk, asks for nothing, draws, and answers to mouse and keyboard."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from browser import Page, opened
from export.onnx_graphs import network, sparse_weight
from onnx import helper
from small_run import printed, small_run

import gossamer
from gossamer.job.compress import compress
from gossamer.job.training import Training
from gossamer.loop.stop import Stop
from gossamer.prune.cut import Cut
from gossamer.tasks import find_task

SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"
HOSTILE = "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
CHARTS = (
    *("accuracy", "front", "density", "size", "latency", "bytes", "file-forms", "cost", "units", "ablation", "signs"),
)


def small_network(scale: int = 1) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    weight = {"w": sparse_weight(rng, 30 * scale, 40, density=0.1)}
    node = helper.make_node("Gemm", ["x", "w"], ["y"], transB=1, name="only")
    return network([node], {"x": ["n", 40]}, weight, ["y"])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of one configuration, and one run of another."""
    folder = tmp_path_factory.mktemp("report")
    small_run(folder / "seed-0")
    small_run(folder / "seed-1", seed=1)
    compress(
        find_task("digits"),
        folder=folder / "slower",
        stop=Stop(target_sparsity=0.97),
        cut=Cut(per_round=0.5),
        training=Training(epochs=1),
    )
    return folder


@pytest.fixture(scope="module")
def page(runs: Path) -> Path:
    (runs / "published.json").write_text(
        '{"dense": {"digits": {"median": 0.9}}, "pruned": ['
        '{"network": "digits", "method": "weight_rewinding", "density": 0.2, "test_median": 0.85, "test_min": 0.8,'
        ' "test_max": 0.9, "n": 3}]}'
    )
    (runs / "latency.json").write_text(
        '{"what": "predicted", "where": "1 thread", "points": [{"round": 0, "milliseconds": 1.5},'
        '{"round": 1, "milliseconds": 0.5}]}'
    )
    onnx.save(small_network(), runs / "small.onnx")
    onnx.save(small_network(scale=2), runs / "other.onnx")
    given = ("--against", runs / "published.json", "--latency", runs / "latency.json")
    given += ("--file", runs / "small.onnx", "--file", runs / "other.onnx")
    text = printed(
        "report", *(runs / name for name in ("seed-0", "seed-1", "slower")), *given, "-o", runs / "report.html"
    )
    assert str(runs / "report.html") in text
    return runs / "report.html"


@pytest.fixture(scope="module", params=[(1440, False), (390, True)], ids=["desk", "phone"])
def seen(request: pytest.FixtureRequest, page: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    width, dark = request.param
    with opened(page, tmp_path_factory.mktemp("browser"), width, dark=dark) as found:
        yield found


def test_it_opens_from_disk_without_a_complaint_or_a_request(seen: Page, page: Path) -> None:
    assert seen.requests() == [page.as_uri()]
    assert seen.complaints() == []
    assert 0.8e6 < page.stat().st_size < 1.3e6


def test_all_charts_are_drawn_as_wide_as_there_is_room(seen: Page) -> None:
    assert int(seen.run("return document.documentElement.dataset.drawn")) == len(CHARTS)
    for chart in CHARTS:
        assert seen.marks(chart) >= 3, chart
        width, room = seen.run(
            f"const place = document.getElementById('chart-{chart}');"
            "return [place.querySelector('svg').getBoundingClientRect().width, place.getBoundingClientRect().width]"
        )
        assert room * 0.9 < width <= room + 1, chart
    # Nothing sticks out to the right, which would make the whole page scroll sideways.
    assert seen.run("return document.documentElement.scrollWidth <= innerWidth")


def test_a_series_can_be_hidden_and_shown_with_the_keyboard(seen: Page) -> None:
    before = seen.marks("accuracy")
    button = "document.querySelector('[data-series=\"1\"]')"
    seen.run(f"{button}.focus()")
    _press(seen, " ")
    assert seen.run(f"return {button}.getAttribute('aria-pressed')") == "false"
    seen.wait_until(f"return document.querySelectorAll('#chart-accuracy .mark-symbol path').length < {before}")
    assert seen.marks("accuracy") < before
    _press(seen, " ")
    seen.wait_until(f"return {button}.getAttribute('aria-pressed') === 'true'")
    seen.wait_until(
        "return document.querySelectorAll('#chart-accuracy .mark-symbol path, #chart-accuracy .mark-line path').length"
    )
    assert seen.marks("accuracy") == before


def test_the_slider_selects_a_round_with_the_keyboard(seen: Page) -> None:
    seen.run("document.querySelector('[data-parameter=round]').focus()")
    _press(seen, "\ue011")  # Home
    seen.wait_until("return document.getElementById('round-shown').textContent === '0'")
    facts = seen.run("return document.getElementById('round-facts').innerText")
    assert facts.count("round 0, 1.0x, density 100.00%") == 2
    _press(seen, "\ue014")  # Right
    seen.wait_until("return document.getElementById('round-shown').textContent === '1'")
    assert "round 1, 5.9x" in seen.run("return document.getElementById('round-facts').innerText")


def test_a_click_on_a_cell_of_the_heat_map_selects_its_round(seen: Page) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    seen.run("document.getElementById('chart-density').scrollIntoView({block: 'center'})")
    cells = seen.driver.find_elements("css selector", "#chart-density .mark-rect.role-mark path")
    chosen = next(cell for cell in cells if "round: 2" in (cell.get_attribute("aria-label") or ""))
    ActionChains(seen.driver).move_to_element(chosen).click().perform()
    seen.wait_until("return document.getElementById('round-shown').textContent === '2'")
    assert seen.run("return document.querySelector('[data-parameter=round]').value") == "2"


def test_the_split_can_be_chosen(seen: Page) -> None:
    both = seen.marks("accuracy")
    choice = "const choice = document.querySelector('[data-parameter=split]');"
    seen.run(choice + "choice.value = 'val'; choice.dispatchEvent(new Event('input'))")
    # The published curve has no validation.
    seen.wait_until(
        "return ![...document.querySelectorAll('#chart-accuracy [aria-label]')]"
        ".some(mark => mark.ariaLabel.includes('published'))"
    )
    assert seen.marks("accuracy") < both
    seen.run(choice + "choice.value = 'test'; choice.dispatchEvent(new Event('input'))")


def test_everything_that_can_be_operated_has_a_name_and_can_be_reached(seen: Page) -> None:
    unnamed = seen.run(
        "const all = document.querySelectorAll('input, select, button, summary, a, .scroll, img');"
        "return [...all].filter(one =>"
        "  !(one.innerText || one.ariaLabel || one.alt || one.closest('label')?.innerText || '').trim()"
        "  || one.tabIndex < 0 && one.tagName !== 'IMG').length"
    )
    assert unnamed == 0


def test_text_can_be_read_in_both_schemes(seen: Page) -> None:
    """At least 4.5 to 1, as WCAG asks of text."""
    colours = seen.run(
        "const shown = (selector, property) => getComputedStyle(document.querySelector(selector))[property];"
        "return [shown('body', 'color'), shown('.quiet', 'color'), shown('nav a', 'color'),"
        " shown('#chart-accuracy svg text', 'fill'),"
        " shown('body', 'backgroundColor'), shown('figure', 'backgroundColor')]"
    )
    *inks, page, card = (_luminance(colour) for colour in colours)
    for ink in inks:
        for ground in (page, card):
            assert (max(ink, ground) + 0.05) / (min(ink, ground) + 0.05) >= 4.5


def test_a_picture_of_it_is_kept(seen: Page) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    width = seen.run("return innerWidth")
    seen.picture(SCREENSHOTS / f"report-{width}.png")
    assert (SCREENSHOTS / f"report-{width}.png").stat().st_size > 50_000


def test_hostile_names_and_settings_stay_text(tmp_path: Path) -> None:
    folder = tmp_path / "<b>run" / "&<img src=x onerror=alert(1)>"
    model = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.Linear(4, 2))
    settings = {"note": HOSTILE, "task": HOSTILE}
    for round in gossamer.rounds(model, folder=folder, seed=1, settings=settings, stop=gossamer.Stop(rounds=2)):
        round.record(untrained=True, **{"accuracy <i>": 0.5 + round.number / 10})
    printed("report", folder, "-o", tmp_path / "report.html")
    with opened(tmp_path / "report.html", tmp_path, 800) as page:
        assert page.complaints() == []
        assert page.requests() == [page.path.as_uri()]
        assert page.run("return document.title") == f"gossamer: {HOSTILE}"
        assert page.run("return document.querySelectorAll('img, b, i').length") == 0
        assert page.run("return document.querySelectorAll('script').length") == 3
        assert HOSTILE in page.run("return document.body.textContent")
        assert page.marks("accuracy") >= 3


def test_its_own_policy_stops_a_script_that_somebody_put_in(tmp_path: Path, page: Path) -> None:
    changed = page.read_text().replace("<h1>", "<script>document.title='taken'</script><h1>", 1)
    (tmp_path / "changed.html").write_text(changed)
    with opened(tmp_path / "changed.html", tmp_path, 800) as seen:
        assert seen.run("return document.title") != "taken"
        assert any("Content Security Policy" in line for line in seen.complaints())


def _press(page: Page, key: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(page.driver).send_keys(key).perform()


def _luminance(colour: str) -> float:
    """Relative luminance of "rgb(r, g, b)", as WCAG defines it."""
    red, green, blue = (
        part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4
        for part in (int(part) / 255 for part in colour[4:-1].split(","))
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue

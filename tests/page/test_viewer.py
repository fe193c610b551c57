"""The viewer in a real browser: what is on its canvas, and what mouse, fingers and keys do."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Page

from app.imaging.preprocess import Crop
from app.render.heatmap import box, encode_map, map_to_original, peak
from tests.page.conftest import FOLDERS, Site

TOP = 60  # where a viewer begins, below the tools
SEED = np.random.default_rng(6)


@dataclass
class Bench:
    """A page with viewers on it."""

    page: Page
    site: Site

    def add(
        self, pixels: NDArray[Any], width: int, height: int, left: int = 0, **header: Any
    ) -> int:
        """A viewer of ``width`` x ``height`` CSS pixels that shows grey ``pixels``."""
        number = int(self.page.evaluate("bench.viewers.length"))
        self.page.evaluate("place => bench.add(...place)", [left, TOP, width, height])
        self.show(number, pixels, **header)
        return number

    def show(self, number: int, pixels: NDArray[Any], **header: Any) -> None:
        path = self.site.put(f"/pixels/{number}", pixels.tobytes())
        rows, columns = pixels.shape
        full = {
            "rows": rows, "columns": columns, "bits": 8 * pixels.itemsize, "low": 0,
            "high": int(np.iinfo(pixels.dtype).max), "inverted": False,
            "image": {"spacing_mm": header.pop("spacing_mm", None)},
        }  # fmt: skip
        self.page.evaluate("given => bench.show(...given)", [number, full | header, path])

    def seen(self, number: int = 0) -> NDArray[np.uint8]:
        """What is on the canvas, uint8 [height, width, red green blue alpha]."""
        return canvas_pixels(self.page.evaluate("number => bench.seen(number)", number))

    def grey(self, number: int = 0) -> NDArray[np.int64]:
        """The same where nothing is coloured, int [height, width]; -1 beside the image."""
        seen = self.seen(number).astype(np.int64)
        assert (seen[..., 0] == seen[..., 1]).all()
        assert (seen[..., 0] == seen[..., 2]).all()
        return np.where(seen[..., 3] == 255, seen[..., 0], -1)

    def call(self, name: str, *given: Any, number: int = 0) -> Any:
        return self.page.evaluate(
            "([number, name, given]) => bench.viewers[number][name](...given)",
            [number, name, list(given)],
        )

    def state(self, number: int = 0) -> dict[str, Any]:
        return dict(self.call("getState", number=number))

    def text(self, part: str, number: int = 0) -> str:
        """What stands in a corner, with plain spaces."""
        said = self.page.locator(".viewer").nth(number).locator(f".viewer-{part}").inner_text()
        return said.replace("\N{NO-BREAK SPACE}", " ")

    def focus(self, number: int = 0) -> None:
        self.page.locator("canvas.viewer-canvas").nth(number).focus()

    def drag(self, start: tuple[int, int], by: tuple[int, int], button: Any = "left") -> None:
        x, y = start[0], start[1] + TOP
        self.page.mouse.move(x, y)
        self.page.mouse.down(button=button)
        self.page.mouse.move(x + by[0], y + by[1], steps=3)
        self.page.mouse.up(button=button)


@pytest.fixture
def bench(page: Page, site: Site) -> Bench:
    return opened(page, site)


def opened(page: Page, site: Site) -> Bench:
    page.goto("/test/viewer.html")
    page.wait_for_function("() => window.isReady")
    return Bench(page, site)


def canvas_pixels(got: dict[str, Any]) -> NDArray[np.uint8]:
    data = np.frombuffer(base64.b64decode(got["data"]), np.uint8)
    return data.reshape(got["height"], got["width"], 4)


def windowed(greys: NDArray[Any], low: float, high: float) -> NDArray[np.int64]:
    part = (greys.astype(np.float64) - low) * (255 / (high - low))
    return np.floor(part.clip(0, 255) + 0.5).astype(np.int64)


def noise(rows: int, columns: int, dtype: Any = np.uint16) -> NDArray[Any]:
    return SEED.integers(0, np.iinfo(dtype).max, (rows, columns), dtype, endpoint=True)


def hills(rows: int, columns: int) -> NDArray[np.uint16]:
    y, x = np.mgrid[:rows, :columns].astype(np.float32)
    height = 0.5 + 0.3 * np.sin(x / 90) * np.cos(y / 70) + 0.2 * np.sin((x + y) / 400)
    return np.asarray(height * 65535, np.uint16)


def heatmap(values: NDArray[np.float32], crop: Crop, *, marks: bool = True) -> dict[str, Any]:
    """The ``heatmap`` of an answer, as the service makes it."""
    top, around = peak(values, crop), box(values, crop)
    return {
        "target_class": "malignant",
        "peak": vars(top) if top and marks else None,
        "box": vars(around) if around and marks else None,
        "map": {"data": base64.b64encode(encode_map(values, float(values.max()))).decode()},
        "map_to_original": map_to_original(values, crop),
    }


def single_cell(row: int, column: int) -> NDArray[np.float32]:
    values = np.zeros((16, 10), np.float32)
    values[row, column] = 1
    return values


# What is drawn


def test_12_megapixels_at_a_quarter_are_the_means_of_their_pixels(bench: Bench) -> None:
    pixels = noise(4000, 3000)
    bench.add(pixels, 750, 1000, low=5000, high=60000)
    means = pixels.reshape(1000, 4, 750, 4).mean(axis=(1, 3))
    assert np.abs(bench.grey() - windowed(means, 5000, 60000)).max() <= 1


def test_12_megapixels_at_a_fifth_are_the_means_of_their_pixels(bench: Bench) -> None:
    pixels = hills(4000, 3000)
    bench.add(pixels, 600, 800)
    means = cv2.resize(pixels.astype(np.float32), (600, 800), interpolation=cv2.INTER_AREA)
    assert np.abs(bench.grey() - windowed(means, 0, 65535)).max() <= 2


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_at_actual_size_every_pixel_is_shown_as_it_is(bench: Bench, dtype: Any) -> None:
    pixels = noise(1501, 1203, dtype)
    high = int(np.iinfo(dtype).max) // 2
    bench.add(pixels, 500, 400, low=10, high=high)
    bench.call("actualSize")
    seen = bench.grey()
    # the middle of the image is in the middle of the viewer, up to half a pixel
    top, left = math.floor(200.5 - 1501 / 2), math.floor(250.5 - 1203 / 2)
    part = pixels[-top : 400 - top, -left : 500 - left]
    assert (seen == windowed(part, 10, high)).all()


def test_enlarged_up_to_four_times_pixels_pass_into_each_other(bench: Bench) -> None:
    bench.add(np.array([[0, 100], [200, 100]], np.uint8).repeat(50, 0).repeat(50, 1), 300, 300)
    seen = bench.grey()
    assert np.abs(np.diff(seen.astype(int), axis=1)).max() < 100


def test_enlarged_more_than_four_times_pixels_are_seen_as_squares(bench: Bench) -> None:
    pixels = noise(7, 3, np.uint8)
    bench.add(pixels, 300, 700)
    assert (bench.grey() == pixels.repeat(100, 0).repeat(100, 1)).all()


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 5000), (5000, 1), (3, 7)])
def test_an_image_of_any_shape_is_in_the_middle(bench: Bench, rows: int, columns: int) -> None:
    bench.add(np.full((rows, columns), 77, np.uint8), 301, 301)
    seen = bench.grey()
    shown = seen >= 0
    assert (seen[shown] == 77).all()
    assert shown[149:152, 149:152].any()
    across, down = shown.any(axis=0).sum(), shown.any(axis=1).sum()
    assert max(across, down) == 301


def test_a_bright_background_is_shown_dark(bench: Bench) -> None:
    pixels = noise(300, 300, np.uint8)
    bench.add(pixels, 300, 300, inverted=True)
    assert (bench.grey() == 255 - pixels.astype(int)).all()


def test_on_a_dense_screen_every_pixel_of_it_is_used(browser: Browser, site: Site) -> None:
    context = browser.new_context(device_scale_factor=2, base_url=site.address)
    bench = opened(context.new_page(), site)
    pixels = noise(400, 300, np.uint8)
    bench.add(pixels, 150, 200)
    assert (bench.grey() == pixels).all()
    context.close()


def test_a_viewer_that_changes_its_size_still_shows_the_whole_image(bench: Bench) -> None:
    pixels = noise(400, 300, np.uint8)
    bench.add(pixels, 600, 500)
    bench.page.evaluate(
        "() => Object.assign(document.querySelector('.host').style,"
        " { width: '300px', height: '400px' })"
    )
    bench.page.wait_for_function("() => document.querySelector('canvas').width === 300")
    assert (bench.grey() == pixels).all()


def test_while_drawing_lags_half_of_the_resolution_is_drawn_until_it_rests(bench: Bench) -> None:
    script = FOLDERS["web"] / "viewer" / "frames.js"
    patient = (
        script.read_text().replace("SLOW = 20", "SLOW = -1").replace("REST = 140", "REST = 1e6")
    )
    bench.site.put("/web/viewer/frames.js", patient.encode())
    bench = opened(bench.page, bench.site)
    del bench.site.bodies["/web/viewer/frames.js"]
    pixels = hills(1600, 1200)
    bench.add(pixels, 600, 800)
    bench.call("zoomBy", 1)
    assert bench.page.evaluate("() => new Promise(requestAnimationFrame)")
    coarse = canvas_pixels(bench.page.evaluate("() => bench.canvas(0)"))[..., 0].astype(int)
    means = pixels.reshape(400, 4, 300, 4).mean(axis=(1, 3))
    assert np.abs(coarse[1::2, 1::2] - windowed(means, 0, 65535)).max() <= 3
    fine = bench.grey()
    assert 0 < np.abs(coarse - fine).max() <= 6


def test_what_is_seen_can_be_taken_as_png(bench: Bench) -> None:
    bench.add(noise(400, 300), 300, 400)
    bench.call("setHeatmap", heatmap(single_cell(8, 4), Crop(0, 0, 300, 400, False)))
    data = bench.page.evaluate(
        "async () => [...new Uint8Array(await (await bench.viewers[0].toBlob()).arrayBuffer())]"
    )
    taken = np.asarray(Image.open(io.BytesIO(bytes(data))).convert("RGBA"))
    assert (taken == bench.seen()).all()


def test_a_viewer_that_is_done_with_leaves_nothing(bench: Bench) -> None:
    bench.add(noise(400, 300), 300, 400)
    canvas = bench.page.query_selector("canvas")
    assert canvas is not None
    bench.call("destroy")
    assert canvas.evaluate("canvas => [canvas.width, canvas.isConnected]") == [0, False]


# The heatmap


@pytest.mark.parametrize("flipped", [False, True])
def test_the_heatmap_is_strongest_where_the_affine_says(bench: Bench, flipped: bool) -> None:
    crop = Crop(left=300, top=200, width=1000, height=1600, flipped=flipped)
    values = single_cell(11, 2)
    bench.add(np.zeros((2000, 1500), np.uint16), 750, 1000)
    bench.call("setHeatmap", heatmap(values, crop, marks=False))
    bench.call("setOpacity", 1)
    (a, _, c), (_, e, f) = map_to_original(values, crop)
    x, y = a * 2 + c, e * 11 + f
    weight = bench.seen()[..., :3].astype(float).sum(axis=2)
    rows, columns = np.nonzero(weight > 0.9 * weight.max())
    assert abs(columns.mean() + 0.5 - (x + 0.5) / 2) < 1
    assert abs(rows.mean() + 0.5 - (y + 0.5) / 2) < 1


def test_ring_and_box_are_around_the_peak(bench: Bench) -> None:
    crop = Crop(left=300, top=200, width=1000, height=1600, flipped=False)
    bench.add(np.zeros((2000, 1500), np.uint16), 750, 1000)
    bench.call("setHeatmap", heatmap(single_cell(11, 2), crop))
    seen = bench.seen().astype(int)
    is_mark = (seen[..., 2] > 200) & (seen[..., 0] < 180)
    # the cell is 100 pixels a side, from (500, 1300) on; half of that on the canvas
    rows, columns = np.nonzero(is_mark)
    assert (columns.min(), columns.max()) == pytest.approx((250, 300), abs=1)
    assert (rows.min(), rows.max()) == pytest.approx((650, 700), abs=1)
    assert is_mark[675 - 12, 275]
    assert is_mark[675, 275 + 12]
    assert not is_mark[670:680, 270:280].any()


def test_without_opacity_there_is_only_the_image(bench: Bench) -> None:
    pixels = noise(400, 300, np.uint8)
    bench.add(pixels, 300, 400)
    bench.call("setHeatmap", heatmap(single_cell(8, 4), Crop(0, 0, 300, 400, False)))
    assert (np.ptp(bench.seen()[..., :3], axis=2) > 20).any()
    bench.call("setOpacity", 0)
    assert (bench.grey() == pixels).all()
    bench.call("setOpacity", 0.5)
    bench.call("setHeatmap", None)
    assert (bench.grey() == pixels).all()


def test_a_map_means_the_same_however_its_png_is_written(bench: Bench) -> None:
    values = SEED.random((16, 10), np.float32).cumsum(axis=1)
    body = heatmap(values, Crop(0, 0, 300, 480, False))
    bench.add(np.zeros((480, 300), np.uint8), 300, 480)
    bench.call("setHeatmap", body)
    plain = bench.seen()
    grey = cv2.imdecode(
        np.frombuffer(base64.b64decode(body["map"]["data"]), np.uint8), cv2.IMREAD_UNCHANGED
    )
    for strategy in (cv2.IMWRITE_PNG_FILTER_SUB, cv2.IMWRITE_PNG_FILTER_UP,
                     cv2.IMWRITE_PNG_FILTER_AVG, cv2.IMWRITE_PNG_FILTER_PAETH):  # fmt: skip
        _, data = cv2.imencode(".png", grey, [cv2.IMWRITE_PNG_FILTER, strategy])
        body["map"]["data"] = base64.b64encode(data.tobytes()).decode()
        bench.call("setHeatmap", None)
        bench.call("setHeatmap", body)
        assert (bench.seen() == plain).all()


# Mouse and fingers


def test_dragging_to_the_right_widens_the_window_and_upwards_brightens(bench: Bench) -> None:
    bench.add(np.full((300, 300), 30000, np.uint16), 300, 300, low=10000, high=50000)
    before = int(bench.grey()[150, 150])
    assert bench.text("settings").startswith("W 40000  L 30000")
    bench.drag((100, 100), (40, 0))
    assert bench.text("settings").startswith("W 44000  L 30000")
    bench.drag((100, 100), (0, -40))
    assert bench.text("settings").startswith("W 44000  L 26000")
    assert bench.grey()[150, 150] > before


def test_upwards_brightens_also_where_black_and_white_are_exchanged(bench: Bench) -> None:
    bench.add(np.full((300, 300), 30000, np.uint16), 300, 300, inverted=True)
    before = int(bench.grey()[150, 150])
    bench.drag((100, 100), (0, -40), button="right")
    assert bench.grey()[150, 150] > before


@pytest.mark.parametrize("way", ["tool", "shift", "middle"])
def test_the_picture_is_moved_with_the_hand(bench: Bench, way: str) -> None:
    bench.add(noise(1000, 1000, np.uint8), 400, 400)
    bench.call("actualSize")
    before = bench.grey()
    if way == "tool":
        bench.call("setTool", "pan")
    if way == "shift":
        bench.page.keyboard.down("Shift")
    bench.drag((200, 200), (30, -50), button="middle" if way == "middle" else "left")
    assert (bench.grey()[:350, 30:] == before[50:, :370]).all()
    assert bench.state()["window"] == {"low": 0, "high": 1}


def test_the_middle_of_the_viewer_stays_on_the_image(bench: Bench) -> None:
    bench.add(noise(1000, 1000, np.uint8), 400, 400)
    bench.call("setTool", "pan")
    for _ in range(3):
        bench.drag((20, 20), (370, 370))
    assert bench.state()["centre"] == [0, 0]


def test_the_wheel_zooms_where_the_pointer_is(bench: Bench) -> None:
    bench.add(noise(3000, 2400), 500, 600)
    bench.page.mouse.move(390, TOP + 140)
    column, row = place(bench.text("pointer"))
    for _ in range(9):
        bench.page.mouse.wheel(0, -120)
    bench.page.wait_for_function("() => bench.viewers[0].getState().scale > 5")
    new_column, new_row = place(bench.text("pointer"))
    pixels_a_point = 3000 / 600  # before
    assert abs(new_column - column) <= pixels_a_point
    assert abs(new_row - row) <= pixels_a_point


def test_zooming_out_ends_with_the_whole_image(bench: Bench) -> None:
    bench.add(noise(3000, 2400), 500, 600)
    bench.call("zoomBy", 4, [10, 10])
    bench.call("zoomBy", 0.1, [480, 500])
    assert bench.state() | {"window": None} == {
        "centre": [0.5, 0.5], "scale": 1, "window": None, "inverted": False, "opacity": 0.55,
    }  # fmt: skip


def test_a_double_click_goes_to_actual_size_there_and_back(bench: Bench) -> None:
    bench.add(noise(3000, 3000), 500, 500)
    bench.page.mouse.dblclick(100, TOP + 100)
    assert bench.text("settings").endswith("100 %")
    assert bench.state()["centre"] == pytest.approx([0.25, 0.25], abs=0.002)
    bench.page.mouse.dblclick(100, TOP + 100)
    assert bench.state()["scale"] == 1


def test_the_pixel_under_the_pointer_is_read(bench: Bench) -> None:
    pixels = noise(400, 300)
    bench.add(pixels, 300, 400, spacing_mm=[0.4, 0.2])
    bench.page.mouse.move(120, TOP + 50)
    assert bench.text("pointer") == f"120, 50 px  24.1, 20.2 mm  grey {pixels[50, 120]}"
    bench.page.mouse.move(500, TOP + 50)
    assert bench.text("pointer") == ""


def test_the_scale_is_as_long_as_it_says(bench: Bench) -> None:
    bench.add(noise(400, 300), 300, 400, spacing_mm=[0.2, 0.2])
    bar = bench.page.locator(".viewer-scale-bar").bounding_box()
    assert bar is not None
    assert bench.text("scale").strip() == "1 cm"
    assert bar["width"] == pytest.approx(10 / 0.2)
    bench.show(0, noise(400, 300))
    assert not bench.page.locator(".viewer-scale").is_visible()


def place(readout: str) -> tuple[int, int]:
    column, row = readout.split(" px")[0].split(", ")
    return int(column), int(row)


@pytest.fixture
def touched(browser: Browser, site: Site) -> Iterator[Bench]:
    context = browser.new_context(has_touch=True, base_url=site.address)
    yield opened(context.new_page(), site)
    context.close()


def test_fingers_choose_the_window_and_pinch(touched: Bench) -> None:
    touched.add(noise(1000, 1000), 400, 400)
    session = touched.page.context.new_cdp_session(touched.page)

    def touch(kind: str, *points: tuple[int, int]) -> None:
        fingers = [{"x": x, "y": y + TOP, "id": n} for n, (x, y) in enumerate(points)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})

    touch("touchStart", (100, 100))
    touch("touchMove", (140, 100))
    wider = touched.state()["window"]
    assert wider["high"] - wider["low"] == pytest.approx(1.1)
    touch("touchCancel")
    touch("touchStart", (150, 200))
    touch("touchStart", (150, 200), (250, 200))
    touch("touchMove", (100, 200), (250, 200))
    touch("touchMove", (100, 200), (300, 200))
    touched.page.wait_for_function("() => bench.viewers[0].getState().scale > 1.9")
    assert touched.state()["scale"] == pytest.approx(2)
    assert touched.state()["centre"] == pytest.approx([0.5, 0.5], abs=0.01)
    touch("touchEnd", (100, 200))
    touch("touchMove", (160, 200))
    touch("touchEnd")
    assert touched.state()["window"] == wider


# Keys


@pytest.mark.parametrize(
    ("key", "part", "value"),
    [
        ("ArrowRight", "centre", [0.65, 0.5]),
        ("ArrowUp", "centre", [0.5, 0.35]),
        ("+", "scale", 2.5),
        ("-", "scale", 1.6),
        ("0", "scale", 1),
        ("1", "scale", 2.5),
        ("i", "inverted", True),
        ("h", "opacity", 0),
        ("[", "opacity", 0.45),
        ("]", "opacity", 0.65),
        ("Shift+ArrowRight", "window", {"low": -0.025, "high": 1.025}),
        ("Shift+ArrowUp", "window", {"low": -0.05, "high": 0.95}),
    ],
)
def test_a_key_does_what_the_list_says(bench: Bench, key: str, part: str, value: Any) -> None:
    bench.add(noise(500, 500), 200, 200)
    bench.call("zoomBy", 2)
    first = bench.state()
    bench.focus()
    bench.page.keyboard.press(key)
    changed = bench.state()
    assert changed[part] == pytest.approx(value, abs=1e-6)
    if key not in ("0", "1"):
        assert {k: v for k, v in changed.items() if k != part} == {
            k: v for k, v in first.items() if k != part
        }
    bench.page.keyboard.press("r")
    assert bench.state() == {
        "centre": [0.5, 0.5], "scale": 1, "window": {"low": 0, "high": 1}, "inverted": False,
        "opacity": 0.55,
    }  # fmt: skip


def test_the_heatmap_comes_back_as_it_was(bench: Bench) -> None:
    bench.add(noise(500, 500), 200, 200)
    bench.focus()
    for key in "]hh":
        bench.page.keyboard.press(key)
    assert bench.state()["opacity"] == 0.65


def test_keys_of_the_browser_stay_its_own(bench: Bench) -> None:
    bench.add(noise(500, 500), 200, 200)
    bench.focus()
    bench.page.keyboard.press("Control+i")
    assert bench.state()["inverted"] is False


def test_what_has_changed_is_told_once_it_rests(bench: Bench) -> None:
    bench.add(noise(500, 500), 200, 200, low=0, high=1000)
    bench.focus()
    for _ in range(3):
        bench.page.keyboard.press("Shift+ArrowRight")
    bench.page.wait_for_function(
        "() => document.querySelector('.viewer [role=status]').textContent"
    )
    assert bench.text("unseen[role=status]") == "Window 1150, level 500"


# Several viewers, and the tools


def linked_pair(bench: Bench) -> None:
    """Breasts of the same shape at different places of images of different sizes."""
    for left, shape, crop in (
        (0, (1000, 800), Crop(0, 100, 400, 600, False)),
        (420, (1200, 900), Crop(100, 300, 500, 800, True)),
    ):
        number = bench.add(noise(*shape), 400, 500, left)
        bench.call("setHeatmap", heatmap(single_cell(8, 4), crop), number=number)


def test_linked_viewers_show_the_same_part_of_the_breast(bench: Bench) -> None:
    linked_pair(bench)
    bench.page.evaluate("() => { window.unlink = bench.link(bench.viewers); }")
    bench.page.mouse.move(100, TOP + 250)
    bench.page.mouse.wheel(0, -380)
    bench.page.wait_for_function("() => bench.viewers[1].getState().scale > 1.5")
    one, other = bench.state(0), bench.state(1)
    assert other["scale"] == pytest.approx(one["scale"])
    across, down = one["centre"][0] * 800 / 400, (one["centre"][1] * 1000 - 100) / 600
    assert other["centre"][0] * 900 == pytest.approx(100 + across * 500)
    assert other["centre"][1] * 1200 == pytest.approx(300 + down * 800)
    bench.focus(1)
    bench.page.keyboard.press("0")
    assert [bench.state(each)["centre"] for each in (0, 1)] == [[0.5, 0.5]] * 2


def test_linked_films_of_different_spacing_show_a_millimetre_as_long(bench: Bench) -> None:
    bench.add(noise(1000, 800), 400, 500, spacing_mm=[0.1, 0.1])
    bench.add(noise(1200, 900), 400, 500, 420, spacing_mm=[0.07, 0.07])
    assert bench.call("perMm") != pytest.approx(bench.call("perMm", number=1))
    bench.page.evaluate("() => { bench.link(bench.viewers); }")
    bench.page.mouse.move(100, TOP + 250)
    bench.page.mouse.wheel(0, -380)
    bench.page.wait_for_function("() => bench.viewers[1].getState().scale > 1.1")
    assert bench.call("perMm") == pytest.approx(bench.call("perMm", number=1))
    bench.focus(1)
    bench.page.keyboard.press("0")
    assert [bench.state(each)["scale"] for each in (0, 1)] == [1, 1]


def test_linked_viewers_share_window_and_heatmap_until_they_are_not(bench: Bench) -> None:
    linked_pair(bench)
    bench.page.evaluate("() => { window.unlink = bench.link(bench.viewers); }")
    bench.focus()
    for key in ("i", "Shift+ArrowRight", "]"):
        bench.page.keyboard.press(key)
    assert bench.state(0) == bench.state(1)
    assert bench.state(1)["inverted"] is True
    bench.page.evaluate("() => unlink()")
    bench.page.keyboard.press("i")
    assert bench.state(1)["inverted"] is True


def test_tools_steer_every_viewer(bench: Bench) -> None:
    linked_pair(bench)
    bench.page.evaluate("() => { bench.toolbar(); bench.link(bench.viewers); }")
    tool = bench.page.get_by_role("toolbar").get_by_role
    tool("button", name="Larger").click()
    assert [bench.state(each)["scale"] for each in (0, 1)] == pytest.approx([1.25, 1.25])
    tool("button", name="Every pixel").click()
    assert [bench.text("settings", each)[-5:] for each in (0, 1)] == ["100 %"] * 2
    tool("button", name="Black for white").click()
    assert tool("button", name="Black for white").get_attribute("aria-pressed") == "true"
    assert [bench.state(each)["inverted"] for each in (0, 1)] == [True, True]
    tool("slider", name="Opacity").fill("0.2")
    assert [bench.state(each)["opacity"] for each in (0, 1)] == [0.2, 0.2]
    for opacity in (0, 0.2):
        tool("button", name="Show the heatmap").click()
        assert [bench.state(each)["opacity"] for each in (0, 1)] == [opacity, opacity]
    tool("slider", name="Level").fill("0.6")
    assert bench.state(1)["window"] == pytest.approx({"low": 0.1, "high": 1.1})
    tool("button", name="Drag moves the picture").click()
    bench.drag((200, 200), (-40, 0))
    assert bench.state(1)["window"] == pytest.approx({"low": 0.1, "high": 1.1})
    tool("button", name="As at first").click()
    assert [bench.state(each)["centre"] for each in (0, 1)] == [[0.5, 0.5]] * 2
    assert tool("slider", name="Opacity").input_value() == "0.55"


def test_tools_zoom_films_of_different_spacing_to_a_millimetre_as_long(bench: Bench) -> None:
    bench.add(noise(1000, 800), 400, 500, spacing_mm=[0.1, 0.1])
    bench.add(noise(1200, 900), 400, 500, 420, spacing_mm=[0.07, 0.07])
    bench.page.evaluate("() => { bench.toolbar(); bench.link(bench.viewers); }")
    tool = bench.page.get_by_role("toolbar").get_by_role
    tool("button", name="Larger").click()
    assert bench.state(0)["scale"] == pytest.approx(1.25)
    assert bench.call("perMm") == pytest.approx(bench.call("perMm", number=1))
    tool("button", name="Smaller").click()
    assert [bench.state(each)["scale"] for each in (0, 1)] == [1, 1]


def test_tools_show_what_is_done_on_a_viewer(bench: Bench) -> None:
    bench.add(noise(500, 500), 200, 200)
    bench.page.evaluate("() => bench.toolbar()")
    bench.focus()
    for key in ("i", "h"):
        bench.page.keyboard.press(key)
    tool = bench.page.get_by_role("toolbar").get_by_role
    assert tool("button", name="Black for white").get_attribute("aria-pressed") == "true"
    assert tool("slider", name="Opacity").input_value() == "0"


def test_the_tools_are_one_stop_for_tab_and_arrows_go_between_them(bench: Bench) -> None:
    bench.add(noise(500, 500), 200, 200)
    bench.page.evaluate("() => bench.toolbar()")
    names = []
    for key in ("Tab", "ArrowRight", "End", "ArrowRight", "ArrowLeft", "Home", "Tab"):
        bench.page.keyboard.press(key)
        names.append(
            bench.page.evaluate("document.activeElement.dataset.tool ?? document.activeElement.id")
        )
    assert names == ["window", "pan", "reset", "window", "reset", "window", "viewer-level-1"]


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_axe_finds_nothing(bench: Bench, theme: str) -> None:
    bench.page.evaluate("theme => (document.documentElement.dataset.theme = theme)", theme)
    linked_pair(bench)
    body = heatmap(single_cell(8, 4), Crop(0, 0, 10, 10, False))
    bench.page.evaluate("body => { bench.toolbar(); bench.legend(body); }", body)
    bench.page.evaluate(
        "() => bench.viewers[0].corner('top-left').append('L CC', document.createElement('br'))"
    )
    found = Axe().run(bench.page).response["violations"]
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found] == []

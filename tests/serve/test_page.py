"""The page in a real browser: what a person sees is what the server said, at the right place."""

import base64
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from serve_running import JPEG, running

import openlepton
from openlepton.drawing import PALETTE
from openlepton.ops.masks import rle_of_mask

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine"),
]

QUIET = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--use-fake-device-for-media-stream", "--force-color-profile=srgb",
]  # fmt: skip
TOKEN = "a-token-for-the-page-0123"


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield started
        started.close()


class Page:
    """A page of the browser, and everything that it asked for or complained about."""

    def __init__(self, browser, url, **options):
        self.context = browser.new_context(viewport={"width": 1200, "height": 760}, locale="en-GB", **options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(60_000)
        self.asked, self.complaints = [], []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(url)

    def opened(self):
        """Wait until the models are listed."""
        self.page.locator("#model option").first.wait_for(state="attached")
        return self

    def show(self, path, wait=True):
        """Choose a picture and wait for what is found in it."""
        self.page.set_input_files("#file", path)
        if wait:
            self.page.locator("#timing", has_text="ms").wait_for()
        return self

    def slide(self, name, value):
        self.page.locator(f"#{name}").fill(str(value))

    def predictions(self):
        return [url for url in self.asked if url.split("?")[0].endswith("/predict")]

    def canvas(self):
        """What is drawn, `(H, W, 3)`."""
        self.page.wait_for_timeout(150)  # for the next frame
        url = self.page.evaluate("() => document.getElementById('canvas').toDataURL('image/png')")
        data = base64.b64decode(url.split(",")[1])
        return np.asarray(PIL.Image.open(io.BytesIO(data)).convert("RGB")).astype(int)

    def text(self, selector):
        return self.page.locator(selector).inner_text()


@pytest.fixture(scope="module")
def crowd(photos):
    """The picture in which most is found, and what."""
    find = openlepton.load("yolov5n-bccd")
    path = max(photos, key=lambda photo: len(find(photo)))
    return path, find(path).to_dict()


@pytest.fixture
def open_page(browser, server):
    pages = []

    def make(url=server.url, **options):
        pages.append(Page(browser, url, **options))
        return pages[-1]

    yield make
    for page in pages:
        page.context.close()


def is_color(pixels, label, tolerance=40):
    return np.abs(pixels - np.array(PALETTE[label % len(PALETTE)])).max(-1) <= tolerance


def edges(pixels, box, label, off=0):
    """The share of each edge of a box, moved by some pixels, that is drawn in the colour of its class."""
    x1, y1, x2, y2 = (round(side) + off for side in box)
    height, width = pixels.shape[:2]
    shares = []
    for upright, at, low, high in ((True, x1, y1, y2), (True, x2, y1, y2), (False, y1, x1, x2), (False, y2, x1, x2)):
        most = (width if upright else height) - 1
        near = [np.clip(at + step, 0, most) for step in (-1, 0, 1)]
        span = slice(max(low, 0), high)
        lines = [pixels[span, place] if upright else pixels[place, span] for place in near]
        shares.append(np.any([is_color(line, label) for line in lines], 0).mean())
    return min(shares)


def test_what_is_found_in_a_chosen_picture_is_drawn_where_it_is(open_page, crowd):
    path, answer = crowd
    page = open_page().opened()
    page.page.uncheck("#tags")
    page.show(path)
    found = answer["detections"]
    assert page.page.locator("#rows > div").count() == len(found) > 3
    assert page.text("#sum") == f"{len(found)} objects"
    pixels = page.canvas()
    scale = pixels.shape[1] / answer["image"]["width"]
    assert pixels.shape[0] == round(answer["image"]["height"] * scale)
    best = found[0]  # drawn last, over the others
    box = [scale * best["box"][side] for side in ("x1", "y1", "x2", "y2")]
    assert edges(pixels, box, best["label_id"]) > 0.9
    assert edges(pixels, box, best["label_id"], off=9) < 0.5
    assert (
        np.mean([edges(pixels, [scale * side for side in one["box"].values()], one["label_id"]) > 0.6 for one in found])
        > 0.7
    )

    page.slide("score", 0.95)
    page.page.locator("#sum", has_text="Nothing that scores more than 0.95").wait_for()
    bare = page.canvas()
    picture = PIL.Image.open(path).convert("RGB").resize(bare.shape[1::-1], PIL.Image.Resampling.BILINEAR)
    assert np.abs(bare - np.asarray(picture)).mean() < 3
    assert edges(bare, box, best["label_id"]) < 0.3


def test_pointing_at_an_object_tells_about_it_and_so_do_the_arrow_keys(open_page, crowd):
    path, found = crowd
    page = open_page().opened().show(path)
    first = found["detections"][0]
    place = page.page.locator("#canvas").bounding_box()
    scale = place["width"] / found["image"]["width"]
    box = first["box"]
    width, height = (round(box[f"{side}2"] - box[f"{side}1"]) for side in "xy")
    page.page.mouse.move(place["x"] + scale * (box["x1"] + 3), place["y"] + scale * (box["y1"] + 3))
    page.page.locator("#tip").wait_for()
    selected = page.page.locator("#rows > div[aria-selected=true]")
    assert selected.count() == 1
    row = found["detections"][int(selected.get_attribute("data-row"))]
    assert f"{row['label']} {row['score']:.2f}" in page.text("#tip")
    before = page.canvas()
    page.page.mouse.move(5, 5)
    page.page.locator("#tip").wait_for(state="hidden")
    assert np.abs(page.canvas() - before).max() > 50

    page.page.locator("#rows").focus()
    page.page.keyboard.press("ArrowDown")
    assert page.page.locator("#rows").get_attribute("aria-activedescendant") == "row-0"
    assert f"{width} × {height} px" in selected.inner_text()
    page.page.keyboard.press("End")
    assert page.page.locator("#rows").get_attribute("aria-activedescendant") == f"row-{len(found['detections']) - 1}"
    page.page.keyboard.press("Escape")
    assert selected.count() == 0


def test_a_higher_score_asks_nobody_and_a_lower_one_asks_the_server(open_page, server, crowd):
    path = crowd[0]
    page = open_page().opened().show(path)
    scores = [
        one["score"]
        for one in server.client.post("/v1/detect?min_score=0.1", content=path.read_bytes(), headers=JPEG).json()[
            "detections"
        ]
    ]
    assert len(page.predictions()) == 1
    page.slide("score", 0.5)
    expected = sum(score > 0.5 for score in scores)
    page.page.locator("#sum", has_text=f"{expected} object").wait_for()
    assert page.page.locator("#rows > div").count() == expected
    assert len(page.predictions()) == 1
    page.slide("score", 0.1)
    page.page.locator("#sum", has_text=f"{len(scores)} objects").wait_for()
    assert "min_score=0.1&max_iou=0.45" in page.predictions()[-1]
    page.slide("iou", 0.05)
    fewer = server.client.post("/v1/detect?min_score=0.1&max_iou=0.05", content=path.read_bytes(), headers=JPEG).json()[
        "detections"
    ]
    page.page.locator("#sum", has_text=f"{len(fewer)} object").wait_for()
    assert len(fewer) < len(scores)


def test_another_model_looks_at_the_same_picture(open_page, server, photos):
    page = open_page().opened().show(photos[0])
    page.page.select_option("#model", "efficientnet-lite0")
    page.page.locator("#sum", has_text="Most probable").wait_for()
    assert not page.page.locator("#sliders").is_visible()
    told = server.client.post("/v1/classify", content=photos[0].read_bytes(), headers=JPEG).json()["classes"]
    rows = page.page.locator("#rows > div").all_inner_texts()
    assert [row.split("\n")[0] for row in rows] == [one["label"] for one in told]


def test_what_goes_wrong_is_told_and_the_page_goes_on(open_page, photos, tmp_path):
    page = open_page().opened()
    problem = page.page.locator("#problem")
    (tmp_path / "notes.txt").write_text("no picture")
    page.show(tmp_path / "notes.txt", wait=False)
    problem.wait_for()
    assert problem.inner_text() == "That is not a picture: JPEG, PNG, WebP and BMP are read."
    assert problem.get_attribute("role") == "alert"

    gif = io.BytesIO()
    PIL.Image.new("RGB", (40, 40), "red").save(gif, "GIF")  # a browser reads it, the server does not
    (tmp_path / "a.gif").write_bytes(gif.getvalue())
    page.show(tmp_path / "a.gif", wait=False)
    page.page.locator("#problem", has_text="This picture cannot be read.").wait_for()

    page.page.route("**/predict*", lambda route: route.abort())
    page.show(photos[0], wait=False)
    page.page.locator("#problem", has_text="The server cannot be reached.").wait_for()
    page.page.unroute("**/predict*")
    page.show(photos[1])
    assert not problem.is_visible()


def test_the_language_can_be_changed_and_is_kept(open_page, crowd):
    page = open_page().opened().show(crowd[0])
    assert page.page.locator("html").get_attribute("lang") == "en"
    before = len(page.predictions())
    page.page.click("#language")
    assert page.page.locator("html").get_attribute("lang") == "zh-CN"
    assert page.page.locator("#tab-pictures").inner_text() == "图像"
    assert "个目标" in page.text("#sum")
    assert {"红细胞", "白细胞", "血小板"} & {
        row.split("\n")[0] for row in page.page.locator("#rows > div").all_inner_texts()
    }
    assert len(page.predictions()) == before
    page.page.reload()
    page.page.locator("#choose", has_text="选择图片").wait_for()
    page.page.click("#language")
    assert page.text("#choose") == "Choose a picture"


def test_every_word_is_there_in_both_languages(open_page):
    page = open_page()
    source = page.page.evaluate("async () => (await fetch('/page/words.js')).text()")
    english, chinese = source.split("\n  zh: {")
    keys = [set(re.findall(r'"([a-z-]+)": "', part)) for part in (english, chinese)]
    assert keys[0] == keys[1]
    assert len(keys[0]) > 60
    markup = page.page.evaluate("async () => (await fetch('/')).text()")
    assert set(re.findall(r'data-(?:word|hint)="([a-z-]+)"', markup)) <= keys[0]


def test_a_picture_can_be_pasted_and_dropped(open_page, crowd):
    page = open_page().opened()
    make = (
        "const file = new File([Uint8Array.from(atob(data), c => c.charCodeAt(0))], 'a.jpg', {type: 'image/jpeg'});"
        "const held = new DataTransfer(); held.items.add(file);"
    )
    data = base64.b64encode(crowd[0].read_bytes()).decode()
    page.page.evaluate(
        f"(data) => {{ {make} document.dispatchEvent(new ClipboardEvent('paste', {{clipboardData: held}})); }}", data
    )
    page.page.locator("#sum", has_text="objects").wait_for()
    width, height = crowd[1]["image"].values()
    assert (
        f"Picture from the clipboard, {width} by {height} pixels. {len(crowd[1]['detections'])} objects: "
        in page.page.locator("#canvas").get_attribute("aria-label")
    )
    page.page.evaluate(
        f"(data) => {{ {make} document.dispatchEvent(new DragEvent('drop', "
        "{dataTransfer: held, bubbles: true, cancelable: true})); }",
        data,
    )
    page.page.locator("#canvas[aria-label^='a.jpg, ']").wait_for()
    assert len(page.predictions()) == 2


def test_the_webcam_is_looked_through_until_it_is_stopped(open_page, server):
    page = open_page(permissions=["camera"]).opened()
    page.page.click("#camera")
    page.page.locator("#timing", has_text="pictures a second").wait_for()
    pixels = page.canvas()  # Chromium's own test picture: green, with a disc that is eaten up
    assert (pixels.mean((0, 1)) > [0, 60, 0]).all()
    assert pixels[..., 1].mean() > 3 * pixels[..., 0].mean()
    count = len(page.predictions())
    page.page.wait_for_timeout(1500)
    assert len(page.predictions()) > count
    page.page.click("#stop")
    page.page.locator("#camera-too").wait_for()
    page.page.wait_for_timeout(1000)
    count = len(page.predictions())
    page.page.wait_for_timeout(1500)
    assert len(page.predictions()) == count


def test_a_webcam_that_is_refused_is_told(open_page):
    page = open_page().opened()
    page.page.click("#camera")
    page.page.locator("#problem", has_text="The webcam was refused.").wait_for()
    assert page.page.locator("#camera").is_visible()


def test_the_cards_say_what_they_say(open_page, server):
    page = open_page().opened()
    page.page.click("#tab-models")
    articles = page.page.locator("article")
    assert articles.count() == 2
    card = server.client.get("/v1/models/yolov5n-bccd").json()
    text = articles.first.inner_text()
    assert all(words in text for words in (card["name"], card["description"], card["licence"], card["source"]))
    assert f"{card['metrics'][0]['name']}\non {card['metrics'][0]['data']}" in text
    articles.last.get_by_role("button", name="Use this model").click()
    assert page.page.locator("#pictures").is_visible()
    assert page.page.locator("#model").input_value() == "efficientnet-lite0"


def test_the_page_is_used_by_keyboard_and_named_for_those_who_hear_it(open_page, photos):
    page = open_page().opened().show(photos[0])
    page.page.locator("#tab-pictures").focus()
    page.page.keyboard.press("ArrowRight")  # no model for texts is served: that tab is not there
    assert page.page.locator("#models").is_visible()
    assert page.page.evaluate("() => document.activeElement.id") == "tab-models"
    page.page.keyboard.press("ArrowRight")
    assert page.page.locator("#pictures").is_visible()
    assert not page.page.locator("#tab-text").is_visible()
    heard = page.page.locator("body").aria_snapshot()
    for part in (
        'tab "Pictures" [selected]',
        'combobox "Model"',
        'slider "Score above"',
        'slider "Overlap (IoU) up to"',
        'listbox "Found"',
        'button "Another picture"',
        f'img "{photos[0].name}, 512 by 512 pixels.',
    ):
        assert part in heard, part
    assert page.page.get_by_role("slider", name="Score above").input_value() == "0.25"
    assert page.page.get_by_role("slider", name="Overlap (IoU) up to").input_value() == "0.45"
    seen = []
    page.page.locator("#language").focus()
    while "rows" not in seen and len(seen) < 12:
        page.page.keyboard.press("Tab")
        seen.append(page.page.evaluate("() => document.activeElement.id"))
    assert [one for one in seen if one] == [
        "another", "camera-too", "copy", "save", "model", "score", "iou", "tags", "rows",
    ]  # fmt: skip


CONTRAST = """() => {
  const channel = (value) => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const parse = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
  const ground = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const color = parse(getComputedStyle(one).backgroundColor);
      if (color.length === 3 || color[3] === 1) { return color; }
    }
  };
  const least = {};
  for (const element of document.querySelectorAll('body *')) {
    const text = [...element.childNodes].some((one) => one.nodeType === 3 && one.textContent.trim());
    if (text && element.checkVisibility() && !element.disabled && !element.closest('.skip, .hidden')) {
      const [one, two] = [light(parse(getComputedStyle(element).color)), light(ground(element))];
      const ratio = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
      if (ratio < 4.5) { least[element.textContent.trim().slice(0, 40)] = ratio; }
    }
  }
  return least;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_can_be_read_by_day_and_by_night(open_page, photos, scheme):
    page = open_page(color_scheme=scheme).opened()
    assert page.page.evaluate(CONTRAST) == {}
    page.show(photos[0])
    assert page.page.evaluate(CONTRAST) == {}
    page.page.click("#tab-models")
    assert page.page.evaluate(CONTRAST) == {}
    ground = page.page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    assert (sum(json.loads(ground.replace("rgb(", "[").replace(")", "]"))) < 150) == (scheme == "dark")


def test_nothing_comes_from_elsewhere_and_the_policy_is_not_broken(open_page, server, photos):
    page = open_page().opened().show(photos[0])
    page.page.click("#tab-models")
    assert {url for url in page.asked if not url.startswith((server.url, "blob:"))} == set()
    assert page.complaints == []
    answer = server.client.get("/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
    assert "unsafe" not in policy
    assert all(
        server.client.get(f"/page/{name}").status_code == 404 for name in ("", "../app.py", "..%2fapp.py", "nothing.js")
    )
    assert server.client.get("/page/main.js").headers["content-type"] == "text/javascript; charset=utf-8"


@pytest.mark.parametrize("seed", range(3))
def test_masks_are_read_as_they_were_written(open_page, seed):
    rng = np.random.default_rng(seed)
    masks = [rng.random((37, 53)) > share for share in (0.02, 0.5, 0.9)]
    masks.append(np.zeros((37, 53), bool))
    masks.append(np.ones((37, 53), bool))
    told = [rle_of_mask(mask).to_dict() for mask in masks]
    page = open_page()
    read = page.page.evaluate(
        """async (masks) => {
          const { owners } = await import('/page/masks.js');
          return masks.map((mask) => [...owners([mask], 53, 37)]);
        }""",
        told,
    )
    for mask, row in zip(masks, read, strict=True):
        assert (np.array(row).reshape(37, 53) == np.where(mask, 0, -1)).all()
    both = page.page.evaluate(
        "async (masks) => [...(await import('/page/masks.js')).owners([masks[1], null, masks[0]], 53, 37)]", told
    )
    assert (np.array(both).reshape(37, 53) == np.where(masks[1], 0, np.where(masks[0], 2, -1))).all()


def test_masks_are_drawn_where_they_are_and_a_token_opens_the_page(open_page, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text(TOKEN)
    picture = min((Path(__file__).parents[1] / "fixtures" / "nuclei" / "images").iterdir())
    with running("yolov5n-seg-nuclei", "--workers", "1", "--token-file", tokens) as locked:
        page = open_page(locked.url)
        page.page.locator("#token").wait_for()
        assert page.page.locator("#token").evaluate("(one) => one === document.activeElement")
        page.page.fill("#token", "wrong-token-wrong-token")
        page.page.keyboard.press("Enter")
        page.page.locator("#lock").wait_for()
        page.page.fill("#token", TOKEN)
        page.page.keyboard.press("Enter")
        page.opened()
        page.page.uncheck("#tags")
        page.show(picture)
        page.slide("iou", 0.45)
        masked = page.canvas()
        answer = locked.client.post(
            "/v1/segment", content=picture.read_bytes(), headers={**JPEG, "Authorization": f"Bearer {TOKEN}"}
        ).json()
        page.slide("score", 0.95)
        page.page.locator("#sum", has_text="Nothing that scores").wait_for()
        bare = page.canvas()
        change = np.abs(masked - bare).max(-1) > 20
        inside = page.page.evaluate(
            "async ({detections, image}) => [...(await import('/page/masks.js')).owners("
            "detections.map((one) => one.mask), image.width, image.height)]",
            answer,
        )
        shape = (answer["image"]["height"], answer["image"]["width"])
        inside = PIL.Image.fromarray((np.array(inside).reshape(shape) >= 0).astype(np.uint8) * 255)
        there = np.asarray(inside.resize(change.shape[::-1], PIL.Image.Resampling.BILINEAR))
        scale = change.shape[1] / shape[1]
        boxes = np.zeros(change.shape, bool)  # and their lines
        for one in answer["detections"]:
            x1, y1, x2, y2 = (round(scale * side) for side in one["box"].values())
            boxes[max(y1 - 4, 0) : y2 + 4, max(x1 - 4, 0) : x2 + 4] = True
        assert len(answer["detections"]) > 3
        assert change[there == 255].mean() > 0.9
        assert change[~boxes].mean() < 0.001

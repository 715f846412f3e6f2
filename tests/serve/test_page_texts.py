"""The page's tab for texts in a real browser, with the models that ship."""

import pytest
from serve_running import running
from test_page import CHROMIUM, CONTRAST, Page, browser  # noqa: F401 - a fixture

import openlepton

REVIEW = "A wonderful film with a brilliant cast."
NEWS = "The striker scored twice in the cup final."

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine"),
]


@pytest.fixture(scope="module")
def server():
    pytest.importorskip("tokenizers")
    pytest.importorskip("ctranslate2")
    with running("sentiment", "topics", "tiny-en-zh", "tiny-zh-en", "--workers", "1") as started:
        yield started


@pytest.fixture
def page(browser, server):  # noqa: F811
    opened = Page(browser, server.url)
    opened.page.click("#tab-text")
    opened.page.locator("#text-model option").first.wait_for(state="attached")
    yield opened
    opened.context.close()


def ask(page, text, task=None):
    """Write a text, have it sent and wait for what is told; return the rows of bars, or the translation."""
    if task:
        page.page.select_option("#task", task)
    page.page.evaluate("() => document.getElementById('told').replaceChildren()")
    page.page.fill("#words", text)
    page.page.locator("#words").press("Control+Enter")
    page.page.locator("#told > *").first.wait_for()
    return [row.split("\n") for row in page.page.locator("#told > *").all_inner_texts()]


def bars(result, names):
    return [[names[one["label_id"]], f"{one['score']:.3f}"] for one in result.to_dict()["classes"]]


def test_the_mood_of_a_text_is_shown_as_bars_of_the_right_length(page):
    found = openlepton.load("sentiment")(REVIEW)
    assert page.page.locator("#task").input_value() == "sentiment"
    rows = ask(page, REVIEW)
    assert rows == bars(found, ["negative", "positive"])
    assert rows[0][0] == "positive"
    meters = page.page.locator("#told .meter")
    for place, one in enumerate(found.to_dict()["classes"]):
        whole, part = (meters.nth(place).locator(way).bounding_box()["width"] for way in ("xpath=.", "i"))
        assert part == pytest.approx(one["score"] * whole, abs=1.5)
    assert "ms in all" in page.text("#text-timing")
    assert page.page.evaluate(CONTRAST) == {}
    assert page.complaints == []


def test_topics_are_named_in_the_language_of_the_page(page):
    model = openlepton.load("topics")
    found = model(NEWS)
    assert ask(page, NEWS, "classify-text") == bars(found, model.card.labels)
    asked = len(page.predictions())
    page.page.click("#language")
    rows = [row.split("\n") for row in page.page.locator("#told > *").all_inner_texts()]
    assert rows == bars(found, model.card.labels_zh)
    assert rows[0][0] == "体育"
    assert page.page.locator("#task option").all_inner_texts() == ["情感分析", "主题分类", "翻译"]
    assert page.page.locator("#task").input_value() == "classify-text"
    assert page.page.locator("#words").get_attribute("placeholder") == "输入文本"
    assert len(page.predictions()) == asked


def test_a_translation_is_shown_and_read_out_in_its_own_language(page):
    told = page.page.locator("#told .translation")
    page.page.select_option("#task", "translate")
    for name, text, language in (("tiny-zh-en", "我喜欢读书。", "en"), ("tiny-en-zh", "I like to read books.", "zh")):
        page.page.select_option("#text-model", name)
        assert ask(page, text) == [[openlepton.load(name)(text).text]]
        assert told.get_attribute("lang") == language
    assert page.page.locator("#read").get_attribute("aria-live") == "polite"
    assert page.page.locator("#text-model option").all_inner_texts() == ["en → zh · tiny-en-zh", "zh → en · tiny-zh-en"]
    heard = page.page.locator("#text").aria_snapshot()
    for part in ('combobox "What to do"', 'combobox "Model"', 'textbox "Your text"', 'button "Run"'):
        assert part in heard, part


def test_what_goes_wrong_with_a_text_is_told_and_the_next_is_answered(page):
    page.page.click("#run")  # nothing to send: the field for it is shown instead
    assert page.page.evaluate("() => document.activeElement.id") == "words"
    assert page.predictions() == []
    page.page.route("**/predict*", lambda route: route.abort())
    page.page.fill("#words", REVIEW)
    page.page.click("#run")
    problem = page.page.locator("#text-problem", has_text="The server cannot be reached.")
    problem.wait_for()
    assert problem.get_attribute("role") == "alert"
    page.page.unroute("**/predict*")
    assert ask(page, REVIEW)[0][0] == "positive"
    assert not problem.is_visible()


def test_a_card_of_a_model_for_texts_leads_to_it(page):
    page.page.click("#tab-models")
    articles = page.page.locator("article")
    assert articles.count() == 4
    articles.nth(1).get_by_role("button", name="Use this model").click()
    assert page.page.locator("#text").is_visible()
    assert page.page.locator("#task").input_value() == "classify-text"
    assert page.page.locator("#text-model").input_value() == "topics"

"""The page in a real Chromium: type a sentence, both answers stream in."""

import json

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from tests.machine import PATIENCE

SENTENCE = "You must find <b>the old map</b>."
WORDS = "return [...document.querySelectorAll('.words')].map((e) => e.textContent)"
SPEAKING = "return document.querySelectorAll('.speaking').length"
TOKEN = "a-token-long-enough"

# Watches the words from before the page's own script runs: every state in which they were seen.
WATCH = """
window.seen = [];
new MutationObserver(() => {
  const now = [...document.querySelectorAll('.words')].map((e) => e.textContent);
  window.seen.push(now);
}).observe(document, {subtree: true, childList: true, characterData: true});
"""


@pytest.fixture(scope="module")
def served(serve, base_folder, make_adapter):
    """The page's address, with its token."""
    options = ("--model", base_folder, "--adapter", make_adapter(), "--max-tokens", 24)
    return serve(*options, MLX_YODA_TOKEN=TOKEN)[1]


def show(browser, address, width=1400, theme="light"):
    browser.get("about:blank")
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": theme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get_log("performance")
    browser.get_log("browser")
    browser.get(address)


def wait(browser, condition):
    return WebDriverWait(browser, PATIENCE, 0.05).until(condition)


def talk(browser, sentence):
    """Type a sentence, send it with the keyboard, wait for the answers."""
    wait(browser, lambda b: b.find_element(By.ID, "words").is_displayed())
    before = len(browser.execute_script(WORDS))
    browser.switch_to.active_element.send_keys(sentence, Keys.ENTER)
    wait(browser, lambda b: len(b.execute_script(WORDS)) == before + 2)
    wait(browser, lambda b: b.execute_script(SPEAKING) == 0)
    return browser.execute_script(WORDS)[before:]


@pytest.mark.slow
def test_both_answers_stream_in(browser, served):
    show(browser, served)
    browser.execute_script(WATCH)
    base, adapter = talk(browser, SENTENCE)
    assert base and adapter and base != adapter
    seen = browser.execute_script("return window.seen")
    for column, whole in enumerate((base, adapter)):
        stages = {words[column] for words in seen if len(words) > column}
        assert len(stages) > 5
        assert all(whole.startswith(stage) for stage in stages)
    question = browser.find_element(By.CSS_SELECTOR, ".question")
    assert question.text == SENTENCE  # as text, not as markup
    spoken = browser.find_element(By.ID, "status").get_attribute("textContent")
    assert spoken in (f"base: {base}", f"adapter: {adapter}")  # what a screen reader says
    assert "24 tokens" in browser.find_element(By.CSS_SELECTOR, ".figures").text


@pytest.mark.slow
def test_a_conversation_is_remembered_if_wanted_and_can_begin_anew(browser, served):
    show(browser, served)
    first = talk(browser, SENTENCE)
    assert talk(browser, SENTENCE) == first
    browser.find_element(By.ID, "remember").click()
    browser.find_element(By.ID, "words").click()
    assert talk(browser, SENTENCE) != first  # the model sees what was said before
    browser.find_element(By.ID, "again").click()
    assert browser.execute_script(WORDS) == []
    assert talk(browser, SENTENCE) == first


def test_the_token_stays_in_the_tab_and_is_asked_for_without(browser, served):
    show(browser, served)
    wait(browser, lambda b: b.find_element(By.ID, "words").is_displayed())
    assert TOKEN not in browser.current_url
    browser.execute_script("sessionStorage.clear()")
    browser.refresh()
    field = browser.find_element(By.ID, "token")
    wait(browser, lambda b: field.is_displayed())
    field.send_keys("not-the-right-token", Keys.ENTER)
    wait(browser, lambda b: "not the one" in b.find_element(By.ID, "token-wrong").text)
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys(TOKEN, Keys.ENTER)
    assert len(talk(browser, SENTENCE)) == 2


def test_it_says_nothing_and_asks_nobody_else(browser, served):
    show(browser, served)
    talk(browser, SENTENCE)
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]
    own = served.partition("#")[0]
    assert f"{own}v1/chat/completions" in asked
    assert [url for url in asked if not url.startswith((own, "data:"))] == []
    assert browser.get_log("browser") == []


def test_the_page_runs_no_script_but_its_own(browser, served):
    show(browser, served)
    browser.execute_script(
        "const s = document.createElement('script'); s.textContent = 'window.hacked = 1';"
        "document.body.append(s)"
    )
    assert browser.execute_script("return window.hacked ?? null") is None
    assert "Content Security Policy" in browser.get_log("browser")[-1]["message"]


@pytest.mark.slow
@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_is_too_wide_and_all_can_be_read(browser, served, contrast, width, theme):
    show(browser, served, width, theme)
    talk(browser, f"{'word' * 60} {SENTENCE}")
    needed = browser.execute_script("return document.documentElement.scrollWidth")
    assert needed <= width
    tops = browser.execute_script(
        "return [...document.querySelectorAll('.answer')].map((e) => e.getBoundingClientRect().top)"
    )
    assert (tops[0] == tops[1]) == (width == 1400)  # side by side, or one above the other
    for one, other in [("text", "card"), ("quiet", "card"), ("quiet", "page"), ("accent", "card"),
                       ("on-accent", "accent"), ("text", "said"), ("wrong", "card")]:  # fmt: skip
        read = "const s = getComputedStyle(document.documentElement);"
        colors = browser.execute_script(
            f"{read} return ['--{one}', '--{other}'].map((n) => s.getPropertyValue(n).trim())"
        )
        assert contrast(*colors) >= 4.5


def test_everything_that_one_uses_has_a_name(browser, served):
    show(browser, served)
    talk(browser, SENTENCE)
    for element in browser.find_elements(By.CSS_SELECTOR, "button, input, textarea, summary"):
        if element.is_displayed():
            assert element.accessible_name

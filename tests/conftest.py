"""What every test shares: a fast BLAS, no network, the real data where it is there."""

import ctypes
import ctypes.util
import json
import os
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Tests do not depend on how busy the machine is.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")

# Of several processes, each has one thread: together they are quicker than one with two.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Before anything imports mlx: its Linux wheel links a reference BLAS, 60 times slower.
if sys.platform == "linux" and (library := ctypes.util.find_library("openblas")):
    ctypes.CDLL(library, ctypes.RTLD_GLOBAL)
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# A shell that starts the tests in the background has them, and their children, ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)
DRIVER = shutil.which("chromedriver")
SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Take the slow tests last."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Start no slow test after the time that `SLOW_TESTS_UNTIL` names, in seconds since 1970.

    On a machine that is several times slower than usual, CI would be stopped without a result.
    """
    until = os.environ.get("SLOW_TESTS_UNTIL")
    if until and item.get_closest_marker("slow") and time.time() > float(until):
        pytest.skip("the machine is too slow to run all slow tests in the time there is")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the real dataset and tokenizer, which the project does not ship."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"{SHARED} is not there")
    return SHARED


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Phi-3 of two layers in float32, in Hugging Face layout, with the demo's tokenizer.

    Its weights are large enough that every part of the model counts in the logits.
    """
    from benchmarks.random_phi3 import write_random_phi3
    from mlx_yoda.model.load import resolve

    demo = resolve("demo")
    sizes = {
        "num_hidden_layers": 2,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "initializer_range": 0.3,
    }
    folder = tmp_path_factory.mktemp("base") / "phi3"
    config = json.loads((demo / "config.json").read_text()) | sizes
    write_random_phi3(folder, config, tokenizer=demo, seed=3)
    return folder


@pytest.fixture(scope="session")
def our_base(base_folder):
    """That model, loaded."""
    from mlx_yoda.model.load import load

    return load(base_folder)


@pytest.fixture(scope="session")
def make_adapter(our_base, base_folder, tmp_path_factory):
    """Writes a PEFT adapter for that model, with B away from zero, and gives its folder."""
    import mlx.core as mx

    from mlx_yoda.adapters.peft import save_adapter
    from mlx_yoda.config.schema import LoraConfig
    from mlx_yoda.lora.inject import inject, remove

    def make(**keys) -> Path:
        lora = LoraConfig(**keys)
        layers = inject(our_base.model, lora, mx.random.key(5))
        remove(our_base.model)
        drawn = mx.random.split(mx.random.key(6), len(layers))
        tensors, magnitudes = {}, {}
        for (path, layer), key in zip(layers.items(), drawn, strict=True):
            b = 0.3 * mx.random.normal(layer.lora_B.shape, key=key)
            tensors[path] = (layer.lora_A, b)
            if lora.use_dora:
                noise = mx.random.uniform(0.5, 1.5, layer.lora_magnitude_vector.shape, key=key)
                magnitudes[path] = layer.lora_magnitude_vector * noise
        folder = tmp_path_factory.mktemp("adapter")
        base = str(base_folder)
        save_adapter(folder, tensors, lora, base_model_name_or_path=base, magnitudes=magnitudes)
        return folder

    return make


@pytest.fixture(scope="module")  # an idle one still takes a fifth of a core
def browser(tmp_path_factory):
    """A headless Chromium that logs what it says and what it asks the network for."""
    if not (BROWSER and DRIVER):
        pytest.skip("there is no Chromium with its chromedriver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    profile = tmp_path_factory.mktemp("profile")
    for argument in (
        *("headless", "no-sandbox", "disable-gpu", "disable-background-networking", "no-first-run"),
        *("disable-component-update", "disable-sync", f"user-data-dir={profile}"),
    ):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        driver.quit()


@pytest.fixture
def contrast() -> Callable[[str, str], float]:
    """The contrast of two colours `#rrggbb` by WCAG 2.2, 1 to 21."""

    def luminance(color: str) -> float:
        channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    def ratio(one: str, other: str) -> float:
        low, high = sorted((luminance(one), luminance(other)))
        return (high + 0.05) / (low + 0.05)

    return ratio

"""Fixtures shared by all tests, and the gate for those that need a GPU."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from sar_experiments import cli

CHECKOUT = Path(__file__).parents[1]


@pytest.fixture
def rng():
    return np.random.default_rng(20261124)


@pytest.fixture(autouse=True, scope="session")
def cache_folder(tmp_path_factory):
    """Keep caches out of the home of whoever tests."""
    before = os.environ.get("SAR_CACHE_DIR")
    os.environ["SAR_CACHE_DIR"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["SAR_CACHE_DIR"]
    else:
        os.environ["SAR_CACHE_DIR"] = before


@pytest.fixture
def compose_config():
    """Compose our conf/ with overrides, without running anything."""

    def compose_with(*overrides):
        with initialize_config_dir(cli.conf_dir(), version_base="1.3"):
            return compose("config", overrides=list(overrides))

    return compose_with


@pytest.fixture
def typed_config(compose_config, monkeypatch):
    """Compose and turn into a checked Config, on a host without GPU."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return lambda *overrides: cli.typed(compose_config(*overrides))


@pytest.fixture
def page(tmp_path):
    """A headless browser that calls nobody but the page; skips where there is none."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("needs chromium and chromedriver (Debian: chromium chromium-driver)")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in (
        *("headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run"),
        *("disable-background-networking", "disable-component-update", "disable-sync"),
        *("window-size=1400,900", f"user-data-dir={tmp_path / 'browser'}"),
    ):
        options.add_argument(f"--{flag}")
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield opened
    opened.quit()


def pytest_collection_modifyitems(items):
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    for item in marked:
        wanted = item.get_closest_marker("gpu").kwargs.get("count", 1)
        if torch.cuda.device_count() >= wanted:
            continue
        if os.environ.get("REQUIRE_GPU") and not torch.cuda.device_count():
            pytest.exit(f"REQUIRE_GPU is set, but {item.nodeid} needs {wanted} CUDA device(s)", 1)
        item.add_marker(pytest.mark.skip(reason=f"needs {wanted} CUDA device(s)"))

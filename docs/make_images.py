"""Take the pictures of docs/images/ from a real service and a real report, with a headless Chromium.

    .venv/bin/python docs/make_images.py [--report runs/ab/report.html]

Needs the `dev` extra and Debian's chromium. Without `--report` the chat page alone is taken.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

IMAGES = Path(__file__).with_name("images")
QUESTION = "Chi ha insegnato a leggere a Tecla?"


def take_chat(browser: Any, folder: Path) -> None:
    """A question to the sample library, its answer, and the source opened at the quotation."""
    command = [
        "-m",
        "stilnovo.cli.main",
        "serve",
        "--sample",
        "--library",
        str(folder / "library.sqlite"),
        "--port",
        "0",
        "--json",
    ]
    with subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as service:
        try:
            assert service.stdout is not None
            address = json.loads(next(line for line in service.stdout if line.startswith("{")))["address"]
            page = browser.new_page(viewport={"width": 1240, "height": 620}, locale="it-IT")
            page.goto(address)
            page.wait_for_selector("html[data-ready]")
            page.fill("#message", QUESTION)
            page.press("#message", "Enter")
            page.locator("figure.quotation.verified").first.wait_for()
            page.locator(".cite").first.click()
            page.locator("#reader mark").first.wait_for()
            page.locator("figure.quotation.verified").first.scroll_into_view_if_needed()
            page.wait_for_timeout(800)
            page.screenshot(path=str(IMAGES / "chat.png"))
        finally:
            service.terminate()


def take_report(browser: Any, report: Path) -> None:
    """The first screen of a report."""
    page = browser.new_page(viewport={"width": 1240, "height": 900})
    page.goto(report.resolve().as_uri())
    page.wait_for_timeout(500)
    page.screenshot(path=str(IMAGES / "report.png"), clip={"x": 60, "y": 90, "width": 1120, "height": 760})


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--report", type=Path, help="a report.html to take, too")
    options = parser.parse_args()
    IMAGES.mkdir(exist_ok=True)
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as started, tempfile.TemporaryDirectory() as folder:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        take_chat(browser, Path(folder))
        if options.report is not None:
            take_report(browser, options.report)
        browser.close()


if __name__ == "__main__":
    main()

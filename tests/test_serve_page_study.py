"""The instruments of study on the page: a concordance, parallel passages, how a work is cited, answers from records, exports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from serving import QUESTION, sample_file, serving
from test_serve_page import ask, browser, playwright, pytestmark, reading

__all__ = ["browser", "playwright", "pytestmark"]


def test_a_library_is_studied_on_the_page(browser: Any, tmp_path: Path) -> None:
    with serving(sample_file(tmp_path)) as service, reading(browser, service.base_url) as page:
        page.click("#to-shelf")
        page.locator(".work").first.wait_for()
        page.select_option("#seek_kind", "concordance")
        page.fill("#seek", "faro")
        page.press("#seek", "Enter")
        page.locator(".kwic tr").first.wait_for()
        lines = page.locator(".kwic tr").count()
        assert service.get("/api/concordance", params={"q": "faro"}).json()["places"] == lines
        page.select_option("#order", "right")
        page.locator(".kwic .cite").first.click()
        page.locator("#reader mark").first.wait_for()
        assert "far" in page.locator("#reader mark").first.inner_text().lower()
        page.keyboard.press("Escape")
        with page.expect_download() as download:
            page.locator(".study-head a").click()
        assert len(Path(download.value.path()).read_text(encoding="utf-8").splitlines()) == lines + 1
        page.select_option("#seek_kind", "passages")
        page.locator(".hit button.plain").first.click()
        page.locator(".parallels li").first.wait_for()
        page.goto(f"{service.base_url}/#/biblioteca/{service.get('/api/works').json()['works'][0]['sha256']}")
        page.locator(".reference summary").click()
        assert page.locator(".reference pre").inner_text().startswith("@book{")


def test_answers_from_records_have_no_mark_and_conversations_are_exported(browser: Any, tmp_path: Path) -> None:
    with serving(sample_file(tmp_path)) as service, reading(browser, service.base_url) as page:
        ask(page, "Quali opere ci sono?")
        assert "Il faro di Pietranera" in page.locator(".answer .prose").inner_text()
        assert page.locator(".answer .badge, .answer figure").count() == 0
        assert "dalle schede della biblioteca" in page.locator(".answer .meta").inner_text()
        ask(page, QUESTION)
        page.click("#menu summary")
        with page.expect_download() as download:
            page.click("#export-docx")
        assert Path(download.value.path()).read_bytes().startswith(b"PK")

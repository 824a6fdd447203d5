"""The page in a real browser, as a reader uses it: no console error anywhere."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from serving import DIED, QUESTION, Scripted, sample_file, serving

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium: apt-get install chromium")
BOOK = (
    "Titolo: La casa sul fiume\nAutore: Ada Bruni\nAnno: 1891\n\nCAPITOLO PRIMO\n\nEra una sera di novembre, e la nebbia "
    "saliva dal fiume.\n\nCAPITOLO SECONDO\n\nQuando Zefirino tornò, il cane non lo riconobbe. 𝔘n <b>segno</b>.\n"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        switches = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=switches)
        yield chromium
        chromium.close()


@contextmanager
def reading(browser: Any, address: object, refused: int = 0, **settings: Any) -> Iterator[Any]:
    """A page that is open; afterwards its console must be clean but for that many refused requests."""
    settings = {"locale": "it-IT", "viewport": {"width": 1200, "height": 800}, **settings}
    context = browser.new_context(**settings)
    context.set_default_timeout(10_000)
    page, complaints = context.new_page(), []
    page.on(
        "console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(str(address))
    page.wait_for_selector("html[data-ready]")
    try:
        yield page
    finally:
        context.close()
    # Chromium itself notes a refused request; nothing else may be said.
    assert len([c for c in complaints if "the server responded with a status of" in c]) == refused, complaints
    assert not [c for c in complaints if "the server responded with a status of" not in c], complaints
    assert all(url.startswith(str(address)[:16]) for url in asked), "something was fetched from elsewhere"


def ask(page: Any, text: str) -> None:
    answers = page.locator(".answer .tools").count()
    page.fill("#message", text)
    page.press("#message", "Enter")
    page.locator(".answer .tools").nth(answers).wait_for()


def test_a_readers_hour(browser: Any, tmp_path: Path) -> None:
    """Ask, open the citation, upload, ask about the upload, reload, find it all again, delete."""
    with serving(sample_file(tmp_path)) as service, reading(browser, service.base_url) as page:
        ask(page, QUESTION)
        assert page.locator(".question p").inner_text() == QUESTION
        quotation = page.locator("figure.quotation.verified blockquote").first.inner_text()
        page.locator(".cite").first.click()
        page.locator("#reader mark").first.wait_for()
        marked = " ".join(page.locator("#reader mark").all_inner_texts())  # a mark in each paragraph
        assert marked.split() == quotation.strip("«»").split()
        assert page.locator("#reader h2").inner_text() == "Il faro di Pietranera"
        assert page.evaluate("document.activeElement.id") == "reader-title"
        page.locator("#reader .reader-foot button").last.click()
        page.locator("#reader h3", has_text="Capitolo IV").wait_for()
        page.keyboard.press("Escape")
        assert page.locator("#reader").is_hidden()
        assert "cite" in page.evaluate("document.activeElement.className")  # the focus is back where it was

        page.click("#to-shelf")
        page.locator(".work").nth(1).wait_for()
        with page.expect_file_chooser() as chooser:
            page.click("#add-text")
        chooser.value.set_files({"name": "<i>casa.txt", "mimeType": "text/plain", "buffer": BOOK.encode()})
        preview = page.locator("dialog.preview")
        preview.wait_for()
        assert preview.locator("input[name=title]").input_value() == "La casa sul fiume"
        assert preview.locator("input[name=author]").input_value() == "Ada Bruni"
        assert preview.locator(".found li").count() == 2
        assert preview.locator(".facts").inner_text().startswith("<i>casa.txt · ")
        assert preview.locator("i, b, script").count() == 0
        preview.locator("input[name=title]").fill("La casa <u>sul</u> fiume")
        preview.locator(".main-act").click()
        page.locator(".work-head h2", has_text="La casa <u>sul</u> fiume").wait_for()
        page.locator(".contents button").last.click()
        page.locator("#reader .reader-body p", has_text="𝔘n <b>segno</b>").wait_for()
        page.keyboard.press("Escape")
        assert page.locator("#work-count").inner_text() == "3"

        page.locator("#list a").first.click()
        page.locator(".question").wait_for()
        ask(page, "Chi è Zefirino?")
        page.locator(".cite").last.click()
        page.locator("#reader mark").first.wait_for()
        assert "Zefirino" in page.locator("#reader mark").first.inner_text()
        address = page.url
        page.reload()
        page.wait_for_selector("html[data-ready]")
        assert page.url == address
        assert page.locator(".question p").all_inner_texts() == [QUESTION, "Chi è Zefirino?"]
        assert page.locator("#list a[aria-current]").inner_text() == QUESTION
        page.click("#menu summary")
        with page.expect_download() as download:
            page.click("#export-markdown")
        assert QUESTION in Path(download.value.path()).read_text(encoding="utf-8")
        page.click("#delete")
        page.locator("dialog .grave-act").click()
        page.locator(".welcome").wait_for()
        page.locator("#list .none").wait_for()
        assert service.get("/api/conversations").json()["conversations"] == []


def test_an_answer_streams_stops_and_is_made_anew(browser: Any, tmp_path: Path) -> None:
    writer = Scripted([f"parola{i} " for i in range(400)], pause=0.02)
    with serving(sample_file(tmp_path), writer, answers=1) as service, reading(browser, service.base_url) as page:
        page.locator("#modes label", has_text="Solo modello").click()
        page.click("#tune")
        page.locator("#control-temperature").fill("1.2")
        page.locator("#control-seed").fill("7")
        page.locator("#control-system").fill("Rispondi in rima.")
        page.fill("#message", "racconta")
        page.press("#message", "Enter")
        page.locator(".writing .prose", has_text="parola3").wait_for()
        assert page.locator("article[aria-busy=true]").count() == 1
        assert page.locator("#send").is_hidden()
        page.click("#stop")
        page.locator(".answer .aside-note", has_text="Interrotta").wait_for()
        stopped = page.locator(".answer .prose").inner_text()
        assert stopped.startswith("parola0")
        assert writer.seeds == [7]
        assert writer.read[0][0].content == "Rispondi in rima."
        page.reload()
        page.wait_for_selector("html[data-ready]")
        assert page.locator(".answer .prose").inner_text().startswith("parola0 parola1")
        assert page.locator("input[value=chat]").is_checked()  # remembered
        writer.pieces, writer.pause = ["Ecco ", "**fatto**", " e <b>nudo</b>.\n\n- uno\n- due"], 0
        page.keyboard.press("Alt+r")
        page.locator(".answer strong", has_text="fatto").wait_for()
        assert "<b>nudo</b>" in page.locator(".answer .prose").inner_text()
        assert page.locator(".answer li").all_inner_texts() == ["uno", "due"]
        assert writer.seeds == [7, 8]
        writer.pieces, writer.after = ["A metà "], DIED
        ask(page, "e poi?")
        assert "chiuso la connessione" in page.locator(".trouble").inner_text()
        assert page.locator(".answer .prose").last.inner_text() == "A metà"


ESSAY = (
    "Il guardiano: «Era un uomo alto, asciutto, con la barba tagliata corta» (Il faro di Pietranera).\n\n"
    "Altrove: «Il faro era stato costruito nel 1864 con la stessa pietra dell'isola» (Il faro di Pietranera).\n\n"
    "Un critico aggiunge: «Il <b>mare</b> non perdona chi lo guarda senza timore e senza sale».\n"
)


def test_a_text_is_checked_quotation_by_quotation(browser: Any, tmp_path: Path) -> None:
    """Paste, read the tally, see one kind alone, open the source, save the result; then the same from a dropped file."""
    with serving(sample_file(tmp_path)) as service, reading(browser, service.base_url) as page:
        page.keyboard.press("Alt+c")
        page.locator("#essay").fill(ESSAY)
        page.keyboard.press("Control+Enter")
        page.locator("#tally").wait_for()
        assert page.locator("#tally strong").all_inner_texts() == ["1", "1", "0", "1"]
        assert page.locator("#status").inner_text() == "3 citazioni: 1 esatta, 1 inesatta, 1 non trovata"
        assert page.evaluate("document.activeElement.id") == "tally"
        assert page.locator(".checked .badge").all_inner_texts() == ["esatta", "inesatta", "non trovata"]
        assert page.locator(".checked del").inner_text().endswith("1864")
        assert page.locator(".checked ins").inner_text().endswith("1846")
        assert "<b>mare</b>" in page.locator(".checked.unverified b").inner_text()
        page.locator(".checked .cite").first.click()
        page.locator("#reader mark").first.wait_for()
        assert page.locator("#reader mark").inner_text() == "Era un uomo alto, asciutto, con la barba tagliata corta"
        page.keyboard.press("Escape")
        page.locator("#only-not_found").click()
        assert page.locator(".checked .badge").all_inner_texts() == ["non trovata"]
        with page.expect_download() as download:
            page.click("#save-report")
        saved = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
        assert saved["counts"] == {"verified": 1, "inexact": 1, "misattributed": 0, "not_found": 1}
        page.click("#language")
        assert page.locator(".checked .badge").all_inner_texts() == ["not found"]
        page.evaluate(
            """() => { const files = new DataTransfer();
            files.items.add(new File(['Una pagina senza citazioni.'], 'tesi.md', {type: 'text/markdown'}));
            dispatchEvent(new DragEvent('drop', {dataTransfer: files})); }"""
        )
        page.locator(".results .nothing", has_text="no quotations").wait_for()
        assert service.get("/api/works").json()["works"][2:] == []  # checked, not added


PLAY = """<TEI><teiHeader><fileDesc><titleStmt><title>La prova</title><author>Bruni, Ada</author></titleStmt></fileDesc>
</teiHeader><text><body><div type="act" n="1"><div type="scene" n="1"><stage>Sala di locanda.</stage>
<sp><speaker>Mirandolina</speaker><p>Non voglio protettori<note>Così nella prima edizione.</note>, non voglio
re<pb n="12" break="no"/>gali.</p></sp>
<sp><speaker>Cavaliere</speaker><l n="5">Vedo pur troppo che per vincere</l><l n="6">non basta disprezzarvi.</l></sp></div>
<div type="scene" n="2"><p>Resta la scena vuota.</p></div></div></body></text></TEI>"""


def test_what_stands_beside_the_authors_words_is_shown_in_its_place(browser: Any, tmp_path: Path) -> None:
    """The preview says how much it is; in the reader it has its place, opens, and is not copied with the text."""
    with serving(sample_file(tmp_path)) as service, reading(browser, service.base_url) as page:
        page.click("#to-shelf")
        with page.expect_file_chooser() as chooser:
            page.click("#add-text")
        chooser.value.set_files({"name": "prova.xml", "mimeType": "text/xml", "buffer": PLAY.encode()})
        preview = page.locator("dialog.preview")
        preview.wait_for()
        facts = preview.locator(".set-apart").inner_text()
        assert facts == "Fuori dal testo dell’autore: 9 parole (nota 4, didascalia 3, personaggio 2)"
        preview.locator(".main-act").click()
        page.locator(".contents button").first.click()
        body = page.locator("#reader .reader-body")
        body.locator(".apart.speaker").first.wait_for()
        assert body.locator(".apart.stage").inner_text() == "Sala di locanda."
        assert body.locator(".apart.speaker").all_inner_texts() == ["Mirandolina", "Cavaliere"]
        assert body.locator(".verses li").first.get_attribute("data-number") == "5"
        assert body.locator(".note-text").is_hidden()
        body.locator(".note-mark").click()
        assert body.locator(".note-text").inner_text() == "Così nella prima edizione."
        assert body.locator(".note-mark").get_attribute("aria-expanded") == "true"
        selected = page.evaluate(
            """() => { getSelection().selectAllChildren(document.querySelector('#reader .reader-body'));
            return getSelection().toString(); }"""
        )
        assert "Non voglio protettori, non voglio regali." in selected
        assert "edizione" not in selected
        assert "Mirandolina" not in selected
        page.keyboard.press("Escape")
        page.evaluate("location.hash = '#/biblioteca'")
        page.fill("#seek", "edizione")
        page.press("#seek", "Enter")
        page.locator(".author .hit", has_text="Nota: Così nella prima edizione.").wait_for()
        assert page.locator(".author h2").inner_text() == "Fuori dal testo dell’autore"


def test_a_corrected_file_says_what_it_replaces(browser: Any, tmp_path: Path) -> None:
    """The preview names the work; it is replaced unless both are to be kept."""
    with serving(sample_file(tmp_path)) as service, reading(browser, service.base_url) as page:
        page.click("#to-shelf")
        for text, both in (
            (BOOK, None),
            (BOOK.replace("tornò", "ritornò"), False),
            (BOOK.replace("tornò", "venne"), True),
        ):
            page.evaluate("location.hash = '#/biblioteca'")
            page.locator("#add-text").wait_for()
            with page.expect_file_chooser() as chooser:
                page.click("#add-text")
            chooser.value.set_files({"name": "casa.txt", "mimeType": "text/plain", "buffer": text.encode()})
            preview = page.locator("dialog.preview")
            preview.wait_for()
            if both is not None:
                assert "Sostituisce «La casa sul fiume» (Ada Bruni, 1891)" in preview.locator(".same").inner_text()
                preview.locator("input[name=keep_both]").set_checked(both)
            preview.locator(".main-act").click()
            page.locator(".work-head h2", has_text="La casa sul fiume").wait_for()
        works = service.get("/api/works").json()["works"]
        assert [work["title"] for work in works].count("La casa sul fiume") == 2


def test_words_that_cannot_be_sent_are_not_lost(browser: Any, tmp_path: Path) -> None:
    with serving(sample_file(tmp_path)) as service:
        with reading(browser, service.base_url, refused=1) as page:
            page.route(
                "**/messages",
                lambda route: route.fulfill(status=503, json={"error": {"code": "locked", "message": "x"}}),
            )
            page.fill("#message", "Una domanda lunga")
            page.press("#message", "Enter")
            page.locator("#notice", has_text="sta scrivendo nella biblioteca").wait_for()
            assert page.input_value("#message") == "Una domanda lunga"
            page.unroute("**/messages")
            page.press("#message", "Enter")
            page.locator(".answer .tools").wait_for()
        with reading(browser, service.base_url, refused=1) as page:
            page.goto(f"{service.base_url}/#/c/{'0' * 32}")
            page.locator("#notice", has_text="Non c’è più").wait_for()


def test_the_language_and_the_theme_are_remembered(browser: Any, tmp_path: Path) -> None:
    with (
        serving(sample_file(tmp_path)) as service,
        reading(browser, service.base_url, locale="en-GB", color_scheme="dark") as page,
    ):
        html = page.locator("html")
        assert html.get_attribute("lang") == "en"
        assert html.get_attribute("data-theme") == "dark"
        assert page.locator("#new").inner_text() == "New conversation"
        page.click("#language")
        page.click("#theme")
        page.reload()
        page.wait_for_selector("html[data-ready]")
        assert page.locator("#new").inner_text() == "Nuova conversazione"
        assert html.get_attribute("data-theme") == "light"


def test_everything_is_reached_and_named_by_keyboard(browser: Any, tmp_path: Path) -> None:
    with serving(sample_file(tmp_path)) as service, reading(browser, service.base_url) as page:
        assert page.evaluate("document.activeElement.id") == "message"
        page.keyboard.press("Alt+b")
        page.locator(".work").first.wait_for()
        page.keyboard.press("Alt+n")
        page.locator(".welcome").wait_for()
        page.keyboard.press("Escape")
        page.locator(".welcome h2").click()
        page.keyboard.press("?")
        page.locator("dialog kbd").first.wait_for()
        page.keyboard.press("Escape")
        page.keyboard.press("/")
        assert page.evaluate("document.activeElement.id") == "message"
        ask(page, QUESTION)
        names = page.evaluate(
            """() => [...document.querySelectorAll('button, a, input, textarea, summary')].filter((e) => e.offsetParent)
            .map((e) => [e.id || e.className, e.getAttribute('aria-label') || e.textContent.trim()
              || (e.labels && e.labels[0] && e.labels[0].innerText) || ''])"""
        )
        assert not [what for what, name in names if not name], "without a name for a screen reader"
        landmarks = page.evaluate(
            "['nav','main','h1','[role=log]','[role=status]'].map((s) => document.querySelectorAll(s).length)"
        )
        assert landmarks == [1, 1, 1, 1, 1]
        ids = page.evaluate("[...document.querySelectorAll('[id]')].map((e) => e.id)")
        assert len(ids) == len(set(ids))
        reached = set()
        page.locator("body").click(position={"x": 5, "y": 5})
        for _ in range(40):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.id || document.activeElement.className"))
        assert {"new", "message", "tune", "language", "theme", "help", "to-shelf", "cite"} <= reached


def contrast(first: str, second: str) -> float:
    """WCAG 2.2's contrast ratio of two `rgb(…)` colours."""

    def luminance(colour: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_can_be_read_in_both_themes_and_on_a_phone(browser: Any, tmp_path: Path, theme: str) -> None:
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "color_scheme": theme}
    with serving(sample_file(tmp_path)) as service, reading(browser, service.base_url, **phone) as page:
        ask(page, QUESTION)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        for selector in (".question p", ".quotation blockquote", ".cite", ".badge", ".meta", ".tools .plain", "#title"):
            colours = page.locator(selector).first.evaluate(
                "(e) => [getComputedStyle(e).color, getComputedStyle(document.body).backgroundColor]"
            )
            assert contrast(*colours) >= 4.5, (selector, colours)
        page.locator(".cite").first.tap()
        page.locator("#reader mark").first.wait_for()
        box = page.locator("#reader").bounding_box()
        assert (box["width"], box["height"]) == (390, 844)
        page.locator("#reader .icon").first.tap()
        page.tap("#open-side")
        page.locator("#list a").first.tap()
        page.locator("#side:not(.open)").wait_for(state="attached")
        assert page.locator(".quotation").first.is_visible()


def test_the_token_is_asked_for_once(browser: Any, tmp_path: Path) -> None:
    token = "una-chiave-abbastanza-lunga"
    with serving(sample_file(tmp_path), token=token) as service:
        context = browser.new_context(locale="it-IT")
        page = context.new_page()
        page.goto(str(service.base_url))
        page.locator("dialog input").fill("sbagliata")
        page.keyboard.press("Enter")
        page.locator("dialog [role=alert]").wait_for()
        page.locator("dialog input").fill(token)
        page.keyboard.press("Enter")
        page.wait_for_selector("html[data-ready]")
        ask(page, QUESTION)
        page.reload()
        page.wait_for_selector("html[data-ready]")
        assert page.locator("dialog").count() == 0
        assert token not in str(page.evaluate("JSON.stringify({...localStorage}) + document.cookie"))
        context.close()


def test_a_model_cannot_write_markup_into_the_page(browser: Any, tmp_path: Path) -> None:
    attack = '<img src=x onerror="document.title=1"><script>document.title=2</script>[x](javascript:alert(3)) «<b>a</b> b c d»'
    writer = Scripted([attack])
    with serving(sample_file(tmp_path), writer) as service, reading(browser, service.base_url) as page:
        page.locator("#modes label", has_text="Biblioteca e modello").click()
        ask(page, "Che cosa dice il faro?")
        page.locator("#modes label", has_text="Solo modello").click()
        ask(page, attack)
        assert page.locator("#thread img, #thread script, #thread b, #thread a").count() == 0
        assert attack in page.locator(".answer .prose").last.inner_text()
        assert page.title().endswith("stilnovo")


def test_what_became_of_each_quotation_is_seen(browser: Any, tmp_path: Path) -> None:
    writer = Scripted(
        [
            "Fu così: «Ogni giovedi dopo il pane Anselmo avrebbe insegnato a leggere a Tecla» [P1]. ",
            "«Nessuno doveva saperlo» [P1], e anche «il mare era verde come il vetro quella notte» [P2].",
        ]
    )
    with serving(sample_file(tmp_path), writer) as service, reading(browser, service.base_url) as page:
        ask(page, QUESTION)
        assert page.locator(".repaired blockquote").inner_text().startswith("«Ogni giovedì, dopo il pane, Anselmo")
        assert page.locator("button.inline-quote.verified").inner_text() == "«Nessuno doveva saperlo»"
        assert "verde come il vetro" in page.locator("span.inline-quote.unverified").inner_text()
        assert page.locator(".badge.unverified").inner_text() == "non verificata"
        page.locator("button.inline-quote.verified").click()
        page.locator("#reader mark").first.wait_for()
        assert page.locator("#reader mark").inner_text() == "Nessuno doveva saperlo"


def test_quotations_are_shown_where_the_service_says_they_stand(browser: Any, tmp_path: Path) -> None:
    """Twice the same one, after characters beyond the basic plane, and one that stands nowhere."""
    true, false = "Anselmo avrebbe insegnato a leggere a Tecla", "il faro fu venduto ai pirati"
    writer = Scripted([f"𝔘n 🙂 segno: «{true}» [P1], e poi «{true}» [P1]. ", f"Ma «{false}» no."])
    with serving(sample_file(tmp_path), writer) as service, reading(browser, service.base_url) as page:
        ask(page, QUESTION)
        for _ in range(2):  # as it was written, and as it was stored
            quotations = page.locator(".inline-quote")
            assert quotations.all_inner_texts() == [f"«{true}»", f"«{true}»", f"«{false}»"]
            assert quotations.nth(2).get_attribute("class") == "inline-quote unverified"
            prose = page.locator(".answer .prose").inner_text()
            assert prose.startswith(f"𝔘n 🙂 segno: «{true}», e poi «{true}». Ma «{false}»")
            assert "citazione non verificata" not in prose
            page.reload()
            page.wait_for_selector("html[data-ready]")
        page.locator("button.inline-quote").nth(1).click()
        page.locator("#reader mark").first.wait_for()
        assert "".join(page.locator("#reader mark").all_inner_texts()) == true

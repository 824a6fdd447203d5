"""HTML to documents: every word, what is not the author's apart; scripts are left out, no page is slow."""

from __future__ import annotations

import pytest

from stilnovo.errors import InputError
from stilnovo.library.names import Names
from stilnovo.library.read import understand
from stilnovo.library.sections import split
from test_library_epub import PROSE, labels

PAGE = f"""<!DOCTYPE html><html><head><meta charset="utf-8"><title>Il vetraio</title><meta name="author" content="Prova, Ada">
<meta name="date" content="1901"><style>p {{ color: red }}</style><script>alert("ruba")</script></head><body>
<nav>Indice: Capitolo I, Capitolo II</nav><h1>IL VETRAIO</h1>
<h2>PARTE PRIMA</h2><h3>Capitolo I<br>La fornace</h3><p>{PROSE}</p><p onclick="alert(1)">Ardeva <i>da
tre</i> giorni.<script>alert(2)</script></p>
<h3>Capitolo II</h3><p>{PROSE}</p>
<h2>PARTE SECONDA</h2><h3>Capitolo I</h3><div class="poem">Cantava il vetro,<br/>cantava piano,<br/>cantava</div>
<img src="http://127.0.0.1:9/x.png"><iframe src="file:///etc/passwd">dentro</iframe></body></html>"""


PLACES = ["", "Parte I, Capitolo I", "Parte I, Capitolo II", "Parte II, Capitolo I"]


def test_html() -> None:
    document = understand(PAGE.encode(), "pagina.html")
    assert document.names == Names("Il vetraio", "Ada Prova", 1901)
    assert labels(document) == PLACES
    assert "Ardeva da tre giorni." in document.text
    assert "Cantava il vetro,\ncantava piano,\ncantava" in document.text
    for word in ("alert", "color", "Indice", "dentro", "<"):
        assert word not in document.text
    titles = [section.title for section in split(document.text, document.headings)]
    assert titles[1] == "La fornace"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "latin-1", "cp1252"])
def test_html_in_old_encodings(encoding: str) -> None:
    page = PAGE.replace('<meta charset="utf-8">', "").replace("’", "'")
    assert understand(page.encode(encoding), "a.htm").text == understand(page.encode(), "a.htm").text


def test_badly_written_html() -> None:
    document = understand(b"<p>Uno<p>due <b>tre<p>&egrave; &copy; <table><td>quattro", "a.html")
    assert document.text.split() == ["Uno", "due", "tre", "è", "©", "quattro"]
    deep = "<div>" * 100_000 + "fondo" + "</div>" * 100_000
    assert understand(deep.encode(), "a.html").text == "fondo"
    for empty in ("<html></html>", "<script>x</script>", "<!-- a -->"):
        with pytest.raises(InputError, match=r"empty|no page"):
            understand(empty.encode(), "a.html")

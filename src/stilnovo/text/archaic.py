"""Normalise old Italian spellings to modern ones, for the stemmed index only.

Dante has *core*, *foco*, *virtute*, *etade*; the nineteenth century *notajo*, *studj*, *dicea*. A word is exchanged
only where its old form is no other common word of today, so the list is short and closed. All words are folded
(`stilnovo.text.italian.fold`): lower case, no accents.
"""

from __future__ import annotations

import re

_LISTED = """
core=cuore cori=cuori foco=fuoco fochi=fuochi loco=luogo lochi=luoghi giuoco=gioco giuochi=giochi giuocare=giocare
giuocava=giocava novo=nuovo nova=nuova novi=nuovi nove=nuove bono=buono bona=buona boni=buoni bone=buone omo=uomo
omini=uomini homo=uomo homini=uomini move=muove movono=muovono more=muore pote=puo puote=puo vole=vuole rota=ruota
rote=ruote scola=scuola scole=scuole figliuolo=figliolo figliuola=figliola figliuoli=figlioli figliuole=figliole
spagnuolo=spagnolo spagnuola=spagnola spagnuoli=spagnoli lenzuolo=lenzolo pruova=prova pruove=prove truova=trova
truovano=trovano brieve=breve brievi=brevi priego=prego prieghi=preghi priega=prega niego=nego niega=nega
leggiero=leggero leggiera=leggera leggieri=leggeri leggiere=leggere dilicato=delicato dilicata=delicata
dilicati=delicati disio=desiderio disii=desideri desio=desiderio desire=desiderio disire=desiderio spene=speranza
speme=speranza alma=anima alme=anime augello=uccello augelli=uccelli angiolo=angelo angioli=angeli dimonio=demonio
dimoni=demoni imperadore=imperatore imperadori=imperatori ambasciadore=ambasciatore ambasciadori=ambasciatori
servidore=servitore servidori=servitori peccadore=peccatore amadore=amatore lagrima=lacrima lagrime=lacrime
lagrimare=lacrimare lagrimoso=lacrimoso secreto=segreto secreta=segreta secreti=segreti sagro=sacro sagra=sacra
lito=lido liti=lidi etterno=eterno etterna=eterna etterni=eterni maraviglia=meraviglia maraviglie=meraviglie
maraviglioso=meraviglioso maravigliosa=meravigliosa maravigliato=meravigliato giovine=giovane giovini=giovani
giovinetto=giovanetto giovinetta=giovanetta danaro=denaro danari=denari quistione=questione quistioni=questioni
eguale=uguale eguali=uguali obbedire=ubbidire obbediva=ubbidiva stromento=strumento stromenti=strumenti
istrumento=strumento istrumenti=strumenti romore=rumore romori=rumori nimico=nemico nimici=nemici nimica=nemica
inimico=nemico inimici=nemici serocchia=sorella sirocchia=sorella veggio=vedo veggo=vedo deggio=devo debbo=devo
dicea=diceva dicean=dicevano avea=aveva avean=avevano aveano=avevano dovea=doveva potea=poteva poteano=potevano
volea=voleva sapea=sapeva vedea=vedeva facea=faceva parea=pareva stridea=strideva credea=credeva tenea=teneva
vivea=viveva ridea=rideva piangea=piangeva correa=correva parean=parevano
virtute=virtu virtuti=virtu servitute=servitu gioventute=gioventu cittate=citta cittati=citta pietate=pieta
libertate=liberta veritate=verita bontate=bonta beltate=belta maestate=maesta umilitate=umilta umiltate=umilta
caritate=carita dignitate=dignita povertate=poverta nobilitate=nobilta nobiltate=nobilta etate=eta unitate=unita
trinitate=trinita onestate=onesta volontate=volonta santitate=santita felicitate=felicita castitate=castita
"""
_TODAY = dict(pair.split("=") for pair in _LISTED.split())
_ADE = re.compile(r"(?<=[a-z]t)([au])d[ei]$")


def modern(word: str) -> str:
    """Modern form of a folded word: *foco* → *fuoco*, *cittade* → *citta*, *notajo* → *notaio*; others unchanged."""
    if "j" in word and len(word) > 2:
        word = word.replace("j", "i")
    if word.endswith(("tade", "tude", "tadi", "tudi")):
        return _ADE.sub(r"\1", word)
    return _TODAY.get(word, word)

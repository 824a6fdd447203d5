"""Synonym groups of common Italian words, for query expansion.

A question says *edificare* where the novel says *fabbricare*, *denaro* where it says *lire*. Each line is one idea, with
the irregular forms that stems do not bring together (*ucciso*, *uccidere*). Kept to common words: an expansion counts
for less than the word itself, and names are never expanded.
"""

from __future__ import annotations

from functools import lru_cache

from stilnovo.text.italian import STOP_WORDS, stem

_IDEAS = """
uccidere ucciso uccise ammazzare assassinare assassino assassinio omicida delitto strangolare pugnalare trucidare
morire morto morte muore moriva perire spirare decesso vittima defunto annegare affogare
nascere nato nacque nascita
abitare vivere dimora casa casetta casuccia dimorare abitazione alloggiare alloggio stare stava
costruire costruito costrusse edificare fabbricare erigere eretto innalzare
sposare sposo matrimonio nozze moglie marito maritare consorte
amare amore innamorato innamorare voler bene
odiare odio detestare
denaro danaro soldo lira scudo quattrino moneta somma oro ricchezza patrimonio
barca battello nave bastimento brigantino veliero vascello imbarcazione
viaggio viaggiare partire partenza traversata cammino
carcere prigione galera reclusione detenuto imprigionare arrestare arresto
foglio carta lettera documento scritto biglietto
bambino bimbo fanciullo piccolo ragazzo infanzia figliuolo
bambina bimba fanciulla ragazza figliuola
figlio figliuolo
figlia figliuola
padre babbo papa genitore
madre mamma genitrice
fratello sorella
cimitero camposanto sepoltura tomba seppellire sepolto
casa palazzo villa edificio
chiesa parrocchia santuario tempio cappella
prete sacerdote curato parroco reverendo don
frate monaco cappuccino padre convento
monaca suora monacare convento
medico dottore
soldato militare guerra combattere esercito battaglia
contadino villano campagna
servo servitore serva domestico domestica fante cameriere
padrone signore
ricco ricchezza agiato
povero poverta miseria misero
vecchio anziano vecchiaia
giovane giovinetto giovinezza gioventu
bello bellezza avvenente vago leggiadro
brutto bruttezza deforme
paura timore spavento terrore temere spaventare
temporale tempesta burrasca tuono fulmine bufera
dire disse dice detto rispondere rispose raccontare narrare
parlare discorrere discorso conversare
scrivere scritto scrisse
leggere letto lesse lettura
insegnare insegnamento maestro istruire imparare
pensare pensiero riflettere
vedere visto vide guardare scorgere
sentire udire udito ascoltare
trovare rinvenire scoprire scoperta scoperto scopri
scoprire scopri capire capi comprendere compreso intendere accorgersi accorse accorto indovinare
cercare ricercare
nascondere nascosto nascose celare celato occultare
scomparire scomparso sparire sparito perdere perduto
prendere preso prese pigliare afferrare
dare dato diede donare dono regalare regalo offrire offerse
portare recare trasportare trasporto carico
tenere trattenere stringere serrare
mettere messo mise porre posto posare
aprire aperto
chiudere chiuso serrare
spegnere spento spense
accendere acceso accese
fuggire fuga scappare scampare
tornare ritornare ritorno
arrivare giungere giunto giunse arrivo
incontrare incontro imbattersi
chiamare nome nominare detto soprannome
significare significato vuol voler
cominciare principiare incominciare inizio principio
finire fine terminare termine conclusione
vincere vinto vinse vittoria
perdonare perdono
trasformare diventare divenne mutare cambiare convertire tramutare trasmutare
tradire tradimento traditore tradito
rubare furto ladro
ingannare inganno imbroglio truffa
punire castigo pena condannare condanna
colpa colpevole reo
segreto mistero arcano ignorare
lavoro mestiere professione impiego lavorare
mangiare cibo pranzo cena
bere bevuto bevve vino
piangere pianto pianse lagrima lacrima
ridere riso rise
malattia malato infermo ammalare ammalato
guarire guarigione
cieco cecita
strada via cammino viale
paese villaggio borgo paesetto terra
citta cittadino
mare onda oceano
costa riva spiaggia lido terraferma
distanza lontano lungi miglio miglia chilometro
altezza alto
monte montagna collina
bosco selva foresta
fiume torrente acqua
cavallo destriero
cane cagna
notte notturno
giorno giornata di
anno annata
iscrizione inscrizione scritta epigrafe
bandiera bandierina vessillo stendardo
quadro dipinto dipingere ritratto pittura
motivo ragione causa perche cagione
ordinare ordino comandare comando imporre impose ingiungere
chiedere chiese domandare domanda pregare prego
canzone canzonetta cantare canto cantilena
impiego impiegato impieguccio ufficio posto
usura usuraio usuraia prestare prestito presta
serva fantesca sguattera domestica cameriera
animale bestia belva fiera
difetto imperfezione magagna pecca
motto divisa
anima spirito
cuore petto core
volto viso faccia
mano mani
occhi occhio sguardo
"""


_COMMON = frozenset(map(stem, STOP_WORDS))  # "perire" has the stem of "per"
_GROUPS = [frozenset(map(stem, line.split())) - _COMMON for line in _IDEAS.strip().split("\n")]


@lru_cache(maxsize=10_000)
def kin(form: str) -> frozenset[str]:
    """Stems of the synonyms of a stem."""
    return frozenset[str]().union(*(group for group in _GROUPS if form in group)) - {form}

"""`stilnovo library`: its commands, in the order of its help. Each group of them has a file of its own."""

from __future__ import annotations

from stilnovo.cli.common import command_group
from stilnovo.cli.library_add import add, fetch_work, list_catalogue, reread
from stilnovo.cli.library_backup import backup, restore
from stilnovo.cli.library_show import list_works, search, show
from stilnovo.cli.library_study import cite, concordance, parallels
from stilnovo.cli.library_talks import cards, conversations
from stilnovo.cli.library_upkeep import check, embed, rebuild, remove

app = command_group("Manage a library of texts: add, list, search, check and more.")
app.command("add")(add)
app.command("catalogue")(list_catalogue)
app.command("fetch")(fetch_work)
app.command("list")(list_works)
app.command("search")(search)
app.command("show")(show)
app.command("concordance")(concordance)
app.command("parallels")(parallels)
app.command("cite")(cite)
app.command("cards")(cards)
app.command("conversations")(conversations)
app.command("embed")(embed)
app.command("rebuild")(rebuild)
app.command("check")(check)
app.command("reread")(reread)
app.command("remove")(remove)
app.command("backup")(backup)
app.command("restore")(restore)

"""``banditloop data``: make data sets of tables, look at them, fetch public ones."""

from serve_app.cli.data.get import get_data_set
from serve_app.cli.data.imports import import_tables
from serve_app.cli.data.show import show
from serve_app.cli.options import command_group

app = command_group("Make data sets of tables, look at them, and fetch public ones.")
app.command("import")(import_tables)
app.command("show", short_help="Say what is in a data set.")(show)
app.command("get")(get_data_set)

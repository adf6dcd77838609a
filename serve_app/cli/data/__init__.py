"""``banditloop data``: make data sets of tables, look at them, fetch public ones."""

from serve_app.cli.data.get import get_data_set
from serve_app.cli.data.show import show
from serve_app.cli.options import command_group

app = command_group("Look at data sets, and fetch public ones.")
app.command("show")(show)
app.command("get")(get_data_set)

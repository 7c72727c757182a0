"""`hubscope notebook`: the analysis notebook, bound to this lake."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import click

from hubscope.console import output, terminal
from hubscope.console.options import example, is_url, lake_option
from hubscope.errors import ConfigError, LakeError

FILE_NAME = "hubscope.ipynb"
_FRONT_ENDS = ("jupyterlab", "notebook")  # the first that is installed is opened


@click.command("notebook", epilog=example("hubscope notebook", "hubscope notebook analysis --lake ./lake --no-open"))
@click.argument("folder", metavar="[DIR]", default=".", type=click.Path(file_okay=False, path_type=Path))
@lake_option
@click.option("--force", is_flag=True, help="Overwrite a notebook that was edited.")
@click.option(
    "--open/--no-open", "open_", default=True, help="Open it in Jupyter, where that is installed.  [default: open]"
)
def command(folder: Path, lake: str, force: bool, open_: bool) -> None:
    """Writes hubscope.ipynb into DIR (here, if none is named) and opens it, if Jupyter is installed.

    About ten worked questions: each a shipped query, a table and a plot. A notebook that was edited is left alone.
    """
    from hubscope.analytics import notebook
    from hubscope.exporters.lake_version import check_lake

    check_lake(lake)
    path = folder / FILE_NAME
    text = notebook.document(lake)
    if path.exists() and not force:
        try:
            edited = notebook.is_edited(path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise LakeError(f"{path} cannot be read: {error}", "use another folder") from error
        if edited:
            raise ConfigError(
                f"{path} was edited and is left as it is", "--force overwrites it; or name another folder"
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LakeError(f"{folder} cannot be made: {error.strerror or error}", "name another folder") from error
    output.write_file(path, text)
    click.echo(str(path))
    if not is_url(lake) and not Path(lake).is_dir():
        terminal.say(f"there is no lake at {lake} yet: `hubscope run --lake {lake} -- CMD` fills it")
    if open_ and sys.stdout.isatty():
        _open(path)


def _open(path: Path) -> None:
    front_end = next((name for name in _FRONT_ENDS if find_spec(name) is not None), None)
    if front_end is None:
        terminal.say("to open it: pip install jupyterlab ipykernel, then jupyter lab " + str(path))
        return
    terminal.say("opening it; Ctrl-C ends Jupyter")
    subprocess.run([sys.executable, "-m", front_end, str(path)], check=False)

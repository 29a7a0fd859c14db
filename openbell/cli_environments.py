"""What a strategy runs with: its Python and its packages."""

from typing import Annotated

import typer

from openbell import client, show
from openbell.cli_options import HERE, Json, Name, Url

app = typer.Typer()


@app.command()
def environment(
    name: Name,
    lock: Annotated[bool, typer.Option("--lock", help="Print the lock with its hashes.")] = False,
    as_json: Json = False,
    url: Url = HERE,
) -> None:
    """Tell a strategy's Python and packages."""
    with client.connect(url) as openbell:
        told = openbell.request("GET", f"/python/environment/{openbell.find(name)['id']}")
    if as_json:
        show.raw(told)
    elif lock:
        print(told["lock"] or "", end="")
    else:
        print(show.environment(told))
        for line in (told["lock"] or "").splitlines():
            if line and not line.startswith((" ", "#")):
                print(f"  {_pinned(line)}")


def _pinned(line: str) -> str:
    """A package and its version, and for which platforms, without what continues the line."""
    return line.removesuffix("\\").rstrip()

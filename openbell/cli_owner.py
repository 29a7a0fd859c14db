"""What an owner sets about a strategy: its variables, and with whom it is shared."""

from typing import Annotated, Any

import typer

from openbell import client, show
from openbell.cli_options import HERE, Json, Name, Secrets, Url, Uses, Values, pairs, secrets

app = typer.Typer()

User = Annotated[str, typer.Argument(help="A user's name.", metavar="USER")]


@app.command()
def env(
    name: Annotated[
        str | None, typer.Argument(help="A strategy's name or id.", metavar="STRATEGY")
    ] = None,
    mine: Annotated[
        bool, typer.Option("--mine", help="What is kept for all of your strategies.")
    ] = False,
    set_: Values = None,
    secret: Secrets = None,
    use: Uses = None,
    unset: Annotated[
        list[str] | None, typer.Option("--unset", help="Remove a variable.", metavar="KEY")
    ] = None,
    as_json: Json = False,
    url: Url = HERE,
) -> None:
    """Set the variables of a strategy, or your own; without options, list their names."""
    if mine == (name is not None):
        raise typer.BadParameter("give one of STRATEGY and --mine")
    if mine and use:
        raise typer.BadParameter("--use hands a secret of yours to one strategy: name it")
    changes: dict[str, Any] = {
        "parameters": pairs(set_),
        "secrets": secrets(secret),
        "uses": pairs(use),
        "remove": unset or [],
    }
    changes = {kind: given for kind, given in changes.items() if given}
    with client.connect(url) as openbell:
        path = f"/python/env/{openbell.find(name)['id']}" if name else "/auth/env"
        if changes:
            answer = openbell.request("POST", path, json=changes)
        else:
            answer = openbell.request("GET", path)
    if as_json:
        show.raw(answer)
        return
    rows = [
        [one["name"], one["kind"], one["source"] or "", show.local(one["updated_at"])]
        for one in answer["variables"]
    ]
    show.grid(["NAME", "KIND", "FROM", "SET"], rows, none="No variables.")
    if answer["note"]:
        show.say(f"note: {answer['note']}")


@app.command()
def share(
    name: Name,
    user: User,
    operator: Annotated[
        bool, typer.Option("--operator", help="Let them start and stop it, too.")
    ] = False,
    as_json: Json = False,
    url: Url = HERE,
) -> None:
    """Let somebody else see a strategy of yours: its status, log and events."""
    permission = "operator" if operator else "viewer"
    with client.connect(url) as openbell:
        path = f"/python/share/{openbell.find(name)['id']}"
        answer = openbell.request("POST", path, json={"user": user, "permission": permission})
    _shown(answer, as_json=as_json)


@app.command()
def unshare(name: Name, user: User, as_json: Json = False, url: Url = HERE) -> None:
    """Share a strategy with somebody no longer."""
    with client.connect(url) as openbell:
        path = f"/python/share/{openbell.find(name)['id']}"
        answer = openbell.request("DELETE", path, params={"user": user})
    _shown(answer, as_json=as_json)


@app.command()
def shares(name: Name, as_json: Json = False, url: Url = HERE) -> None:
    """List with whom a strategy is shared."""
    with client.connect(url) as openbell:
        answer = openbell.request("GET", f"/python/shares/{openbell.find(name)['id']}")
    _shown(answer, as_json=as_json)


def _shown(answer: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        show.raw(answer)
        return
    rows = [
        [one["user"], one["permission"], show.local(one["created_at"])] for one in answer["shares"]
    ]
    show.grid(["USER", "MAY", "SINCE"], rows, none="It is shared with nobody.")

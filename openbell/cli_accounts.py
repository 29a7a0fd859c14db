"""Who you are to an Openbell, who else there is, and what was done."""

import json
import os
import platform
import sys
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from openbell import client, credentials, show
from openbell.cli_options import FAILED, HERE, UNREACHABLE, Json, Url, hidden
from openbell.credentials import NOBODY, Credential, Kept

app = typer.Typer()
users = typer.Typer(no_args_is_help=True, help="Invite people, and say what they may; for admins.")
tokens = typer.Typer(no_args_is_help=True, help="Make tokens for scripts, and revoke them.")
app.add_typer(users, name="user")
app.add_typer(tokens, name="token")

User = Annotated[str, typer.Argument(help="A user's name or id.", metavar="USER")]
LONGEST_NAME = 64
ACTIONS = (
    "login, upload, start, stop, restart, stop_mine, set_schedule, delete, logs,"
    " set_strategy_variables, set_own_variables, share, unshare, new_token, revoke_token, invite,"
    " accept, set_role, disable"
)


def _say(text: str) -> None:
    """To the person, never into what a script captures."""
    print(text, file=sys.stderr)


# ---- you


@app.command()
def login(
    name: Annotated[str | None, typer.Option(help="Your name; else it is asked for.")] = None,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from the standard input.")
    ] = False,
    url: Url = HERE,
) -> None:
    """Let this command line act as you: stores a token of its own, until `openbell logout`."""
    if (name is None or not password_stdin) and not sys.stdin.isatty():
        raise typer.BadParameter("there is no terminal to ask at: give --name and --password-stdin")
    if name is None and password_stdin:
        raise typer.BadParameter("with --password-stdin, give --name too")
    former = credentials.kept(url)
    if url.startswith("http:") and not credentials.is_local(url):
        _say(f"warning: {url} is not encrypted: whoever is between can read what is sent")
    who: str = name or typer.prompt("Name", err=True)
    password = hidden("Password")
    with client.connect(url, NOBODY) as openbell, openbell.signed_in(who, password):
        me = openbell.request("GET", "/auth/me")
        wanted = {"name": _this_machine(), "scopes": me["scopes"]}
        made = openbell.request("POST", "/auth/tokens", json=wanted)
        user = me["user"]["name"]
        try:
            credentials.keep(url, Kept(made["token"]["id"], user, made["value"]))
        except credentials.BadCredentials:
            openbell.request("DELETE", f"/auth/tokens/{made['token']['id']}")
            raise
    if former is not None:
        with suppress(client.Refused, client.Unreachable):
            _revoke(url, former)
    print(f"{url}: signed in as {user}, {me['user']['role']}")
    if os.environ.get(credentials.TOKEN):
        _say(f"note: {credentials.TOKEN} is set, and goes before it")


@app.command()
def logout(url: Url = HERE) -> None:
    """Revoke the token that `openbell login` stored, and forget it."""
    kept = credentials.kept(url)
    if kept is None:
        raise client.Refused(f"{url}: `openbell login` has stored nothing for it")
    credentials.forget(url)
    try:
        _revoke(url, kept)
    except client.Unreachable as error:
        _say(f"openbell: {kept.user}'s token {kept.id} is forgotten here, but not revoked: {error}")
        raise typer.Exit(UNREACHABLE) from None
    print(f"{url}: {kept.user} is signed out")


@app.command()
def whoami(as_json: Json = False, url: Url = HERE) -> None:
    """Tell who you are to this Openbell, and what you may do."""
    with client.connect(url) as openbell:
        me = openbell.request("GET", "/auth/me")
    if as_json:
        show.raw(me)
    else:
        user, scopes = me["user"], ", ".join(me["scopes"])
        print(f"{user['name']}, {user['role']}, at {url}; scopes: {scopes}")


def _this_machine() -> str:
    host = "".join(c for c in platform.node() if " " <= c <= "~")
    return f"openbell on {host or 'a machine'}"[:LONGEST_NAME]


def _revoke(url: str, kept: Kept) -> None:
    """One that is not valid any more is revoked already. Raises Refused, Unreachable."""
    try:
        with client.connect(url, Credential(kept.value, "")) as openbell:
            openbell.request("DELETE", f"/auth/tokens/{kept.id}")
    except client.Refused as error:
        if error.code not in {client.NOT_SIGNED_IN, "unknown_credential"}:
            raise


@tokens.command("ls")
def list_tokens(as_json: Json = False, url: Url = HERE) -> None:
    """List your tokens."""
    with client.connect(url) as openbell:
        answer = openbell.request("GET", "/auth/tokens")
    if as_json:
        show.raw(answer)
        return
    rows = [
        [
            one["id"],
            one["name"],
            ", ".join(one["scopes"]),
            show.local(one["created_at"]),
            show.local(one["expires_at"]) if one["expires_at"] else "never",
        ]
        for one in answer["tokens"]
    ]
    show.grid(["ID", "NAME", "SCOPES", "MADE", "EXPIRES"], rows, none="You have no tokens.")


@tokens.command("new")
def new_token(
    name: Annotated[str, typer.Argument(help="What it is for.")],
    scope: Annotated[
        list[str], typer.Option(help="read, operate, edit or admin; give each that it needs.")
    ],
    days: Annotated[int | None, typer.Option(help="Until it expires; else never.", min=1)] = None,
    as_json: Json = False,
    url: Url = HERE,
) -> None:
    """Make a token, and print its value, this once."""
    wanted = {"name": name, "scopes": scope, "expires_days": days}
    with client.connect(url) as openbell:
        made = openbell.request("POST", "/auth/tokens", json=wanted)
    if as_json:
        show.raw(made)
    else:
        _say(f"{made['token']['id']}: its value is shown this once")
        print(made["value"])


@tokens.command("revoke")
def revoke_token(
    token_id: Annotated[str, typer.Argument(help="As `token ls` tells it.", metavar="ID")],
    as_json: Json = False,
    url: Url = HERE,
) -> None:
    """Revoke a token of yours."""
    with client.connect(url) as openbell:
        answer = openbell.request("DELETE", f"/auth/tokens/{client.quoted(token_id)}")
    _done(answer, f"{token_id}: revoked", as_json=as_json)


# ---- everybody


@users.command("ls")
def list_users(as_json: Json = False, url: Url = HERE) -> None:
    """List all accounts."""
    with client.connect(url) as openbell:
        answer = openbell.request("GET", "/admin/users")
    if as_json:
        show.raw(answer)
        return
    rows = [
        [one["name"], one["role"], _state(one), show.local(one["created_at"]), one["id"]]
        for one in answer["users"]
    ]
    show.grid(["NAME", "ROLE", "STATE", "MADE", "ID"], rows)


def _state(person: dict[str, Any]) -> str:
    if person["disabled_at"]:
        return f"disabled {show.local(person['disabled_at'])}"
    return "" if person["claimed"] else "has no password yet"


@users.command()
def invite(
    role: Annotated[str, typer.Option(help="trader, viewer or admin.")] = "trader",
    as_json: Json = False,
    url: Url = HERE,
) -> None:
    """Make a link with which somebody makes their account, once."""
    with client.connect(url) as openbell:
        made = openbell.request("POST", "/admin/invitations", json={"role": role})
    if role != "viewer":
        _say(
            "note: unless `openbell runners` says that strategies have no sight of others, whoever"
            " may upload is trusted like the user that runs Openbell"
        )
    _linked(made, url, as_json=as_json)


@users.command("reset-password")
def reset_password(user: User, as_json: Json = False, url: Url = HERE) -> None:
    """Make a link with which somebody sets another password, once."""
    with client.connect(url) as openbell:
        made = openbell.request("POST", f"/admin/reset/{_user(openbell, user)}")
    _linked(made, url, as_json=as_json)


def _linked(made: dict[str, Any], url: str, *, as_json: bool) -> None:
    if as_json:
        show.raw(made)
        return
    _say(f"{made['id']}: works once, until {show.local(made['expires_at'])}")
    print(f"{url}{made['path']}")


@users.command()
def links(as_json: Json = False, url: Url = HERE) -> None:
    """List the links that nobody has used yet."""
    with client.connect(url) as openbell:
        answer = openbell.request("GET", "/admin/invitations")
        if as_json:
            show.raw(answer)
            return
        people = {one["id"]: one for one in openbell.request("GET", "/admin/users")["users"]}
    rows = [
        [
            one["id"],
            one["role"],
            _purpose(people.get(one["user_id"])),
            show.local(one["expires_at"]),
        ]
        for one in answer["invitations"]
    ]
    show.grid(["ID", "ROLE", "FOR", "EXPIRES"], rows, none="There are none.")


def _purpose(person: dict[str, Any] | None) -> str:
    """What a link is for that sets this one's password, or nobody's yet."""
    if person is None:
        return "a new account"
    return f"a password for {person['name']}" if person["claimed"] else "setup of the first account"


@users.command()
def withdraw(
    link: Annotated[str, typer.Argument(help="As `user links` tells it.", metavar="ID")],
    as_json: Json = False,
    url: Url = HERE,
) -> None:
    """Make a link void."""
    with client.connect(url) as openbell:
        answer = openbell.request("DELETE", f"/admin/invitations/{client.quoted(link)}")
    _done(answer, f"{link}: withdrawn", as_json=as_json)


@users.command("role")
def set_role(
    user: User,
    role: Annotated[str, typer.Argument(help="admin, trader or viewer.", metavar="ROLE")],
    as_json: Json = False,
    url: Url = HERE,
) -> None:
    """Give an account another role."""
    with client.connect(url) as openbell:
        path = f"/admin/role/{_user(openbell, user)}"
        answer = openbell.request("POST", path, json={"role": role})
    _done(answer, f"{answer['name']}: {answer['role']}", as_json=as_json)


@users.command()
def disable(user: User, as_json: Json = False, url: Url = HERE) -> None:
    """Refuse an account's password and tokens. What it has running goes on."""
    with client.connect(url) as openbell:
        answer = openbell.request("POST", f"/admin/disable/{_user(openbell, user)}")
    _done(answer, f"{answer['name']}: disabled", as_json=as_json)


@users.command()
def enable(user: User, as_json: Json = False, url: Url = HERE) -> None:
    """Take an account's password and tokens again."""
    with client.connect(url) as openbell:
        answer = openbell.request("POST", f"/admin/enable/{_user(openbell, user)}")
    _done(answer, f"{answer['name']}: enabled", as_json=as_json)


def _user(openbell: client.Client, name: str) -> str:
    """The id of the user with this name or id. Raises Refused."""
    people = openbell.request("GET", "/admin/users")["users"]
    for person in people:
        if name == person["id"] or name.casefold() == person["name"].casefold():
            return person["id"]
    raise client.Refused(f"there is no user {name!r}; `openbell user ls` lists all")


@app.command()
def audit(
    everybody: Annotated[
        bool, typer.Option("--everybody", help="What all users did; for admins.")
    ] = False,
    strategy: Annotated[str | None, typer.Option(help="A strategy's name or id.")] = None,
    user: Annotated[str | None, typer.Option(help="Who did it.")] = None,
    action: Annotated[str | None, typer.Option(help=f"What was done: {ACTIONS}, ...")] = None,
    since: Annotated[str | None, typer.Option(help="From, like 2026-08-01T09:15.")] = None,
    jsonl: Annotated[
        bool, typer.Option("--jsonl", help="All that matches, as JSON, an entry a line.")
    ] = False,
    as_json: Json = False,
    url: Url = HERE,
) -> None:
    """Tell what you did, and what was done to your strategies; the newest first."""
    path = "/admin/audit" if everybody else "/auth/audit"
    search = {"user": user, "action": action, "since": _instant(since) if since else None}
    params: dict[str, Any] = {key: value for key, value in search.items() if value is not None}
    with client.connect(url) as openbell:
        if strategy is not None:
            params["strategy"] = _strategy(openbell, strategy)
        if jsonl:
            for piece in openbell.export(path, params | {"format": "jsonl"}):
                sys.stdout.buffer.write(piece)
            return
        answer = openbell.request("GET", path, params=params)
    if as_json:
        show.raw(answer)
        return
    rows = [
        [
            show.local(one["at"]),
            one["user"],
            one["address"],
            one["action"],
            one["outcome"],
            one["strategy_id"] or "",
            _change(one),
        ]
        for one in answer["entries"]
    ]
    titles = ["AT", "WHO", "ADDRESS", "ACTION", "OUTCOME", "STRATEGY", "WHAT"]
    show.grid(titles, rows, none="Nothing was done.")
    if answer["next_before"] is not None:
        _say("There is more: --since shows less, --jsonl shows all.")


def _change(entry: dict[str, Any]) -> str:
    sides = [entry["before"], entry["after"]]
    change = " -> ".join(json.dumps(side, ensure_ascii=False) for side in sides if side)
    return "; ".join(filter(None, [entry["detail"], change]))


def _instant(text: str) -> str:
    """A time without a zone is one of here."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        raise typer.BadParameter(f"{text!r}: write a time like 2026-08-01T09:15") from None


def _strategy(openbell: client.Client, name: str) -> str:
    """Its id; one that was deleted is known by that alone."""
    try:
        return openbell.find(name)["id"]
    except client.Refused as error:
        if error.code != client.UNKNOWN:
            raise
        return name


@app.command("rotate-key")
def rotate_key(as_json: Json = False, url: Url = HERE) -> None:
    """Seal all variables under a new key; for admins."""
    with client.connect(url) as openbell:
        answer = openbell.request("POST", "/admin/rotate-key", timeout=600)
    _done(answer, f"{answer['resealed']} values: {answer['note']}", as_json=as_json)
    if answer["broken"]:
        _say(f"openbell: {answer['broken']} values cannot be opened: set them again")
        raise typer.Exit(FAILED)


def _done(answer: Any, words: str, *, as_json: bool) -> None:
    if as_json:
        show.raw(answer)
    else:
        print(words)

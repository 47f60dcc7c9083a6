"""The configuration file: TOML in, the arguments of `Proxy` out, every problem named with its path.

Rules:
1. All problems of a file are told at once.
2. An unknown key is a problem: a misspelt `deny` must never be a rule that is not there.
3. Nothing is expanded. A `$NAME` is a dollar sign and a name.
4. Relative paths are relative to the current directory.
"""

import difflib
import math
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from attrs import define, field

from apitokenproxy.config_tables import (
    CREDENTIALS,
    JWT,
    LIMIT,
    PROXY,
    ROTATION,
    RULE,
    TIMEOUTS,
    TOP,
    UPSTREAM,
    Keys,
    jwt_identity,
    rotation,
)
from apitokenproxy.durations import parse_duration
from apitokenproxy.errors import ConfigurationError
from apitokenproxy.limits.limit import Limit
from apitokenproxy.messages import HiddenText, Timeouts
from apitokenproxy.policy.rule import Rule
from apitokenproxy.upstream import Upstream

DEFAULT_STORE = "sqlite:///apitokenproxy.db"


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


_KINDS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "string": (lambda value: isinstance(value, str), "a string"),
    "boolean": (lambda value: isinstance(value, bool), "true or false"),
    "count": (lambda value: type(value) is int and value > 0, "a whole number of at least 1"),
    "count or zero": (lambda value: type(value) is int and value >= 0, "a whole number of at least 0"),
    "number or string": (
        lambda value: isinstance(value, str) or (type(value) is int and value > 0),
        "a whole number of at least 1, or a string",
    ),
    "seconds": (lambda value: type(value) in (int, float) and 0 < value < math.inf, "a positive number of seconds"),
    "fraction": (lambda value: type(value) in (int, float) and 0 <= value <= 1, "a number between 0 and 1"),
    "strings": (_is_texts, "a list of strings"),
    "table": (lambda value: isinstance(value, dict), "a table"),
    "tables": (lambda value: isinstance(value, list) and all(isinstance(item, dict) for item in value), "[[tables]]"),
    "table or tables": (
        lambda value: (
            isinstance(value, dict)
            or (isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value))
        ),
        'a table such as { type = "bearer", secret = "env:API_KEY" }, or a list of them',
    ),
    "texts": (
        lambda value: isinstance(value, dict) and all(isinstance(v, str) or _is_texts(v) for v in value.values()),
        "a table of strings",
    ),
}


_MEANT_SECRET = {"client_secret", "password", "token", "api_key", "value"}
"""What people write for the key `secret`, and what is like none of the others."""


def read_config(path: str | Path) -> dict[str, Any]:
    """Return the arguments for `Proxy`. Raises ConfigurationError with one line for every problem."""
    reader = _Reader(str(path))
    arguments = reader.read(_load(Path(path)))
    if reader.problems:
        raise ConfigurationError("\n".join(reader.problems))
    return arguments


def _load(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigurationError(f"{path}: there is no such file; name another with -c FILE") from None
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path}: is not text in UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path}: is not valid TOML: {error}") from None


@define
class _Reader:
    """Reads tables and gathers problems as it goes; what is wrong is left out of what it returns."""

    file: str
    problems: list[str] = field(factory=list)

    def problem(self, path: str, text: str) -> None:
        line = f"{self.file}: {path}: {text}" if path else f"{self.file}: {text}"
        # A key or a name with a line break in it would be two lines.
        self.problems.append("".join(char if char.isprintable() else ascii(char)[1:-1] for char in line))

    def read(self, data: dict[str, Any]) -> dict[str, Any]:
        top = self.table(data, "", TOP)
        arguments = self.table(top.get("proxy", {}), "proxy", PROXY)
        arguments["store"] = HiddenText(arguments.get("store", DEFAULT_STORE))
        for key in ("revocation_bound", "store_outage", "exchange_lifetime"):
            if key in arguments:
                arguments[key] = self.made(f"proxy.{key}", parse_duration, arguments[key])
        upstreams = {name: self.upstream(name, table) for name, table in top.get("upstreams", {}).items()}
        arguments["upstreams"] = [upstream for upstream in upstreams.values() if upstream is not None]
        if not upstreams and "upstreams" in top:
            self.problem("upstreams", "is empty; name at least one API to stand before")
        arguments["rules"] = self.items(top.get("rules", []), "rules", RULE, Rule, "id")
        for number, table in enumerate(top.get("rules", [])):
            name = table.get("upstream")
            if isinstance(name, str) and name not in upstreams:
                self.problem(
                    f"rules[{number}].upstream", f"there is no upstream {name!r}{_suggestion(name, upstreams)}"
                )
        if "jwt" in top:
            arguments["identity"] = self.items(top["jwt"], "jwt", JWT, jwt_identity, "issuer")
        arguments["limits"] = self.items(top.get("limits", []), "limits", LIMIT, Limit, "name")
        return arguments

    def table(self, data: Any, path: str, keys: Keys) -> dict[str, Any]:
        """Return the values of a table that are of their kind."""
        if not isinstance(data, dict):
            self.problem(path, "must be a table")
            return {}
        prefix = f"{path}." if path else ""
        found = {}
        for key, value in data.items():
            if key not in keys:
                self.problem(f"{prefix}{key}", f"unknown key{_suggestion(key, keys)}")
                continue
            is_of_kind, kind = _KINDS[keys[key].removeprefix("!")]
            if is_of_kind(value):
                found[key] = value
            else:
                self.problem(f"{prefix}{key}", f"must be {kind}, not {_described(value, kind)}")
        for key, kind in keys.items():
            if kind.startswith("!") and key not in data:
                self.problem(f"{prefix}{key}", "is missing")
        return found

    def made(self, path: str, make: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Return what is made, or None after noting why it cannot be."""
        try:
            return make(*args, **kwargs)
        except ConfigurationError as error:
            # An upstream's path names it already.
            self.problem(path, str(error).removeprefix(f"{path.replace('upstreams.', 'upstream ', 1)}: "))
            return None

    def upstream(self, name: str, data: Any) -> Upstream | None:
        path = f"upstreams.{name}"
        before = len(self.problems)
        values = self.table(data, path, UPSTREAM)
        if "timeouts" in values:
            values["timeouts"] = Timeouts(**self.table(values["timeouts"], f"{path}.timeouts", TIMEOUTS))
        if "rotation" in values:
            stated = self.table(values["rotation"], f"{path}.rotation", ROTATION)
            values["rotation"] = self.made(f"{path}.rotation", rotation, **stated)
        for key in ("credential", "previous", "candidate"):
            if key in values:
                given = values[key]
                numbered = isinstance(given, list)
                values[key] = [
                    self.credential(f"{path}.{key}[{number}]" if numbered else f"{path}.{key}", table)
                    for number, table in enumerate(given if numbered else [given])
                ]
        if len(self.problems) > before:
            return None
        made: Upstream | None = self.made(path, Upstream, name, values.pop("url"), **values)
        return made

    def credential(self, path: str, data: dict[str, Any]) -> Any:
        kind = str(data.get("type"))
        if kind not in CREDENTIALS:
            self.problem(
                f"{path}.type",
                ("is not a kind of credential" if "type" in data else "is missing") + _suggestion(kind, CREDENTIALS),
            )
            return None
        make, keys = CREDENTIALS[kind]
        before = len(self.problems)
        values = self.table(data, path, keys)
        if len(self.problems) > before:
            return None
        return self.made(path, make, **{key: value for key, value in values.items() if key != "type"})

    def items(self, tables: list[Any], path: str, keys: Keys, make: Callable[..., Any], name: str) -> list[Any]:
        """Return what an array of tables makes; `name` is the key that must not repeat."""
        made = []
        seen: set[str] = set()
        for number, data in enumerate(tables):
            place = f"{path}[{number}]"
            before = len(self.problems)
            values = self.table(data, place, keys)
            if values.get(name) in seen:
                self.problem(f"{place}.{name}", f"{values[name]!r} is used twice; give each its own")
            if len(self.problems) == before:
                seen.add(values[name])
                made.append(self.made(place, make, values.pop(name), **values))
        return made


def _suggestion(key: str, known: Any) -> str:
    if key in _MEANT_SECRET and "secret" in known:
        return "; did you mean 'secret'? It names a reference, as env:API_KEY"
    close = difflib.get_close_matches(key, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are: {', '.join(known)}" if known else ""


def _described(value: object, kind: str) -> str:
    if "number" in kind and type(value) in (int, float):
        return str(value)
    names = {
        str: "a string",
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        list: "a list",
        dict: "a table",
    }
    return names.get(type(value), "a date or time")

"""Where an alias leads: to a remote S3 that was configured, to a ring of s4raw, or, unknown, to the default remote."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from s4raw.errors import ConfError, NoSuchBucket, S4Error
from s4raw.handshake import read_secret
from s4raw.keys import Key
from s4raw.objects.base import ALWAYS, Backend, Conditions, Info, Source
from s4raw.objects.remote import RemoteOptions, open_remote
from s4raw.objects.ring import RingBackend
from s4raw.push.protocol import DEFAULT_ALIAS
from s4raw.ring import Topology

WARM = 25  # connections to each remote that are opened beforehand, and kept
RING = "ring:"  # begins what names a ring instead of a URL
_TEXTS = ("endpoint", "profile", "region", "authorities", "addressing")
_KEYS = {"access_key_env": "access_key", "secret_key_env": "secret_key"}


class Place(NamedTuple):
    """Where an alias leads: a ring's conf, or what is not as usual about a remote S3."""

    ring: str | None = None
    remote: Mapping[str, str] = {}

    def describe(self) -> str:
        """The place in a few words, without secrets."""
        return f"ring {self.ring}" if self.ring is not None else self.remote.get("endpoint", "remote S3")


class _Ring(RingBackend):
    """A ring on which a bucket comes into being by its first object."""

    def put(self, key: Key, source: Source, conditions: Conditions = ALWAYS) -> Info:
        try:
            return super().put(key, source, conditions)
        except NoSuchBucket:
            self.create_bucket(key.bucket)
            return super().put(key, source, conditions)


class Aliases:
    """The places that were configured, all open. The default one has the name ``""`` here, and in the queue."""

    def __init__(
        self,
        places: Mapping[str, Place],
        options: Callable[[Mapping[str, str]], RemoteOptions] = lambda each: RemoteOptions(**each),  # type: ignore[arg-type]
    ) -> None:
        """``options`` makes those of a remote out of what is special about it. Raises ConfError.

        That there is no default remote is no error while there are others: what is to go there is then refused.
        """
        self.places = {"": Place(), **{"" if name == DEFAULT_ALIAS else name: place for name, place in places.items()}}
        self._open: dict[str, Backend] = {}
        self._missing: ConfError | None = None
        try:
            for name, place in self.places.items():
                try:
                    self._open[name] = _open(place, options)
                except ConfError as error:
                    if name or len(self.places) == 1 or place != Place():
                        raise ConfError(f"alias {name}: {error.message}" if name else error.message) from None
                    self._missing = error
        except BaseException:
            self.close()
            raise

    def name(self, alias: str) -> str:
        """What an alias is called in the queue: one that is unknown is the default. Raises ConfError without one."""
        name = alias if alias in self.places and alias != DEFAULT_ALIAS else ""
        if not name and self._missing:
            known = ", ".join(sorted(filter(None, self.places)))
            raise ConfError(f"no alias {alias!r} ({known}), and no default remote: {self._missing.message}")
        return name

    def backend(self, name: str) -> Backend:
        """Where an entry of the queue goes. Raises ConfError."""
        found = self._open.get(self.name(name or DEFAULT_ALIAS))
        assert found is not None  # name has raised
        return found

    def warm(self) -> None:
        """Open connections beforehand; one that cannot be had now will be missed later."""
        for backend in list(self._open.values()):
            warm = getattr(backend, "warm", None)
            if warm:
                try:
                    warm()
                except S4Error:
                    pass

    def close(self) -> None:
        """Close all places; twice is fine."""
        while self._open:
            self._open.popitem()[1].close()


def _open(place: Place, options: Callable[[Mapping[str, str]], RemoteOptions]) -> Backend:
    if place.ring is not None:
        return _Ring(Topology.read(place.ring or None), read_secret())
    return open_remote(options(place.remote))


def parse_alias(text: str) -> tuple[str, Place]:
    """``NAME=URL``, or ``NAME=ring:CONF``, as an option gives it. Raises ConfError."""
    name, _, where = text.partition("=")
    if not where:
        raise ConfError(f"need an alias as NAME=URL or NAME=ring:CONF, got {text!r}")
    _check_name(name)
    if where.startswith(RING):
        return name, Place(ring=where.removeprefix(RING))
    if not where.startswith(("http://", "https://")):
        raise ConfError(f"alias {name}: need a URL of http or https, or ring:CONF, got {where!r}")
    return name, Place(remote={"endpoint": where})


def read_config(path: str) -> dict[str, Place]:
    """The ``[alias.NAME]`` tables of a TOML file. Raises ConfError."""
    try:
        with open(path, "rb") as file:
            config = tomllib.load(file)
    except OSError as error:
        raise ConfError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise ConfError(f"{path}: {error}") from None
    tables = config.pop("alias", {})
    if config or not isinstance(tables, dict):
        raise ConfError(f"{path}: nothing but tables [alias.NAME] is known, not {', '.join(config) or 'alias = ...'}")
    return {name: _read_place(f"{path}: [alias.{name}]", _check_name(name), table) for name, table in tables.items()}


def _read_place(where: str, _name: str, table: Any) -> Place:
    if not isinstance(table, dict) or not all(isinstance(value, str) for value in table.values()):
        raise ConfError(f'{where}: need lines NAME = "TEXT"')
    if unknown := table.keys() - {"ring", *_TEXTS, *_KEYS}:
        raise ConfError(f"{where}: unknown: {', '.join(sorted(unknown))}")
    if "ring" in table:
        if len(table) > 1:
            raise ConfError(f"{where}: a ring has its conf and nothing else")
        return Place(ring=table["ring"])
    remote = {name: table[name] for name in _TEXTS if name in table}
    for variable, option in _KEYS.items():
        if variable in table:
            if not (value := os.environ.get(table[variable])):
                raise ConfError(f"{where}: {variable}: ${table[variable]} is not set")
            remote[option] = value
    return Place(remote=remote)


def _check_name(name: str) -> str:
    if not name or "/" in name or " " in name or not name.isprintable():
        raise ConfError(f"an alias cannot be called {name!r}: it stands before the first / of a destination")
    return name


def read_places(config: str | None, aliases: Sequence[str]) -> dict[str, Place]:
    """Those of a configuration file, and of options, which win. Raises ConfError."""
    return {**(read_config(config) if config else {}), **dict(map(parse_alias, aliases))}

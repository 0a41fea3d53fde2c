"""Register components and commands, and find and load components by kind and name."""

from __future__ import annotations

import importlib
import inspect
import re
import traceback
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from genkit.errors import Code, PluginError, UnknownComponentError
from genkit.fields import fields_of
from genkit.plugin.kinds import CORE_COMMANDS, KINDS
from genkit.settings import near_match, quote


@dataclass(frozen=True)
class Owner:
    """A plugin, with the distribution that installed it."""

    plugin: str
    distribution: str
    version: str

    def __str__(self) -> str:
        return f"plugin {self.plugin} ({self.distribution} {self.version})"


@dataclass(frozen=True)
class Entry:
    """One component: its kind, its name, its class as ``module:Class``, and its plugin."""

    kind: str
    name: str
    target: str
    owner: Owner

    def __str__(self) -> str:
        return f'{self.kind} "{self.name}" of {self.owner}'


class Registration:
    """Components and commands of a plugin, which are added to the registry only if all are valid.

    Args:
        owner: plugin with its distribution.
        package: top-level package of the plugin's entry point.

    Attributes:
        entries: map from kind and name to component.
        suggestions: map from kind and unknown name to the table to write instead.
        commands: map from name to command, as built by typer.
        after_run: hook to call with the folder of a run that ended; None if there is none.
    """

    def __init__(self, owner: Owner, package: str = "") -> None:
        self.owner = owner
        self.package = package
        self.commands: Mapping[str, Any] = {}
        self.after_run: Callable[..., object] | None = None
        self.entries: dict[tuple[str, str], Entry] = {}
        self.suggestions: dict[tuple[str, str], str] = {}

    def add(self, kind: str, name: str, target: str) -> None:
        """Add a component.

        Args:
            kind: one of :data:`genkit.plugin.kinds.KINDS`.
            name: name that recipes write after ``use``: lower-case letters, digits and hyphens.
            target: ``"package.module:Class"``, which is imported on first use.

        Raises:
            PluginError: the kind is unknown, the name or the target is malformed, or the name is
                added twice.
        """
        self._check_name(kind, name)
        if not re.fullmatch(r"\w+(\.\w+)*:\w+", target):
            raise PluginError(
                f'target of {kind} "{name}" must be a module and a class, got "{target}"; write '
                '"package.module:Class"'
            )
        if (kind, name) in self.entries:
            raise PluginError(f'{kind} "{name}" is added twice; remove one')
        self.entries[kind, name] = Entry(kind, name, target, self.owner)

    def suggest(self, kind: str, name: str, table: str) -> None:
        """Add a suggestion: what to write instead of a name, such as that of an earlier version.

        Args:
            kind: one of :data:`genkit.plugin.kinds.KINDS`.
            name: name after ``use`` that is not a component.
            table: table to write instead, such as ``'{ use = "euler" }'``.

        Raises:
            PluginError: the kind is unknown; the name is malformed, registered as a component, or
                added twice; or ``table`` is not a string.
        """
        self._check_name(kind, name)
        if not (isinstance(table, str) and table.strip()):
            raise PluginError(
                f'suggestion for {kind} "{name}" must be a string, got {table!r}; write a table '
                "such as '{ use = \"euler\" }'"
            )
        if (kind, name) in self.suggestions:
            raise PluginError(f'suggestion for {kind} "{name}" is added twice; remove one')
        self.suggestions[kind, name] = table

    def _check_name(self, kind: str, name: str) -> None:
        if kind not in KINDS:
            hint = near_match(kind, KINDS) or f"known: {', '.join(KINDS)}"
            raise PluginError(f'unknown kind "{kind}" of "{name}"; {hint}')
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
            raise PluginError(
                f'name of a {kind} must consist of words, got "{name}"; write lower-case letters, '
                "digits and single hyphens"
            )


class Registry:
    """All components and commands, filled once from the plugins and then only read.

    Attributes:
        commands: map from name to command of a plugin, as built by typer.
        after_run: list of (plugin, hook); each hook is called with the folder of a run that ended.
        packages: map from a top-level package to the plugins that its code belongs to.
    """

    def __init__(self) -> None:
        self.commands: dict[str, Any] = {}
        self.after_run: list[tuple[Owner, Callable[..., object]]] = []
        self.packages: dict[str, set[Owner]] = {}
        self._command_owners: dict[str, Owner | str] = dict.fromkeys(CORE_COMMANDS, "genkit itself")
        self._entries: dict[tuple[str, str], Entry] = {}
        self._suggestions: dict[tuple[str, str], tuple[str, Owner]] = {}
        self._absent: list[str] = []

    def note_absent(self, owner: Owner, reason: str) -> None:
        """Record why a plugin was not loaded, for messages about unknown components."""
        self._absent.append(f"{owner} {reason}")

    def accept(self, registration: Registration) -> None:
        """Add all components and commands of a plugin; if one is invalid, add none.

        Raises:
            PluginError: the name of a component, a command or a suggestion is taken; the message
                contains both owners.
        """
        for key, entry in registration.entries.items():
            if taken := self._entries.get(key):
                raise PluginError(
                    f'{entry.kind} "{entry.name}" is already registered by {taken.owner}; '
                    f"{entry.owner} must choose another name"
                )
        owner = registration.owner
        for kind, name in registration.suggestions:
            if (kind, name) in registration.entries:
                raise PluginError(
                    f'{kind} "{name}" of {owner} is both a component and a suggestion; remove one'
                )
            if (kind, name) in self._suggestions:
                first = self._suggestions[kind, name][1]
                raise PluginError(f'{first} already suggests a replacement for {kind} "{name}"')
        for name in registration.commands:
            if other := self._command_owners.get(name):
                raise PluginError(
                    f'command "{name}" is already registered by {other}; '
                    f"{owner} must choose another name"
                )
        self._entries.update(registration.entries)
        self._suggestions |= {key: (t, owner) for key, t in registration.suggestions.items()}
        if registration.after_run is not None:
            self.after_run.append((registration.owner, registration.after_run))
        self.commands.update(registration.commands)
        self._command_owners.update(dict.fromkeys(registration.commands, owner))
        targets = {entry.target.partition(":")[0] for entry in registration.entries.values()}
        for package in {registration.package, *(t.partition(".")[0] for t in targets)} - {""}:
            self.packages.setdefault(package, set()).add(owner)

    def command(self, name: str) -> Any:
        """Return a plugin's command, as built by typer.

        Raises:
            PluginError: there is no such command; the message contains a near match or the known
                names.
        """
        if name in self.commands:
            return self.commands[name]
        known = sorted(self._command_owners)
        hint = near_match(name, known) or f"known: {', '.join(known)}"
        raise PluginError("; ".join([f"no command is called {quote(name)}", hint, *self._absent]))

    def entries(self, kind: str | None = None) -> list[Entry]:
        """Return the components of one kind or of all kinds, ordered by kind and name."""
        order = list(KINDS)
        return sorted(
            (e for e in self._entries.values() if kind in (None, e.kind)),
            key=lambda e: (order.index(e.kind), e.name),
        )

    def find(self, kinds: Iterable[str], name: str) -> Entry:
        """Return the component that has a name and one of the kinds.

        Raises:
            PluginError: there is no such component; the message contains a near match or the known
                names.
        """
        kinds = list(kinds)
        matches = [e for kind in kinds if (e := self._entries.get((kind, name)))]
        if len(matches) == 1:
            return matches[0]
        what = " or ".join(kinds)
        if matches:
            raise PluginError(f'"{name}" is the name of more than one {what}')
        reason = f"no {what} is called {quote(name)}"
        known = [e.name for kind in kinds for e in self.entries(kind)]
        listed = f"known: {', '.join(known) or 'none'}"
        if table := next(
            (self._suggestions[k, name][0] for k in kinds if (k, name) in self._suggestions), ""
        ):
            hint = f"write {table}"
        elif others := [kind for kind in KINDS if (kind, name) in self._entries]:
            reason, hint = f"{reason}, the name of a {' and a '.join(others)}", listed
        else:
            hint = near_match(name, known) or listed
        raise UnknownComponentError("; ".join([reason, *self._absent]), hint)

    def load(self, entry: Entry) -> type[Any]:
        """Import the class of a component and check it against the base class of its kind.

        Raises:
            PluginError: the class cannot be imported, or is not a concrete frozen dataclass that is
                derived from the base class.
        """
        what = f'{entry.kind} "{entry.name}" ({entry.target}, {entry.owner})'
        cls = _import(entry.target, what)
        base = base_of(entry.kind)
        if not (isinstance(cls, type) and issubclass(cls, base)):
            raise PluginError(f"{what} must be a subclass of {KINDS[entry.kind]}; derive it")
        if inspect.isabstract(cls):
            missing = ", ".join(sorted(getattr(cls, "__abstractmethods__", ())))
            raise PluginError(f"{what} must implement {missing}; define it in the class")
        either = base.implements
        if either and all(getattr(cls, name) is getattr(base, name) for name in either):
            raise PluginError(f"{what} must implement {' or '.join(either)}; define one")
        # On the class itself: if only a base class has the decorator, the class has no own fields.
        if "__dataclass_params__" not in vars(cls) and "__annotations__" in vars(cls):
            raise PluginError(
                f"{what} must be a dataclass; add the decorator @dataclass(frozen=True, "
                "kw_only=True)"
            )
        try:
            fields_of(cls)
        except PluginError as error:
            raise PluginError(f"{what}: {error}") from error
        return cls

    def name_of(self, component: object) -> str:
        """Return the name under which a component's class is registered.

        Raises:
            PluginError: the class is not registered.
        """
        return self.entry_of(component).name

    def entry_of(self, component: object) -> Entry:
        """Return the entry of a component's class; ``str(entry)`` is used in messages.

        Raises:
            PluginError: the class is not registered.
        """
        cls = type(component)
        target = f"{cls.__module__}:{cls.__qualname__}"
        for entry in self._entries.values():
            if entry.target == target:
                return entry
        for entry in self._entries.values():  # registered through a module that re-exports it
            if entry.target.endswith(f":{cls.__name__}") and self.load(entry) is cls:
                return entry
        raise PluginError(f"{target} is not registered by any plugin", Code.UNKNOWN_COMPONENT)


def base_of(kind: str) -> type[Any]:
    """Return the base class of a kind."""
    base: type[Any] = _import(KINDS[kind], f"the base of {kind}")
    return base


def kinds_of(base: type) -> list[str]:
    """Return the kinds whose base class is ``base`` or a subclass of it: three for ``Network``."""
    return [kind for kind in KINDS if issubclass(base_of(kind), base)]


def _import(target: str, what: str) -> Any:
    module, _, name = target.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:
        raise PluginError(f"{what} cannot be loaded: {in_words(error)}{place_of(error)}") from error


def in_words(error: BaseException) -> str:
    """Return the type of an error and the beginning of its message, on one line."""
    text = ""
    with suppress(BaseException):  # its __str__ may be faulty
        text = " ".join(str(error).split())[:500]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def place_of(error: BaseException) -> str:
    """Return file and line of a plugin's code that raised an error; empty for other errors."""
    ours = ("genkit", "importlib", "pluggy")
    places = [
        f" ({frame.f_code.co_filename}, line {line})"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_globals.get("__name__", "").partition(".")[0] not in ours
    ]
    return places[-1] if places else ""

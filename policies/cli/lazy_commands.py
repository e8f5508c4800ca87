"""Commands that are known by name and one line, and imported when they run.

Each package declares its commands as a tuple in its module `commands`, which imports nothing heavy; the entry-point
group `tunegate.commands` names the tuple.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from policies.errors import ConfigurationError

if TYPE_CHECKING:
    from typer._click import Command as ClickCommand
    from typer._click import Context


class Command(NamedTuple):
    """A command, or a group of commands, of `tunegate`."""

    name: str
    app: str
    """`module:attribute` of the Typer app that has it."""
    summary: str
    """The line of `tunegate --help`: the command's own first sentence."""
    extra: str | None = None
    """The extra of this distribution that brings what it imports."""
    within: str | None = None
    """The group, of whichever package, that it belongs to; None: it is a command of `tunegate` itself."""

    def load(self, group: str = "tunegate") -> ClickCommand:
        """Import the command, which is called as one of `group`.

        Raises:
            ConfigurationError: a package that it imports is not installed.
        """
        module, _, attribute = self.app.partition(":")
        try:
            app = getattr(import_module(module), attribute)
        except ModuleNotFoundError as error:
            install = f"tunegate[{self.extra}]" if self.extra else str(error.name)
            raise ConfigurationError(
                f"`{group} {self.name}` needs the Python package {error.name}, which is not installed: "
                f"pip install '{install}'"
            ) from error
        return typer.main.get_group(app).commands[self.name]


class _Unloaded(TyperCommand):
    """Stands for a command in lists: help, shell completion and suggestions."""

    def __init__(self, command: Command, members: Sequence[Command] = ()) -> None:
        super().__init__(command.name, help=command.summary)
        self.command = command
        self.members = members
        """Commands of other packages, which the group takes in beside its own; it is a `LazyGroup` then."""

    def load(self, group: str) -> ClickCommand:
        loaded = self.command.load(group)
        if self.members:
            assert isinstance(loaded, LazyGroup)
            loaded.commands.update({each.name: _Unloaded(each) for each in self.members})
        return loaded


class LazyGroup(TyperGroup):
    """Imports a command when it is resolved: to run it, to show its help, or to complete its options."""

    def resolve_command(
        self, ctx: Context, args: list[str]
    ) -> tuple[str | None, ClickCommand | None, list[str]]:  # as typer declares it
        name, command, rest = super().resolve_command(ctx, args)
        return name, command.load(ctx.command_path) if isinstance(command, _Unloaded) else command, rest


def lazy_group(commands: Iterable[Command]) -> type[LazyGroup]:
    """A class of groups that have `commands`, in the order of their names, before those that are added to them.

    Commands that say `within` go into that group among them, when it is loaded.
    """
    everything = sorted(commands, key=lambda each: each.name)
    declared = {
        each.name: _Unloaded(each, [member for member in everything if member.within == each.name])
        for each in everything
        if each.within is None
    }

    class Group(LazyGroup):
        def __init__(self, *, commands: dict[str, ClickCommand], **settings: Any) -> None:  # Any: as typer declares it
            super().__init__(commands=declared | commands, **settings)

    return Group

"""``typing.NamedTuple`` without the import of ``typing``, which would take 3 of the 20 ms of a command line call."""

from __future__ import annotations

from collections import namedtuple

__all__ = ["NamedTuple"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple
else:

    class _Meta(type):
        """Makes a class with annotated fields into a subclass of a named tuple of those fields."""

        def __new__(cls, name, bases, namespace):
            if not bases:
                return super().__new__(cls, name, bases, namespace)
            fields = list(namespace["__annotations__"])
            defaults = [namespace.pop(field) for field in fields if field in namespace]
            base = namedtuple(name, fields, defaults=defaults, module=namespace["__module__"])
            return type(name, (base,), {**namespace, "__slots__": ()})

    class NamedTuple(metaclass=_Meta):
        """A base for records: ``class Point(NamedTuple): x: int; y: int = 0``."""

"""A method's arguments and result as octets, by its annotations."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable
from typing import Any, get_args, get_origin, get_type_hints

from fe_twisted.protocols.cluster.values import BadValue, Buffer, Codec, Shape, decode, encode


class Signature:
    """How a method is called over the link.

    Arguments travel as a map of their names, those with their default value left out: so a peer that knows fewer arguments understands
    every call that does not use the new ones, and refuses the others.

    :param method: annotated, its first parameter being the object.  For a method that gives an ``AsyncIterator``, the result is one item.
    :raises TypeError: an annotation that cannot travel.
    """

    def __init__(self, codec: Codec, method: Callable[..., Any]) -> None:
        hints = get_type_hints(method)
        parameters = list(inspect.signature(method).parameters.values())[1:]
        self.name = method.__name__
        self._order = [parameter.name for parameter in parameters]
        self._positional = sum(parameter.kind is not parameter.KEYWORD_ONLY for parameter in parameters)
        self._defaults = {parameter.name: parameter.default for parameter in parameters if parameter.default is not parameter.empty}
        self._shapes = {name: codec.shape(hints[name]) for name in self._order}
        returned = hints["return"]
        #: Whether the answer is a stream of items.
        self.streams = get_origin(returned) is AsyncIterator
        self.result: Shape = codec.shape(get_args(returned)[0] if self.streams else returned)
        self._map = _map_of(self._shapes)

    def write(self, arguments: tuple[Any, ...], named: dict[str, Any]) -> list[Buffer]:
        """The arguments of a call, without the object.

        :raises TypeError: they are not those of the method.
        """
        if len(arguments) > self._positional:
            raise TypeError(f"{self.name} takes {self._positional} positional arguments")
        given = dict(zip(self._order, arguments, strict=False)) | named
        if given.keys() - set(self._order) or set(self._order) - given.keys() - self._defaults.keys():
            raise TypeError(f"{self.name} is not called with {', '.join(given)}")
        return encode(self._map, {name: value for name, value in given.items() if not self._is_default(name, value)})

    def read(self, octets: bytes) -> tuple[list[Any], dict[str, Any]]:
        """The arguments, positional and named, as the method is to be called with them.

        :raises BadValue: they are not those of the method.
        """
        given: dict[str, Any] = decode(self._map, octets)
        if set(self._order) - given.keys() - self._defaults.keys():
            raise BadValue(f"{self.name} without all of its arguments")
        positional = [given.pop(name) if name in given else self._defaults[name] for name in self._order[: self._positional]]
        return positional, given

    def _is_default(self, name: str, value: Any) -> bool:
        return name in self._defaults and type(value) is type(self._defaults[name]) and bool(value == self._defaults[name])


def _map_of(shapes: dict[str, Shape]) -> Shape:
    """A map whose keys are among these."""

    def write(value: Any, parts: list[Buffer]) -> Any:
        return {name: shapes[name].write(each, parts) for name, each in value.items()}

    def read(raw: Any, parts: list[bytes]) -> Any:
        if type(raw) is not dict or not raw.keys() <= shapes.keys():
            raise BadValue("arguments that the method does not have")
        return {name: shapes[name].read(each, parts) for name, each in raw.items()}

    shape = Shape()
    shape.write, shape.read = write, read
    return shape

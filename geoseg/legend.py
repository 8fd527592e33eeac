"""Legend: class id, name, colour and group of a class map."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from geoseg.errors import InputError

NODATA = 255


class LegendClass(BaseModel):
    """One class: its id in the raster, its name, its colour, and the group it belongs to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[int, Field(ge=0, le=254)]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_ .\-]{0,62}$")]
    color: Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")]
    group: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_ .\-]{0,62}$")] | None = None

    @property
    def rgb(self) -> tuple[int, int, int]:
        return int(self.color[1:3], 16), int(self.color[3:5], 16), int(self.color[5:7], 16)


@dataclass(frozen=True, slots=True)
class Selection:
    """A class, or a group of classes taken as one.

    Attributes:
        id: id of the class, or the lowest id of the group.
        name: name of the class or group.
        color: `#rrggbb`.
        ids: the class ids that it stands for.
    """

    id: int
    name: str
    color: str
    ids: tuple[int, ...]


class Legend(BaseModel):
    """The classes of a class map, in the order of the network's channels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: Annotated[tuple[LegendClass, ...], Field(min_length=1, max_length=255)]
    nodata: Annotated[int, Field(ge=0, le=255)] = NODATA

    @field_validator("classes")
    @classmethod
    def _unique(cls, classes: tuple[LegendClass, ...]) -> tuple[LegendClass, ...]:
        for what, values in (("id", [str(c.id) for c in classes]), ("name", [c.name for c in classes])):
            twice = sorted({value for value in values if values.count(value) > 1})
            if twice:
                raise ValueError(f"class {what} {twice[0]} appears twice in the legend")
        return classes

    @model_validator(mode="after")
    def _nodata_is_no_class(self) -> Self:
        if self.nodata in self.ids:
            raise ValueError(f"nodata {self.nodata} is also a class id")
        return self

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(c.id for c in self.classes)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.classes)

    @property
    def groups(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(c.group for c in self.classes if c.group))

    def by_name(self, name: str) -> LegendClass:
        """The class of that name.

        Raises:
            InputError: there is none.
        """
        for entry in self.classes:
            if entry.name == name:
                return entry
        raise InputError(f"Class {name!r} is not in the legend; it has {', '.join(self.names)}.")

    def select(self, names: Iterable[str] | None = None) -> tuple[Selection, ...]:
        """The named classes and groups, or every class where `names` is None.

        A group counts as one: its classes are meant to be dissolved.

        Raises:
            InputError: a name is neither class nor group, is asked for twice, or a class is asked for twice.
        """
        chosen = tuple(self._selection(name) for name in (self.names if names is None else names))
        if not chosen:
            raise InputError(f"No class was asked for; the legend has {', '.join(self.names)}.")
        taken = [i for selection in chosen for i in selection.ids]
        twice = sorted({i for i in taken if taken.count(i) > 1})
        if twice:
            name = next(c.name for c in self.classes if c.id == twice[0])
            raise InputError(f"Class {name!r} is asked for twice, by itself or through its group; name it once.")
        return chosen

    def colormap(self) -> dict[int, tuple[int, int, int, int]]:
        """Colour table: class id to (red, green, blue, alpha)."""
        return {c.id: (*c.rgb, 255) for c in self.classes}

    def to_json(self) -> str:
        return self.model_dump_json(exclude_none=True)

    @classmethod
    def from_json(cls, text: str) -> Legend:
        return cls.model_validate_json(text)

    def _selection(self, name: str) -> Selection:
        for c in self.classes:
            if c.name == name:
                return Selection(c.id, c.name, c.color, (c.id,))
        members = [c for c in self.classes if c.group == name]
        if members:
            ids = tuple(c.id for c in members)
            return Selection(min(ids), name, members[0].color, ids)
        known = ", ".join((*self.names, *(g for g in self.groups if g not in self.names)))
        raise InputError(f"Class {name!r} is not in the legend; it has {known}.")


def _landcover() -> Legend:
    rows = [
        (1, "building", "#d7301f", None),
        (2, "paved", "#8c8c8c", None),
        (3, "bare", "#dfc27d", None),
        (4, "tree", "#1b7837", "vegetation"),
        (5, "low_vegetation", "#a6d96a", "vegetation"),
        (6, "water", "#2b8cbe", None),
    ]
    return Legend(classes=tuple(LegendClass(id=i, name=n, color=c, group=g) for i, n, c, g in rows))


LANDCOVER = _landcover()

"""What each column of a table is for: inferred, printed, edited as YAML, saved, checked on every file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from graphrec.errors import ConfigError, SchemaError

from .column_options import known_zone, some_remainders

if TYPE_CHECKING:
    from .sources import Table

Scalar = bool | int | float | str


class Role(StrEnum):
    """What a column is used as."""

    CATEGORICAL = "categorical"
    NUMERIC = "numeric"
    SEQUENCE = "sequence"
    MULTI = "multi"
    TIMESTAMP = "timestamp"
    GROUP = "group"
    LABEL = "label"
    WEIGHT = "weight"
    IGNORED = "ignored"


FEATURE_ROLES = (Role.CATEGORICAL, Role.NUMERIC, Role.SEQUENCE, Role.MULTI, Role.TIMESTAMP)
PARTS = {"hour": 24, "weekday": 7, "day": 31, "month": 12, "hour_of_week": 168, "weekend": 2}
"""Parts of a timestamp and the number of their values."""

Transform = Literal["standard", "log", "minmax", "quantile", "piecewise", "none"]
Part = Literal["hour", "weekday", "day", "month", "hour_of_week", "weekend"]


class Column(BaseModel):
    """One column: its role and the options of that role. Options of other roles are left at their defaults.

    Attributes:
        name: Name in the table.
        dtype: Type that it had when the schema was made; informative, other types that convert are accepted.
        role: See `Role`.
        min_count: Categories seen less often in the training rows share the id of unseen ones.
        max_size: Keep at most this many categories, the most frequent; None keeps all.
        hash_buckets: Hash categories into this many ids instead of keeping a vocabulary; 0 keeps one.
        quotient_remainder: True compresses the embedding table with two small ones of about sqrt(size) rows;
            a number says how many remainders.
        shares: Name of the categorical column whose vocabulary this one uses.
        transform: Of a numeric column: ``"standard"``; ``"log"`` (sign(x) log(1 + |x|), then standardised);
            ``"minmax"``; ``"piecewise"`` (a learned curve through knots, see `graphrec.ctr.piecewise`);
            ``"quantile"`` (buckets, a categorical field); ``"none"``.
        bins: Buckets of ``transform="quantile"``, intervals between knots of ``"piecewise"``.
        max_length: Ids kept of a list: the last ones of a sequence, the first ones of a multi column.
        pooling: How a multi column's vectors become one.
        separator: Splits strings into lists, such as ``"|"`` in ``"Comedy|Drama"``.
        parts: Of a timestamp: the parts that become categorical fields; hour and weekday by default.
        unit: Of a timestamp that is a number: ``"s"``, ``"ms"``, ``"us"`` or ``"ns"`` since 1970.
        zone: Of a timestamp: by the clock of which time zone its parts are read, such as
            ``"Europe/Berlin"``. Times of another zone, with an offset, or counted since 1970 are converted;
            those that name no zone are taken as they are. None reads every file as it is.
        classes: Of a label: the negative and the positive value; found when fitting if None.
        note: Why inference decided as it did, where that is not obvious.
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    name: str
    dtype: str = ""
    role: Role
    min_count: int = Field(default=2, ge=1)
    max_size: int | None = Field(default=None, ge=1)
    hash_buckets: int = Field(default=0, ge=0)
    quotient_remainder: Annotated[bool | int, AfterValidator(some_remainders)] = False
    shares: str | None = None
    transform: Transform = "standard"
    bins: int = Field(default=32, ge=2)
    max_length: int = Field(default=50, ge=1)
    pooling: Literal["mean", "sum", "max"] = "mean"
    separator: str | None = None
    parts: tuple[Part, ...] = ()
    unit: Literal["s", "ms", "us", "ns"] | None = None
    zone: Annotated[str | None, AfterValidator(known_zone)] = None
    classes: tuple[Scalar, Scalar] | None = None
    note: str = ""

    @model_validator(mode="after")
    def _default_parts(self) -> Column:
        if self.role is Role.TIMESTAMP and "parts" not in self.model_fields_set:
            self.parts = ("hour", "weekday")
        return self

    def field_names(self) -> list[str]:
        """Names of the fields that it becomes."""
        if not self.is_feature:
            return []
        return [f"{self.name}.{p}" for p in self.parts] if self.role is Role.TIMESTAMP else [self.name]

    @property
    def is_feature(self) -> bool:
        """Whether a model sees it."""
        return self.role in FEATURE_ROLES and not (self.role is Role.TIMESTAMP and not self.parts)

    @property
    def is_text(self) -> bool:
        """Whether its values are wanted as strings."""
        return self.role in (Role.CATEGORICAL, Role.SEQUENCE, Role.MULTI, Role.GROUP)

    def options(self) -> dict[str, Any]:
        """The options that differ from their defaults, without name, dtype and role."""
        data = self.model_dump(exclude={"name", "dtype", "role"}, exclude_defaults=True)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in data.items()}


class TableSchema(BaseModel):
    """The columns of a table with their roles.

    Attributes:
        columns: All columns, in the order of the table.
        group: Column whose values group the rows for group AUC (a user); may be a feature as well.
        time: Column that orders the rows in time; may be a feature as well.
    """

    model_config = ConfigDict(extra="forbid")

    columns: list[Column]
    group: str | None = None
    time: str | None = None

    @field_validator("columns")
    @classmethod
    def _names_once(cls, columns: list[Column]) -> list[Column]:
        names = [c.name for c in columns]
        twice = [n for n in names if names.count(n) > 1] if len(set(names)) < len(names) else []
        if twice:
            raise ValueError(f"the column {twice[0]!r} occurs twice")
        return columns

    @model_validator(mode="after")
    def _consistent(self) -> TableSchema:
        names = {c.name: c for c in self.columns}
        self.group = self.group or next(iter(self._of(Role.GROUP)), None)
        for key, name in (("group", self.group), ("time", self.time)):
            if name is not None and name not in names:
                raise ValueError(f"{key} names the column {name!r}, which the schema does not have")
        if len(self._of(Role.WEIGHT)) > 1:
            raise ValueError(f"several columns have the role weight: {', '.join(self._of(Role.WEIGHT))}")
        fields = [n for c in self.columns for n in c.field_names()]
        if len(set(fields)) < len(fields):
            twice = next(n for n in fields if fields.count(n) > 1)
            raise ValueError(f"two columns become the field {twice!r}; rename or ignore one")
        for column in self.columns:
            _check_sharing(column, names)
        return self

    def _of(self, role: Role) -> tuple[str, ...]:
        return tuple(c.name for c in self.columns if c.role is role)

    def __getitem__(self, name: str) -> Column:
        for column in self.columns:
            if column.name == name:
                return column
        raise SchemaError(
            f"the schema has no column {name!r}; it has {', '.join(c.name for c in self.columns)}"
        )

    def __contains__(self, name: object) -> bool:
        return any(c.name == name for c in self.columns)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the label columns."""
        return self._of(Role.LABEL)

    @property
    def weight(self) -> str | None:
        """Name of the weight column."""
        return next(iter(self._of(Role.WEIGHT)), None)

    @property
    def features(self) -> list[Column]:
        """The columns that a model sees, in order."""
        return [c for c in self.columns if c.is_feature]

    @classmethod
    def infer(
        cls,
        table: Any,
        label: str | Sequence[str] | None = None,
        *,
        weight: str | None = None,
        group: str | None = None,
        time: str | None = None,
        roles: Mapping[str, str] | None = None,
        ignore: Sequence[str] = (),
    ) -> TableSchema:
        """Guess every column's role from its type, its name and a sample of its values.

        Args:
            table: Anything that `open_table` takes.
            label: Label column, or several.
            weight: Column of sample weights.
            group: Column of the user (or query) for group AUC; by default one called ``user_id``, ``user`` or
                ``uid`` if there is one.
            time: Column that orders the rows in time; by default the only timestamp.
            roles: Roles that are known: ``{"age": "numeric"}``.
            ignore: Columns that no model may see.

        Raises:
            SchemaError: A named column is missing, or a column cannot be a feature.
            DataError: A label or weight cannot be used.
        """
        from .inference import infer_schema

        return infer_schema(table, label, weight, group, time, roles or {}, ignore)

    def check(self, table: Any, require_labels: bool | None = True) -> Table:
        """Check that a table has what this schema needs, with values that convert; reads only what it must.

        Args:
            table: Anything that `open_table` takes.
            require_labels: Whether labels must be there; None looks at features alone.

        Returns:
            The opened table.

        Raises:
            SchemaError: A column is missing or holds something else than the schema says.
            DataError: Labels or weights cannot be used.
        """
        from .checks import check_table

        return check_table(self, table, require_labels)

    def to_yaml(self, path: str | Path) -> None:
        """Write the schema for people to read and edit."""
        from .yaml_io import dump_schema

        Path(path).write_text(dump_schema(self), encoding="utf-8")

    @classmethod
    def from_yaml(cls, path: str | Path) -> TableSchema:
        """Read what `to_yaml` wrote, or what someone edited since.

        Raises:
            SchemaError: With the file, the column and the option that is wrong.
        """
        from .yaml_io import load_schema

        return load_schema(Path(path))

    @classmethod
    def build(cls, columns: Sequence[Column], **options: Any) -> TableSchema:
        """Construct with pydantic's errors turned into a one-line SchemaError."""
        try:
            return cls(columns=list(columns), **options)
        except ValidationError as error:
            raise SchemaError(f"schema: {explain(error)}") from error

    def replace(self, name: str, **changes: Any) -> TableSchema:
        """A copy with options of one column changed: ``schema.replace("age", role="categorical")``.

        Raises:
            ConfigError: An option does not exist or has a wrong value.
        """
        data = {**self[name].model_dump(exclude_unset=True), **changes}
        try:
            column = Column.model_validate(data)
        except ValidationError as error:
            raise ConfigError(f"column {name!r}: {explain(error)}") from error
        columns = [column if c.name == name else c for c in self.columns]
        return TableSchema.build(columns, group=self.group, time=self.time)

    def __str__(self) -> str:
        rows = [("column", "type", "role", "options")]
        for c in self.columns:
            options = ", ".join(f"{k}={_short(v)}" for k, v in c.options().items() if k != "note")
            extra = [
                k for k, n in (("group", self.group), ("time", self.time)) if n == c.name and c.role != k
            ]
            notes = [t for t in (options, *extra, c.note and f"({c.note})") if t]
            rows.append((c.name, c.dtype, c.role.value, "; ".join(notes)))
        widths = [max(len(r[i]) for r in rows) for i in range(3)]
        lines = ["  ".join([*(r[i].ljust(widths[i]) for i in range(3)), r[3]]).rstrip() for r in rows]
        lines.insert(1, "  ".join("-" * w for w in widths))
        return "\n".join(lines)


def _check_sharing(column: Column, names: Mapping[str, Column]) -> None:
    if column.shares is None:
        return
    target = names.get(column.shares)
    if target is None or target.role is not Role.CATEGORICAL or target.shares:
        raise ValueError(
            f"{column.name!r} shares the vocabulary of {column.shares!r}, which must be a categorical column "
            "that shares none itself"
        )


def _short(value: Any) -> str:
    return "/".join(str(v) for v in value) if isinstance(value, list) else str(value)


def explain(error: ValidationError) -> str:
    """The first complaint of pydantic as one line."""
    first = error.errors()[0]
    where = ".".join(str(p) for p in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where and not first["msg"].startswith("Value error") else message

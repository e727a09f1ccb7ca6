"""Tables of a snapshot, and the validation of their rows. docs/state.md describes the format."""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any, NamedTuple

from pydantic_core import CoreSchema, SchemaValidator, ValidationError, core_schema
from sqlalchemy import Column, Table, UniqueConstraint, make_url, types
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import SQLModel

from shopassist.audit.models import AdminAct
from shopassist.cache.models import QueryCache
from shopassist.catalog.models import Product
from shopassist.consent.models import ConsentEvent, ConsentNotice, ConsentSource, UserConsent
from shopassist.credits.models import (
    CreditHold,
    CreditTransaction,
    ErasedBalance,
    Erasure,
    GuestNetwork,
    IdempotentAnswer,
    TransactionType,
    UserCredits,
)
from shopassist.privacy.models import AskedBy, GuestMerge
from shopassist.text import validate_text

FORMAT_VERSION = 1
"""Version of the format. Increase it when an older reader would misunderstand a newer file."""

KIND_PATTERN = re.compile(rb'\s*\{\s*"kind"\s*:\s*"([a-z_]+)"')
UUID_PATTERN = "^[0-9a-fA-F]{8}(-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}$"
MAX_LOCATION_LENGTH = 80
NO_KIND_REASON = 'the line does not begin with {"kind": "…"'
NO_KEY_REASON = 'hashed under a key that the header does not name ("key")'
SEVERAL_ROWS_REASON = "more than one row on the line"
DIALECT = make_url("postgresql+asyncpg://").get_dialect()()

RAW_COLUMN = "raw"
"""Staging column with the text of a row that contains JSON. PostgreSQL parses it, so that numbers are not rounded."""

TYPE_SCHEMAS: tuple[tuple[type, CoreSchema], ...] = (
    (JSONB, core_schema.dict_schema(core_schema.str_schema(), core_schema.any_schema())),
    (types.ARRAY, core_schema.list_schema(core_schema.str_schema(strict=True))),
    (types.Uuid, core_schema.str_schema(strict=True, pattern=UUID_PATTERN)),
    (types.Boolean, core_schema.bool_schema(strict=True)),
    (types.DateTime, core_schema.datetime_schema(strict=True, tz_constraint="aware")),
    (types.Date, core_schema.date_schema(strict=True)),
    (types.BigInteger, core_schema.int_schema(strict=True, ge=-(2**63), le=2**63 - 1)),
    (types.Integer, core_schema.int_schema(strict=True, ge=-(2**31), le=2**31 - 1)),
)
"""Schemas by column type; the first match counts."""


@dataclass(frozen=True)
class TableSpec:
    """How the rows of one table are written to a snapshot and read from it."""

    model: type[SQLModel]
    owner: str | None = None
    """The column with the user id of the row's owner."""
    is_per_user: bool = False
    """Whether rows are imported together with all other rows of their owner, or not at all."""
    defaults: Mapping[str, object] = field(default_factory=dict)
    """Values of columns that a row may leave out."""
    derived: Mapping[str, str] = field(default_factory=dict)
    """Columns that a row may leave out, and the column that their value is copied from."""
    allowed_values: Mapping[str, type[StrEnum]] = field(default_factory=dict)
    credits_sql: str | None = None
    """SQL expression of the credits in a row."""
    keeps_id: bool = False
    """Whether the file contains the generated id, because other rows refer to it."""
    has_hashed_subjects: bool = False
    """Whether rows contain user ids that are hashed with the server's key."""

    @property
    def table(self) -> Table:
        table: Table = self.model.__table__  # type: ignore[attr-defined]
        return table

    @property
    def name(self) -> str:
        """Name of the table, and the `kind` of its rows."""
        return str(self.table.name)

    @property
    def staging_table(self) -> str:
        return f"staged_{self.name}"

    @property
    def has_identity(self) -> bool:
        return any(column.identity is not None for column in self.table.columns)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Columns in the file, without a generated id."""
        return tuple(column.name for column in self.table.columns if not column.identity and not column.computed)

    @property
    def file_columns(self) -> tuple[str, ...]:
        """Columns in the file, with a generated id if the file has it."""
        return ("id", *self.columns) if self.keeps_id else self.columns

    @cached_property
    def copied_columns(self) -> list[str]:
        """Columns of the staging table that are copied from a row."""
        plain = [name for name in self.file_columns if not self._is_json(name)]
        return ["line", *plain, *([RAW_COLUMN] if len(plain) < len(self.file_columns) else [])]

    @cached_property
    def unique(self) -> list[tuple[str, ...]]:
        """Sets of columns in which no two rows agree. The first identifies a row in any database."""
        keys = [key.columns for key in self.table.constraints if isinstance(key, UniqueConstraint)]
        keys += [index.columns for index in self.table.indexes if index.unique]
        names = [tuple(self.table.primary_key.columns.keys()), *sorted(tuple(key.keys()) for key in keys)]
        if self.has_identity:
            return [*names[1:], *names[: self.keeps_id]]
        return names

    @cached_property
    def validator(self) -> SchemaValidator:
        """Validator of a JSON array of rows."""
        fields = {"kind": core_schema.typed_dict_field(core_schema.literal_schema([self.name]))}
        if self.has_identity and not self.keeps_id:
            fields["id"] = core_schema.typed_dict_field(core_schema.any_schema(), required=False)
        for name in self.file_columns:
            fields[name] = core_schema.typed_dict_field(self._build_schema(self.table.columns[name]))
        return SchemaValidator(core_schema.list_schema(core_schema.typed_dict_schema(fields, extra_behavior="forbid")))

    def format_staging_columns(self) -> str:
        """Return the definitions of the staging table's columns. All but `line` may be null until the checks."""
        definitions = ["line bigint NOT NULL", *([f"{RAW_COLUMN} jsonb"] if RAW_COLUMN in self.copied_columns else [])]
        for name in self.file_columns:
            source = f" GENERATED ALWAYS AS ({RAW_COLUMN} -> '{name}') STORED" if self._is_json(name) else ""
            definitions.append(f'"{name}" {self.table.columns[name].type.compile(DIALECT)}{source}')
        return ", ".join(definitions)

    def format_columns(self, alias: str | None = None) -> str:
        """Return the columns as a list for SQL."""
        return format_names(self.columns, alias)

    def format_key(self, alias: str | None = None) -> str:
        """Return the columns that identify a row in any database, as a list for SQL."""
        return format_names(self.unique[0] if self.unique else self.columns, alias)

    def find_owner(self, text: bytes) -> str | None:
        """Return the owner of an invalid row, if it can be read."""
        try:
            return validate_text(json.loads(text)[self.owner])
        except (ValueError, KeyError, TypeError, AttributeError):
            return None

    def _is_json(self, name: str) -> bool:
        return isinstance(self.table.columns[name].type, JSONB)

    def _build_schema(self, column: Column[Any]) -> CoreSchema:
        schema = self._build_type_schema(column)
        default = self.defaults.get(column.name)
        if default is not None:
            return core_schema.with_default_schema(schema, default=default)
        if column.name in self.defaults or column.name in self.derived or column.nullable:
            return core_schema.with_default_schema(core_schema.nullable_schema(schema), default=None)
        return schema

    def _build_type_schema(self, column: Column[Any]) -> CoreSchema:
        if column.name in self.allowed_values:
            return core_schema.literal_schema([value.value for value in self.allowed_values[column.name]])
        type_ = column.type.impl_instance if isinstance(column.type, types.TypeDecorator) else column.type
        if isinstance(type_, types.Numeric):
            return core_schema.decimal_schema(max_digits=type_.precision, decimal_places=type_.scale)
        if isinstance(type_, types.String):
            min_length = 1 if column.name == self.owner else None
            return core_schema.str_schema(strict=True, min_length=min_length, max_length=type_.length)
        return next(schema for known, schema in TYPE_SCHEMAS if isinstance(type_, known))


def format_names(names: Iterable[str], alias: str | None = None) -> str:
    """Return quoted names as a list for SQL."""
    return ", ".join(f'{alias}."{name}"' if alias else f'"{name}"' for name in names)


TABLE_SPECS = (
    TableSpec(ConsentNotice, keeps_id=True),
    TableSpec(
        UserCredits,
        owner="user_id",
        is_per_user=True,
        defaults={"held_credits": 0},
        derived={"created_at": "last_reset_timestamp", "updated_at": "last_reset_timestamp"},
        credits_sql="available_credits::bigint + held_credits",
    ),
    TableSpec(CreditHold, owner="user_id", is_per_user=True, credits_sql="amount"),
    TableSpec(
        CreditTransaction,
        owner="user_id",
        is_per_user=True,
        defaults={"balance_after": None},  # computed from all rows by the checks
        credits_sql="amount",
        allowed_values={"transaction_type": TransactionType},
    ),
    TableSpec(
        UserConsent,
        owner="user_id",
        is_per_user=True,
        defaults={"terms_accepted": True, "marketing_consent": False},
        derived={"updated_at": "timestamp"},
    ),
    TableSpec(ConsentEvent, owner="user_id", is_per_user=True, allowed_values={"source": ConsentSource}),
    TableSpec(IdempotentAnswer, owner="user_id"),
    TableSpec(GuestMerge, owner="guest_id"),
    TableSpec(AdminAct, owner="target"),
    TableSpec(Erasure, allowed_values={"asked_by": AskedBy}, has_hashed_subjects=True),
    TableSpec(ErasedBalance, has_hashed_subjects=True),
    TableSpec(GuestNetwork, has_hashed_subjects=True),
    TableSpec(Product),
    TableSpec(QueryCache),
)
"""Tables in the order in which they are written."""

SPECS_BY_NAME = {spec.name: spec for spec in TABLE_SPECS}
USER_SPECS = tuple(spec for spec in TABLE_SPECS if spec.is_per_user)
OTHER_SPECS = tuple(spec for spec in TABLE_SPECS if not spec.is_per_user)

EXCLUDED_TABLES = {
    "leases": "names running processes",
    "maintenance_runs": "describes jobs in this database",
    "cache_epochs": "counts cache clearings for running processes",
}
"""Tables that are not in a snapshot, and why."""

Record = tuple[Any, ...]


class RejectedRow(NamedTuple):
    """A line that is not imported, the reason and, if known, the row's owner."""

    line: int
    kind: str | None
    owner: str | None
    reason: str


def validate_rows(
    chunk: bytes, first_line: int, *, accept_hashed: bool
) -> tuple[dict[str, list[Record]], list[RejectedRow]]:
    """Validate whole lines; return the values of `copied_columns` by table, and the rejected rows.

    `accept_hashed`: accept rows with user ids that are hashed with the server's key.
    """
    records: dict[str, list[Record]] = defaultdict(list)
    rejected = []
    for line, text in enumerate(chunk.removesuffix(b"\n").split(b"\n"), first_line):
        match = KIND_PATTERN.match(text)
        name = match[1].decode() if match else ""
        if name not in SPECS_BY_NAME:
            rejected.append(RejectedRow(line, None, None, f"there is no kind {name}" if match else NO_KIND_REASON))
            continue
        spec = SPECS_BY_NAME[name]
        if spec.has_hashed_subjects and not accept_hashed:
            rejected.append(RejectedRow(line, name, None, NO_KEY_REASON))
            continue
        try:
            [row] = spec.validator.validate_json(b"[" + text + b"]")
        except ValueError as error:  # a pydantic error, or there are several rows on the line
            reason = _format_error(error) if isinstance(error, ValidationError) else SEVERAL_ROWS_REASON
            rejected.append(RejectedRow(line, name, spec.find_owner(text), reason))
            continue
        for derived, source in spec.derived.items():
            if row[derived] is None:
                row[derived] = row[source]
        row["line"], row[RAW_COLUMN] = line, text.decode()
        records[name].append(tuple(row[column] for column in spec.copied_columns))
    return records, rejected


def _format_error(error: ValidationError) -> str:
    """Return the first problem of a row, without the row's values."""
    problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
    location = ".".join(str(part) for part in problem["loc"][1:])[:MAX_LOCATION_LENGTH]
    message = problem["msg"].partition(" at line ")[0]
    return f"{location}: {message}" if location else message

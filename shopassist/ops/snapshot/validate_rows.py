"""Validates the lines of a snapshot one by one, with schemas that are derived from the columns of the tables."""

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from operator import itemgetter
from typing import Any

from pydantic_core import CoreSchema, SchemaValidator, ValidationError, core_schema
from sqlalchemy import ARRAY, BigInteger, Boolean, Column, Date, DateTime, Integer, Numeric, String, TypeDecorator, Uuid
from sqlalchemy.dialects.postgresql import JSONB

from shopassist.ops.snapshot.tables import SPECS_BY_NAME, TableSpec
from shopassist.text import validate_text

KIND_PATTERN = re.compile(rb'\s*\{\s*"kind"\s*:\s*"([a-z_]+)"')
UUID_PATTERN = "^[0-9a-fA-F]{8}(-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}$"
NO_KIND_REASON = 'the line does not begin with {"kind": "…"'
NO_KEY_REASON = 'hashed under a key that the header does not name ("key")'
SEVERAL_ROWS_REASON = "more than one row on the line"
NUL_REASON = "a text has the NUL character"
MAX_LOCATION_LENGTH = 80

RAW_COLUMN = "raw"
"""Staging column with the text of a row that contains JSON. PostgreSQL parses it, so that numbers are not rounded."""

TYPE_SCHEMAS: tuple[tuple[type, CoreSchema], ...] = (
    (JSONB, core_schema.dict_schema(core_schema.str_schema(), core_schema.any_schema())),
    (ARRAY, core_schema.list_schema(core_schema.str_schema(strict=True))),
    (Uuid, core_schema.str_schema(strict=True, pattern=UUID_PATTERN)),
    (Boolean, core_schema.bool_schema(strict=True)),
    (DateTime, core_schema.datetime_schema(strict=True, tz_constraint="aware")),
    (Date, core_schema.date_schema(strict=True)),
    (BigInteger, core_schema.int_schema(strict=True, ge=-(2**63), le=2**63 - 1)),
    (Integer, core_schema.int_schema(strict=True, ge=-(2**31), le=2**31 - 1)),
)
"""Schemas by column type; the first match counts."""

Record = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A line that is not imported, the reason and, if known, the row's owner."""

    line: int
    kind: str | None
    owner: str | None
    reason: str


@dataclass(slots=True)
class ValidatedRows:
    """Records to copy by table, as in `list_copied_columns`, and rejected rows."""

    records: dict[str, list[Record]] = field(default_factory=lambda: defaultdict(list))
    rejected: list[RejectedRow] = field(default_factory=list)


def validate_rows(chunk: bytes, first_line: int, *, accept_hashed: bool) -> ValidatedRows:
    """Validate whole lines. `accept_hashed`: accept rows with user ids that are hashed with the server's key."""
    result = ValidatedRows()
    has_nul = b"\\u0000" in chunk
    grouped: dict[str, list[tuple[int, bytes]]] = defaultdict(list)
    for line, text in enumerate(chunk.removesuffix(b"\n").split(b"\n"), first_line):
        match = KIND_PATTERN.match(text)
        spec = SPECS_BY_NAME.get(name := match[1].decode()) if match else None
        if spec is None:
            reason = f"there is no kind {name}" if match else NO_KIND_REASON
            result.rejected.append(RejectedRow(line, None, None, reason))
        elif spec.has_hashed_subjects and not accept_hashed:
            result.rejected.append(RejectedRow(line, name, None, NO_KEY_REASON))
        elif has_nul and _contains_nul(text):
            result.rejected.append(RejectedRow(line, name, _find_owner(spec, text), NUL_REASON))
        else:
            grouped[name].append((line, text))
    for name, lines in grouped.items():
        spec, texts = SPECS_BY_NAME[name], dict(lines)
        for line, row in _parse_rows(spec, lines, result.rejected):
            result.records[name].append(_build_record(spec, line, row, texts[line]))
    return result


def list_copied_columns(spec: TableSpec) -> list[str]:
    """Return the columns of the staging table that a record fills, in order."""
    plain = [name for name in spec.file_columns if not spec.is_json(name)]
    return ["line", *plain, *([RAW_COLUMN] if len(plain) < len(spec.file_columns) else [])]


def _parse_rows(
    spec: TableSpec, lines: list[tuple[int, bytes]], rejected: list[RejectedRow]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield valid rows with their lines. All lines are parsed in one call and, if that fails, one by one."""
    validator = _build_validator(spec.name)
    with suppress(ValidationError):
        rows = validator.validate_json(b"[" + b",".join(text for _, text in lines) + b"]")
        if len(rows) == len(lines):
            yield from zip((line for line, _ in lines), rows, strict=True)
            return
    for line, text in lines:
        try:
            [row] = validator.validate_json(b"[" + text + b"]")
        except ValueError as error:  # a pydantic error, or there are several rows on the line
            reason = _format_error(error) if isinstance(error, ValidationError) else SEVERAL_ROWS_REASON
            rejected.append(RejectedRow(line, spec.name, _find_owner(spec, text), reason))
        else:
            yield line, row


def _build_record(spec: TableSpec, line: int, row: dict[str, Any], text: bytes) -> Record:
    for name, source in spec.derived.items():
        if row[name] is None:
            row[name] = row[source]
    row["line"], row[RAW_COLUMN] = line, text.decode()
    record: Record = _get_columns(spec.name)(row)
    return record


@cache
def _get_columns(name: str) -> "itemgetter[Any]":
    return itemgetter(*list_copied_columns(SPECS_BY_NAME[name]))


@cache
def _build_validator(name: str) -> SchemaValidator:
    """Build the validator of a JSON array of rows of a table."""
    spec = SPECS_BY_NAME[name]
    fields = {"kind": core_schema.typed_dict_field(core_schema.literal_schema([name]))}
    if spec.has_identity and not spec.keeps_id:
        fields["id"] = core_schema.typed_dict_field(core_schema.any_schema(), required=False)
    for column in spec.file_columns:
        fields[column] = core_schema.typed_dict_field(_build_column_schema(spec, spec.table.columns[column]))
    return SchemaValidator(core_schema.list_schema(core_schema.typed_dict_schema(fields, extra_behavior="forbid")))


def _build_column_schema(spec: TableSpec, column: Column[Any]) -> CoreSchema:
    schema = _build_type_schema(spec, column)
    if column.name in spec.defaults and spec.defaults[column.name] is not None:
        return core_schema.with_default_schema(schema, default=spec.defaults[column.name])
    if column.name in spec.defaults or column.name in spec.derived or column.nullable:
        return core_schema.with_default_schema(core_schema.nullable_schema(schema), default=None)
    return schema


def _build_type_schema(spec: TableSpec, column: Column[Any]) -> CoreSchema:
    if column.name in spec.allowed_values:
        return core_schema.literal_schema([str(value) for value in spec.allowed_values[column.name]])
    type_ = column.type.impl_instance if isinstance(column.type, TypeDecorator) else column.type
    if isinstance(type_, Numeric):
        return core_schema.decimal_schema(max_digits=type_.precision, decimal_places=type_.scale)
    if isinstance(type_, String):
        min_length = 1 if column.name == spec.owner else None
        return core_schema.str_schema(strict=True, min_length=min_length, max_length=type_.length)
    return next(schema for known, schema in TYPE_SCHEMAS if isinstance(type_, known))


def _format_error(error: ValidationError) -> str:
    """Return the first problem of a row, without the row's values."""
    problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
    location = ".".join(str(part) for part in problem["loc"][1:])[:MAX_LOCATION_LENGTH]
    message = problem["msg"].partition(" at line ")[0]
    return f"{location}: {message}" if location else message


def _find_owner(spec: TableSpec, text: bytes) -> str | None:
    """Return the owner of an invalid row, if it can be read."""
    try:
        return validate_text(json.loads(text)[spec.owner])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _contains_nul(text: bytes) -> bool:
    """Return whether a value contains NUL; the escape may also follow an escaped backslash."""
    if b"\\u0000" not in text:
        return False
    try:
        return _value_contains_nul(json.loads(text))
    except ValueError:
        return False


def _value_contains_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\x00" in value
    if isinstance(value, dict):
        return any(_value_contains_nul(part) for pair in value.items() for part in pair)
    return isinstance(value, list) and any(map(_value_contains_nul, value))

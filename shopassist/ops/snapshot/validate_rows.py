"""Validates the rows of a snapshot, one chunk of lines at a time."""

import json
import re
from collections.abc import Iterable, Sequence
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
SEVERAL_ROWS_REASON = "more than one row on the line"
NUL_REASON = "a text has the NUL character"
MAX_LOCATION_LENGTH = 80

RAW_COLUMN = "raw"
"""The column for the text of a row with JSON in it: PostgreSQL reads that itself, so no figure is rounded."""

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
"""What a column of a type can hold; the first that fits."""


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A line that is not imported, and why; whose it is, where that can be told."""

    line: int
    kind: str | None
    owner: str | None
    reason: str


@dataclass(slots=True)
class ValidatedRows:
    """The good rows of a chunk, each with its line's number ahead, by kind, and the rejects."""

    records: dict[str, list[tuple[Any, ...]]] = field(default_factory=dict)
    rejects: list[RejectedRow] = field(default_factory=list)


def validate_rows(chunk: bytes, first_line: int, subject_key: bool) -> ValidatedRows:
    """The rows of whole lines. `subject_key`: whether hashes of subjects in the file are under this server's key."""
    result = ValidatedRows()
    grouped: dict[str, tuple[list[int], list[bytes]]] = {}
    has_nul = b"\\u0000" in chunk
    for line, text in enumerate(chunk.removesuffix(b"\n").split(b"\n"), first_line):
        match = KIND_PATTERN.match(text)
        name = match[1].decode() if match else ""
        if name not in SPECS_BY_NAME:
            reason = f"there is no kind {name}" if match else NO_KIND_REASON
            result.rejects.append(RejectedRow(line, None, None, reason))
        elif SPECS_BY_NAME[name].keyed and not subject_key:
            result.rejects.append(
                RejectedRow(line, name, None, 'hashed under a key that the header does not name ("key")')
            )
        elif has_nul and b"\\u0000" in text and _contains_nul(text):
            result.rejects.append(RejectedRow(line, name, _find_owner(SPECS_BY_NAME[name], text), NUL_REASON))
        else:
            lines, texts = grouped.setdefault(name, ([], []))
            lines.append(line)
            texts.append(text)
    for name, (lines, texts) in grouped.items():
        records, rejects = _validate_table_rows(SPECS_BY_NAME[name], lines, texts)
        result.records[name] = records
        result.rejects += rejects
    return result


def list_copied_columns(kind: TableSpec) -> list[str]:
    """The columns that a record of `checked` has, in order."""
    plain = [name for name in _list_fields(kind) if not isinstance(kind.table.columns[name].type, JSONB)]
    return ["line", *plain, *([RAW_COLUMN] if has_json(kind) else [])]


def has_json(kind: TableSpec) -> bool:
    """Whether a row has JSON in it."""
    return any(isinstance(column.type, JSONB) for column in kind.table.columns)


def _validate_table_rows(
    kind: TableSpec, lines: Sequence[int], texts: Sequence[bytes]
) -> tuple[list[tuple[Any, ...]], list[RejectedRow]]:
    validator = _build_validator(kind.name)
    rejects: list[RejectedRow] = []
    rows: list[dict[str, Any]] = []
    with suppress(ValidationError):
        rows = validator.validate_json(b"[" + b",".join(texts) + b"]")
    if len(rows) != len(lines):  # one by one, to see which of them it is
        rows, good = [], []
        for line, text in zip(lines, texts, strict=True):
            try:
                [row] = validator.validate_json(b"[" + text + b"]")
            except ValueError as error:  # pydantic's, or there is more than one
                reason = _format_error(error) if isinstance(error, ValidationError) else SEVERAL_ROWS_REASON
                rejects.append(RejectedRow(line, kind.name, _find_owner(kind, text), reason))
            else:
                rows.append(row)
                good.append((line, text))
        lines, texts = [line for line, _ in good], [text for _, text in good]
    for name, source in kind.derived.items():
        for row in rows:
            if row[name] is None:
                row[name] = row[source]
    names = [name for name in list_copied_columns(kind)[1:] if name != RAW_COLUMN]
    values: Iterable[tuple[Any, ...]] = map(itemgetter(*names), rows)
    if has_json(kind):
        pairs = zip(lines, values, texts, strict=True)
        return [(line, *value, text.decode()) for line, value, text in pairs], rejects
    return [(line, *value) for line, value in zip(lines, values, strict=True)], rejects


def _list_fields(kind: TableSpec) -> list[str]:
    return ["id", *kind.columns] if kind.names_id else list(kind.columns)


@cache
def _build_validator(name: str) -> SchemaValidator:
    """Checks a JSON array of rows of a kind, by what the columns of its table can hold."""
    kind = SPECS_BY_NAME[name]
    fields = {"kind": core_schema.typed_dict_field(core_schema.literal_schema([name]))}
    if kind.has_identity and not kind.names_id:
        fields["id"] = core_schema.typed_dict_field(core_schema.any_schema(), required=False)
    for column in _list_fields(kind):
        fields[column] = core_schema.typed_dict_field(_build_column_schema(kind, kind.table.columns[column]))
    return SchemaValidator(core_schema.list_schema(core_schema.typed_dict_schema(fields, extra_behavior="forbid")))


def _build_column_schema(kind: TableSpec, column: Column[Any]) -> CoreSchema:
    schema = _build_type_schema(kind, column)
    if column.name in kind.derived or (column.nullable and column.name not in kind.defaults):
        return core_schema.with_default_schema(core_schema.nullable_schema(schema), default=None)
    if column.name in kind.defaults:
        default = kind.defaults[column.name]
        schema = core_schema.nullable_schema(schema) if default is None else schema
        return core_schema.with_default_schema(schema, default=default)
    return schema


def _build_type_schema(kind: TableSpec, column: Column[Any]) -> CoreSchema:
    if column.name in kind.words:
        return core_schema.literal_schema([str(word) for word in kind.words[column.name]])
    type_ = column.type.impl_instance if isinstance(column.type, TypeDecorator) else column.type
    if isinstance(type_, Numeric):
        return core_schema.decimal_schema(max_digits=type_.precision, decimal_places=type_.scale)
    if isinstance(type_, String):
        least = 1 if column.name == kind.owner else None
        return core_schema.str_schema(strict=True, min_length=least, max_length=type_.length)
    return next(schema for one, schema in TYPE_SCHEMAS if isinstance(type_, one))


def _format_error(error: ValidationError) -> str:
    """What is wrong with a row, without what it says."""
    problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(part) for part in problem["loc"][1:])[:MAX_LOCATION_LENGTH]
    said = problem["msg"].partition(" at line ")[0]
    return f"{where}: {said}" if where else said


def _find_owner(kind: TableSpec, text: bytes) -> str | None:
    """Whose a row is that is not a good one, where it tells."""
    try:
        return validate_text(json.loads(text)[kind.owner])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _contains_nul(text: bytes) -> bool:
    """Whether the escape of NUL stands for NUL, rather than behind an escaped backslash."""
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

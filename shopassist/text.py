"""Validators of text: what PostgreSQL can store and UTF-8 can encode, and valid user ids; small text files."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from shopassist.errors import InvalidInputError, StartupError

USER_ID_LENGTH = 255
"""Maximum characters of a user id; the limit of a subject in OpenID Connect Core 1.0, section 2."""
HASH_LENGTH = 64
IDEMPOTENCY_KEY_LENGTH = 255


def validate_text(text: str) -> str:
    """Return `text` if PostgreSQL can store it. Raises `ValueError` for NUL and lone surrogates."""
    if "\x00" in text:
        raise ValueError("must not contain the NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("must not contain a lone surrogate") from None
    return text


StorableText = Annotated[str, AfterValidator(validate_text)]


def validate_user_id(user_id: str) -> str:
    """Return `user_id` if an account can have it. Raises `InvalidInputError`."""
    try:
        validate_text(user_id)
    except ValueError as error:
        raise InvalidInputError(f"user_id {error}.") from None
    if not 0 < len(user_id) <= USER_ID_LENGTH:
        raise InvalidInputError(f"user_id must have 1 to {USER_ID_LENGTH} characters.")
    return user_id


def read_text_file(file: Path) -> str:
    """Return the content of a file. Raises `OSError`, and `StartupError` that names the file if it is not UTF-8."""
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise StartupError(f"{file} is damaged: it is not text in UTF-8.") from None

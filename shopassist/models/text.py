"""Text that can be stored, returned and logged whole."""

from typing import Annotated

from pydantic import AfterValidator

from shopassist.errors import InvalidInputError
from shopassist.models.credits import USER_ID_LENGTH


def storable(text: str) -> str:
    """`text`, if PostgreSQL can keep it and UTF-8 can carry it. Raises `ValueError` for NUL and lone surrogates."""
    if "\x00" in text:
        raise ValueError("must not contain the NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("must not contain a lone surrogate") from None
    return text


StorableText = Annotated[str, AfterValidator(storable)]


def valid_user_id(user_id: str) -> str:
    """`user_id`, if an account can have it. Raises `InvalidInputError`."""
    try:
        storable(user_id)
    except ValueError as error:
        raise InvalidInputError(f"user_id {error}.") from None
    if not 0 < len(user_id) <= USER_ID_LENGTH:
        raise InvalidInputError(f"user_id must have 1 to {USER_ID_LENGTH} characters.")
    return user_id

"""What every error of the product carries."""

from typing import Any, ClassVar


class ShopAssistError(Exception):
    """Base of every error this product raises on purpose."""

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    detail: str = "Something went wrong on our side."

    def __init__(self, detail: str | None = None, **extra: Any) -> None:
        """`extra` holds further public fields of the JSON body."""
        if detail is not None:
            self.detail = detail
        self.extra: dict[str, Any] = extra
        super().__init__(self.detail)

"""How questions are answered."""

from pydantic import Field, SecretStr

from shopassist.settings.group import Group


class AssistantSettings(Group):
    """How questions are answered and links are marked."""

    affiliate_tag: str | None = Field(default=None, alias="AFFILIATE_TAG")
    affiliate_program: str = Field(default="amazon", alias="AFFILIATE_PROGRAM")
    market_currency: str = Field(default="INR", pattern="^[A-Z]{3}$", alias="MARKET_CURRENCY", description="ISO 4217")
    timeout_seconds: float = Field(default=30, gt=0, alias="QUERY_TIMEOUT_SECONDS")
    sample_catalogue: bool | None = Field(
        default=None,
        alias="SAMPLE_CATALOGUE",
        description="whether an empty catalogue is filled with the sample; unless said, outside production",
    )
    gemini_api_key: SecretStr | None = Field(default=None, alias="GEMINI_API_KEY")

"""How commands reach a server that runs."""

from pydantic import Field, SecretStr

from shopassist.settings.group import Group


class AdministrationSettings(Group):
    """What commands need that speak to the running server (`shopassist rollout`); the server never reads this."""

    url: str | None = Field(
        default=None,
        alias="SHOPASSIST_URL",
        pattern="^https?://",
        description="of the server; unless said, API_HOST and API_PORT on this machine",
    )
    token: SecretStr | None = Field(
        default=None,
        alias="ADMIN_TOKEN",
        description="an administrator's access token; needless on the embedded database, whose tokens are made here",
    )

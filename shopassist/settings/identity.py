"""Who is believed to be whom."""

from typing import Self

from pydantic import Field, SecretStr, model_validator

from shopassist.settings.group import Group


class IdentitySettings(Group):
    """Who issues the tokens that are believed: any OpenID Connect issuer, by either family of names."""

    oidc_issuer: str | None = Field(default=None, alias="OIDC_ISSUER")
    oidc_audience: str | None = Field(default=None, alias="OIDC_AUDIENCE")
    domain: str | None = Field(default=None, alias="AUTH0_DOMAIN")
    auth0_audience: str | None = Field(default=None, alias="AUTH0_API_AUDIENCE")
    auth0_issuer: str | None = Field(default=None, alias="AUTH0_ISSUER")
    admin_scope: str = Field(default="shopassist:admin", alias="ADMIN_SCOPE")
    secret_key: SecretStr | None = Field(
        default=None,
        alias="SECRET_KEY",
        min_length=32,
        description="what the server signs with and hashes user ids with, the same for all servers of one database",
    )

    @property
    def issuer(self) -> str | None:
        """The issuer with its trailing slash, or None where no identity provider is set."""
        auth0 = self.auth0_issuer or (f"https://{self.domain}" if self.domain else None)
        issuer = self.oidc_issuer or auth0
        return f"{issuer.rstrip('/')}/" if issuer else None

    @property
    def issuer_names(self) -> tuple[str, ...]:
        """How the issuer's tokens may spell its name: Auth0's with the slash, others as that issuer does."""
        if self.issuer is None:
            return ()
        return (self.issuer, self.issuer.rstrip("/")) if self.oidc_issuer else (self.issuer,)

    @property
    def audience(self) -> str | None:
        """The audience that a token must name."""
        return self.oidc_audience or self.auth0_audience

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        auth0 = self.auth0_issuer or (f"https://{self.domain}" if self.domain else None)
        pairs = (
            ("OIDC_ISSUER", self.oidc_issuer, "AUTH0_ISSUER or AUTH0_DOMAIN", auth0),
            ("OIDC_AUDIENCE", self.oidc_audience, "AUTH0_API_AUDIENCE", self.auth0_audience),
        )
        for name, value, other, other_value in pairs:
            if value and other_value and value.rstrip("/") != other_value.rstrip("/"):
                raise ValueError(f"{name} and {other} name different things: set one of them")
        return self

"""Guests: how many may come, and how they say who they are."""

from enum import StrEnum

from pydantic import Field

from shopassist.settings.group import Group


class GuestSessionKind(StrEnum):
    """Which session ids are believed: any that a browser makes up, or only those that this server signed."""

    ANY = "any"
    SIGNED = "signed"


class GuestSettings(Group):
    """How many guests may come, and how they say who they are."""

    accounts_per_network: int = Field(
        default=50,
        ge=0,
        le=1_000_000,
        alias="GUEST_ACCOUNTS_PER_NETWORK_PER_DAY",
        description="new guest accounts of one client network in a day (UTC)",
    )
    sessions: GuestSessionKind = Field(default=GuestSessionKind.ANY, alias="GUEST_SESSIONS")

    @property
    def only_signed(self) -> bool:
        """Whether no session id is believed that this server did not sign."""
        return self.sessions is GuestSessionKind.SIGNED

"""Notices: the texts that people are asked to agree to."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Response

from shopassist.api.accept import languages
from shopassist.api.dependencies import NoticeServiceDep
from shopassist.api.errors import documented
from shopassist.errors import NotFoundError
from shopassist.models import ConsentNotice
from shopassist.models.notice import Locale

GPC_SINCE = "2026-11-25"

router = APIRouter(tags=["consent"])


@router.get("/api/notices", responses=documented())
async def read_notices(
    response: Response,
    service: NoticeServiceDep,
    locale: Annotated[Locale | None, Query()] = None,
    accept_language: Annotated[str, Header(include_in_schema=False)] = "",
) -> list[ConsentNotice]:
    """The current text for each purpose, in `locale` or by `Accept-Language`, else in its first language."""
    response.headers["Vary"] = "Accept-Language"
    return await service.current([locale] if locale else languages(accept_language))


@router.get("/api/notices/{notice_id}", responses=documented(NotFoundError))
async def read_notice(notice_id: Annotated[int, Path(ge=1, le=2**63 - 1)], service: NoticeServiceDep) -> ConsentNotice:
    """One text, as it was published: also one that is not current any more."""
    return await service.get(notice_id)


@router.get("/.well-known/gpc.json")
async def read_privacy_control() -> dict[str, Any]:
    """That `Sec-GPC: 1` is heeded here (Global Privacy Control, support resource)."""
    return {"gpc": True, "lastUpdate": GPC_SINCE}

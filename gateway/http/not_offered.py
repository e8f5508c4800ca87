"""What OpenAI's API has and this service does not: told by name, instead of by an unknown URL.

What belongs to fine-tuning is a 400, since the request can't be done here; what belongs to other services is a 404.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from fastapi import APIRouter, Request

from gateway.errors import METHODS, ApiError, InvalidRequest, NotFound
from gateway.tenants.routes import TenantRoute

ELSEWHERE = (
    *("agents", "assistants", "audio", "batches", "chat", "chatkit", "completions", "containers"),
    *("content_provenance_checks", "conversations", "decisions", "embeddings", "evals", "images", "live"),
    *("moderations", "organization", "projects", "realtime", "responses", "safety", "skills", "threads", "vaults"),
    *("vector_stores", "videos", "webhook_endpoints", "webhook_event_types"),
)
"""First parts of paths below `/v1` that the openai client knows and nothing here answers."""


class NotOffered(NamedTuple):
    """Paths that are answered with one error."""

    paths: tuple[str, ...]
    error: type[ApiError]
    code: str
    message: str


NOT_OFFERED = (
    NotOffered(
        ("/v1/fine_tuning/checkpoints/{rest:path}",),
        InvalidRequest,
        "checkpoint_permissions_unsupported",
        "Checkpoints can't be shared with other projects here: a model belongs to the organisation that trained it. "
        "Download a released adapter with GET /v1/guardrail/models/{id}/adapter and pass it on.",
    ),
    NotOffered(
        ("/v1/fine_tuning/alpha/{rest:path}",),
        InvalidRequest,
        "graders_unsupported",
        "Graders belong to reinforcement fine-tuning, which is not offered here: create the job with method.type "
        "'supervised' or 'dpo'. What a model is measured by before it is released is in the job's report, GET "
        "/v1/guardrail/jobs/{id}/report.",
    ),
    NotOffered(
        tuple(path for name in ELSEWHERE for path in (f"/v1/{name}", f"/v1/{name}/{{rest:path}}")),
        NotFound,
        "endpoint_not_offered",
        "This part of OpenAI's API is not offered here; files, uploads, fine-tuning jobs and models are. A released "
        "adapter answers from an inference server of yours: download it with GET /v1/guardrail/models/{id}/adapter.",
    ),
)


def _refusing(offer: NotOffered) -> Callable[[Request], Awaitable[None]]:
    async def refuse(request: Request) -> None:
        raise offer.error(offer.message, code=offer.code)

    return refuse


router = APIRouter(route_class=TenantRoute, include_in_schema=False)
for _offer in NOT_OFFERED:
    for _path in _offer.paths:
        router.add_api_route(_path, _refusing(_offer), methods=list(METHODS))

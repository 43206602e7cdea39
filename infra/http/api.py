"""The HTTP API and its page: shows users, their candidates and the reasons for them, and accepts events.

`make_api` builds one application; importing creates nothing. Every error response is `{"reason", "detail"}`:

| What happened | Status |
|---|---|
| an event or parameter is wrong | 400, 422 (with each event's position and reason) |
| token missing or wrong | 401 |
| the token does not allow it | 403 |
| unknown candidate, item or route | 404 |
| the body is sent too slowly | 408 |
| body or list too long, not JSON | 413, 415 |
| too many requests from one client | 429 with Retry-After |
| a stored row is damaged (`row_unreadable`) or of another version (`layout`) | 500 |
| the broker rejects the record permanently | 502 |
| store or broker did not answer | 503 with Retry-After |
"""

import logging
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from importlib.resources import files
from typing import Annotated, Any

import msgspec
from aiokafka.errors import KafkaError
from fastapi import APIRouter, Depends, FastAPI, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.convertors import register_url_convertor
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from features.errors import LayoutError, OtherLayoutError, StoreUnavailableError
from features.events import Topic
from features.store import OnlineStore
from infra.clock import wall_ms
from infra.errors import RequestError
from infra.health import Health, away
from infra.http import intake
from infra.http.access import Access, Scope, Scopes, challenge, require
from infra.http.answers import Answers, Fallback
from infra.http.guard import CLIENT_CLOSED, Encoded, EncodedPaths, Guard, Hosts, page_policy
from infra.http.intake import Publisher
from infra.http.rates import RateLimit, Rates
from infra.metrics import ApiMetrics
from infra.probes import liveness, readiness
from infra.settings import Settings
from stream.errors import PublishError

Id = Annotated[str, Path(min_length=1, max_length=128)]
MOST_ITEMS = 200  # per response
Users = Callable[[], Sequence[str]]
Clock = Callable[[], int]

log = logging.getLogger(__name__)


def make_api(  # noqa: PLR0913
    store: OnlineStore,
    publisher: Publisher,
    metrics: ApiMetrics,
    health: Health,
    settings: Settings,
    *,
    fallback: Fallback | None = None,
    users: Users | None = None,
    clock: Clock = wall_ms,
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[Any]] | None = None,
) -> FastAPI:
    """The application, for uvicorn or a test client.

    Args:
        store: the online store to read.
        publisher: sends events; started and stopped by the caller, in `lifespan` if it needs the event loop.
        metrics: counts requests; `/metrics` shows its registry.
        health: the conditions that `/health/ready` reports.
        settings: limits, tokens, hosts, topic prefix and time rules.
        fallback: the k most popular items, for users without a candidate set.
        users: a few user ids for the page to offer.
        clock: wall clock, ms since the epoch.
        lifespan: opens and closes resources with the lifetime of the application.
    """
    register_url_convertor("id", Encoded())
    app = FastAPI(title="Everlong", docs_url=None, redoc_url=None, lifespan=lifespan)
    access = Access(settings)
    metrics.follow(health)
    _add_reads(app, access, Answers(store, fallback), users if users and settings.api_list_users else tuple, settings.api_max_k)
    _add_events(app, access, publisher, settings, clock)
    _add_system(app, metrics, health)
    _add_errors(app)
    if settings.api_cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.api_cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"],
        )
    if "*" not in settings.allowed_hosts:
        app.add_middleware(Hosts, names=settings.allowed_hosts)
    if settings.api_rate:
        app.add_middleware(RateLimit, rates=Rates(settings.api_rate))
    app.add_middleware(EncodedPaths)
    app.add_middleware(Guard, metrics=metrics)
    return app


def _add_reads(app: FastAPI, access: Access, answers: Answers, users: Users, max_k: int) -> None:
    routes = APIRouter(dependencies=[Depends(access.needs(Scope.READ))])

    @routes.get("/v1/users")
    def list_users() -> Response:
        """A few user ids to start from."""
        return _json({"users": list(users())})

    @routes.get("/v1/users/{user:id}/why/{item:id}")
    def why(user: Id, item: Id) -> Response:
        """Why an item is a candidate of a user."""
        answer = answers.why(user, item)
        if answer is None:
            raise RequestError(404, "not_a_candidate", f"item {item} is not in the candidate set of user {user} now")
        return _json(answer)

    @routes.get("/v1/users/{user:id}/candidates")
    def candidates(
        user: Id,
        k: Annotated[int, Query(ge=1, le=max_k)] = min(50, max_k),
        exclude: Annotated[list[str], Query()] = [],  # noqa: B006 - FastAPI copies it
        category: str | None = None,
        titles: bool = False,
    ) -> Response:
        """The best k candidates. `exclude`: item ids, repeated or separated by commas; `titles` adds the items' titles.

        Scores are comparable only among candidates of the same `path`.
        """
        excluded = {part for value in exclude for part in (value, *value.split(","))}
        return _json(answers.candidates(user, k, excluded, category, titles))

    @routes.get("/v1/users/{user:id}/features")
    def features(user: Id, category: str | None = None) -> Response:
        """A user's features, newest first; with `category` also the lifelong sequence of that category."""
        return _json(answers.features(user, category))

    @routes.get("/v1/items")
    def items(id: Annotated[list[str], Query(min_length=1, max_length=MOST_ITEMS)]) -> Response:
        """Items of the catalogue; `id` can be repeated, and unknown items are omitted."""
        return _json({"items": answers.items(id)})

    @routes.get("/v1/items/{item:id}")
    def item(item: Id) -> Response:
        """An item of the catalogue."""
        found = answers.items([item])
        if not found:
            raise RequestError(404, "no_such_item", f"the catalogue holds no item {item}")
        return _json(found[0])

    app.include_router(routes)


def _add_events(app: FastAPI, access: Access, publisher: Publisher, settings: Settings, clock: Clock) -> None:
    Held = Annotated[Scopes, Depends(access.needs(Scope.WRITE, Scope.ADMIN))]  # noqa: N806 - a type

    async def take(request: Request, topic: Topic | None, held: Scopes) -> Response:
        if topic is not None:
            require(held, _scope(topic))
        body = await intake.read_body(request, settings.api_body_limit, settings.api_body_timeout_s)
        now_ms = clock()
        sent = intake.parse(body, topic, now_ms, settings.time_rules, settings.api_max_events)
        for found in {one.topic for one in sent}:
            require(held, _scope(found))
        await publisher.publish(intake.records_of(sent, settings.topic_prefix, now_ms))
        return _json({"accepted": len(sent), "topics": intake.count(sent)}, 202)

    @app.post("/v1/events", status_code=202)
    async def send_events(request: Request, held: Held) -> Response:
        """Send an event or a list of events, each with its `topic`; all are accepted or none. Resent after a 503, none counts twice."""
        return await take(request, None, held)

    @app.post("/v1/events/{topic}", status_code=202)
    async def send_events_to(request: Request, topic: Topic, held: Held) -> Response:
        """As `/v1/events`, with all events for one topic."""
        return await take(request, topic, held)


def _scope(topic: Topic) -> Scope:
    """The scope required for sending to a topic. All users share the catalogue, so sending a user's events does not allow sending items."""
    return Scope.ADMIN if topic is Topic.ITEMS else Scope.WRITE


def _add_system(app: FastAPI, metrics: ApiMetrics, health: Health) -> None:
    page = files("infra.http").joinpath("page.html").read_text(encoding="utf-8")
    headers = {"Content-Security-Policy": page_policy(page), "Cache-Control": "no-cache"}

    @app.get("/", include_in_schema=False)
    def show_page() -> Response:
        """The HTML page."""
        return Response(page, media_type="text/html", headers=headers)

    @app.get("/health/live")
    def live() -> Response:
        """200: the process answers."""
        return _json(liveness(metrics.role))

    @app.get("/health/ready")
    def ready() -> Response:
        """200 when every condition holds, else 503 with the reasons."""
        status, body = readiness(metrics.role, health)
        return _json(body, status)

    @app.get("/metrics")
    def show_metrics() -> Response:
        """Metrics as Prometheus text."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(RequestError)
    async def refused(_: Request, error: RequestError) -> Response:
        headers = {"Connection": "close"} if error.status in (408, 413) else challenge(error.status, error.reason)
        return _error(error.status, error.reason, error.detail, headers, **({"errors": error.errors} if error.errors else {}))

    @app.exception_handler(StoreUnavailableError)
    async def store_unavailable(_: Request, error: StoreUnavailableError) -> Response:
        log.warning("the store does not answer: %s", error)
        return _error(503, "store_unavailable", away("store"), _retry_after(error.retry_after_s))

    @app.exception_handler(PublishError)
    async def publish_failed(_: Request, error: PublishError) -> Response:
        log.warning("the broker does not answer: %s", error)
        return _error(503, "broker_unavailable", f"{away('broker')}; send the events again later", _retry_after(error.retry_after_s))

    @app.exception_handler(KafkaError)
    async def broker_refused(_: Request, error: KafkaError) -> Response:
        log.warning("the broker rejected an event: %r", error)
        name = type(error).__name__
        return _error(502, "broker_refused", f"the broker rejected the event ({name}), and resending it will not help; see the log")

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, __: ClientDisconnect) -> Response:
        return Response(status_code=CLIENT_CLOSED)  # only for the count of requests: the client is gone

    @app.exception_handler(LayoutError)
    async def unreadable(_: Request, error: LayoutError) -> Response:
        return _error(500, "layout" if isinstance(error, OtherLayoutError) else "row_unreadable", str(error))

    @app.exception_handler(RequestValidationError)
    async def wrong_parameter(_: Request, error: RequestValidationError) -> Response:
        wrong = "; ".join(f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors())
        return _error(422, "bad_parameter", wrong)

    @app.exception_handler(HTTPException)
    async def other(_: Request, error: HTTPException) -> Response:
        return _error(error.status_code, "not_found" if error.status_code == 404 else "refused", error.detail, dict(error.headers or {}))


def _json(body: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(body), status, headers, "application/json")


def _error(status: int, reason: str, detail: str, headers: dict[str, str] | None = None, **more: object) -> Response:
    return _json({"reason": reason, "detail": detail, **more}, status, headers)


def _retry_after(seconds: float) -> dict[str, str]:
    return {"Retry-After": str(max(1, math.ceil(seconds)))}

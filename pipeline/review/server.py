"""The desk over HTTP: the page, the clips by byte range, the judgements, the run's report."""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from fastapi import Body, FastAPI, Query, Request
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from fastapi.staticfiles import StaticFiles

from pipeline.media.errors import MediaError
from pipeline.pack.encode import MEDIA_SUFFIX
from pipeline.review.byte_range import UnsatisfiableRangeError, parse_range
from pipeline.review.desk import Desk, UnknownClipIdError
from pipeline.review.exchange import csv_text
from pipeline.review.judgement import CaptionFix, JudgementError, parse_fix
from pipeline.review.log import parquet_bytes
from pipeline.review.order import Order
from pipeline.storage import StorageError

_PAGE = Path(__file__).parent / "page"
_MIME = {"mp4": "video/mp4", "jpg": "image/jpeg"}
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
}
_POLICY = "default-src 'self'; img-src 'self' data:; media-src 'self' blob:; frame-ancestors 'none'"
_REPORT_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
)
Reviewer = Annotated[str, Query(min_length=1, max_length=64)]
Count = Annotated[int, Query(ge=1, le=50)]


def build_app(desk: Desk, make_report: Callable[[], bytes]) -> FastAPI:
    """`make_report` gives the report's page, from disk or made anew."""
    app = FastAPI(title="reelsieve review", docs_url=None, redoc_url=None, openapi_url=None)
    _add_errors(app)
    _add_page(app, make_report)
    _add_clips(app, desk)
    _add_judgements(app, desk)
    app.mount("/page", StaticFiles(directory=_PAGE), name="page")
    return app


def _add_page(app: FastAPI, make_report: Callable[[], bytes]) -> None:
    @app.get("/")
    def page() -> Response:
        return FileResponse(_PAGE / "index.html", headers={"Cache-Control": "no-cache"})

    @app.get("/report")
    def report() -> Response:
        headers = {"Content-Security-Policy": _REPORT_POLICY, "Cache-Control": "no-cache"}
        return Response(make_report(), media_type="text/html", headers=headers)


def _add_clips(app: FastAPI, desk: Desk) -> None:
    @app.get("/api/setup")
    def setup() -> dict[str, Any]:
        return desk.setup()

    @app.get("/api/queue")
    def queue(
        reviewer: Reviewer, order: Order = "mixed", count: Count = 3, cluster: int | None = None
    ) -> list[dict[str, Any]]:
        return desk.queue(reviewer, order, count, cluster)

    @app.get("/api/clips/{clip_id}")
    def clip(clip_id: str, reviewer: Reviewer) -> dict[str, Any]:
        return desk.clip(clip_id, reviewer)

    @app.get("/media/{clip_id}")
    def media(clip_id: str, request: Request) -> Response:
        return _media(desk, clip_id, request.headers.get("range"))


def _add_judgements(app: FastAPI, desk: Desk) -> None:
    @app.post("/api/judgements")
    def judge(values: Annotated[dict[str, Any], Body()]) -> dict[str, Any]:
        return desk.judge(values).model_dump(mode="json")

    @app.post("/api/check")
    def check(values: Annotated[dict[str, Any], Body()]) -> CaptionFix:
        return parse_fix(values)

    @app.get("/api/history")
    def history(reviewer: Reviewer, count: Count = 20) -> list[dict[str, Any]]:
        return desk.history(reviewer, count)

    @app.get("/api/progress")
    def progress() -> dict[str, Any]:
        return desk.progress()

    @app.get("/api/judgements.csv")
    def as_csv() -> Response:
        return _download(csv_text(desk.judgements()).encode(), "text/csv", "judgements.csv")

    @app.get("/api/judgements.parquet")
    def as_parquet() -> Response:
        data = parquet_bytes(desk.judgements())
        return _download(data, "application/vnd.apache.parquet", "judgements.parquet")


def _add_errors(app: FastAPI) -> None:
    """Every known error is one line under `error`."""

    def answer(status: int) -> Callable[[Request, Exception], Response]:
        return lambda _, error: JSONResponse({"error": str(error)}, status)

    app.add_exception_handler(JudgementError, answer(422))
    app.add_exception_handler(MediaError, answer(422))
    app.add_exception_handler(StorageError, answer(507))
    app.add_exception_handler(
        UnknownClipIdError,
        lambda _, error: JSONResponse({"error": f"no clip {error.args[0]} in this tier"}, 404),
    )

    @app.middleware("http")
    async def headers(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        response = await call_next(request)
        response.headers.update(_HEADERS)
        response.headers.setdefault("Content-Security-Policy", _POLICY)
        return response


def _media(desk: Desk, clip_id: str, wanted: str | None) -> Response:
    desk.candidate(clip_id)
    num_bytes = desk.clips.num_bytes(clip_id)
    suffix = MEDIA_SUFFIX[desk.clips.sample(clip_id).media_kind]
    headers = {"Accept-Ranges": "bytes", "Cache-Control": "private, max-age=3600"}
    try:
        span = parse_range(wanted, num_bytes)
    except UnsatisfiableRangeError:
        return Response(status_code=416, headers={"Content-Range": f"bytes */{num_bytes}"})
    start, end = span or (0, num_bytes)
    headers["Content-Length"] = str(end - start)
    if span is not None:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{num_bytes}"
    return StreamingResponse(
        desk.clips.read(clip_id, start, end),
        status_code=200 if span is None else 206,
        media_type=_MIME[suffix],
        headers=headers,
    )


def _download(data: bytes, media_type: str, name: str) -> Response:
    headers: Mapping[str, str] = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(data, media_type=media_type, headers=headers)

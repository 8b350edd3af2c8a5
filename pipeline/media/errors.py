"""The one exception that media work raises for bad data, and its form as a value."""

from schemas.status import Failure


class MediaError(Exception):
    """A medium that cannot be used. `error_class` is a short stable word; str() is one line.

    Classes: `not_found`, `not_a_file`, `unreadable`, `fetch_failed`, `empty_file`, `not_media`,
    `playlist_refused`, `wrong_kind`, `broken_container`, `no_video_stream`, `no_frames`,
    `unsupported_codec`, `too_many_pixels`, `too_many_streams`, `too_many_bytes`, `too_long`,
    `decode_error`, `ended_early`, `timeout`.
    """

    def __init__(self, error_class: str, message: str) -> None:
        self.error_class = error_class
        self.message = " ".join(message.split())
        super().__init__(error_class, self.message)

    def __str__(self) -> str:
        return self.message


def to_failure(error: MediaError) -> Failure:
    """The status columns of a row that this error made impossible."""
    return Failure(error_class=error.error_class, error=str(error))

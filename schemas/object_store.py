"""Errors of object stores that are no OSError, told apart without importing a client."""

import sys


def client_errors() -> tuple[type[Exception], ...]:
    """For an `except` clause: no endpoint, no credentials and the like; empty without a client.

    s3fs turns what the server answers into OSError, and lets through what botocore raises itself.
    """
    botocore = sys.modules.get("botocore.exceptions")
    return () if botocore is None else (botocore.BotoCoreError,)


def access_errors() -> tuple[type[Exception], ...]:
    """All that opening a location by fsspec raises: also a broken URL or a missing client."""
    return (OSError, ValueError, ImportError, *client_errors())

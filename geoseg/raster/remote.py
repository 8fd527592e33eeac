"""What a server says of a file without sending it: size, ETag, date."""

from __future__ import annotations

import os
import re
import urllib.error
import urllib.parse
import urllib.request
from contextlib import suppress
from typing import Any

TIMEOUT_S = 10.0
_TOLD = ("Content-Length", "ETag", "Last-Modified")
_S3 = re.compile(r"^(?:s3://|/vsis3(?:_streaming)?/)([^/]+)/(.+)$")


def plain_name(path: str) -> str:
    """A source's name as one may show and keep it: one form for GDAL's and ours, and no signature or password."""
    match = _S3.match(path)
    if match:
        return f"s3://{match[1]}/{match[2]}"
    name = re.sub(r"^/vsicurl(_streaming)?/(?=https?://)", "", path)
    if name.startswith(("http://", "https://")):
        name = re.sub(r"^(https?://)[^/@]*@", r"\1", name.partition("?")[0])
    return name


def remote_state(path: str) -> dict[str, str]:
    """Size, ETag and date of a file on http(s) or S3; empty where the server does not say, or for other protocols."""
    match = _S3.match(path)
    if match:
        return _s3_state(match[1], match[2])
    url = re.sub(r"^/vsicurl(_streaming)?/", "", path)
    return _http_state(url) if url.startswith(("http://", "https://")) else {}


def _http_state(url: str) -> dict[str, str]:
    """By HEAD; by the first byte where that is refused, as for addresses that are signed for GET."""
    for method, headers in (("HEAD", {}), ("GET", {"Range": "bytes=0-0"})):
        request = urllib.request.Request(url, method=method, headers={"User-Agent": "geoseg", **headers})
        with (
            suppress(urllib.error.URLError, OSError, ValueError),
            urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer,
        ):
            return _told(answer.headers, method)
    return {}


def _told(headers: Any, method: str) -> dict[str, str]:
    told = {name: headers[name] for name in _TOLD if headers[name]}
    if method == "GET":  # of the part
        size = str(headers["Content-Range"] or "").rpartition("/")[2]
        told = {name: text for name, text in told.items() if name != "Content-Length"}
        return {"Content-Length": size, **told} if size.isdigit() else told
    return told


def _s3_state(bucket: str, key: str) -> dict[str, str]:
    """Signed where s3fs is installed and finds credentials, else as anybody may ask."""
    endpoint = _s3_endpoint()
    with suppress(ImportError):
        from botocore.exceptions import BotoCoreError
        from s3fs import S3FileSystem

        unsigned = os.environ.get("AWS_NO_SIGN_REQUEST", "NO").upper() in ("YES", "TRUE", "1")
        system = S3FileSystem(anon=unsigned, endpoint_url=endpoint, use_listings_cache=False)
        with suppress(OSError, BotoCoreError):
            facts = system.info(f"{bucket}/{key}")
            return {name: str(facts[name]) for name in ("ETag", "LastModified", "size") if facts.get(name) is not None}
    return _http_state(f"{endpoint or 'https://s3.amazonaws.com'}/{bucket}/{urllib.parse.quote(key)}")


def _s3_endpoint() -> str | None:
    """The server that GDAL asks too: its own variable first, then those of the AWS tools."""
    host = os.environ.get("AWS_S3_ENDPOINT")
    if host:
        secure = os.environ.get("AWS_HTTPS", "YES").upper() not in ("NO", "FALSE", "OFF")
        return host if "://" in host else f"{'https' if secure else 'http'}://{host}"
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")

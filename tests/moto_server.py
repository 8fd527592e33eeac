"""A real S3 server on this machine, found by its environment as any worker would find it."""

from __future__ import annotations

import os
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

SECRET = "not-to-be-seen"


@contextmanager
def s3_server() -> Iterator[Any]:
    """Its file system, with a bucket `bucket`; the environment of this process leads to it."""
    pytest.importorskip("s3fs")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a server that is not under test
        moto = pytest.importorskip("moto.server")
        server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
    host, port = server.get_host_and_port()
    urllib.request.urlopen(f"http://{host}:{port}/moto-api/reset", data=b"")  # servers of one process share their state
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_") or name.lower().endswith("_proxy")]:
            patch.delenv(name)
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "somebody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        from s3fs import S3FileSystem

        S3FileSystem.clear_instance_cache()
        system = S3FileSystem(use_listings_cache=False)
        system.mkdir("bucket")
        yield system
        S3FileSystem.clear_instance_cache()
    server.stop()

"""A small S3: it checks each signature by itself and keeps objects in memory."""

from __future__ import annotations

import hashlib
import hmac
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, quote, unquote, urlsplit
from xml.sax.saxutils import escape

ACCESS, SECRET, REGION = "AKIDEXAMPLE", "very/secret+key", "eu-west-9"


class S3:
    """`failures`: answers for the next requests, (status, code) each."""

    def __init__(self, bucket: str = "backups") -> None:
        self.bucket = bucket
        self.objects: dict[str, bytes] = {}
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.failures: list[tuple[int, str]] = []
        self.seen: list[str] = []
        self.page = 2
        outer = self

        class Handler(_Handler):
            s3 = outer

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    s3: S3
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_any(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        s3, parts = self.s3, urlsplit(self.path)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        key = unquote(parts.path).removeprefix(f"/{s3.bucket}/")
        s3.seen.append(f"{self.command} {key} {' '.join(sorted(query))}".strip())
        if s3.failures:
            status, code = s3.failures.pop(0)
            self._error(status, code)
        elif wrong := self._unsigned(body):
            self._error(403, wrong)
        elif not parts.path.startswith(f"/{s3.bucket}/"):
            self._error(404, "NoSuchBucket")
        else:
            getattr(self, f"on_{self.command.lower()}")(key, query, body)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_any  # noqa: N815

    def on_put(self, key: str, query: dict[str, str], body: bytes) -> None:
        if "uploadId" in query:
            self.s3.uploads[query["uploadId"]][int(query["partNumber"])] = body
        else:
            self.s3.objects[key] = body
        self._answer(200, b"", ETag=f'"{hashlib.md5(body).hexdigest()}"')

    def on_post(self, key: str, query: dict[str, str], body: bytes) -> None:
        if "uploads" in query:
            self.s3.uploads[f"up/{key}+"] = {}
            self._answer(200, _xml("InitiateMultipartUploadResult", f"<UploadId>up/{key}+</UploadId>"))
            return
        parts = self.s3.uploads.pop(query["uploadId"])
        named = [int(n) for n in re.findall(rb"<PartNumber>(\d+)</PartNumber>", body)]
        if named != sorted(parts):
            self._answer(200, _xml("Error", "<Code>InvalidPart</Code><Message>a part is missing</Message>"))
            return
        self.s3.objects[key] = b"".join(parts[n] for n in named)
        self._answer(200, _xml("CompleteMultipartUploadResult", ""))

    def on_get(self, key: str, query: dict[str, str], _body: bytes) -> None:
        if query.get("list-type") == "2":
            keys = sorted(k for k in self.s3.objects if k.startswith(query["prefix"]))
            start = int(query.get("continuation-token", "0"))
            shown = keys[start : start + self.s3.page]
            more = start + self.s3.page < len(keys)
            text = "".join(
                f"<Contents><Key>{escape(k)}</Key><Size>{len(self.s3.objects[k])}</Size></Contents>" for k in shown
            )
            text += f"<IsTruncated>{str(more).lower()}</IsTruncated>"
            text += f"<NextContinuationToken>{start + self.s3.page}</NextContinuationToken>" if more else ""
            self._answer(200, _xml("ListBucketResult", text))
        elif key in self.s3.objects:
            self._answer(200, self.s3.objects[key])
        else:
            self._error(404, "NoSuchKey")

    def on_head(self, key: str, _query: dict[str, str], _body: bytes) -> None:
        if key not in self.s3.objects:
            self._error(404, "NoSuchKey")
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.s3.objects[key])))
        self.end_headers()

    def on_delete(self, key: str, query: dict[str, str], _body: bytes) -> None:
        if "uploadId" in query:
            self.s3.uploads.pop(query["uploadId"])
        else:
            self.s3.objects.pop(key, None)
        self._answer(204, b"")

    def _unsigned(self, body: bytes) -> str:
        """By the letter of AWS's description, and not by our code."""
        found = re.fullmatch(
            r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/s3/aws4_request, SignedHeaders=([a-z0-9;-]+), Signature=([0-9a-f]{64})",
            self.headers.get("Authorization", ""),
        )
        if not found:
            return "AccessDenied"
        access, day, region, names, signature = found.groups()
        if access != ACCESS:
            return "InvalidAccessKeyId"
        if region != REGION:
            return "AuthorizationHeaderMalformed"
        if not {"host", "x-amz-content-sha256", "x-amz-date"} <= set(names.split(";")):
            return "AccessDenied"
        if self.headers["x-amz-content-sha256"] != hashlib.sha256(body).hexdigest():
            return "XAmzContentSHA256Mismatch"
        parts = urlsplit(self.path)
        pairs = sorted(parse_qsl(parts.query, keep_blank_values=True))
        query = "&".join(f"{quote(k, safe='-_.~')}={quote(v, safe='-_.~')}" for k, v in pairs)
        headers = "".join(f"{n}:{self.headers[n].strip()}\n" for n in names.split(";"))
        path = quote(unquote(parts.path), safe="/-_.~")
        request = f"{self.command}\n{path}\n{query}\n{headers}\n{names}\n{self.headers['x-amz-content-sha256']}"
        text = "\n".join(
            (
                "AWS4-HMAC-SHA256",
                self.headers["x-amz-date"],
                f"{day}/{region}/s3/aws4_request",
                hashlib.sha256(request.encode()).hexdigest(),
            )
        )
        key = ("AWS4" + SECRET).encode()
        for word in (day, region, "s3", "aws4_request"):
            key = hmac.new(key, word.encode(), hashlib.sha256).digest()
        wanted = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
        return "" if hmac.compare_digest(wanted, signature) else "SignatureDoesNotMatch"

    def _error(self, status: int, code: str) -> None:
        body = b"" if self.command == "HEAD" else f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
        self._answer(status, body)

    def _answer(self, status: int, body: bytes, **headers: Any) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _xml(name: str, content: str) -> bytes:
    return f'<?xml version="1.0"?><{name} xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{content}</{name}>'.encode()

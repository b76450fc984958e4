"""The six requests of S3 that backups need, signed by hand (AWS Signature Version 4) on `requests`.

Why no library: boto3 brings 14 MB and its own retry and configuration world, minio four further packages (one of them a
second crypto library), aiobotocore both worlds; all for one algorithm of forty lines that has not changed since 2012.
Works with AWS and with what speaks its language (Ceph, MinIO, Garage, SeaweedFS, R2): path-style addresses where an
endpoint is given.
https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree as ET

from metalimmu import log
from metalimmu.errors import BackupError

if TYPE_CHECKING:
    import requests

PART = 64 << 20  # bytes; ten thousand parts are the most: 640 GB
EMPTY = hashlib.sha256(b"").hexdigest()
_TIMES = (10.0, 120.0)  # seconds to connect, and between two bytes
_MOST_XML = 16 << 20


@dataclass(frozen=True)
class Keys:
    access: str
    secret: str
    token: str = ""  # of temporary credentials


def signed(
    method: str, url: str, headers: Mapping[str, str], payload: str, keys: Keys, region: str, now: dt.datetime
) -> dict[str, str]:
    """Headers to send: `headers` with time, payload's SHA-256 (hex) and Authorization. `url` is encoded already. Pure."""
    stamp = now.strftime("%Y%m%dT%H%M%SZ")
    parts = urlsplit(url)
    found = {k.lower(): " ".join(v.split()) for k, v in headers.items()}
    found |= {"host": parts.netloc, "x-amz-content-sha256": payload, "x-amz-date": stamp}
    if keys.token:
        found["x-amz-security-token"] = keys.token
    names = ";".join(sorted(found))
    lines = "".join(f"{k}:{found[k]}\n" for k in sorted(found))
    request = "\n".join((method, parts.path or "/", _query(parts.query), lines, names, payload))
    scope = f"{stamp[:8]}/{region}/s3/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = b"AWS4" + keys.secret.encode()
    for word in (*scope.split("/"), text):
        key = hmac.digest(key, word.encode(), "sha256")
    credential = f"AWS4-HMAC-SHA256 Credential={keys.access}/{scope}"
    return found | {"authorization": f"{credential}, SignedHeaders={names}, Signature={key.hex()}"}


def _query(query: str) -> str:
    """Sorted by name, and with `=` also where there is no value."""
    return "&".join(sorted(p if "=" in p else f"{p}=" for p in query.split("&") if p))


def _quoted(text: str, safe: str = "") -> str:
    return quote(text, safe=f"-_.~{safe}")


class Bucket:
    """Every method raises BackupError, with the service's own words."""

    def __init__(
        self, name: str, keys: Keys, *, endpoint: str | None = None, region: str = "us-east-1", ca: Path | None = None
    ) -> None:
        import requests

        self._base = f"{endpoint.rstrip('/')}/{name}" if endpoint else f"https://{name}.s3.{region}.amazonaws.com"
        self._name, self._keys, self._region = name, keys, region
        log.secret(keys.secret)
        self._http = requests.Session()
        if ca is not None:
            self._http.verify = str(ca)

    def put(self, key: str, path: Path) -> None:
        """Whole or not at all: the object is there when this returns, and nothing is when it raises."""
        size = path.stat().st_size
        with path.open("rb") as file:
            if size <= PART:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                file.seek(0)
                self._ask("PUT", key, data=file, payload=digest).close()
            else:
                self._in_parts(key, file)
        there = self.size(key)
        if there != size:
            raise BackupError(f"s3://{self._name}/{key} has {there} bytes after the upload, not {size}")

    def get(self, key: str) -> IO[bytes]:
        """The content as a stream."""
        answer = self._ask("GET", key, stream=True)
        answer.raw.decode_content = False
        return cast("IO[bytes]", answer.raw)

    def size(self, key: str) -> int:
        with self._ask("HEAD", key) as answer:
            return int(answer.headers.get("Content-Length", -1))

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Keys that begin so, with their sizes."""
        more = ""
        while True:
            query = f"list-type=2&prefix={_quoted(prefix)}" + (f"&continuation-token={_quoted(more)}" if more else "")
            page = self._xml("GET", "", query)
            for entry in page.iter("Contents"):
                yield entry.findtext("Key", ""), int(entry.findtext("Size", "0"))
            more = page.findtext("NextContinuationToken", "")
            if page.findtext("IsTruncated") != "true" or not more:
                return

    def delete(self, key: str) -> None:
        self._ask("DELETE", key).close()

    def _in_parts(self, key: str, file: IO[bytes]) -> None:
        upload = _quoted(self._xml("POST", key, "uploads=").findtext("UploadId", ""))
        try:
            tags: list[str] = []
            while part := file.read(PART):
                query = f"partNumber={len(tags) + 1}&uploadId={upload}"
                digest = hashlib.sha256(part).hexdigest()
                with self._ask("PUT", key, query, data=part, payload=digest) as answer:
                    tags.append(answer.headers.get("ETag", ""))
            body = "".join(f"<Part><PartNumber>{n}</PartNumber><ETag>{t}</ETag></Part>" for n, t in enumerate(tags, 1))
            self._complete(key, upload, f"<CompleteMultipartUpload>{body}</CompleteMultipartUpload>".encode())
        except BaseException:
            self._ask("DELETE", key, f"uploadId={upload}").close()  # parts of an upload that nobody ends cost for ever
            raise

    def _complete(self, key: str, upload: str, parts: bytes) -> None:
        found = self._xml("POST", key, f"uploadId={upload}", data=parts)
        if found.tag.endswith("Error"):  # 200 was sent before it knew: the one odd answer of S3
            raise BackupError(f"s3://{self._name}/{key}: {found.findtext('Code')}: {found.findtext('Message')}")

    def _xml(self, method: str, key: str, query: str, *, data: bytes = b"") -> ET.Element:
        with self._ask(method, key, query, data=data or None, payload=hashlib.sha256(data).hexdigest()) as answer:
            text = answer.content[:_MOST_XML]
        try:
            return _parsed(text)
        except ET.ParseError as exc:
            raise BackupError(f"s3://{self._name} answered with what is no XML: {exc}") from exc

    def _ask(
        self, method: str, key: str, query: str = "", *, data: Any = None, payload: str = EMPTY, stream: bool = False
    ) -> requests.Response:
        import requests

        url = f"{self._base}/{_quoted(key, '/')}" + (f"?{query}" if query else "")
        headers = signed(method, url, {}, payload, self._keys, self._region, dt.datetime.now(dt.UTC))
        try:
            answer = self._http.request(
                method, url, headers=headers, data=data, stream=stream, timeout=_TIMES, allow_redirects=False
            )
        except requests.RequestException as exc:
            raise BackupError(
                f"s3://{self._name} at {urlsplit(url).netloc}: {log.redact(str(exc))[:300]}",
                hint="check `backup.endpoint` of site.yaml, the network and the proxy; it is tried again",
            ) from exc
        if answer.status_code // 100 == 2:
            return answer
        with answer:
            raise _refused(f"s3://{self._name}/{key}", answer.status_code, answer.content[:_MOST_XML])


_HINTS = {
    "RequestTimeTooSkewed": "this machine's clock is wrong: `metalimmu doctor`",
    "SignatureDoesNotMatch": "the secret of `backup.credentials` is not that of the access key",
    "InvalidAccessKeyId": "the access key of `backup.credentials` is not known there",
    "AccessDenied": "the access key needs PutObject, GetObject, DeleteObject and ListBucket on the bucket",
    "NoSuchBucket": "make the bucket, or correct `backup.to`",
    "PermanentRedirect": "set `backup.region` to the bucket's",
    "AuthorizationHeaderMalformed": "set `backup.region` to the bucket's",
}


def _refused(what: str, status: int, text: bytes) -> BackupError:
    code, message = "", text[:200].decode(errors="replace")
    try:
        found = _parsed(text)
        code, message = found.findtext("Code", ""), found.findtext("Message", "")
    except ET.ParseError:
        pass
    hint = _HINTS.get(code, "it is tried again; `metalimmu -v backup` shows more")
    return BackupError(f"{what}: {status} {code} {message}".strip(), hint=hint)


def _parsed(text: bytes) -> ET.Element:
    """Without name spaces and without a document type: entities are not for us."""
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        raise ET.ParseError("it has a document type")
    return ET.fromstring(re.sub(rb'\sxmlns="[^"]*"', b"", text, count=1))  # noqa: S314  # see above

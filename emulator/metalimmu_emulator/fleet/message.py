"""A request as the wire had it, an answer as the wire will have it, and errors in DMTF's form (DSP0266 8.6)."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

REASONS = {
    200: b"OK", 201: b"Created", 202: b"Accepted", 204: b"No Content", 301: b"Moved Permanently", 304: b"Not Modified",
    308: b"Permanent Redirect", 400: b"Bad Request", 401: b"Unauthorized", 403: b"Forbidden", 404: b"Not Found",
    405: b"Method Not Allowed", 409: b"Conflict", 412: b"Precondition Failed", 413: b"Content Too Large",
    415: b"Unsupported Media Type", 428: b"Precondition Required", 429: b"Too Many Requests", 431: b"Fields Too Large",
    500: b"Internal Server Error", 501: b"Not Implemented", 503: b"Service Unavailable",
}  # fmt: skip


class Request(NamedTuple):
    method: str
    path: str  # without the query
    query: str
    headers: dict[bytes, bytes]  # names in lower case
    body: bytes = b""

    def header(self, name: bytes) -> str:
        return self.headers.get(name, b"").decode("latin-1")


class Answer(NamedTuple):
    status: int
    body: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    content_type: bytes = b"application/json; charset=utf-8"


def document(status: int, content: dict[str, Any], *headers: tuple[bytes, bytes]) -> Answer:
    return Answer(status, msgspec.json.encode(content), headers)


# message id -> (text with %1, severity, resolution)
BASE = {
    "Success": ("The request completed successfully.", "OK", "None."),
    "GeneralError": ("A general error has occurred.", "Critical", "See the extended information."),
    "ResourceMissingAtURI": ("The resource at the URI %1 was not found.", "Critical", "Place a valid resource at the URI."),
    "AccessDenied": ("The request to %1 was refused: wrong or missing credentials.", "Critical", "Log in again."),
    "NoValidSession": ("There is no valid session established with the implementation.", "Critical", "Establish a session."),
    "InsufficientPrivilege": ("The account does not have the privilege for this.", "Critical", "Use an account with more privileges."),
    "SessionLimitExceeded": ("The session establishment failed due to the number of simultaneous sessions exceeding the limit.", "Critical", "Close other sessions."),
    "ServiceTemporarilyUnavailable": ("The service is temporarily unavailable.  Retry in %1 seconds.", "Critical", "Wait and resubmit."),
    "MalformedJSON": ("The request body submitted was malformed JSON.", "Critical", "Send valid JSON."),
    "UnrecognizedRequestBody": ("The service detected a malformed request body that it was unable to interpret.", "Warning", "Correct the body."),
    "PropertyUnknown": ("The property %1 is not in the list of valid properties for the resource.", "Warning", "Remove the property."),
    "PropertyNotWritable": ("The property %1 is a read-only property and cannot be assigned a value.", "Warning", "Remove the property."),
    "PropertyValueTypeError": ("The value of the property %1 is of a different type than the property can accept.", "Warning", "Correct the value."),
    "PropertyValueNotInList": ("The value of the property %1 is not in the list of acceptable values.", "Warning", "Choose a value from the list."),
    "PropertyMissing": ("The property %1 is required and must be included in the request.", "Warning", "Include the property."),
    "ActionNotSupported": ("The action %1 is not supported by the resource.", "Critical", "Use a supported action."),
    "ActionParameterNotSupported": ("The parameter %1 is not supported on the target resource.", "Warning", "Remove the parameter."),
    "OperationNotAllowed": ("The HTTP method is not allowed on this resource.", "Critical", "Use another method."),
    "PreconditionFailed": ("The ETag supplied did not match the ETag required to change this resource.", "Critical", "Read the resource again."),
    "PreconditionRequired": ("A precondition header or annotation is required to change this resource.", "Critical", "Send If-Match."),
    "ResourceAlreadyExists": ("The requested resource with the property %1 already exists.", "Critical", "Choose another name."),
    "ResourceInUse": ("The change to the requested resource failed because the resource is in use.", "Warning", "Wait and resubmit."),
    "QueryNotSupported": ("Querying is not supported by the implementation.", "Warning", "Remove the query parameters."),
    "QueryParameterValueTypeError": ("The value of the query parameter %1 is of a different type than it can accept.", "Warning", "Correct the value."),
    "QueryParameterOutOfRange": ("The value of the query parameter %1 is out of range.", "Warning", "Reduce the value."),
    "PayloadTooLarge": ("The supplied payload exceeds the maximum size.", "Warning", "Send less."),
    "InternalError": ("The request failed due to an internal service error.", "Critical", "Resubmit, or reset the service."),
    "HeaderInvalid": ("Header %1 is invalid.", "Warning", "Correct the header."),
}  # fmt: skip


def error(status: int, ident: str, *args: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> Answer:
    body = {
        "error": {
            "code": f"Base.1.16.{ident}",
            "message": text(ident, *args),
            "@Message.ExtendedInfo": [info(ident, *args)],
        }
    }
    return Answer(status, msgspec.json.encode(body), headers)


def text(ident: str, *args: str) -> str:
    found = BASE[ident][0]
    for i, arg in enumerate(args, 1):
        found = found.replace(f"%{i}", arg)
    return found


def info(ident: str, *args: str) -> dict[str, Any]:
    return {
        "@odata.type": "#Message.v1_1_2.Message",
        "MessageId": f"Base.1.16.{ident}",
        "Message": text(ident, *args),
        "MessageArgs": list(args),
        "MessageSeverity": BASE[ident][1],
        "Severity": BASE[ident][1],
        "Resolution": BASE[ident][2],
    }


def missing(path: str) -> Answer:
    return error(404, "ResourceMissingAtURI", path)


def success() -> Answer:
    """200 with a message: what most BMCs answer to an action."""
    return document(200, {"@Message.ExtendedInfo": [info("Success")]})

"""What is printed and kept has no secrets in it, and is still what it was."""

from __future__ import annotations

import json

import pytest

from metalimmu import log


@pytest.mark.parametrize(
    ("data", "kept"),
    [
        ({"said": 'password=abcdefg"x'}, {"said": 'password=***"x'}),
        ({"said": "token: abcdefg\\"}, {"said": "token: ***"}),
        ({"password": "correct", "deep": [{"X-Auth-Token": "0123456"}]}, {"password": "***", "deep": [{"X-Auth-Token": "***"}]}),
        ({"n": 48151623, "text": "a4815b", "4815": True}, {"n": 48151623, "text": "a***b", "***": True}),
        ([None, 1.5, "bearer abcdefgh"], [None, 1.5, "bearer ***"]),
    ],
)  # fmt: skip
def test_data_stays_data(data: object, kept: object) -> None:
    log.secret("4815")  # a password of digits
    try:
        assert log.redacted(data) == kept
        assert json.loads(json.dumps(log.redacted(data))) == kept
    finally:
        log.forget("4815")


@pytest.mark.parametrize("place", ["m", "c", "p", "i", "onie", "nos", "ztp", "ONIE"])
def test_addresses_with_a_secret(place: str) -> None:
    secret = "ab2cd3ef" * 4
    assert log.redact(f"http://10.0.0.5:8080/{place}/{secret}/name") == f"http://10.0.0.5:8080/{place}/***/name"
    assert log.redact(f"/{place}x/{secret}") == f"/{place}x/{secret}"

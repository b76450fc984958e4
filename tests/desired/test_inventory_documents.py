"""An inventory may be what `discover --write` made: host documents, each with its own pin and credentials."""

from __future__ import annotations

import pytest

from metalimmu.desired.inventory import parse
from metalimmu.desired.merge import Candidate, merge
from metalimmu.errors import SiteError


def test_what_discover_wrote() -> None:
    fields = {"name": "a", "bmc": "redfish+https://10.0.0.1", "credentials": "env:B", "tls": {"fingerprint": "ab" * 32}}
    text = merge({}, "found.yaml", [Candidate(fields), Candidate({"name": "b", "bmc": "ipmi://10.0.0.2"})]).files[
        "found.yaml"
    ]
    one, two = parse(text, "found.yaml")
    assert (one.name, one.bmc, one.credentials) == ("a", "redfish+https://10.0.0.1", "env:B")
    assert one.tls
    assert one.tls.fingerprint == "ab" * 32
    assert (two.bmc, two.tls, two.credentials) == ("ipmi://10.0.0.2", None, None)


@pytest.mark.parametrize(
    "text", ["", "[]", "- name: a\n", "- {name: a, bmc: 'ipmi://x', misspelt: 1}\n", "- [", "just text"]
)
def test_what_is_no_list_of_hosts(text: str) -> None:
    with pytest.raises(SiteError) as caught:
        parse(text, "found.yaml")
    assert "discover" in caught.value.hint

"""Who the BMC is: CA, pinned certificate, or nobody asked, said aloud."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redfish_server as rs
from redfish_server import RedfishServer, certificate, small_tree

from metalimmu.bmc import transport
from metalimmu.bmc.redfish import RedfishBmc
from metalimmu.desired.types import Tls
from metalimmu.errors import BmcCertificateError, BmcRefused, BmcUnreachable, UsageError
from metalimmu.observed.types import PowerState

Open = Callable[..., RedfishBmc]


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[tuple[RedfishServer, Path, str]]:
    with certificate(tmp_path) as (context, ca, pin), RedfishServer(small_tree(), tls=context) as server:
        yield server, ca, pin


def test_its_own_ca(secure: tuple[RedfishServer, Path, str], connect_to: Open) -> None:
    server, ca, _ = secure
    assert connect_to(server, tls=Tls(ca=str(ca))).power_state() is PowerState.on


def test_an_unknown_ca_is_refused_before_anything_is_sent(
    secure: tuple[RedfishServer, Path, str], connect_to: Open
) -> None:
    server, _, _ = secure
    with pytest.raises(BmcCertificateError, match=r"self-signed|self signed") as caught:
        connect_to(server).power_state()
    assert "fingerprint" in caught.value.hint
    assert not caught.value.retry
    assert server.requests == []
    assert server.connections == 1  # not tried again


def test_another_name_is_refused(connect_to: Open, tmp_path: Path) -> None:
    with (
        certificate(tmp_path, name="127.0.0.9") as (context, ca, _),
        RedfishServer(small_tree(), tls=context) as server,
    ):
        with pytest.raises(BmcCertificateError):
            connect_to(server, tls=Tls(ca=str(ca))).power_state()
        assert server.logins == []


@pytest.mark.parametrize("spelling", [str.lower, str.upper, lambda h: ":".join(h[i : i + 2] for i in range(0, 64, 2))])
def test_a_pinned_certificate(
    secure: tuple[RedfishServer, Path, str], connect_to: Open, spelling: Callable[[str], str]
) -> None:
    server, _, pin = secure
    assert connect_to(server, tls=Tls(fingerprint=spelling(pin))).power_state() is PowerState.on


def test_a_wrong_pin_is_refused_before_anything_is_sent(
    secure: tuple[RedfishServer, Path, str], connect_to: Open
) -> None:
    server, ca, _ = secure
    with pytest.raises(BmcCertificateError, match="not the expected one"):
        connect_to(server, tls=Tls(fingerprint="ab" * 32, ca=str(ca), verify=False)).power_state()
    assert server.requests == []


def test_unverified_is_said_aloud_once(
    secure: tuple[RedfishServer, Path, str], connect_to: Open, caplog: pytest.LogCaptureFixture
) -> None:
    server, _, _ = secure
    transport._say_once.cache_clear()
    with caplog.at_level(logging.WARNING, "metalimmu"):
        for _ in range(3):
            assert connect_to(server, tls=Tls(verify=False)).power_state() is PowerState.on
    assert sum("not verified" in r.message for r in caplog.records) == 1


def test_one_context_for_all_and_pins_do_not_loosen_it(
    secure: tuple[RedfishServer, Path, str], connect_to: Open
) -> None:
    """urllib3 turns check_hostname off in the context with which it checks a pin."""
    server, ca, pin = secure
    connect_to(server, tls=Tls(fingerprint=pin, ca=str(ca))).power_state()
    connect_to(server, tls=Tls(ca=str(ca))).power_state()
    context, _ = transport._context_and_pin(Tls(ca=str(ca)), "https://x")
    assert context is transport._context_and_pin(Tls(ca=str(ca)), "https://y")[0]
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED


def test_no_ca_file_is_loaded_for_a_connection(
    secure: tuple[RedfishServer, Path, str], connect_to: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, ca, _ = secure
    bmc = connect_to(server, tls=Tls(ca=str(ca)))

    def loaded(*_: object, **__: object) -> None:
        raise AssertionError("the CA store was read again")

    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", loaded)
    monkeypatch.setattr(ssl.SSLContext, "load_default_certs", loaded)
    bmc.power_state()
    bmc.connector._exchange.transport.drop()
    bmc.power_state()
    assert server.connections == 2


@pytest.mark.parametrize("tls", [Tls(ca="/nowhere/ca.pem"), Tls(fingerprint="12:34")])
def test_settings_that_cannot_be_used(tls: Tls, connect_to: Open) -> None:
    with pytest.raises(UsageError, match="tls"):
        connect_to("redfish+https://127.0.0.1:1", tls=tls)


def test_a_ca_file_without_certificates(tmp_path: Path, connect_to: Open) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    with pytest.raises(UsageError, match="no PEM"):
        connect_to("redfish+https://127.0.0.1:1", tls=Tls(ca=str(tmp_path / "ca.pem")))


def test_https_on_a_port_that_speaks_http(connect_to: Open) -> None:
    with RedfishServer(small_tree()) as server:
        bmc = connect_to(server.address.replace("http", "https"), patience=0)
        with pytest.raises((BmcCertificateError, BmcUnreachable), match=r"TLS|broke off"):
            bmc.power_state()


def test_https_to_http_redirects_are_refused(secure: tuple[RedfishServer, Path, str], connect_to: Open) -> None:
    server, ca, _ = secure
    server.fault(
        "GET", "Systems/1", rs.status(302, {"Location": f"http://127.0.0.1:{server.port}/redfish/v1/Systems/1"})
    )
    with pytest.raises(BmcRefused, match="not followed"):
        connect_to(server, tls=Tls(ca=str(ca))).power_state()


def test_a_proxy_is_used(connect_to: Open) -> None:
    """A plain HTTP proxy gets the whole URL."""
    with RedfishServer(small_tree(), login="none") as proxy:
        bmc = connect_to("redfish+http://bmc.example", proxy=f"http://127.0.0.1:{proxy.port}", login=False)
        with pytest.raises(Exception, match="no such resource"):  # it is not a real proxy: it has no such path
            bmc.power_state()
        assert proxy.requests[0] == ("GET", "http://bmc.example/redfish/v1/")


def test_environment_proxies_are_not_used(connect_to: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with RedfishServer(small_tree()) as server:
        assert connect_to(server).power_state() is PowerState.on


def test_a_proxy_that_is_not_there(connect_to: Open) -> None:
    bmc = connect_to("redfish+http://bmc.example", proxy="http://127.0.0.1:1", patience=0)
    with pytest.raises(BmcUnreachable):
        bmc.power_state()

"""What a new NOS is served, and what DHCP tells switches: rendered, compared, and read by the programs that will."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from metalimmu.boot.ztp import dhcp_lines, files, fragment
from metalimmu.errors import TemplateError

BASE = "http://10.0.0.5:8080/ztp/abc"


def test_a_role_with_config_db() -> None:
    found = files({"config_db.json": "{}"}, BASE)
    assert set(found) == {"config_db.json", "ztp.json", "report.sh"}
    assert found["ztp.json"][0] == (
        """{
  "ztp": {
    "01-configdb-json": {
      "url": {
        "source": "http://10.0.0.5:8080/ztp/abc/config_db.json",
        "destination": "/etc/sonic/config_db.json"
      }
    },
    "90-report": {
      "plugin": {
        "url": "http://10.0.0.5:8080/ztp/abc/report.sh"
      }
    }
  }
}
"""
    )


def test_a_ztp_json_of_the_sites_own_gets_our_report_as_its_last_section() -> None:
    own = json.dumps({"ztp": {"95-mine": {"plugin": "x"}, "01-configdb-json": {}}})
    found = json.loads(files({"ztp.json": own}, BASE)["ztp.json"][0])["ztp"]
    assert list(found) == ["01-configdb-json", "95-mine", "zz-report"]
    assert found["zz-report"]["plugin"]["url"] == f"{BASE}/report.sh"
    for wrong in ("{}", "[1]", "{", '{"ztp": 3}'):
        with pytest.raises(TemplateError):
            files({"ztp.json": wrong}, BASE)


def test_without_config_there_is_no_ztp() -> None:
    assert set(files({}, BASE)) == {"report.sh"}


def test_the_report_says_who_it_is(tmp_path: Path) -> None:
    """Run by sh, as ZTP runs it."""
    got: list[tuple[str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    (tmp_path / "decode-syseeprom").write_text("#!/bin/sh\necho LAB1\n")
    (tmp_path / "decode-syseeprom").chmod(0o755)
    (tmp_path / "sonic_version.yml").write_text("---\nbuild_version: '202411.1'\ndebian_version: '12'\n")
    (tmp_path / "ssh_host_ed25519_key.pub").write_text("ssh-ed25519 AAAA root@sonic\n")
    script, _ = files({}, f"http://127.0.0.1:{server.server_port}/ztp/abc")["report.sh"]
    script = script.replace("/etc/sonic/sonic_version.yml", f"{tmp_path}/sonic_version.yml").replace(
        "/etc/ssh/", f"{tmp_path}/"
    )
    try:
        subprocess.run(["sh", "-c", script], env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}, check=True, timeout=30)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    ((path, body),) = got
    lines = body.decode().splitlines()
    assert path == "/ztp/abc/report"
    assert lines[:2] == ["serial=LAB1", "version=202411.1"]
    assert lines[-1] == "host_key=ssh-ed25519 AAAA root@sonic"


def test_dnsmasq_understands_what_it_is_told(tmp_path: Path) -> None:
    hosts, options = dhcp_lines(
        "leaf-1.example",
        "52:54:00:10:00:02",
        installer="http://10.0.0.5:8080/onie/s/onie-installer",
        ztp=f"{BASE}/ztp.json",
    )
    assert hosts == ("52:54:00:10:00:02,set:switch-leaf-1-example",)
    assert options == (
        'tag:onie,tag:switch-leaf-1-example,vi-encap:42623,1,"http://10.0.0.5:8080/onie/s/onie-installer"',
        'tag:onie,tag:switch-leaf-1-example,114,"http://10.0.0.5:8080/onie/s/onie-installer"',
        'tag:ztp,tag:switch-leaf-1-example,67,"http://10.0.0.5:8080/ztp/abc/ztp.json"',
    )
    lines = [*(f"dhcp-host={h}" for h in hosts), *(f"dhcp-option={o}" for o in options)]
    conf = tmp_path / "dnsmasq.conf"
    conf.write_text("\n".join(["port=0", fragment("10.0.0.5"), *lines, ""]))
    done = subprocess.run(
        ["dnsmasq", "--test", "-C", str(conf)], capture_output=True, text=True, check=False, timeout=30
    )
    assert (done.returncode, "syntax check OK" in done.stderr) == (0, True), done.stderr


def test_the_fragment() -> None:
    assert fragment("10.0.0.5").splitlines()[2:] == [
        "dhcp-vendorclass=set:onie,onie_vendor:",
        "dhcp-userclass=set:ztp,SONiC-ZTP",
        "# ONIE sends its installer's words there (UDP 514, local0).",
        "dhcp-option=tag:onie,option:log-server,10.0.0.5",
    ]
    assert "log-server" not in fragment()

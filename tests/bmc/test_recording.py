"""Recordings in their forms: folder, zip, short form, a folder above; and files that are broken."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from metalimmu.bmc.ask import Ask
from metalimmu.bmc.recording import Recording
from metalimmu.errors import BmcBroken, BmcUnsupported, UsageError

TREE = {"": {"Id": "Root"}, "Systems": {"Members": []}, "Systems/1": {"Id": "1"}}


def folder(path: Path, prefix: str) -> Path:
    for name, document in TREE.items():
        file = path / prefix / name / "index.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(document))
    return path


def zipped(path: Path, prefix: str) -> Path:
    file = path / "r.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, document in TREE.items():
            archive.writestr("/".join(p for p in (prefix, name, "index.json") if p), json.dumps(document))
    return file


@pytest.mark.parametrize("make", [folder, zipped])
@pytest.mark.parametrize("prefix", ["redfish/v1", "mine/redfish/v1", "", "Redfish/V1"])
def test_every_form_answers_alike(tmp_path: Path, make: Callable[[Path, str], Path], prefix: str) -> None:
    recording = Recording.open(make(tmp_path, prefix))
    assert len(recording) == 3
    for uri in ("/redfish/v1/Systems/1", "/redfish/v1/systems/1/", "https://10.0.0.1/redfish/v1/Systems/1#/Id"):
        assert recording.get(uri).document() == {"Id": "1"}
    assert recording.reply(Ask("/redfish/v1", expand=True)).status == 200
    assert recording.reply(Ask("/redfish/v1/Systems?$top=1")).status == 200
    assert recording.reply(Ask("/redfish/v1/Chassis")).status == 404
    with pytest.raises(BmcUnsupported):
        recording.get("/redfish/v1/Chassis")
    assert recording.asked[0] == "/redfish/v1/Systems/1"


def test_what_is_beside_redfish_is_served_too(tmp_path: Path) -> None:
    """Supermicro has its registries there."""
    path = folder(tmp_path, "redfish/v1")
    (path / "registries" / "Bios.json").mkdir(parents=True)
    (path / "registries" / "Bios.json" / "index.json").write_text('{"Id": "Bios"}')
    assert Recording.open(path).get("/registries/Bios.json").document() == {"Id": "Bios"}


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x05\x06" + bytes(18)])
def test_no_recording_is_a_usage_error(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "r.zip"
    file.write_bytes(content)
    with pytest.raises(UsageError):
        Recording.open(file)
    with pytest.raises(UsageError):
        Recording.open(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError):
        Recording.open(tmp_path / "empty")


def test_a_damaged_member_costs_itself_only(tmp_path: Path) -> None:
    file = zipped(tmp_path, "redfish/v1")
    data = bytearray(file.read_bytes())
    at = data.index(b"Systems/1/index.json") + len("Systems/1/index.json")
    data[at : at + 6] = b"\xff" * 6
    file.write_bytes(data)
    recording = Recording.open(file)
    assert isinstance(recording.reply(Ask("/redfish/v1/Systems/1")).error, BmcBroken)
    assert recording.get("/redfish/v1/Systems").document() == {"Members": []}


def test_truncated_json_is_given_as_it_is(tmp_path: Path) -> None:
    path = folder(tmp_path, "redfish/v1")
    (path / "redfish/v1/Systems/1/index.json").write_text('{"Id": ')
    answer = Recording.open(path).get("/redfish/v1/Systems/1")
    assert answer.status_code == 200
    with pytest.raises(BmcBroken):
        answer.document()


def test_no_uri_leaves_the_recording(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text('{"secret": true}')
    recording = Recording.open(folder(tmp_path / "r", "redfish/v1"))
    for uri in (
        "/../index.json",
        "/redfish/v1/../../../",
        "/redfish/v1/%2e%2e/%2e%2e/",
        "\x00",
        "/redfish/v1/\nSystems",
    ):
        reply = recording.reply(Ask(uri))
        assert reply.status in (0, 404)
        assert b"secret" not in reply.body

"""Broken networks, broken controllers, wrong bytes."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import replace

import pytest
import zstandard
from agent_rig import TOKEN, FakeController, as_image, log_text, make_certificate, until
from test_agent_run import check_disk

from metalimmu.agent import client, fetch, layout
from metalimmu.wire.manifest import CHUNK
from metalimmu.wire.messages import ConfigFile, Refusal


@pytest.fixture(autouse=True)
def _brisk_backoff(monkeypatch):
    monkeypatch.setattr(client.Backoff.__init__, "__defaults__", (0.01, 0.1))


def nth_chunk(image, n: int) -> str:
    return list(dict.fromkeys(c for c in image.manifest.chunks if c))[n]


def test_a_connection_that_breaks_in_mid_chunk(fake, disk, start):
    fake.fault = lambda c: c.nth == 1 and c.sha == nth_chunk(fake.image, 5) and c.cut(after=len(c.frame) // 2)
    start(fake).finish()
    check_disk(fake, disk)
    assert fake.reports[0].resumed == 1
    assert sum(fake.asked.values()) == len(fake.image.frames) + 1, "one chunk was asked for twice"


@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_errors_of_the_controller_are_waited_out(fake, disk, start, status):
    fake.fault = lambda c: c.nth < 6 and c.sha == nth_chunk(fake.image, 4) and c.answer(status, b"oops")
    start(fake).finish()
    check_disk(fake, disk)
    assert fake.reports[0].resumed >= 1
    assert not fake.failures


def test_the_controller_restarts_in_mid_write(fake, disk, start):
    fake.slow = 0.05
    agent = start(fake)
    until(lambda: sum(fake.asked.values()) > 4)
    fake.stop()
    until(lambda: any("asking again" in line for line in agent.lines))
    fake.slow = 0
    fake.start()
    agent.finish()
    check_disk(fake, disk)
    assert len(fake.check_ins) == 1, "it went on, it did not start over"
    assert fake.reports[0].resumed == 1
    assert all(n <= 2 for n in fake.asked.values())
    text = log_text(fake, agent)
    assert "the controller is away" in text
    assert "the controller is back" in text


def test_the_controller_is_away_when_the_report_is_due(fake, disk, start):
    """It dies with the last chunk it gives out, and comes back."""
    last = fake.image.manifest.chunks[-1]
    stopped = threading.Event()

    def die(chunk):
        if chunk.sha == last and not stopped.is_set():
            chunk.answer(200, chunk.frame)
            stopped.set()
            fake.stop()
            return True
        return False

    fake.fault = die
    fake.assignment = replace(fake.assignment, parallel=1)
    agent = start(fake)
    until(lambda: any("read back" in line or "is away" in line for line in agent.lines))
    until(lambda: any(disk.read_bytes()[:512]), what="the first chunk: everything is written")
    assert not fake.reports
    fake.start()
    agent.finish()
    assert len(fake.reports) == 1
    check_disk(fake, disk)


def test_a_controller_that_is_not_there_at_all_is_asked_again(certificate, image, fake, disk, start):
    fake.stop()
    agent = start(fake)
    until(lambda: agent.naps > 5)
    assert any("check-in" in line for line in agent.lines)
    fake.start()
    agent.finish()
    check_disk(fake, disk)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda f: f[: len(f) // 2], id="cut off"),
        pytest.param(lambda f: f[: len(f) // 2] + bytes([f[len(f) // 2] ^ 1]) + f[len(f) // 2 + 1 :], id="one bit"),
        pytest.param(lambda f: b"", id="empty"),
        pytest.param(lambda f: b"<html>proxy error</html>", id="no zstd"),
        pytest.param(lambda f: zstandard.ZstdCompressor().compress(bytes(64 << 20)), id="a bomb"),
        pytest.param(lambda f: _bomb(), id="a bomb that hides its size"),
        pytest.param(lambda f: zstandard.ZstdCompressor().compress(b"x" * CHUNK), id="another chunk, no checksum"),
        pytest.param(lambda f: f + f, id="two frames"),
    ],
)
def test_a_chunk_that_is_wrong_on_the_controller(fake, disk, start, spoil):
    bad = nth_chunk(fake.image, 5)
    fake.fault = lambda c: c.sha == bad and c.answer(200, spoil(c.frame))
    start(fake)
    until(lambda: fake.failures)
    failure = fake.failures[0]
    assert failure.code == "ChunkCorrupt"
    assert bad in failure.message
    assert "image verify" in failure.hint
    assert fake.asked[bad] == 3
    assert not any(disk.read_bytes()[:512]), "the disk does not boot"


def _bomb() -> bytes:
    packer = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    return packer.compress(bytes(64 << 20)) + packer.flush()


def test_a_wrong_chunk_with_a_good_checksum_is_found_by_the_read_back(fake, disk, start):
    bad = nth_chunk(fake.image, 5)
    lie = zstandard.ZstdCompressor(write_checksum=True).compress(b"x" * CHUNK)
    fake.fault = lambda c: c.sha == bad and c.answer(200, lie)
    start(fake)
    until(lambda: fake.failures)
    assert fake.failures[0].code == "ChunkCorrupt"
    assert bad in fake.failures[0].message
    assert not any(disk.read_bytes()[:512]), "the disk does not boot"


def test_a_wrong_answer_once_is_asked_again(fake, disk, start):
    fake.fault = lambda c: c.nth == 1 and c.sha == nth_chunk(fake.image, 3) and c.answer(200, b"junk")
    start(fake).finish()
    check_disk(fake, disk)
    assert not fake.failures


def test_an_image_whose_frames_have_no_checksum(fake, disk, start, image):
    fake.image = as_image(image.data, checksum=False)
    start(fake).finish()
    check_disk(fake, disk)


def test_an_endless_chunk_is_cut_off(fake, disk, start):
    sent: list[int] = []

    def endless(chunk):
        if chunk.nth > 1 or chunk.sha != nth_chunk(fake.image, 4):
            return False
        chunk.handler.send_response(200)
        chunk.handler.end_headers()
        try:
            for _ in range(200):
                chunk.handler.wfile.write(bytes(CHUNK))
                sent.append(CHUNK)
        except OSError:
            pass
        chunk.handler.close_connection = True
        return True

    fake.fault = endless
    start(fake).finish()
    check_disk(fake, disk)
    assert sum(sent) < 20 * fetch.FRAME_LIMIT


def test_a_disk_that_does_not_keep_what_is_written(fake, disk, start):
    """A byte changes on the medium after the write."""
    place = 5 * CHUNK + 4096

    def damage(chunk):
        if chunk.sha == fake.image.manifest.chunks[22]:  # the last of the full ones
            until(lambda: disk.read_bytes()[place : place + 64] == fake.image.data[place : place + 64])
            with disk.open("r+b") as f:
                f.seek(place)
                f.write(bytes([fake.image.data[place] ^ 1]))
        return False

    fake.fault = damage
    fake.assignment = replace(fake.assignment, parallel=1)
    start(fake)
    until(lambda: fake.failures)
    failure = fake.failures[0]
    assert failure.code == "ReadBackDiffers"
    assert f"bytes {5 * CHUNK} to {6 * CHUNK}" in failure.message
    assert not any(disk.read_bytes()[:512]), "the disk does not boot"
    # When somebody decides to try again, nothing is believed to be done.
    fake.fault = None
    fake.assignment = replace(fake.assignment, fence=8)
    until(lambda: fake.reports)
    check_disk(fake, disk)
    assert fake.reports[0].kept_chunks > 0
    assert fake.reports[0].fetched_chunks == 2, "the first and the damaged one"


def test_a_fault_of_the_agent_itself_is_told(fake, disk, start, monkeypatch):
    def broken(*_args, **_more):
        raise KeyError("unforeseen")

    monkeypatch.setattr(layout, "plan", broken)
    agent = start(fake)
    until(lambda: fake.failures)
    assert (fake.failures[0].code, fake.failures[0].message) == (
        "AgentError",
        "fault in the agent: KeyError('unforeseen')",
    )
    assert any("Traceback" in line for line in agent.lines)


def test_zeros_that_are_not_zero(fake, disk, start):
    def damage(chunk):
        if chunk.sha == fake.image.manifest.chunks[22]:
            with disk.open("r+b") as f:
                f.seek(14 * CHUNK + 77)
                f.write(b"\1")
        return False

    fake.fault = damage
    start(fake)
    until(lambda: fake.failures)
    assert fake.failures[0].code == "ReadBackDiffers"
    assert "expected zeros" in fake.failures[0].message


def test_the_deployment_vanishes_in_mid_write(fake, disk, start):
    """Cancelled on the controller: chunks are 404, check-ins are refused. Nothing more is written."""

    def gone(chunk):
        if sum(fake.asked.values()) > 5:
            fake.refusal = (410, Refusal("NotFound", "this deployment is over"))
            return chunk.answer(404, b"")
        return False

    fake.fault = gone
    agent = start(fake)
    until(lambda: len(fake.check_ins) > 3)
    state = hashlib.sha256(disk.read_bytes()).digest()
    asked = sum(fake.asked.values())
    count = len(fake.check_ins)
    until(lambda: len(fake.check_ins) > count + 3)
    assert hashlib.sha256(disk.read_bytes()).digest() == state
    assert sum(fake.asked.values()) == asked
    assert any("this deployment is over" in line for line in agent.lines)
    # It comes back after all: the write goes on where it was.
    fake.fault, fake.refusal = None, None
    kept = {sha for sha, n in fake.asked.items() if n == 1}
    agent.finish()
    check_disk(fake, disk)
    assert len([s for s in kept if fake.asked[s] == 1]) >= 2


def test_a_controller_that_grants_everything_but_chunks(fake, disk, start):
    fake.fault = lambda c: c.answer(404, b"")
    start(fake)
    until(lambda: fake.failures)
    assert fake.failures[0].code == "FetchFailed"
    assert disk.read_bytes()[:11] == b"old system!", "nothing was written"


def test_another_certificate_gets_no_byte_of_the_token(fake, disk, start, tmp_path):
    other = make_certificate(tmp_path, "stranger")
    agent = start(fake, boot=replace(fake.boot, pin=other.pin))
    until(lambda: agent.naps > 3)
    assert not fake.check_ins
    assert any(other.pin in line and "certificate" in line for line in agent.lines)
    assert TOKEN not in "\n".join(agent.lines)


def test_messages_without_end_are_cut_off(fake, disk, start, monkeypatch):
    monkeypatch.setattr(client, "MESSAGE_LIMIT", 100_000)
    small = fake.config
    fake.config = replace(small, files=(ConfigFile("user-data", "x" * 200_000),))
    agent = start(fake)
    until(lambda: fake.check_ins)
    until(lambda: any(p.phase == "identify" for p in fake.progress))
    fake.config = small
    agent.finish()
    check_disk(fake, disk)


def test_a_manifest_that_is_not_the_one(fake, disk, start, image2):
    before = disk.read_bytes()
    fake.assignment = replace(fake.assignment, digest=image2.digest)
    fake.images = [replace_digest(fake, image2)]
    start(fake)
    until(lambda: fake.failures)
    assert fake.failures[0].code == "FetchFailed"
    assert disk.read_bytes() == before


def replace_digest(fake: FakeController, image2):
    """An image that claims a digest that is not its own."""

    class Liar:
        digest = image2.digest
        manifest = fake.image.manifest
        frames = fake.image.frames

    return Liar()


def test_a_chunk_url_that_is_none(fake, disk, start):
    before = disk.read_bytes()
    fake.assignment = replace(fake.assignment, chunk_base="file:///etc/passwd")
    start(fake)
    until(lambda: fake.failures)
    assert "file:///etc/passwd" in fake.failures[0].message
    assert disk.read_bytes() == before

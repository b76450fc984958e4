"""The seed's file system, read by other people's programs."""

from __future__ import annotations

import subprocess

import pytest
from agent_rig import MIB, run_time_config
from hypothesis import given, settings
from hypothesis import strategies as st

from metalimmu.agent import seed
from metalimmu.errors import AgentError
from metalimmu.wire.messages import ConfigFile, RunTimeConfig

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,40}", fullmatch=True).filter(lambda n: not n.endswith("."))


def run(*args, **more) -> subprocess.CompletedProcess:
    return subprocess.run([str(a) for a in args], capture_output=True, timeout=60, check=False, **more)


def check(file, content: dict[str, bytes]) -> None:
    done = run("fsck.vfat", "-n", "-v", file)
    assert done.returncode == 0, done.stdout.decode()
    for name, data in content.items():
        assert run("mtype", "-i", file, f"::{name}").stdout == data
    listed = run("mdir", "-b", "-i", file, "::").stdout.decode().split("\n")
    assert sorted(line.removeprefix("::/") for line in listed if line) == sorted(content)


@pytest.mark.parametrize(
    ("size", "sector"),
    [
        (16 * MIB, 512),
        (16 * MIB, 4096),
        (MIB, 512),
        (64 * MIB, 512),
        (2 * MIB, 4096),
        (512 * MIB, 512),
        (256 * 1024, 512),
    ],
)
def test_other_programs_read_it(tmp_path, size, sector):
    content = {
        "user-data": b"#cloud-config\n" + b"x" * 70_000,
        "meta-data": b"instance-id: i-1\n",
        "network-config": b"version: 2\n",
        "metalimmu.json": b"{}",
        "empty": b"",
        "A-very-long.name-with.many_parts-0123456789.yaml": b"long",
    }
    made = seed.fat(content, size, sector)
    assert len(made) % sector == 0
    file = tmp_path / "seed.img"
    file.write_bytes(made)
    with file.open("r+b") as f:
        f.truncate(size)
    check(file, content)
    seen = run("blkid", "-p", "-o", "export", file).stdout.decode()
    assert "LABEL=cidata\n" in seen
    assert "TYPE=vfat" in seen


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(names, st.binary(max_size=20_000), max_size=12),
    st.sampled_from([(16 * MIB, 512), (16 * MIB, 4096), (MIB, 512), (4 * MIB, 512)]),
)
def test_any_files(tmp_path_factory, content, shape):
    if len({n.lower() for n in content}) < len(content):
        return  # FAT does not tell them apart
    size, sector = shape
    file = tmp_path_factory.mktemp("fat") / "seed.img"
    file.write_bytes(seed.fat(content, size, sector).ljust(size, b"\0"))
    check(file, content)


def test_the_same_files_give_the_same_bytes():
    content = {"b": b"2", "a": b"1"}
    assert seed.fat(content, 16 * MIB) == seed.fat(dict(reversed(content.items())), 16 * MIB)
    assert seed.fat(content, 16 * MIB) != seed.fat({"b": b"2", "a": b"3"}, 16 * MIB)


def test_too_much_for_the_seed():
    with pytest.raises(AgentError, match="does not fit"):
        seed.fat({"user-data": b"x" * (17 * MIB)}, 16 * MIB)
    with pytest.raises(AgentError, match="does not fit"):
        seed.fat({f"a-rather-long-name-{i}": b"" for i in range(300)}, 16 * MIB)
    with pytest.raises(AgentError, match="no size for FAT"):
        seed.fat({}, 4096)


@pytest.mark.parametrize("name", ["../etc/passwd", "a/b", "", ".hidden", "a\0b", "ü", "x" * 101])
def test_names_that_could_do_harm(name):
    config = run_time_config({name: "x"})
    with pytest.raises(AgentError, match="file names"):
        seed.files(config)


def test_a_name_twice_or_a_wrong_digest():
    twice = RunTimeConfig((ConfigFile("a", "1"), ConfigFile("a", "2")), "")
    with pytest.raises(AgentError, match="file names"):
        seed.files(twice)
    with pytest.raises(AgentError, match="digest"):
        seed.files(RunTimeConfig((ConfigFile("a", "1"),), "00"))
    assert seed.files(run_time_config({"a": "ü"})) == {"a": "ü".encode()}

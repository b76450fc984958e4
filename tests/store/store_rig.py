"""Records for tests of the store."""

from __future__ import annotations

from metalimmu.store.records import DeploymentRecord, RunRecord
from metalimmu.wire.messages import Assignment, RootDisk


def run(name: str, host: str = "n1", **fields) -> RunRecord:
    return RunRecord(id=name, verb="reimage", host=host, **fields)


def deployment(name: str, host: str = "n1", **fields) -> DeploymentRecord:
    assignment = Assignment(
        deployment=name,
        fence=1,
        stage="write",
        image="web@1",
        digest="sha256:" + "d" * 64,
        chunk_base="",
        serial="SN1",
        uuid="",
        nics=("52:54:00:00:00:01",),
        root_disk=RootDisk(min_size=10),
    )
    hashes = {f"{kind}_hash": f"{kind}-{name}" for kind in ("token", "proof", "media", "chunk")}
    return DeploymentRecord(
        **{"id": name, "run": name, "host": host, "assignment": assignment, "fence": 1} | hashes | fields
    )

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from pathlib import Path

import pytest
from image_files import disk

from metalimmu.errors import ImageCorrupt, ImageError, ImageExists, ImageInUse, MetalimmuError, NotFound, UsageError
from metalimmu.images import add as adding
from metalimmu.images import gc
from metalimmu.images.add import add
from metalimmu.images.catalogue import Catalogue
from metalimmu.images.verify import diff, verify
from metalimmu.wire.manifest import CHUNK


def test_diff_counts_what_moves(catalogue: Catalogue, tmp_path: Path) -> None:
    a = add(catalogue, disk(tmp_path / "a", "xy.z"), "a@1")
    b = add(catalogue, disk(tmp_path / "b", "xw.zyq"), "a@2")
    found = diff(catalogue, a, b)
    assert (found.same, found.changed, found.fetch) == (3, 3, 2)
    assert CHUNK * 2 < found.fetch_bytes < CHUNK * 2.1
    assert CHUNK * 5 < found.whole_bytes < CHUNK * 5.1
    assert diff(catalogue, a, a).fetch_bytes == 0


def test_revoking_keeps_the_first_reason(catalogue: Catalogue, tmp_path: Path) -> None:
    add(catalogue, disk(tmp_path / "a", "x"), "a@1")
    with pytest.raises(UsageError):
        catalogue.revoke("a@1", " ")
    assert catalogue.get("a@1").revoked is None
    assert catalogue.revoke("a@1", "CVE-2026-1").revoked == "CVE-2026-1"
    assert catalogue.revoke("a@1", "another").revoked == "CVE-2026-1"
    assert Catalogue(catalogue.root).get("a@1").revoked == "CVE-2026-1"


def test_what_is_in_use_stays(catalogue: Catalogue, tmp_path: Path) -> None:
    image = add(catalogue, disk(tmp_path / "a", "x"), "a@1")
    with pytest.raises(ImageInUse, match=r"node-1 runs it; role web names it"):
        catalogue.remove("a@1", {image.digest: ["node-1 runs it", "role web names it"]})
    catalogue.remove("a@1", {"sha256:other": ["node-1 runs it"]})
    with pytest.raises(NotFound):
        catalogue.get("a@1")
    assert catalogue.images() == []


def test_gc_keeps_what_any_manifest_names(catalogue: Catalogue, tmp_path: Path) -> None:
    add(catalogue, disk(tmp_path / "a", "xyz"), "a@1")
    add(catalogue, disk(tmp_path / "b", "xq"), "b@1")
    catalogue.remove("a@1", {})
    seen = gc.collect(catalogue, dry_run=True)
    assert (seen.chunks, seen.kept) == (2, 2)
    assert gc.collect(catalogue) == seen
    assert gc.collect(catalogue).chunks == 0
    assert verify(catalogue).chunks == 2


@pytest.mark.parametrize("file", ["manifest.json", "provenance.json"])
def test_gc_stops_at_a_manifest_it_cannot_read(catalogue: Catalogue, tmp_path: Path, file: str) -> None:
    add(catalogue, disk(tmp_path / "a", "xyz"), "a@1")
    add(catalogue, disk(tmp_path / "b", "q"), "b@1")
    (catalogue.root / "catalogue" / "a" / "1" / file).unlink()
    with pytest.raises(ImageCorrupt, match="a/1 is damaged"):
        gc.collect(Catalogue(catalogue.root))
    assert len(list(catalogue.chunks.all())) == 4
    # One damaged image hides no other.
    assert [i.ref for i in Catalogue(catalogue.root).images()] == ["b@1"]


def _add_and_die(root: Path, file: Path) -> None:
    """Dies by SIGKILL when its chunks are stored and nothing names them yet."""

    def die(*_args: object, **_kwargs: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    adding.describe = die  # type: ignore[assignment]
    add(Catalogue(root), file, "a@1")


def test_a_killed_add_leaves_only_what_gc_removes(catalogue: Catalogue, tmp_path: Path) -> None:
    raw = disk(tmp_path / "a", "xyz")
    child = multiprocessing.get_context("fork").Process(target=_add_and_die, args=(catalogue.root, raw))
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    assert catalogue.images() == []
    assert len(list(catalogue.chunks.all())) == 3
    assert list((catalogue.root / "tmp").iterdir())
    assert gc.collect(catalogue).chunks == 3
    assert not list((catalogue.root / "tmp").iterdir())
    assert add(catalogue, raw, "a@1").ref == "a@1"


def test_gc_waits_for_an_add_that_counts_on_a_chunk(
    catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The add finds its chunk stored already (an orphan), then gc starts, then the add names the chunk."""
    add(catalogue, disk(tmp_path / "a", "xyz"), "old@1")
    catalogue.remove("old@1", {})
    stored, go_on = threading.Event(), threading.Event()
    real = adding.describe

    def slow(*args: object, **kwargs: object) -> object:
        stored.set()
        assert go_on.wait(60)
        return real(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(adding, "describe", slow)
    writer = threading.Thread(target=add, args=(catalogue, tmp_path / "a", "new@1"))
    writer.start()
    assert stored.wait(60)
    with pytest.raises(ImageError, match="locked by an `add`"):
        gc.collect(catalogue, timeout=0.2)
    collected: list[gc.Collected] = []
    collector = threading.Thread(target=lambda: collected.append(gc.collect(catalogue, timeout=60)))
    collector.start()
    go_on.set()
    writer.join(60)
    collector.join(60)
    assert collected[0].chunks == 0
    assert verify(catalogue).chunks == 3


def _hammer(root: Path, folder: Path, number: int) -> None:
    store = Catalogue(root)
    for i in range(6):
        file = disk(folder / f"{number}-{i}", "xy" + "abcdef"[i] + str(number + 1))
        add(store, file, f"n{number}@{i}")
        if i >= 2:
            store.remove(f"n{number}@{i - 2}", {})
        gc.collect(store)


def test_many_processes_add_remove_and_collect(catalogue: Catalogue, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_hammer, args=(catalogue.root, tmp_path, n)) for n in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
    assert [c.exitcode for c in children] == [0, 0, 0]
    assert len(catalogue.images()) == 6
    verify(catalogue)


def test_two_adds_of_one_name_at_once(catalogue: Catalogue, tmp_path: Path) -> None:
    files = [disk(tmp_path / str(n), "xyz"[n]) for n in range(3)]
    results: list[str] = []

    def try_to(file: Path) -> None:
        try:
            results.append(add(catalogue, file, "a@1").digest)
        except MetalimmuError as exc:
            results.append(exc.code)

    threads = [threading.Thread(target=try_to, args=(f,)) for f in files]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(results)[:2] == [ImageExists.__name__] * 2
    assert sorted(results)[2] == catalogue.get("a@1").digest

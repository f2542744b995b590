from __future__ import annotations

import json
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from moestro.errors import GatewayError
from moestro.gateway.failure import RequestFailed
from moestro.gateway.key_file import create_key, read_keys, revoke_key
from moestro.gateway.key_ring import KeyRing
from moestro.gateway.keys import KeyScope
from moestro.gateway.limits import UNLIMITED, Limits, TokenBucket, Turnstile

INFERENCE = frozenset({KeyScope.INFERENCE})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gateway" / "keys.json"


def test_a_key_is_kept_as_a_hash(path: Path) -> None:
    key, secret = create_key("ann", (KeyScope.INFERENCE,), Limits(5, 2), path)
    text = path.read_text()
    assert secret.startswith("mo-")
    assert secret not in text
    assert secret.removeprefix("mo-") not in text
    assert read_keys(path) == (key,)
    assert (key.name, key.scopes, key.limits) == ("ann", INFERENCE, Limits(5, 2))


def test_the_file_is_for_its_owner_only(path: Path) -> None:
    create_key(path=path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_key_that_is_revoked_opens_nothing(path: Path) -> None:
    (first, _), (second, secret) = create_key(path=path), create_key(path=path)
    assert revoke_key(second.id, path) == second
    assert read_keys(path) == (first,)
    assert KeyRing(path).find(secret) is None
    with pytest.raises(GatewayError, match="no key with the id"):
        revoke_key(second.id, path)


def test_keys_made_at_the_same_time_are_all_kept(path: Path) -> None:
    threads = [threading.Thread(target=create_key, kwargs={"path": path}) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({key.id for key in read_keys(path)}) == 12


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "nonsense",
        "[]",
        '{"form": 1}',
        '{"form": 1, "keys": [{}]}',
        '{"form": 1, "keys": [1]}',
        '{"form": 2, "keys": []}',
        "[" * 100_000,
    ],
)
def test_a_damaged_file_never_counts_as_empty(path: Path, damage: str) -> None:
    path.parent.mkdir()
    path.write_text(damage)
    for use in (
        lambda: KeyRing(path),
        lambda: create_key(path=path),
        lambda: revoke_key("x", path),
    ):
        with pytest.raises(GatewayError) as caught:
            use()
        assert caught.value.hint
    assert path.read_text() == damage


@pytest.mark.parametrize(
    "change",
    [
        {"scopes": []},
        {"scopes": ["everything"]},
        {"sha256": "00"},
        {"requests_per_minute": -1},
        {"concurrent": "2"},
        {"id": 3},
    ],
)
def test_a_record_with_a_wrong_field_is_damage(path: Path, change: dict[str, object]) -> None:
    create_key(path=path)
    record = json.loads(path.read_text())
    record["keys"][0].update(change)
    path.write_text(json.dumps(record))
    with pytest.raises(GatewayError, match="damaged"):
        read_keys(path)


def test_two_keys_of_one_id_are_damage(path: Path) -> None:
    create_key(path=path)
    record = json.loads(path.read_text())
    record["keys"] *= 2
    path.write_text(json.dumps(record))
    with pytest.raises(GatewayError, match="damaged"):
        read_keys(path)


def test_the_ring_sees_changes_at_once(path: Path) -> None:
    ring = KeyRing(path)
    assert not ring.ever_any
    key, secret = create_key(path=path)
    assert ring.find(secret) == key
    assert ring.ever_any
    revoke_key(key.id, path)
    assert ring.find(secret) is None
    assert ring.ever_any, "what asked for keys must not open when the last one is revoked"


def test_a_file_that_becomes_unreadable_keeps_its_keys_valid(path: Path) -> None:
    key, secret = create_key(path=path)
    said: list[str] = []
    ring = KeyRing(path, said.append)
    good = path.read_bytes()
    path.write_bytes(b"{")
    assert ring.find(secret) == key
    assert len(said) == 1
    assert "stay valid" in said[0]
    assert ring.find(secret) == key
    assert len(said) == 1, "told once"
    path.write_bytes(good)
    assert ring.find(secret) == key


def test_a_change_that_could_not_be_read_at_first_counts_later(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file has to change for that: it may have been for want of descriptors."""
    monkeypatch.setattr("moestro.gateway.key_ring.TRY_AGAIN_SECONDS", 0.0)
    key, secret = create_key(path=path)
    ring = KeyRing(path)
    revoke_key(key.id, path)
    with monkeypatch.context() as patched:

        def unreadable(_: Path) -> Any:
            raise GatewayError("The keys cannot be read.")

        patched.setattr("moestro.gateway.key_ring.read_keys", unreadable)
        assert ring.find(secret) == key
    assert ring.find(secret) is None


def test_only_the_whole_secret_is_one(path: Path) -> None:
    _, secret = create_key(path=path)
    ring = KeyRing(path)
    for wrong in (
        "",
        secret[:-1],
        secret + "x",
        secret.upper(),
        secret.removeprefix("mo-"),
        "\udcff",
    ):
        assert ring.find(wrong) is None


# Limits


def test_a_bucket_gives_a_minutes_requests_and_then_one_at_a_time() -> None:
    bucket = TokenBucket(6, 100.0)
    assert [bucket.take(100.0) for _ in range(6)] == [0.0] * 6
    assert bucket.take(100.0) == pytest.approx(10)
    assert bucket.take(104.0) == pytest.approx(6)
    assert bucket.take(110.0) == 0.0
    assert bucket.take(110.0) == pytest.approx(10)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def passing(turnstile: Turnstile, caller: str, limits: Limits) -> Iterator[None]:
    turnstile.enter(caller, limits)
    try:
        yield
    finally:
        turnstile.leave(caller)


def test_a_refused_request_says_when_to_come_back() -> None:
    clock = Clock()
    turnstile, limits = Turnstile(clock), Limits(requests_per_minute=2)
    for _ in range(2):
        with passing(turnstile, "ann", limits):
            pass
    with pytest.raises(RequestFailed) as caught, passing(turnstile, "ann", limits):
        pass
    assert (caught.value.failure.status, caught.value.failure.retry_after_seconds) == (429, 30)
    with passing(turnstile, "bob", limits):
        pass
    clock.now = 30.0
    with passing(turnstile, "ann", limits):
        pass


def test_places_are_given_back_however_a_request_ends() -> None:
    turnstile, limits = Turnstile(), Limits(concurrent=1)
    with passing(turnstile, "ann", limits):
        with pytest.raises(RequestFailed) as caught, passing(turnstile, "ann", limits):
            pass
        assert caught.value.failure.code == "too_many_at_once"
        assert turnstile.running("ann") == 1
    with pytest.raises(ZeroDivisionError), passing(turnstile, "ann", limits):
        _ = 1 // 0
    assert turnstile.running("ann") == 0


def test_callers_that_are_gone_are_forgotten() -> None:
    clock = Clock()
    turnstile, limits = Turnstile(clock), Limits(requests_per_minute=60)
    for number in range(1000):
        clock.now += 120
        with passing(turnstile, f"key {number}", limits):
            pass
    assert turnstile.remembered <= 65
    with passing(turnstile, "unlimited", UNLIMITED):
        pass
    assert turnstile.running("unlimited") == 0

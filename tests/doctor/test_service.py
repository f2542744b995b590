"""What the service checks say beyond the set-ups."""

from __future__ import annotations

import errno
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from moestro.doctor import listening as listening_room
from moestro.doctor.case import Address, Case
from moestro.doctor.check import Check
from moestro.doctor.checks import (
    address,
    core_dumps,
    data_folder,
    file_descriptors,
    port,
    processes,
    restart_policy,
)
from moestro.doctor.checks.restart_policy import restart_of
from moestro.doctor.listening import served_model
from moestro.engine import EngineRequest
from moestro.findings import Finding, Severity
from moestro.gateway.failure import unauthorized
from moestro.gateway.served_model import ServedModel
from moestro.units import GIB
from tests.doctor.setups_memory import SERVICE as UNIT
from tests.doctor.setups_memory import (
    host_cache,
    host_weights,
    in_a_container,
    in_service,
    with_lines,
)
from tests.doctor.workshop import Workshop, planned


def only(case: Case, check: Check) -> Finding:
    (finding,) = check.run(case)
    return finding


@pytest.mark.parametrize(
    ("host", "keys", "severity"),
    [
        ("127.0.0.1", False, Severity.OK),
        ("127.8.9.1", False, Severity.OK),
        ("localhost", False, Severity.OK),
        ("0.0.0.0", True, Severity.OK),
        ("0.0.0.0", False, Severity.FAIL),
        ("192.0.2.7", False, Severity.FAIL),
        ("::", False, Severity.FAIL),
        ("::1", False, Severity.OK),
        ("::ffff:127.0.0.1", False, Severity.OK),
        ("::ffff:192.0.2.7", False, Severity.FAIL),
    ],
)
def test_who_can_reach_it(host: str, keys: bool, severity: Severity, workshop: Workshop) -> None:
    found = only(workshop.case(address=Address(host, 0, keys)), address.CHECK)
    assert found.severity is severity
    assert found.code == ("open-without-key" if severity is Severity.FAIL else "address")


def test_in_a_container_the_address_has_to_be_open(workshop: Workshop) -> None:
    open_to_all = Address("0.0.0.0", 8642)
    host = workshop.host(environment={"KUBERNETES_SERVICE_HOST": "10.0.0.1"})
    pod = only(workshop.case(host=host, address=open_to_all), address.CHECK)
    assert (pod.code, pod.severity) == ("open-without-key", Severity.WARN)
    assert "NetworkPolicy" in (pod.fix or "")
    inside = only(in_a_container(workshop, address=open_to_all), address.CHECK)
    assert (inside.code, inside.severity) == ("open-without-key", Severity.WARN)
    assert "-p 127.0.0.1:8642:8642" in (inside.fix or "")
    keyed = replace(open_to_all, keys=True)
    assert only(in_a_container(workshop, address=keyed), address.CHECK).severity is Severity.OK


@contextmanager
def listening(
    answer: bytes | None, status: int = 200, headers: Mapping[str, str] | None = None
) -> Iterator[int]:
    """A port where something answers every GET so, or accepts and says nothing."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            for header in (headers or {}).items():
                self.send_header(*header)
            self.send_header("content-length", str(len(answer or b"")))
            self.end_headers()
            self.wfile.write(answer or b"")

        def log_message(self, *_: object) -> None:
            pass

    if answer is None:
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            yield silent.getsockname()[1]
        return
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
    assert asked == ["/v1/models"]


def models(owner: str) -> bytes:
    """As the gateway lists the model that it serves."""
    request = EngineRequest(Path("qwen.gguf"), "qwen", planned().settings, None)
    served = {**ServedModel.of(request).to_json(), "owned_by": owner}
    return json.dumps({"object": "list", "data": [served]}).encode()


def test_a_moestro_that_serves_is_no_fault(workshop: Workshop) -> None:
    assert ServedModel.of(
        EngineRequest(Path("qwen.gguf"), "qwen", planned().settings, None)
    ).to_json()["owned_by"] == "moestro"  # fmt: skip
    for host in ("127.0.0.1", "0.0.0.0"):
        with listening(models("moestro")) as taken:
            found = only(workshop.case(address=Address(host, taken)), port.CHECK)
        assert (found.code, found.severity) == ("already-serving", Severity.INFO)
        assert "qwen" in (found.evidence or "")


def test_a_moestro_that_asks_for_keys_is_known_by_that(workshop: Workshop) -> None:
    asked = unauthorized(given=False)
    with listening(asked.body(), asked.status, asked.headers()) as taken:
        found = only(workshop.case(address=Address("127.0.0.1", taken)), port.CHECK)
        assert (found.code, found.severity) == ("already-serving", Severity.INFO)
        assert "asks for a key" in (found.evidence or "")
    with listening(b"{}", 401, {"www-authenticate": "Bearer"}) as taken:
        found = only(workshop.case(address=Address("127.0.0.1", taken)), port.CHECK)
        assert found.code == "port-taken"


@pytest.mark.parametrize(
    "answer",
    [models("llamacpp"), b"", b"[]", b"[" * 5000, b'{"data": []}', b'{"data": [7]}', b"\xff", None],
)
def test_anything_else_on_the_port_is_another_program(
    answer: bytes | None, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening_room, "_ASK_SECONDS", 0.5 if answer is not None else 0.05)
    with listening(answer) as taken:
        found = only(workshop.case(address=Address("127.0.0.1", taken)), port.CHECK)
    assert (found.code, found.severity) == ("port-taken", Severity.FAIL)


def test_other_machines_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening_room, "HTTPConnection", lambda *_, **__: pytest.fail("asked"))
    for host, family in (("192.0.2.7", socket.AF_INET), ("2001:db8::7", socket.AF_INET6)):
        assert served_model((family, (host, 8642))) is None


@pytest.mark.parametrize("host", ["no such name", "256.0.0.1.", "x" * 300, "a\0b", "\ud800"])
def test_a_name_that_no_machine_has(host: str, workshop: Workshop) -> None:
    case = workshop.case(address=Address(host, 8642))
    assert list(address.CHECK.run(case)) == []
    found = only(case, port.CHECK)
    assert (found.code, found.severity) == ("bad-address", Severity.FAIL)
    assert (found.evidence or "").isprintable()
    assert len(found.evidence or "") < 200


def test_a_port_that_there_is_not(workshop: Workshop) -> None:
    assert only(workshop.case(address=Address("127.0.0.1", 70000)), port.CHECK).code == (
        "bad-address"
    )


def test_a_free_port_stays_free(workshop: Workshop) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    found = only(workshop.case(address=Address("127.0.0.1", free)), port.CHECK)
    assert (found.code, found.severity) == ("port", Severity.OK)
    with socket.socket() as after:  # the check left nothing behind
        after.bind(("127.0.0.1", free))


def test_every_way_of_a_right_to_a_low_port(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []
    monkeypatch.setattr(port, "_bind", tried.append)
    case = workshop.case(address=Address("127.0.0.1", 443))
    assert only(case, port.CHECK).code == "port-reserved"
    assert tried == []
    root = workshop.case(host=workshop.host(superuser=True), address=Address("127.0.0.1", 443))
    assert only(root, port.CHECK).severity is Severity.OK
    workshop.write("proc/self/status", "Name:\tpython3\nCapEff:\t0000000000000400\n")
    assert only(case, port.CHECK).severity is Severity.OK
    workshop.write("proc/self/status", "Name:\tpython3\nCapEff:\t0000000000000200\n")
    assert only(case, port.CHECK).code == "port-reserved"
    workshop.write("proc/sys/net/ipv4/ip_unprivileged_port_start", "80\n")
    assert only(case, port.CHECK).severity is Severity.OK
    assert len(tried) == 3


def test_the_system_has_the_last_word(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_place: object) -> None:
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(port, "_bind", refuse)
    assert only(workshop.case(address=Address("127.0.0.1", 8642)), port.CHECK).code == (
        "port-reserved"
    )


@pytest.mark.parametrize(
    ("soft", "host", "severity"),
    [
        (None, "0.0.0.0", Severity.OK),
        (65536, "0.0.0.0", Severity.OK),
        (4000, "0.0.0.0", Severity.WARN),
        (4000, "127.0.0.1", Severity.INFO),
        (1024, "127.0.0.1", Severity.INFO),
        (512, "127.0.0.1", Severity.INFO),
        (512, "0.0.0.0", Severity.WARN),
        (255, "127.0.0.1", Severity.FAIL),
    ],
)
def test_descriptors(soft: int | None, host: str, severity: Severity, workshop: Workshop) -> None:
    case = workshop.case(host=workshop.limited(nofile=soft), address=Address(host, 0, keys=True))
    assert only(case, file_descriptors.CHECK).severity is severity


def test_a_macs_usual_limit_is_worth_a_word(workshop: Workshop) -> None:
    host = workshop.host(system="Darwin", limits={"nofile": (256, None)})
    found = only(workshop.case(host=host), file_descriptors.CHECK)
    assert (found.code, found.severity) == ("too-few-descriptors", Severity.INFO)
    assert found.fix == "Raise the limit: ulimit -n 65536 where it is started."
    for hard in (None, 256):
        host = workshop.host(system="Darwin", limits={"nofile": (256, hard)})
        fix = only(workshop.case(host=host), file_descriptors.CHECK).fix or ""
        assert "systemd" not in fix
        assert "/etc/security" not in fix


def test_too_few_for_the_streams_says_how_many_are_needed(workshop: Workshop) -> None:
    found = only(workshop.case(host=workshop.limited(nofile=64)), file_descriptors.CHECK)
    assert found.severity is Severity.FAIL
    assert "room for 0" not in (found.evidence or "")
    assert "are needed for" in (found.evidence or "")


def test_the_fix_goes_no_further_than_the_hard_limit(workshop: Workshop) -> None:
    host = workshop.host(limits={"nofile": (1024, 4096)})
    fix = only(workshop.case(host=host), file_descriptors.CHECK).fix
    assert "ulimit -n 4096" in (fix or "")
    host = workshop.host(limits={"nofile": (1024, 1024)})
    assert "ulimit" not in (only(workshop.case(host=host), file_descriptors.CHECK).fix or "")


def test_the_users_limit_does_not_bind_root(workshop: Workshop) -> None:
    limits = {"nproc": (10, 10)}
    assert only(workshop.case(host=workshop.host(limits=limits)), processes.CHECK).severity is (
        Severity.FAIL
    )
    root = workshop.host(limits=limits, superuser=True)
    assert only(workshop.case(host=root), processes.CHECK).severity is Severity.OK


@pytest.mark.parametrize(
    ("policy", "severity"),
    [
        ("always", Severity.OK),
        ("on-failure", Severity.OK),
        ("on-abnormal", Severity.OK),
        ("on-success", Severity.WARN),
        ("no", Severity.WARN),
        ("", Severity.WARN),
        ("\x1b[31m", Severity.WARN),
    ],
)
def test_policies(policy: str, severity: Severity, workshop: Workshop) -> None:
    case = in_service(workshop, f"[Service]\nExecStart=x\nRestart={policy}\n")
    found = only(case, restart_policy.CHECK)
    assert found.severity is severity
    assert (found.evidence or "").isprintable()


def test_files_beside_the_unit_amend_it(workshop: Workshop) -> None:
    case = in_service(workshop, "[Service]\nRestart=no\n")
    drop = "moestro.service.d"
    workshop.write(f"usr/lib/systemd/system/{drop}/10.conf", "[Service]\nRestart=always\n")
    assert restart_of(case.host, "moestro.service", of_user=False) == "always"
    # The same name in /etc takes its place; a later name wins over an earlier one.
    workshop.write(f"etc/systemd/system/{drop}/10.conf", "[Unit]\nRestart=always\n")
    assert restart_of(case.host, "moestro.service", of_user=False) == "no"
    workshop.write(f"run/systemd/system/{drop}/20.conf", "[Service]\n Restart = on-failure\n")
    assert restart_of(case.host, "moestro.service", of_user=False) == "on-failure"
    workshop.write(f"usr/lib/systemd/system/{drop}/30.conf", "[Service]\nRestart=on-abort\n")
    assert restart_of(case.host, "moestro.service", of_user=False) == "on-abort"


def test_a_unit_of_a_template_and_one_of_a_user(workshop: Workshop) -> None:
    workshop.write("usr/lib/systemd/system/moestro@.service", "[Service]\nRestart=always\n")
    assert restart_of(workshop.host(), "moestro@qwen.service", of_user=False) == "always"
    workshop.write("home/ada/.config/systemd/user/m.service", "[Service]\nRestart=always\n")
    user = workshop.host(environment={"HOME": "/home/ada"})
    assert restart_of(user, "m.service", of_user=True) == "always"
    assert restart_of(workshop.host(environment={"HOME": "/"}), "m.service", of_user=True) is None


def test_a_service_whose_unit_cannot_be_read(workshop: Workshop) -> None:
    found = only(in_service(workshop, None), restart_policy.CHECK)
    assert (found.code, found.severity) == ("restart-policy-unknown", Severity.UNKNOWN)
    assert "systemctl show -p Restart moestro.service" in (found.fix or "")


def test_a_terminal_inside_a_service_is_not_that_service(workshop: Workshop) -> None:
    workshop.write("proc/self/cgroup", f"0::/{UNIT}\n")
    workshop.write("etc/systemd/system/moestro.service", "[Service]\nRestart=always\n")
    environment = {"INVOCATION_ID": "6f", "TERM": "xterm-256color"}
    case = workshop.case(host=workshop.host(environment=environment))
    assert only(case, restart_policy.CHECK).code == "started-by-hand"
    case = workshop.case(host=workshop.host(environment={"INVOCATION_ID": "6f"}))
    assert only(case, restart_policy.CHECK).severity is Severity.OK


@pytest.mark.parametrize(
    "path",
    [
        "/user.slice/user-1000.slice/session-2.scope",
        "/user.slice/user-1000.slice/user@1000.service/app.slice/vte-spawn-5f0c.scope",
        "/",
    ],
)
def test_a_desktops_terminal_is_started_by_hand(path: str, workshop: Workshop) -> None:
    workshop.write("proc/self/cgroup", f"0::{path}\n")
    case = workshop.case(host=workshop.host(environment={"INVOCATION_ID": "6f"}))
    assert only(case, restart_policy.CHECK).code == "started-by-hand"


def test_a_pod(workshop: Workshop) -> None:
    host = workshop.host(environment={"KUBERNETES_SERVICE_HOST": "10.0.0.1"})
    found = only(workshop.case(host=host), restart_policy.CHECK)
    assert (found.code, found.severity) == ("restart-policy-unknown", Severity.UNKNOWN)
    assert "kubectl" in (found.fix or "")


def test_what_a_core_dump_holds(workshop: Workshop) -> None:
    host = workshop.limited(core=None)
    piped = workshop.case(host=host, plan=with_lines(host_cache(20 * GIB)))
    assert only(piped, core_dumps.CHECK).severity is Severity.OK
    workshop.write("proc/sys/kernel/core_pattern", "/var/crash/core.%e.%p\n")
    small = workshop.case(host=host, plan=with_lines(host_cache(2 * GIB)))
    assert only(small, core_dumps.CHECK).severity is Severity.INFO
    mapped = workshop.case(host=host, plan=with_lines(host_weights(20 * GIB)))
    assert only(mapped, core_dumps.CHECK).severity is Severity.INFO  # the prompt cache's bound
    workshop.write("proc/self/coredump_filter", "0000003f\n")
    assert only(mapped, core_dumps.CHECK).severity is Severity.WARN
    cut = workshop.case(host=workshop.limited(core=1 << 20), plan=with_lines(host_cache(20 * GIB)))
    assert only(cut, core_dumps.CHECK).severity is Severity.OK


def test_a_data_folder_that_is_not_there_yet(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOESTRO_DATA", str(tmp_path / "new" / "deep"))
    found = only(workshop.case(), data_folder.CHECK)
    assert (found.code, found.severity) == ("data-folder", Severity.OK)
    assert not (tmp_path / "new").exists()


def test_a_data_folder_below_a_file(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MOESTRO_DATA", str(tmp_path / "file" / "data"))
    found = only(workshop.case(), data_folder.CHECK)
    assert (found.code, found.severity) == ("data-folder-unwritable", Severity.WARN)
    assert "not a folder" in (found.evidence or "")


def test_a_data_folder_that_may_not_be_written_to(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOESTRO_DATA", str(tmp_path))
    monkeypatch.setattr(data_folder.os, "access", lambda path, mode: False)
    assert only(workshop.case(), data_folder.CHECK).code == "data-folder-unwritable"


def test_a_full_disk_under_the_data_folder(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_folder, "ROOM_BYTES", 1 << 62)
    found = only(workshop.case(), data_folder.CHECK)
    assert (found.code, found.severity) == ("data-folder-unwritable", Severity.WARN)
    assert "free" in (found.evidence or "")


def test_a_user_without_a_home(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(data_folder, "data_folder", homeless)
    found = only(workshop.case(), data_folder.CHECK)
    assert (found.code, found.severity) == ("data-folder-unwritable", Severity.WARN)


def test_an_image_unpacked_onto_a_disk_is_no_container(workshop: Workshop) -> None:
    """Its `.dockerenv` stays behind; the healthy machine's root is a whole disk."""
    workshop.write(".dockerenv", "")
    found = list(restart_policy.CHECK.run(workshop.case()))
    assert [finding.code for finding in found] == ["started-by-hand"]

"""Against servers of our own on this machine: what is sent where, how often, and that nobody waits."""

import json
import re
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import openlepton
from openlepton.apps.rules import Hook
from openlepton.apps.webhook import Webhook
from openlepton.errors import UsageError

ROOT = Path(openlepton.__file__).parent


class Receiver:
    """An HTTP server that answers with `statuses` one after the other, the last for ever, and keeps what it got."""

    def __init__(self, *statuses, delay_s=0.0, headers=()):
        self.got, statuses = [], list(statuses)
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.got.append((self.path, dict(self.headers), json.loads(body)))
                time.sleep(delay_s)
                self.send_response(statuses.pop(0) if len(statuses) > 1 else statuses[0])
                for name, value in headers:
                    self.send_header(name, value)
                self.end_headers()

            do_GET = do_POST  # noqa: N815

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def hook(url, **options):
    return Webhook(Hook(url=url, timeout_s=2, **options), first_wait_s=0.02)


def test_messages_arrive_once_in_order_as_they_were_sent():
    with Receiver(200) as receiver:
        webhook = hook(f"{receiver.url}/a/b?c=d%20e")
        for number in range(20):
            webhook.send(f"key-{number}", {"number": number, "reason_zh": "人 3 进入了 yard"})
        assert webhook.close().delivered == 20
    assert [message["number"] for _, _, message in receiver.got] == list(range(20))
    path, headers, message = receiver.got[3]
    assert path == "/a/b?c=d%20e"
    assert headers["Idempotency-Key"] == "key-3"
    assert headers["Content-Type"] == "application/json; charset=utf-8"
    assert message["reason_zh"] == "人 3 进入了 yard"


def test_a_failure_is_tried_again_with_the_same_key_and_longer_and_longer_pauses():
    with Receiver(503, 500, 429, 200) as receiver:
        webhook = hook(receiver.url)
        started = time.monotonic()
        webhook.send("k", {})
        done = webhook.close()
    assert (done.delivered, done.failed, done.dropped) == (1, 0, 0)
    assert [headers["Idempotency-Key"] for _, headers, _ in receiver.got] == ["k"] * 4
    assert time.monotonic() - started >= 0.02 + 0.04 + 0.08


def test_what_is_refused_is_not_tried_again_and_does_not_stop_the_next():
    with Receiver(404, 204) as receiver:
        webhook = hook(receiver.url)
        webhook.send("a", {})
        webhook.send("b", {})
        done = webhook.close()
    assert (done.delivered, done.failed) == (1, 1)
    assert done.problem.endswith("answered 404")
    assert len(receiver.got) == 2


def test_after_as_many_tries_as_the_rules_say_a_message_is_given_up_and_told():
    with Receiver(500) as receiver:
        webhook = hook(receiver.url, tries=3)
        webhook.send("a", {})
        done = webhook.close()
    assert (done.delivered, done.failed, len(receiver.got)) == (0, 1, 3)
    assert done.problem == f"{receiver.url}/: answered 500"


def test_a_redirect_is_not_followed():
    with Receiver(200) as elsewhere:
        with Receiver(307, headers=[("Location", elsewhere.url)]) as receiver:
            webhook = hook(receiver.url)
            webhook.send("a", {})
            assert webhook.close().failed == 1
        assert (len(receiver.got), len(elsewhere.got)) == (1, 0)


def test_no_proxy_is_asked(monkeypatch):
    with Receiver(200) as proxy, Receiver(200) as receiver:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        webhook = hook(receiver.url)
        webhook.send("a", {})
        assert webhook.close().delivered == 1
        assert (len(proxy.got), len(receiver.got)) == (0, 1)


def test_only_the_host_of_the_rules_is_ever_connected_to(monkeypatch):
    connected = []
    connect = socket.create_connection
    monkeypatch.setattr(
        socket, "create_connection", lambda address, *a, **k: (connected.append(address), connect(address, *a, **k))[1]
    )
    with Receiver(500, 302, 200, headers=[("Location", "http://127.0.0.1:9/")]) as receiver:
        webhook = hook(receiver.url)
        for number in range(4):
            webhook.send(str(number), {})
        webhook.close()
    assert set(connected) == {("127.0.0.1", receiver.server.server_port)}


def test_sending_never_waits_for_a_receiver_that_does_not_answer():
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and says nothing
        webhook = Webhook(Hook(url=f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.5), waiting=10)
        started = time.monotonic()
        for number in range(1000):
            webhook.send(str(number), {"number": number})
        assert time.monotonic() - started < 20  # to wait for each would take minutes
        done = webhook.close(grace_s=0.2)
    assert time.monotonic() - started < 40
    assert done.delivered == 0
    assert done.failed + done.dropped == 1000  # each is accounted for
    assert done.dropped >= 988


def test_a_receiver_that_is_not_there_is_told_and_ends_nothing():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    webhook = hook(f"http://127.0.0.1:{port}", tries=2)
    webhook.send("a", {})
    done = webhook.close()
    assert (done.failed, done.delivered) == (1, 0)
    assert f"127.0.0.1:{port}" in done.problem


def test_the_token_comes_from_the_environment_and_is_in_no_file(monkeypatch):
    monkeypatch.setenv("HOOK_TOKEN", "s3cret")
    with Receiver(200) as receiver:
        webhook = hook(receiver.url, token_env="HOOK_TOKEN")
        webhook.send("a", {})
        webhook.close()
    assert receiver.got[0][1]["Authorization"] == "Bearer s3cret"


@pytest.mark.parametrize("token", [None, "", "line\nbreak", "密"])
def test_a_token_that_is_missing_or_no_token_is_an_error_before_anything_starts(monkeypatch, token):
    if token is None:
        monkeypatch.delenv("HOOK_TOKEN", raising=False)
    else:
        monkeypatch.setenv("HOOK_TOKEN", token)
    with pytest.raises(UsageError, match="the environment variable HOOK_TOKEN does not hold a token"):
        hook("http://127.0.0.1:9", token_env="HOOK_TOKEN")


def test_no_other_file_of_the_package_has_a_client_of_http():
    """What serves may listen; only the webhook may speak first."""
    speaking = {
        "http",
        "http.client",
        "urllib",
        "urllib.request",
        "requests",
        "httpx",
        "ftplib",
        "smtplib",
        "telnetlib",
    }
    found = {
        path.relative_to(ROOT).as_posix()
        for path in ROOT.rglob("*.py")
        if speaking & set(re.findall(r"^\s*(?:from|import) ([\w.]+)", path.read_text(encoding="utf-8"), re.MULTILINE))
    }
    assert "apps/webhook.py" in found
    assert {name for name in found if not name.startswith("serve/")} == {"apps/webhook.py"}

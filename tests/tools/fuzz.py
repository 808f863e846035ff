#!/usr/bin/env python3
"""Fuzzes the HTTP API: schemathesis from the API's own document, then requests that no document describes.

No answer may be a 5xx (but the 503 of a health check that fails), no connection may be dropped without an answer,
and afterwards the broker lives, its AMQP side works, and its log tells of no panic.
"""

import argparse
import json
import random
import re
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import brokers
import report
import world

# Values that lead deeper than a 404, by the name of a parameter of a path. Any other text is tried as well.
NAMES = {
    "vhost": ["world", "/"], "name": ["w.classic", "w.direct", "w-policy", "w.quorum"], "user": ["limited", "fuzz"],
    "queue": ["w.classic"], "exchange": ["w.direct"], "source": ["w.direct"], "destination": ["w.classic"],
    "kind": ["q", "e"], "key": ["classic", "~"], "component": ["vhost-limits"], "limit": ["max-queues", "max-channels"],
}
# What would take the fuzz's own footing away, or write wherever a random path points to.
LEFT_OUT = r"/(backup|reset|shutdown|watermarks|users/guest)"
CHECKS_THAT_FAIL = r"/health/|/healthchecks/|/aliveness-test/"
BODY_MEGABYTES = 40


def deeper(document):
    """The document with names of the world among the values of its paths' parameters."""
    for operations in document["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", []):
                if parameter["in"] == "path" and parameter["name"] in NAMES:
                    schema = parameter["schema"]
                    parameter["schema"] = {"anyOf": [{"type": "string", "enum": NAMES[parameter["name"]]}, schema]}
    return document


def schemathesis(result, broker, seconds, folder):
    document = broker.api.must("GET", "/api/openapi.json").json()
    schema = Path(folder, "openapi.json")
    schema.write_text(json.dumps(deeper(document)))
    summary = Path(folder, "summary.ndjson")
    run = subprocess.run(
        [Path(sys.executable).with_name("schemathesis"), "run", schema, "--url", broker.api.url,
         "--auth", "guest:guest", "--checks", "not_a_server_error", "--mode", "all", "--workers", "1",
         "--phases", "examples,coverage,fuzzing", "--max-time", str(seconds), "--exclude-path-regex",
         f"{LEFT_OUT}|{CHECKS_THAT_FAIL}", "--continue-on-failure", "--suppress-health-check", "all",
         "--request-timeout", "20", "--no-color", "--report", "ndjson", "--report-ndjson-path", summary],
        capture_output=True, text=True, timeout=seconds * 3 + 300, check=False, cwd=folder)
    cases = re.search(r"(\d[\d,]*) generated", run.stdout)
    result.calls += int(cases[1].replace(",", "")) if cases else 0
    if run.returncode:
        for failure in re.findall(r"(?ms)^_+ ([A-Z]+ /\S+) _+$(.*?)(?=^_{5,}|^=====)", run.stdout):
            result.differ(f"schemathesis {failure[0]}", "an answer below 500", failure[1].strip()[:1200])
        if not result.differences:
            result.differ("schemathesis", "exit 0", f"exit {run.returncode}: {run.stdout[-3000:]}{run.stderr[-1000:]}")
    return len(document["paths"])


def odd_requests(document, choose):
    """Bytes to send on a connection each, for every operation."""
    def request(method, target, headers=(), body=b""):
        lines = [method + b" " + target + b" HTTP/1.1", b"Host: fuzz", b"Connection: close",
                 b"Authorization: Basic Z3Vlc3Q6Z3Vlc3Q=", *headers]
        if body:
            lines.append(b"Content-Length: %d" % len(body))
        return b"\r\n".join(lines) + b"\r\n\r\n" + body

    deep = b"[" * 100_000
    wide = b'{"a":' * 50_000 + b"1" + b"}" * 50_000
    bodies = [b"", b"null", b"{", b"[]", b'"', b"\xff\xfe", b"1e999", b'{"a":NaN}', deep, wide, b'{"\\ud800":1}',
              b'{"count":-1}', b'{"count":1e30,"ackmode":"ack_requeue_true","encoding":"auto"}',
              b'{"value":99999999999999999999}', b'{"arguments":{"x-max-length":1e400}}', b'{"arguments":{"' + b"k" * 300
              + b'":1}}', b'{"password":null}', b'{"pattern":"(((((((((((((((((((","definition":{"max-length":1}}',
              b'{"pattern":"(a*)*b","definition":{"max-length":1},"priority":1e99}', b'{"tags":[[[]]]}',
              b'{"properties":{"headers":{"a":[[[[[[[[1]]]]]]]]},"timestamp":-1,"priority":999},"routing_key":"'
              + b"r" * 300 + b'","payload":"x","payload_encoding":"string"}']
    parts = [b"%00", b"%ff%fe", b"%zz", b"%", b"%2", b"%2F", b"..", b"%2e%2e", b"a" * 300, b"a" * 9000, b"%E2%98%83",
             b"*", b"'", b"%22", b"%0d%0aX:1", b"world", b"w.classic"]
    queries = [b"?page=0", b"?page=-1", b"?page=99999999999999999999", b"?page=1&page_size=0", b"?page=%00",
               b"?page=1&name=(((&use_regex=true", b"?page=1&name=(a*)*b&use_regex=true", b"?sort=" + b"a." * 3000,
               b"?columns=" + b"a," * 3000, b"?columns=%ff", b"?%", b"?" + b"&" * 3000, b"?sort_reverse=%", b"?" + b"a" * 60000,
               b"?msg_rates_age=1&msg_rates_incr=0", b"?msg_rates_age=99999999999&msg_rates_incr=1",
               b"?lengths_age=-5&lengths_incr=-5", b"?max=-1&after=,,,", b"?if-empty=maybe", b"?vhost=%&action=fly"]
    for path, operations in document["paths"].items():
        if re.search(LEFT_OUT, path):
            continue
        known = re.sub(r"\{(\w+)\}", lambda found: world.part(NAMES.get(found[1], ["x"])[0]), path).encode()
        for odd in parts:
            target = re.sub(rb"\{\w+\}", lambda _, odd=odd: odd, path.encode())
            yield request(b"GET", target)
        for query in queries:
            yield request(b"GET", known + query)
        for method in (b"GET", b"PUT", b"POST", b"DELETE", b"PATCH", b"OPTIONS", b"HEAD", b"TRACE", b"BREW"):
            if method == b"DELETE" and method.decode().lower() in operations:
                continue                       # the world is still needed
            yield request(method, known, (), choose(bodies))
        if {"put", "post"} & operations.keys():
            method = b"PUT" if "put" in operations else b"POST"
            for body in bodies:
                yield request(method, known, (b"Content-Type: application/json",), body)
            for kind in (b"text/plain", b"multipart/form-data; boundary=B", b"application/x-www-form-urlencoded", b"\xff"):
                yield request(method, known, (b"Content-Type: " + kind,), choose(bodies))
    for header in (b"Authorization: Basic", b"Authorization: Basic !!!", b"Authorization: Basic " + b"A" * 20000,
                   b"Authorization: \xff", b"Accept: nonsense", b"Origin: \x01", b"Range: bytes=0-1", b"X: " + b"y" * 60000,
                   b"Transfer-Encoding: chunked\r\n\r\nzz", b"Content-Length: 5\r\n\r\nhello", b"Content-Length: -1",
                   b"Content-Length: 5\r\nContent-Length: 6", b"Expect: 100-continue", b"Upgrade: h2c"):
        yield b"GET /api/overview HTTP/1.1\r\nHost: fuzz\r\nConnection: close\r\n" + header + b"\r\n\r\n"
    yield b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
    yield b"AMQP\x00\x00\x09\x01"
    yield b"GET\r\n\r\n"
    yield request(b"PUT", b"/api/queues/world/w.fuzz", (), b'{"a":"' + b"x" * (BODY_MEGABYTES << 20) + b'"}')
    yield request(b"POST", b"/api/definitions", (), b'{"queues":[' + b'{"a":1},' * 1_000_000 + b'{"a":1}]}')


def ask(broker, request):
    """The status of the answer, None if none came."""
    with socket.create_connection((broker.host, broker.http), 30) as connection:
        connection.settimeout(30)
        try:
            connection.sendall(request)
        except (BrokenPipeError, ConnectionResetError):
            pass                                # it may have answered before all of it was sent
        if not request.endswith(b"\r\n\r\n") and b"\r\n\r\n" not in request:
            connection.shutdown(socket.SHUT_WR)
        received = b""
        try:
            while b"\r\n" not in received:
                more = connection.recv(4096)
                if not more:
                    break
                received += more
        except ConnectionResetError:
            pass
    found = re.match(rb"HTTP/1\.[01] (\d{3})", received)
    return int(found[1]) if found else None


def odd(result, broker, document, choose):
    for request in odd_requests(document, choose):
        result.calls += 1
        line, body = request.split(b"\r\n", 1)[0][:200], request.partition(b"\r\n\r\n")[2][:100]
        name = f"odd {line!r} {body!r}"
        try:
            status = ask(broker, request)
        except OSError as failure:
            result.differ(name, "an answer", repr(failure))
            continue
        if status is None and b"HTTP/1.1" in line:
            # A head that is not HTTP may end a connection; anything else is answered.
            if line.startswith((b"GET ", b"PUT ", b"POST ", b"DELETE ")):
                result.differ(name, "an answer", "the connection was closed without one")
        elif status is not None and status >= 500 and not (status in (501, 503, 505) and re.search(
                CHECKS_THAT_FAIL.encode() + rb"|BREW|TRACE", line)):
            result.differ(name, "an answer below 500", status)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    brokers.add_arguments(parser)
    report.add_arguments(parser)
    parser.add_argument("--seconds", type=int, default=120, help="for schemathesis")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    result = report.Report("fuzz")
    with brokers.garenne(arguments) as broker, tempfile.TemporaryDirectory() as folder:
        world.populate(broker.api)
        world.fill(broker.host, broker.amqp)
        document = broker.api.must("GET", "/api/openapi.json").json()
        odd(result, broker, document, random.Random(arguments.seed).choice)
        paths = schemathesis(result, broker, arguments.seconds, folder)
        print(f"fuzz: {paths} paths")
        if not broker.is_alive():
            result.differ("alive", "alive", broker.log()[-3000:])
        else:
            world.populate(broker.api)
            world.fill(broker.host, broker.amqp)
        if panics := re.findall(r"(?m)^.*panicked.*$(?:\n.*){0,3}", broker.log()):
            result.differ("log", "no panic", panics[:5])
    sys.exit(result.finish(arguments.output))


if __name__ == "__main__":
    main()

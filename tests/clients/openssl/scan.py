"""Which versions of TLS, cipher suites and so on a server takes: a table, and 1 as the exit code when something in it is
not as it should be.

    scan.py --connect 127.0.0.1:5671 --ca ca.pem [--name localhost] [--https]

What today's OpenSSL cannot say any more (SSLv2 to TLS 1.1, suites it does not know) is said by hand: a ClientHello, and
a look at the ServerHello or alert that answers it. Suites that OpenSSL speaks go through a whole handshake, too.
"""
import argparse
import os
import queue
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time

PATIENCE = 20
SSL3, TLS10, TLS11, TLS12, TLS13 = 0x0300, 0x0301, 0x0302, 0x0303, 0x0304
NAMES = {SSL3: "SSLv3", TLS10: "TLS 1.0", TLS11: "TLS 1.1", TLS12: "TLS 1.2", TLS13: "TLS 1.3"}
RENEGOTIATION_SCSV, FALLBACK_SCSV = 0x00FF, 0x5600
ALERTS = {
    10: "unexpected_message", 40: "handshake_failure", 47: "illegal_parameter", 50: "decode_error",
    70: "protocol_version", 71: "insufficient_security", 80: "internal_error", 86: "inappropriate_fallback",
    100: "no_renegotiation", 109: "missing_extension", 112: "unrecognized_name", 120: "no_application_protocol",
}
GROUPS = {
    **{n: f"group {n}" for n in range(1, 46)},
    1: "sect163k1", 9: "sect283k1", 15: "secp160k1", 16: "secp160r1", 17: "secp160r2", 18: "secp192k1", 19: "secp192r1",
    20: "secp224k1", 21: "secp224r1", 22: "secp256k1", 23: "secp256r1", 24: "secp384r1", 25: "secp521r1",
    26: "brainpoolP256r1", 27: "brainpoolP384r1", 28: "brainpoolP512r1", 29: "x25519", 30: "x448",
    256: "ffdhe2048", 257: "ffdhe3072", 258: "ffdhe4096", 259: "ffdhe6144", 260: "ffdhe8192",
    512: "MLKEM512", 513: "MLKEM768", 514: "MLKEM1024",
    4587: "SecP256r1MLKEM768", 4588: "X25519MLKEM768", 4589: "SecP384r1MLKEM1024",
    0xFF01: "arbitrary prime curve", 0xFF02: "arbitrary char2 curve",
}
GOOD_GROUPS = {23, 24, 25, 29, 30, 256, 257, 258, 259, 260, 4587, 4588, 4589}
# SHA-256 and better, of RSA, ECDSA and EdDSA
GOOD_SCHEMES = [0x0401, 0x0501, 0x0601, 0x0403, 0x0503, 0x0603, 0x0804, 0x0805, 0x0806, 0x0807, 0x0809, 0x080A, 0x080B]
BAD_SCHEMES = {0x0101: "rsa md5", 0x0103: "ecdsa md5", 0x0201: "rsa sha1", 0x0202: "dsa sha1", 0x0203: "ecdsa sha1",
               0x0301: "rsa sha224", 0x0303: "ecdsa sha224", None: "no scheme, which means sha1"}


class Hello:
    """What a ServerHello says."""

    def __init__(self, body):
        self.version = struct.unpack(">H", body[:2])[0]
        self.random = body[2:34]
        at = 35 + body[34]
        self.suite, self.compression = struct.unpack(">HB", body[at:at + 3])
        self.extensions, at = {}, at + 5
        while at < len(body):
            kind, length = struct.unpack(">HH", body[at:at + 4])
            self.extensions[kind] = body[at + 4:at + 4 + length]
            at += 4 + length
        if 43 in self.extensions:
            self.version = struct.unpack(">H", self.extensions[43])[0]

    def __str__(self):
        return f"ServerHello of {NAMES.get(self.version, hex(self.version))} with {self.suite:#06x}"


class Refusal(str):
    """How a server says no."""


def vector(form, data):
    return struct.pack(form, len(data)) + data


def numbers(values):
    return b"".join(struct.pack(">H", value) for value in values)


class Target:
    def __init__(self, arguments):
        host, _, port = arguments.connect.rpartition(":")
        self.address = (host.strip("[]"), int(port))
        self.name, self.ca, self.https = arguments.name, arguments.ca, arguments.https
        self.tried = 0

    def client_hello(self, version, suites, groups=(29, 23, 24, 25), schemes=GOOD_SCHEMES, compressions=b"\0", listed=None):
        """A ClientHello in its record. With `listed`, these versions are in the extension for that."""
        body = struct.pack(">H", min(version, TLS12)) + os.urandom(32) + b"\0"
        body += vector(">H", numbers(suites)) + vector(">B", compressions)
        if version == TLS13:
            listed = [TLS13]
        extensions = []
        if version > SSL3:
            name = self.name.encode()
            extensions.append((0, vector(">H", b"\0" + vector(">H", name))))
            extensions.append((10, vector(">H", numbers(groups))))
            extensions.append((11, vector(">B", b"\0")))
            extensions.append((15, b"\1"))  # heartbeat
            extensions.append((23, b""))  # extended master secret
            if schemes is not None:
                extensions.append((13, vector(">H", numbers(schemes))))
        if listed:
            extensions.append((43, vector(">B", numbers(listed))))
        if TLS13 in (listed or ()):
            extensions.append((51, vector(">H", b"")))  # no share: the server says which group it wants
        if extensions:
            body += vector(">H", b"".join(struct.pack(">H", kind) + vector(">H", data) for kind, data in extensions))
        message = b"\1" + struct.pack(">I", len(body))[1:] + body
        return b"\x16" + struct.pack(">H", min(version, TLS10)) + vector(">H", message)

    def say(self, octets, until=2):
        """The messages of a server's answer up to one of the kind `until`, or how it refuses."""
        self.tried += 1
        with socket.create_connection(self.address, PATIENCE) as wire:
            buffer, messages, found = b"", b"", []

            def take(count):
                nonlocal buffer
                while len(buffer) < count:
                    more = wire.recv(65536)
                    if not more:
                        raise EOFError
                    buffer += more
                head, buffer = buffer[:count], buffer[count:]
                return head

            try:
                wire.sendall(octets)
                while True:
                    kind, _, length = struct.unpack(">BHH", take(5))
                    data = take(length)
                    if kind == 21 and len(data) == 2:
                        if data[0] == 1:
                            continue  # a warning, such as unrecognized_name
                        return Refusal(ALERTS.get(data[1], f"alert {data[1]}"))
                    if kind != 22:
                        raise Problem(f"a record of kind {kind} as an answer: {data[:40]!r}")
                    messages += data
                    while len(messages) >= 4 and len(messages) >= 4 + int.from_bytes(messages[1:4], "big"):
                        end = 4 + int.from_bytes(messages[1:4], "big")
                        found.append((messages[0], messages[4:end]))
                        messages = messages[end:]
                        if found[-1][0] == until:
                            return found
            except (EOFError, ConnectionResetError, BrokenPipeError):
                return Refusal("closed without a word")
            except TimeoutError:
                raise Problem(f"no answer within {PATIENCE} s") from None

    def ask(self, version, suites, **more):
        """The ServerHello, or how the server refuses."""
        found = self.say(self.client_hello(version, suites, **more))
        return found if isinstance(found, Refusal) else Hello(found[0][1])

    def s_client(self, *arguments):
        return ["openssl", "s_client", "-connect", "%s:%d" % self.address, "-servername", self.name, *arguments]

    def handshake(self, *arguments):
        """Does OpenSSL come through a handshake?"""
        self.tried += 1
        done = subprocess.run(self.s_client(*arguments), stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE)
        return done.returncode == 0

    def context(self, version):
        context = ssl.create_default_context(cafile=self.ca)
        context.minimum_version = context.maximum_version = version
        return context

    def visit(self, context, session=None):
        """A conversation, short as it is: its session, and whether that has been taken up again."""
        self.tried += 1
        raw = socket.create_connection(self.address, PATIENCE)
        with context.wrap_socket(raw, server_hostname=self.name, session=session) as wire:
            wire.sendall(b"GET / HTTP/1.0\r\n\r\n" if self.https else b"AMQP\0\0\x09\x01")
            if not wire.recv(4096):
                raise Problem("the server says nothing")
            return wire.session, wire.session_reused


class Problem(Exception):
    pass


class Table:
    def __init__(self):
        self.wrong = 0

    def row(self, subject, found, good):
        """One line; `good` is None where it is only told."""
        self.wrong += good is False
        print(f"{subject:<34} {found:<64} {'' if good is None else 'ok' if good else 'WRONG'}".rstrip(), flush=True)


def known_suites():
    """The suites OpenSSL knows: number to name, and the numbers of those that are good in TLS 1.2."""
    command = ["openssl", "ciphers", "-V", "ALL:COMPLEMENTOFALL:@SECLEVEL=0"]
    names, good = {}, set()
    for line in subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines():
        number, _, name, version, kx, au, _, mac = line.split()[:8]
        high, low = (int(part, 16) for part in number.split(","))
        names[high << 8 | low] = name
        if version == "TLSv1.2" and kx in ("Kx=ECDH", "Kx=DH") and au != "Au=None" and mac == "Mac=AEAD":
            good.add(high << 8 | low)
    return names, good


def speakable(version):
    """The suites that this OpenSSL can still speak itself."""
    command = ["openssl", "ciphers", "-s", version, "ALL:COMPLEMENTOFALL:@SECLEVEL=0"]
    names = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip().split(":")
    # those of 1.3 are always there
    return [name for name in names if name.startswith("TLS_") == (version == "-tls1_3")]


def versions(target, table):
    every = sorted(set(target.names) - {RENEGOTIATION_SCSV})
    old = vector(">H", b"\1\0\2" + struct.pack(">HHH", 9, 0, 16) + bytes.fromhex("010080020080030080") + os.urandom(16))
    found = target.say(bytes([old[0] | 0x80]) + old[1:])
    table.row("SSLv2", f"refused: {found}" if isinstance(found, Refusal) else "accepted", isinstance(found, Refusal))
    for version, name in NAMES.items():
        # Before 1.2 nobody says what can be signed with, and it is not a reason to refuse
        asked = [target.ask(version, every)] + [target.ask(version, every, schemes=None)] * (version < TLS12)
        found = next((found for found in asked if isinstance(found, Hello)), asked[0])
        accepted = isinstance(found, Hello) and found.version == version
        shown = "accepted" if accepted else f"refused: {found}" if isinstance(found, Refusal) else f"not accepted: {found}"
        table.row(name, shown, accepted == (version >= TLS12))
    for version in (TLS10, TLS11):
        found = target.ask(TLS12, every, listed=[version])
        table.row(f"{NAMES[version]} in supported_versions", f"{found}", isinstance(found, Refusal))
    found = target.ask(TLS12, every, listed=[0x0305, TLS13, TLS12])
    table.row("a version to come, 1.3, 1.2", f"{found}", isinstance(found, Hello) and found.version == TLS13)


def suites(target, table):
    """Each suite by itself, in TLS 1.2 and 1.3."""
    every = set(target.names)
    for block in (range(0x0000, 0x0100), range(0x1300, 0x1310), range(0xC000, 0xC160), range(0xCC00, 0xCCB0),
                  range(0xD000, 0xD010), range(0xFEFE, 0xFF00), range(0xFFE0, 0xFFE2)):
        every.update(block)
    every -= {RENEGOTIATION_SCSV, FALLBACK_SCSV}
    for version in (TLS12, TLS13):
        good = target.good if version == TLS12 else {0x1301, 0x1302, 0x1303, 0x1304, 0x1305}
        one_by_one = every if version == TLS12 else set(range(0x1300, 0x1310))
        accepted, reasons = set(), {}
        for number in sorted(one_by_one):
            found = target.ask(version, [number])
            if isinstance(found, Refusal):
                reasons[found] = reasons.get(found, 0) + 1
                continue
            if (found.version, found.suite) != (version, number):
                raise Problem(f"{number:#06x} was asked for, and the answer is a {found}")
            accepted.add(number)
        rest, blocks = [n for n in range(0x10000) if n not in one_by_one | {RENEGOTIATION_SCSV, FALLBACK_SCSV}], 0
        while rest:
            found = target.ask(version, rest[:7000])
            blocks += 1
            if isinstance(found, Refusal):
                rest = rest[7000:]
            else:
                accepted.add(found.suite)
                rest.remove(found.suite)
        for number in sorted(accepted):
            name = target.names.get(number, "not known to OpenSSL")
            table.row(f"{NAMES[version]} {number:#06x}", f"accepted: {name}", number in good)
        told = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
        table.row(f"{NAMES[version]} suites", f"{len(one_by_one)} tried one by one, {len(accepted)} accepted; refused: {told}",
                  bool(accepted))
        table.row(f"{NAMES[version]} all other numbers", f"tried in {blocks} hellos", None)

        # The same with whole handshakes
        flag, option = ("-tls1_2", "-cipher") if version == TLS12 else ("-tls1_3", "-ciphersuites")
        spoken = speakable(flag)
        suffix = ":@SECLEVEL=0" if version == TLS12 else ""
        through = {name for name in spoken if target.handshake(flag, option, name + suffix)}
        table.row(f"{NAMES[version]} whole handshakes", f"{len(spoken)} suites tried, {len(through)} accepted",
                  through == {target.names.get(number) for number in accepted} & set(spoken) and bool(through))
        not_spoken = {target.names[n] for n in accepted & set(target.names)} - set(spoken)
        if not_spoken:
            table.row("", f"OpenSSL cannot speak itself: {', '.join(sorted(not_spoken))}", None)


def key_exchange(target, table):
    good = sorted(number for number in target.good if target.names[number].startswith("ECDHE-"))
    for version in (TLS12, TLS13):
        offered = good if version == TLS12 else [0x1301, 0x1302, 0x1303]
        accepted = []
        for group in GROUPS:
            found = target.ask(version, offered, groups=[group])
            if isinstance(found, Hello):
                accepted.append(group)
        names = ", ".join(GROUPS[group] for group in accepted)
        table.row(f"{NAMES[version]} groups", f"{len(GROUPS)} tried, accepted: {names}",
                  bool(accepted) and set(accepted) <= GOOD_GROUPS)
    for scheme, name in BAD_SCHEMES.items():
        found = target.ask(TLS12, good, schemes=None if scheme is None else [scheme])
        table.row(f"signature: {name}", f"{found}", isinstance(found, Refusal))


def details(target, table):
    good = sorted(target.good)
    found = target.ask(TLS12, good + [RENEGOTIATION_SCSV], compressions=b"\1\0")
    if isinstance(found, Refusal):
        raise Problem(f"TLS 1.2 with compression offered: {found}")
    table.row("compression", f"method {found.compression} of 1 and 0 chosen", found.compression == 0)
    found_only = target.ask(TLS12, good, compressions=b"\1")
    table.row("compression and nothing else", f"{found_only}", isinstance(found_only, Refusal))
    table.row("secure renegotiation (RFC 5746)", "told" if 0xFF01 in found.extensions else "not told",
              found.extensions.get(0xFF01) == b"\0")
    table.row("extended master secret", "used" if 23 in found.extensions else "not used", 23 in found.extensions)
    table.row("heartbeat", "answered" if 15 in found.extensions else "not answered", 15 not in found.extensions)
    mark = found.random[24:] == b"DOWNGRD\x01"
    table.row("mark of a downgrade to 1.2", "in the random" if mark else "missing", mark)
    found = target.ask(TLS12, good + [FALLBACK_SCSV])
    # With the mark, a client that speaks 1.3 knows without it.
    table.row("TLS_FALLBACK_SCSV", f"{found}", None)
    table.row("renegotiation by the client", *renegotiation(target))

    found = target.say(target.client_hello(TLS12, good), until=11)
    if isinstance(found, Refusal):
        raise Problem(f"no certificate is sent: {found}")
    chain, count = found[-1][1][3:], 0
    while chain:
        chain, count = chain[3 + int.from_bytes(chain[:3], "big"):], count + 1
    for version, name in ((ssl.TLSVersion.TLSv1_2, "TLS 1.2"), (ssl.TLSVersion.TLSv1_3, "TLS 1.3")):
        context = target.context(version)
        try:
            session, _ = target.visit(context)
            table.row(f"{name} certificate chain", f"{count} sent, trusted for {target.name}", True)
            _, reused = target.visit(context, session)
            table.row(f"{name} session taken up again", "yes" if reused else "no", reused)
        except ssl.SSLError as e:
            table.row(f"{name} certificate chain", f"{count} sent; {e.reason}: {getattr(e, 'verify_message', '')}", False)


def renegotiation(target):
    """What comes of a client's wish for another handshake: what is seen, and whether that is good."""
    target.tried += 1
    command = target.s_client("-tls1_2", "-cipher", "ALL:@SECLEVEL=0", "-msg")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as child:
        lines = queue.Queue()

        def read():
            for line in child.stdout:
                lines.put(line)
            lines.put(None)

        reader = threading.Thread(target=read)
        reader.start()
        asked, finished, deadline = False, 0, time.monotonic() + PATIENCE
        try:
            while True:
                line = lines.get(timeout=max(0.0, deadline - time.monotonic()))
                if line is None:
                    return ("refused: closed", True) if asked else ("no handshake at all", False)
                if "<<<" in line and line.rstrip().endswith("Finished"):
                    finished += 1
                    if finished == 2:
                        return "accepted", False
                    child.stdin.write("R\n")
                    child.stdin.flush()
                asked = asked or "RENEGOTIATING" in line
                if asked and "no_renegotiation" in line:
                    return "refused: no_renegotiation", True
        except queue.Empty:
            return "no answer", False
        except BrokenPipeError:
            return "closed before it was asked for", False
        finally:
            child.kill()
            reader.join()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--connect", required=True, metavar="HOST:PORT")
    parser.add_argument("--ca", required=True, help="who has signed the server's certificate")
    parser.add_argument("--name", default="localhost", help="the server name to ask for")
    parser.add_argument("--https", action="store_true", help="HTTP is spoken there, not AMQP")
    arguments = parser.parse_args()
    target, table, start = Target(arguments), Table(), time.monotonic()
    target.names, target.good = known_suites()
    version = subprocess.run(["openssl", "version"], check=True, capture_output=True, text=True).stdout.split()[1]
    print(f"{'HTTPS' if target.https else 'AMQPS'} at {arguments.connect} as {target.name}; OpenSSL {version} "
          f"knows {len(target.names)} suites", flush=True)
    for part in (versions, suites, key_exchange, details):
        try:
            part(target, table)
        except (Problem, OSError, subprocess.SubprocessError) as e:
            table.row(part.__name__.replace("_", " "), f"{type(e).__name__}: {e}", False)
    print(f"{target.tried} connections in {time.monotonic() - start:.1f} s, {table.wrong} wrong", flush=True)
    sys.exit(1 if table.wrong else 0)


main()

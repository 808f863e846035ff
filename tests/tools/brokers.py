"""The two brokers that are laid side by side: each started alone, on ports and in a folder of its own."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from api import Api

# Who ends a tool ends its brokers, too.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

START_SECS = 90
PLUGINS = ("rabbitmq_management rabbitmq_prometheus rabbitmq_consistent_hash_exchange rabbitmq_event_exchange "
           "rabbitmq_random_exchange rabbitmq_recent_history_exchange").split()
HOST = "127.0.0.1"


@dataclass
class Ports:
    """Four ports from one on: AMQP, HTTP, metrics, and one of the broker's own."""
    amqp: int

    @property
    def http(self):
        return self.amqp + 1

    @property
    def metrics(self):
        return self.amqp + 2

    @property
    def own(self):
        return self.amqp + 3


class Broker:
    name = ""

    def __init__(self, ports):
        self.ports = ports
        self.host = HOST
        self.amqp, self.http, self.metrics = ports.amqp, ports.http, ports.metrics
        self.api = Api(HOST, ports.http)
        self.process = None
        self.folder = None

    @property
    def node(self):
        return self.api.get("/api/overview").json()["node"]

    def await_start(self):
        deadline = time.monotonic() + START_SECS
        while time.monotonic() < deadline:
            if self.process and self.process.poll() is not None:
                raise RuntimeError(f"{self.name} ended with {self.process.returncode}; its log:\n{self.log()[-3000:]}")
            try:
                if self.api.get("/api/overview").status == 200:
                    return self
            except OSError:
                pass
            time.sleep(0.3)
        raise RuntimeError(f"{self.name} did not answer within {START_SECS} seconds; its log:\n{self.log()[-3000:]}")

    def log(self):
        return "".join(path.read_text(errors="replace") for path in sorted(Path(self.folder).glob("*.log")))

    def is_alive(self):
        try:
            return (self.process is None or self.process.poll() is None) and \
                self.api.get("/api/overview").status == 200
        except OSError:
            return False

    def __enter__(self):
        self.folder = tempfile.mkdtemp(prefix=f"tools-{self.name.lower()}-")
        self.start()
        return self.await_start()

    def __exit__(self, *_):
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


class Running(Broker):
    """A broker that somebody else started: NAME=AMQP,HTTP,METRICS."""

    def __init__(self, name, amqp, http, metrics):
        super().__init__(Ports(amqp))
        self.name, self.amqp, self.http, self.metrics = name, amqp, http, metrics
        self.api = Api(HOST, http)

    def __enter__(self):
        return self.await_start()

    def __exit__(self, *_):
        pass

    def log(self):
        return ""


class RabbitMQ(Broker):
    name = "RabbitMQ"

    def start(self):
        folder = Path(self.folder)
        (folder / "enabled_plugins").write_text(f"[{','.join(PLUGINS)}].\n")
        (folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.local = {HOST}:{self.amqp}\nmanagement.tcp.ip = {HOST}\n"
            f"management.tcp.port = {self.http}\nprometheus.tcp.ip = {HOST}\nprometheus.tcp.port = {self.metrics}\n"
            "collect_statistics_interval = 1000\n")
        os.chmod(folder, 0o755)
        if os.geteuid() == 0:                        # Debian's script goes on as the user rabbitmq
            for path in (folder, *folder.iterdir()):
                shutil.chown(path, "rabbitmq", "rabbitmq")
        self.nodename = f"tools{self.amqp}@localhost"
        self.environment = os.environ | {
            "RABBITMQ_NODENAME": self.nodename, "RABBITMQ_DIST_PORT": str(self.ports.own),
            "RABBITMQ_MNESIA_BASE": str(folder), "RABBITMQ_LOG_BASE": str(folder),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf")}
        self.process = subprocess.Popen(["rabbitmq-server"], env=self.environment, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)

    def stop(self):
        subprocess.run(["rabbitmqctl", "-n", self.nodename, "stop"], env=self.environment, timeout=60,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)


class Garenne(Broker):
    name = "Garenne"

    def __init__(self, ports, binary):
        super().__init__(ports)
        self.binary = binary

    def start(self):
        folder = Path(self.folder)
        with open(folder / "broker.log", "wb") as log:
            self.process = subprocess.Popen(
                [self.binary, "--data-dir", folder / "data", "--listen", f"{HOST}:{self.amqp}",
                 "--http", f"{HOST}:{self.http}", "--metrics", f"{HOST}:{self.metrics}"],
                cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()


def add_arguments(parser):
    parser.add_argument("--garenne", metavar="BINARY|AMQP,HTTP,METRICS", required=True,
                        help="a binary to start, or the ports of one that runs")
    parser.add_argument("--rabbitmq", metavar="AMQP,HTTP,METRICS", help="the ports of one that runs, instead of starting one")
    parser.add_argument("--port", type=int, default=21310, help="the first of eight free ports")


def garenne(arguments):
    if arguments.garenne == "rabbitmq":              # the test of a tool itself: one broker twice must agree
        return RabbitMQ(Ports(arguments.port))
    return given("Garenne", arguments.garenne) or Garenne(Ports(arguments.port), os.path.abspath(arguments.garenne))


def rabbitmq(arguments):
    return given("RabbitMQ", arguments.rabbitmq) or RabbitMQ(Ports(arguments.port + 4))


def given(name, text):
    parts = (text or "").split(",")
    return Running(name, *map(int, parts)) if len(parts) == 3 and all(part.isdigit() for part in parts) else None

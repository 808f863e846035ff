"""Brokers that are started for one measurement and ended by their process ids.

Each start of a scenario has an empty data folder; a restart within it keeps the folder.
"""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time

START_SECONDS = 120


class Failed(Exception):
    """A measurement that did not come to an end; its text goes into the table."""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def below(pid):
    """The processes that `pid` has started, theirs too, parents first."""
    parents = {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        parents[int(stat.parent.name)] = int(fields[1])
    found = [pid]
    for parent in found:
        found += [child for child, of in parents.items() if of == parent]
    return found


class Broker:
    """A process, its folder and its port."""

    def __init__(self, folder, garenne):
        self.folder = pathlib.Path(folder) / self.name
        self.garenne = garenne
        self.port = free_port()
        self.process = None
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.folder.chmod(0o777)

    @property
    def uri(self):
        return f"amqp://guest:guest@127.0.0.1:{self.port}/%2f"

    def spawn(self):
        """Starts the process, and does not wait for it."""
        command, environment = self.command()
        with open(self.folder / "output", "ab") as output:
            self.process = subprocess.Popen(
                command, env={**os.environ, **environment}, cwd="/", start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=output, stderr=output)

    def start(self):
        """Starts the process, and waits until it lets clients in."""
        self.spawn()
        self.perf("first", "--connection-only", "--patience", START_SECONDS)

    def perf(self, *arguments):
        """Runs garenne perf against the broker; what it found."""
        return self.perf_begin(*arguments)()

    def perf_begin(self, *arguments):
        """Starts garenne perf; a function that waits for what it found."""
        mode, flags = arguments[0], [str(argument) for argument in arguments[1:]]
        if self.process and mode not in ("first", "disk"):
            flags += ["--broker-pid", str(self.process.pid)]
        process = subprocess.Popen(
            [self.garenne, "perf", mode, self.uri, "--json", *flags],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

        def wait():
            output, errors = process.communicate()
            found = json.loads(output) if output.strip() else {}
            if process.returncode:
                raise Failed(fault(found) or errors.strip() or f"status {process.returncode}")
            return found

        return wait

    def stop(self):
        """Ends the process in an orderly way."""
        self._end(signal.SIGTERM)

    def kill(self):
        """Ends the process and all below it as a crash would."""
        self._end(signal.SIGKILL)

    def _end(self, how):
        if self.process is None:
            return
        everyone = below(self.process.pid)
        for pid in self.told_to_end(everyone, how):
            self._signal(pid, how)
        deadline = time.monotonic() + 60
        while any(is_alive(pid) for pid in everyone):
            self.process.poll()
            if time.monotonic() > deadline:
                for pid in everyone:
                    self._signal(pid, signal.SIGKILL)
            time.sleep(0.01)
        self.process = None

    @staticmethod
    def _signal(pid, how):
        try:
            os.kill(pid, how)
        except ProcessLookupError:
            pass

    def told_to_end(self, everyone, how):
        return everyone

    def last_words(self):
        """What a process said that has ended by itself."""
        if self.process is None or self.process.poll() is None:
            return ""
        lines = (self.folder / "output").read_text(errors="replace").strip().splitlines()
        return f"; the broker ended with status {self.process.returncode}: {lines[-1] if lines else ''}"

    def leave(self):
        """Ends everything and removes the folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def is_alive(pid):
    """Whether anything of a process still runs: its first thread may end before the others do, and only
    the last one lets go of files and ports."""
    process = pathlib.Path(f"/proc/{pid}")
    try:
        is_ended = (process / "stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
        return not is_ended or len(list((process / "task").iterdir())) > 1
    except (FileNotFoundError, ProcessLookupError):
        return False


def fault(found):
    """What is wrong, of what garenne perf found."""
    if found.get("errors"):
        return "; ".join(found["errors"])
    names = ("lost", "duplicated", "out_of_order", "misrouted", "unreadable", "dropped")
    return ", ".join(f"{found[name]} {name.replace('_', ' ')}" for name in names if found.get(name))


class Garenne(Broker):
    name = "Garenne"

    def command(self):
        return [self.garenne, "--data-dir", str(self.folder / "data"),
                "--listen", f"127.0.0.1:{self.port}", "--http", "none", "--log", "warn"], {}

    @staticmethod
    def version(garenne):
        return subprocess.run([garenne, "--version"], capture_output=True, text=True).stdout.strip()


# Debian's rabbitmq-server is a wrapper that goes through su, which lowers the number of open files.
BEHIND_THE_WRAPPER = "/usr/lib/rabbitmq/bin/rabbitmq-server"


class RabbitMQ(Broker):
    """A node with its defaults: no plugins, no configuration file. Its home, with Erlang's cookie, is its
    folder, and it has a port mapper of its own."""

    name = "RabbitMQ"

    def __init__(self, folder, garenne):
        super().__init__(folder, garenne)
        self.mapper_port, self.node_port = free_port(), free_port()
        self.mapper = None
        (self.folder / "enabled_plugins").write_text("[].\n")

    def command(self):
        self._start_mapper()
        program = BEHIND_THE_WRAPPER if os.access(BEHIND_THE_WRAPPER, os.X_OK) else "rabbitmq-server"
        return [program], {
            "HOME": str(self.folder),
            "RABBITMQ_NODENAME": f"garenne-compare-{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self.node_port),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "none"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "ERL_EPMD_PORT": str(self.mapper_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }

    def _start_mapper(self):
        if self.mapper is None:
            self.mapper = subprocess.Popen(
                ["epmd", "-port", str(self.mapper_port), "-address", "127.0.0.1"], start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def told_to_end(self, everyone, how):
        # The scripts around it do not pass SIGTERM on: the Erlang machine itself is told.
        if how == signal.SIGKILL:
            return everyone
        names = {pid: pathlib.Path(f"/proc/{pid}/comm") for pid in everyone}
        return [pid for pid, name in names.items() if name.exists() and name.read_text().startswith("beam")]

    def leave(self):
        super().leave()
        if self.mapper:
            self.mapper.kill()
            self.mapper.wait()
            self.mapper = None

    @staticmethod
    def version(_):
        found = subprocess.run(["rabbitmqctl", "version"], capture_output=True, text=True, cwd="/")
        return f"RabbitMQ {found.stdout.strip()}"

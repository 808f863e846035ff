"""What the conversations with Celery share: steps, workers as processes of their own, and the end in time."""
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid

HERE = os.path.dirname(os.path.abspath(__file__))
step = "start"


def ok(name):
    global step
    print("ok", name, flush=True)
    step = "after " + name


def expect(got, wanted, what):
    if got != wanted:
        raise AssertionError(f"{what}: got {got!r:.500}, wanted {wanted!r:.500}")


def until(call, what, seconds=30):
    """The first true answer of `call`."""
    deadline = time.monotonic() + seconds
    while True:
        answer = call()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(0.05)


def die_with_parent():
    """Run in the new process: whoever kills this program gets rid of the workers too."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def connect():
    import kombu

    connection = kombu.Connection(os.environ["AMQP_URL"], connect_timeout=10)
    connection.ensure_connection(max_retries=1, timeout=10)
    return connection


class Run:
    """The processes of one run, and the folder for their logs."""

    def __init__(self, scratch):
        self.name = "clients.celery." + uuid.uuid4().hex
        self.scratch = scratch
        self.processes = []

    def worker(self, name, app, env, *options):
        """Starts a worker, with a log of its own, in a process group of its own."""
        log = open(os.path.join(self.scratch, name + ".log"), "w")
        p = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", app, "worker", "-l", "info", "-n", f"{self.name}.{name}@localhost",
             *options],
            cwd=HERE, env=self.env(env), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            start_new_session=True, preexec_fn=die_with_parent)
        p.log = log.name
        self.processes.append(p)
        return p

    def env(self, more):
        return dict(os.environ, PYTHONDONTWRITEBYTECODE="1", PYTHONUNBUFFERED="1", **more)

    def log(self, worker):
        if worker.poll() is not None:
            raise AssertionError(f"the worker ended with {worker.returncode}")
        with open(worker.log) as f:
            return f.read()

    def ready(self, *workers):
        for worker in workers:
            until(lambda: " ready." in self.log(worker), "worker ready", 60)

    def stop(self, *workers):
        """Warm shutdown."""
        for worker in workers:
            worker.send_signal(signal.SIGTERM)
        self.stopped(*workers)

    def stopped(self, *workers):
        for worker in workers:
            expect(worker.wait(timeout=30), 0, "the worker's exit code")
        for worker in workers:
            with open(worker.log) as f:
                for line in f:
                    if "CRITICAL" in line or "consumer: Cannot connect" in line:
                        raise AssertionError(line)

    def show_logs(self):
        for p in self.processes:
            if hasattr(p, "log"):
                with open(p.log, errors="replace") as f:
                    print(f"--- {os.path.basename(p.log)}, its end\n{f.read()[-3000:]}", flush=True)

    def kill(self, process):
        """Without a word, with its children."""
        try:
            os.killpg(process.pid, signal.SIGKILL)  # the process group that we made
        except ProcessLookupError:
            pass
        process.wait()

    def end(self):
        for process in self.processes:
            self.kill(process)


def play(kind, limit):
    """Plays a run to its end, `kind(scratch).main()` and `.delete()`; the exit code says how it went."""
    with tempfile.TemporaryDirectory(prefix="garenne-celery-") as scratch:
        run = kind(scratch)

        def too_late():
            print(f"FAILED {step}: not done within {limit} s", flush=True)
            run.show_logs()
            run.end()
            os._exit(1)

        timer = threading.Timer(limit, too_late)
        timer.daemon = True
        timer.start()
        try:
            connect().release()  # a worker would try for ever
            run.main()
            run.delete()
        except BaseException as e:
            print(f"FAILED {step}: {type(e).__name__}: {e}", flush=True)
            run.show_logs()
            run.end()
            try:
                run.delete()
            except Exception as e:
                print(f"(not cleaned up: {e})", flush=True)
            return 1
        timer.cancel()
    return 0

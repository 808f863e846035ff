#!/usr/bin/env python3
"""Runs the Rust program http_client/ (every call of the crate rabbitmq_http_client) against both brokers."""

import argparse
import subprocess
import sys

import brokers
import report
import world


def outcome(binary, broker):
    """The calls of a run: name -> "ok" or the error."""
    world.populate(broker.api)
    world.fill(broker.host, broker.amqp)
    with world.Clients(broker.host, broker.amqp) as clients:
        world.await_statistics(broker.api)
        run = subprocess.run([binary, str(broker.http), str(broker.amqp), broker.node],
                             capture_output=True, text=True, timeout=300)
    if run.returncode or clients.failures:
        raise RuntimeError(f"{broker.name}: {run.stderr[-2000:]} {clients.failures}")
    return dict(line.split("\t", 1) for line in run.stdout.splitlines())


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    brokers.add_arguments(parser)
    report.add_arguments(parser)
    parser.add_argument("--binary", required=True, help="the program, built")
    arguments = parser.parse_args()
    result = report.Report("http_client")
    with brokers.rabbitmq(arguments) as rabbit:
        theirs = outcome(arguments.binary, rabbit)
    with brokers.garenne(arguments) as garenne:
        ours = outcome(arguments.binary, garenne)
    for name in ours | theirs:
        result.calls += 1
        # Not a comparison: every call must parse, also those that RabbitMQ 3.10 is too old for.
        if ours.get(name, "ok" if name.endswith(".some") else "not called") != "ok":
            result.differ(name, theirs.get(name, "not called"), ours.get(name, "not called"))
    sys.exit(result.finish(arguments.output))


if __name__ == "__main__":
    main()

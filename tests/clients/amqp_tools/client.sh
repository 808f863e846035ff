#!/usr/bin/env bash
# The conversation of the clients' tests in rabbitmq-c's command line tools. They have no confirms, no
# mandatory flag, no transactions and no channel that goes on after an error: what they have is here.
set -euo pipefail

name="clients.amqp_tools.$(tr -d - </proc/sys/kernel/random/uuid)"
url="$AMQP_URL"
case "${url#amqp://}" in
*/) url="${url%/}" ;; # these tools take the path "/" for the empty vhost's name
esac
step=start
work="$(mktemp -d)"
queues=()

cleanup() {
    local code=$?
    for q in "${queues[@]}"; do amqp-delete-queue -u "$url" -q "$q" >/dev/null 2>&1 || true; done
    rm -rf "$work"
    [ "$code" = 0 ] || echo "FAILED after $step (exit code $code)"
}
trap cleanup EXIT

ok() {
    echo "ok $1"
    step="$1"
}

expect() { # got wanted what
    if [ "$1" != "$2" ]; then
        printf 'FAILED %s: got <%.300s>, wanted <%.300s>\n' "$3" "$1" "$2"
        exit 1
    fi
}

# No step may hang
run() { timeout 30 "$@"; }
publish() { run amqp-publish -u "$url" "$@"; }
get() { run amqp-get -u "$url" "$@"; }

queues+=("$name")
expect "$(run amqp-declare-queue -u "$url" -d -q "$name")" "$name" "the declared queue's name"
expect "$(run amqp-declare-queue -u "$url" -d -q "$name")" "$name" "the queue declared again"
ok "declare queue"

seq 1 100 | publish -r "$name" -p -l
run amqp-consume -u "$url" -q "$name" -p 10 -c 100 cat >"$work/got"
# with -l the line's end is part of the message
expect "$(cat "$work/got")" "$(seq 1 100)" "100 messages in order"
ok "publish and consume with prefetch"

if get -q "$name" >"$work/none" 2>&1; then code=0; else code=$?; fi
expect "$code" 2 "amqp-get's exit code for an empty queue"
publish -r "$name" -b one
publish -r "$name" -b two -C text/plain -E utf-8 -t reply -H "key: value" -H "other: ünï"
expect "$(get -q "$name")" one "first get"
expect "$(get -q "$name")" two "second get"
ok "get"

# amqp-consume does not acknowledge when its command fails
publish -r "$name" -b again
run amqp-consume -u "$url" -q "$name" -p 1 -c 1 -- sh -c 'cat >"$0"; exit 1' "$work/first"
expect "$(cat "$work/first")" again "the message that is not acknowledged"
run amqp-consume -u "$url" -q "$name" -p 1 -c 1 cat >"$work/again"
expect "$(cat "$work/again")" again "the message that came back"
if get -q "$name" >/dev/null 2>&1; then code=0; else code=$?; fi
expect "$code" 2 "an empty queue at the end"
ok "requeue"

head -c 1048576 /dev/urandom >"$work/big"
publish -r "$name" -p <"$work/big"
get -q "$name" >"$work/back"
cmp "$work/big" "$work/back"
ok "1 MiB body"
publish -r "$name" -p </dev/null
get -q "$name" >"$work/back"
expect "$(wc -c <"$work/back")" 0 "the empty body's length"
ok "empty body"

# An exclusive queue of the server's naming, bound to amq.topic; the publisher is heard once it is bound
run amqp-consume -u "$url" -e amq.topic -r "$name.*" -x -c 1 cat >"$work/topic" 2>"$work/error" &
consumer=$!
for _ in $(seq 600); do
    kill -0 "$consumer" 2>/dev/null || break
    publish -e amq.topic -r "$name.here" -b heard
    sleep 0.05
done
wait "$consumer"
expect "$(cat "$work/topic")" heard "message through amq.topic"
ok "exclusive consumer on an exchange"

if get -q "$name.no" >"$work/error" 2>&1; then code=0; else code=$?; fi
expect "$code" 1 "exit code for a missing queue"
grep -qF "404, message: NOT_FOUND - no queue '$name.no' in vhost '/'" "$work/error" || {
    cat "$work/error"
    exit 1
}
if run amqp-declare-queue -u "$url" -q "$name" >"$work/error" 2>&1; then code=0; else code=$?; fi
expect "$code" 1 "exit code for an unequal declare"
grep -qF "406, message: PRECONDITION_FAILED - inequivalent arg 'durable' for queue '$name' in vhost '/'" "$work/error" || {
    cat "$work/error"
    exit 1
}
ok "channel errors"

publish -r "$name" -b left
expect "$(run amqp-delete-queue -u "$url" -q "$name")" 1 "messages in the deleted queue"
queues=()
ok "delete queue"

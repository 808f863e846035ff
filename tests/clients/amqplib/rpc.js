'use strict';
// An RPC server and its clients, in two processes: `node rpc.js` starts `node rpc.js server QUEUE`.
// Client 1 uses an exclusive reply queue, client 2 direct reply-to (amq.rabbitmq.reply-to).
const assert = require('node:assert/strict');
const crypto = require('node:crypto');
const { spawn } = require('node:child_process');
const { once } = require('node:events');
const readline = require('node:readline');
const amqp = require('amqplib');

const CALLS = 100;
const URL_ = process.env.AMQP_URL;

function failed(why) {
  console.log('FAILED rpc:', String((why && why.stack) || why).slice(0, 2000));
  process.exit(1);
}
const limit = setTimeout(() => failed('not done within 60 s'), 60000);
process.on('unhandledRejection', failed);

async function server(queue) {
  const conn = await amqp.connect(URL_);
  const ch = await conn.createChannel();
  await ch.assertQueue(queue, { durable: false, autoDelete: true });
  await ch.prefetch(20);
  await ch.consume(queue, (m) => {
    ch.sendToQueue(m.properties.replyTo, Buffer.from(String(2 * Number(m.content))), { correlationId: m.properties.correlationId });
    ch.ack(m);
  });
  console.log('ready');
  process.stdin.resume();
  await once(process.stdin, 'end'); // the parent hangs up
  await conn.close();
}

async function caller(conn, queue, direct) {
  const ch = await conn.createChannel();
  const replyTo = direct ? 'amq.rabbitmq.reply-to' : (await ch.assertQueue('', { exclusive: true })).queue;
  const pending = new Map();
  await ch.consume(replyTo, (m) => {
    pending.get(m.properties.correlationId)(Number(m.content));
    pending.delete(m.properties.correlationId);
  }, { noAck: true });
  const call = (n) => new Promise((resolve) => {
    const id = crypto.randomUUID();
    pending.set(id, resolve);
    ch.sendToQueue(queue, Buffer.from(String(n)), { replyTo, correlationId: id });
  });
  const numbers = Array.from({ length: CALLS }, (_, i) => i);
  assert.deepEqual(await Promise.all(numbers.map(call)), numbers.map((n) => 2 * n));
  assert.equal(await call(21), 42);
  await ch.close();
}

async function client() {
  const queue = 'clients.amqplib.rpc.' + crypto.randomUUID();
  const child = spawn(process.execPath, [__filename, 'server', queue], { stdio: ['pipe', 'pipe', 'inherit'] });
  const done = once(child, 'exit');
  done.then(([code]) => { if (code !== 0) failed(`the server ended with ${code}`); });
  for await (const line of readline.createInterface({ input: child.stdout })) {
    if (line === 'ready') break;
    console.log(line);
  }
  const conn = await amqp.connect(URL_);
  await caller(conn, queue, false);
  console.log('ok rpc with an exclusive reply queue');
  await caller(conn, queue, true);
  console.log('ok rpc with direct reply-to');
  await Promise.all([caller(conn, queue, false), caller(conn, queue, true)]);
  console.log('ok both at once');
  child.stdin.end();
  await done;
  await conn.close();
  console.log('ok close');
}

const role = process.argv[2] === 'server' ? server(process.argv[3]) : client();
role.then(() => clearTimeout(limit), failed);

'use strict';
// The conversation of the clients' tests in amqplib (promises API).
const assert = require('node:assert/strict');
const crypto = require('node:crypto');
const { once } = require('node:events');
const { setTimeout: sleep } = require('node:timers/promises');
const amqp = require('amqplib');

const LIMIT = 60;
const URL_ = process.env.AMQP_URL;
const NAME = 'clients.amqplib.' + crypto.randomUUID();
let step = 'start';

function ok(name) {
  console.log('ok', name);
  step = 'after ' + name;
}

function failed(why) {
  console.log(`FAILED ${step}:`, String((why && why.stack) || why).slice(0, 2000));
  process.exit(1);
}

const limit = setTimeout(() => failed(`not done within ${LIMIT} s`), LIMIT * 1000);
process.on('unhandledRejection', failed);
process.on('uncaughtException', failed);

// A mailbox: messages come in by callback, go out by `await box.next()`.
function mailbox() {
  const have = [];
  const waiting = [];
  return {
    put: (m) => (waiting.length ? waiting.shift()(m) : have.push(m)),
    next: () => (have.length ? Promise.resolve(have.shift()) : new Promise((r) => waiting.push(r))),
    size: () => have.length,
  };
}

// Runs `call` on a new channel and wants it to end in a channel error; gives that error.
async function closedWith(conn, code, call) {
  const ch = await conn.createChannel();
  const closed = new Promise((resolve) => ch.on('close', resolve));
  let event;
  ch.on('error', (e) => { event = e; });
  await assert.rejects(call(ch), (e) => e.code === code);
  await closed;
  assert.equal(event.code, code);
  return event.message;
}

async function count(conn, queue) {
  const ch = await conn.createChannel();
  const n = (await ch.checkQueue(queue)).messageCount;
  await ch.close();
  return n;
}

async function gone(conn, queue) {
  const deadline = Date.now() + 20000;
  for (;;) {
    const ch = await conn.createChannel();
    ch.on('error', () => {});
    try {
      await ch.checkQueue(queue);
      await ch.close();
    } catch (e) {
      if (e.code === 404) return;
      assert.equal(e.code, 405); // the exclusive queue's owner is not quite gone yet
    }
    assert.ok(Date.now() < deadline, `${queue} is still there`);
    await sleep(20);
  }
}

async function main() {
  const conn = await amqp.connect(URL_);
  const ch = await conn.createConfirmChannel();
  ok('connect');

  await ch.assertExchange(NAME, 'direct', { durable: true });
  assert.equal((await ch.assertQueue(NAME, { durable: true })).queue, NAME);
  await ch.bindQueue(NAME, NAME, 'key');
  ok('declare');

  let confirmed = 0;
  for (let i = 0; i < 100; i++) {
    ch.publish(NAME, 'key', Buffer.from(`m${i}`), { persistent: true }, (err) => { if (!err) confirmed++; });
  }
  await ch.waitForConfirms();
  assert.equal(confirmed, 100);
  assert.equal(await count(conn, NAME), 100);
  ok('publish with confirms');

  const order = [];
  ch.once('return', (m) => order.push(m));
  ch.publish(NAME, 'nowhere', Buffer.from('lost'), { mandatory: true }, (err) => order.push(err ? 'nack' : 'ack'));
  await ch.waitForConfirms();
  assert.equal(order.length, 2);
  assert.equal(order[1], 'ack', 'the return must come before the confirm');
  const { replyCode, replyText, exchange, routingKey } = order[0].fields;
  assert.deepEqual([replyCode, replyText, exchange, routingKey], [312, 'NO_ROUTE', NAME, 'nowhere']);
  assert.equal(order[0].content.toString(), 'lost');
  ok('mandatory return');

  await ch.prefetch(10);
  let box = mailbox();
  let { consumerTag } = await ch.consume(NAME, box.put);
  const held = [];
  while (held.length < 10) held.push(await box.next());
  assert.equal(await count(conn, NAME), 90, 'messages ready beyond the prefetch window');
  assert.equal(box.size(), 0);
  for (let i = 0; i < 100; i++) {
    const m = held.shift();
    assert.equal(m.content.toString(), `m${i}`);
    assert.deepEqual(
      [m.fields.redelivered, m.fields.exchange, m.fields.routingKey, m.fields.consumerTag, m.properties.deliveryMode],
      [false, NAME, 'key', consumerTag, 2]);
    ch.ack(m);
    if (i < 90) held.push(await box.next());
  }
  await ch.cancel(consumerTag);
  assert.equal(await count(conn, NAME), 0);
  ok('consume with prefetch and acks');

  ch.publish(NAME, 'key', Buffer.from('again'));
  box = mailbox();
  ({ consumerTag } = await ch.consume(NAME, box.put));
  let m = await box.next();
  assert.deepEqual([m.content.toString(), m.fields.redelivered], ['again', false]);
  ch.nack(m, false, true);
  m = await box.next();
  assert.deepEqual([m.content.toString(), m.fields.redelivered], ['again', true]);
  ch.reject(m, false);
  await ch.cancel(consumerTag);
  assert.equal(await count(conn, NAME), 0);
  ok('nack and reject');

  assert.equal(await ch.get(NAME), false);
  ch.publish(NAME, 'key', Buffer.from('one'));
  ch.publish(NAME, 'key', Buffer.from('two'));
  await ch.waitForConfirms();
  m = await ch.get(NAME);
  assert.deepEqual([m.content.toString(), m.fields.messageCount, m.fields.redelivered], ['one', 1, false]);
  ch.ack(m);
  m = await ch.get(NAME, { noAck: true });
  assert.deepEqual([m.content.toString(), m.fields.messageCount], ['two', 0]);
  ok('basic.get');

  let text = await closedWith(conn, 404, (c) => c.checkQueue(NAME + '.no'));
  assert.ok(text.includes(`NOT_FOUND - no queue '${NAME}.no' in vhost '/'`), text);
  text = await closedWith(conn, 406, (c) => c.assertQueue(NAME, { durable: false }));
  assert.ok(text.includes("PRECONDITION_FAILED - inequivalent arg 'durable' for queue"), text);
  assert.equal(await count(conn, NAME), 0);
  assert.equal((await ch.checkQueue(NAME)).messageCount, 0);
  ok('channel error');

  const values = {
    string: 'ünï', empty: '', bytes: Buffer.from([0, 255]), true: true, false: false, null: null,
    byte: -5, short: -300, int: 2 ** 31 - 1, long: 2 ** 40, double: 0.1, longtext: 'x'.repeat(5000),
  };
  const tagged = {
    time: { '!': 'timestamp', value: 1700000000 },
    decimal: { '!': 'decimal', value: { places: 3, digits: 12345 } },
  };
  const forced = {
    uint8: [{ '!': 'uint8', value: 200 }, 200], uint16: [{ '!': 'uint16', value: 60000 }, 60000],
    uint32: [{ '!': 'uint32', value: 4e9 }, 4e9], int64: [{ '!': 'int64', value: -7 }, -7],
    float: [{ '!': 'float', value: 1.5 }, 1.5], float64: [{ '!': 'float64', value: 3 }, 3],
  };
  const headers = { ...values, ...tagged, table: { ...values, deeper: { a: {} } }, array: [1, 'two', null, [], { x: [true] }] };
  const sent = { ...headers };
  for (const key in forced) {
    sent[key] = forced[key][0];
    headers[key] = forced[key][1];
  }
  // amqplib has no cluster-id among the options; the other 13 properties
  const props = {
    contentType: 'text/x', contentEncoding: 'utf-8', deliveryMode: 2, priority: 7, correlationId: 'corr',
    replyTo: 'reply', expiration: '60000', messageId: 'mid', timestamp: 1700000000, type: 'kind',
    userId: decodeURIComponent(new URL(URL_).username), appId: 'app',
  };
  ch.publish(NAME, 'key', Buffer.from('props'), { ...props, headers: sent });
  await ch.waitForConfirms();
  m = await ch.get(NAME, { noAck: true });
  assert.deepEqual(m.properties, { ...props, headers, clusterId: undefined });
  ok('properties');

  const big = crypto.randomBytes(1 << 20);
  ch.publish(NAME, 'key', big, { persistent: true });
  ch.publish(NAME, 'key', Buffer.alloc(0), { persistent: true });
  await ch.waitForConfirms();
  m = await ch.get(NAME, { noAck: true });
  assert.ok(m.content.equals(big), '1 MiB body');
  ok('1 MiB body');
  m = await ch.get(NAME, { noAck: true });
  assert.equal(m.content.length, 0);
  ok('empty body');

  // amqplib knows no transactions
  const other = await amqp.connect(URL_);
  const och = await other.createChannel();
  const { queue: mine } = await och.assertQueue('', { exclusive: true });
  assert.match(mine, /^amq\.gen-/);
  text = await closedWith(conn, 405, (c) => c.checkQueue(mine));
  assert.ok(text.includes('RESOURCE_LOCKED - '), text);
  await other.close();
  await gone(conn, mine);
  const auto = NAME + '.auto';
  await ch.assertQueue(auto, { autoDelete: true });
  ({ consumerTag } = await ch.consume(auto, () => {}));
  await ch.cancel(consumerTag);
  await gone(conn, auto);
  ok('exclusive and auto-delete queues');

  // Arguments as amqplib makes them of its options, and a consumer cancelled by the broker
  const brief = NAME + '.brief';
  await ch.assertQueue(brief, { durable: false, expires: 600000, messageTtl: 1 });
  ch.sendToQueue(brief, Buffer.from('expired'));
  await ch.waitForConfirms();
  const deadline = Date.now() + 20000;
  while ((await ch.checkQueue(brief)).messageCount > 0) assert.ok(Date.now() < deadline, 'it does not expire');
  assert.equal(await ch.get(brief), false);
  await ch.deleteQueue(brief);
  ok('expiry');

  box = mailbox();
  await ch.consume(NAME, box.put, { priority: 3 });
  await ch.deleteQueue(NAME);
  assert.equal(await box.next(), null, 'the broker cancels the consumer of a deleted queue');
  ok('consumer cancelled by the broker');

  await ch.deleteExchange(NAME);
  await ch.close();
  const closed = once(conn, 'close');
  await conn.close();
  await closed;
  ok('close');
}

main().then(() => clearTimeout(limit), failed);

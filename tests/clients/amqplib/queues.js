'use strict';
// What queues do with messages that fail, wait or find no room, as amqplib sees it.
const assert = require('node:assert/strict');
const crypto = require('node:crypto');
const { setTimeout: sleep } = require('node:timers/promises');
const amqp = require('amqplib');

const LIMIT = 60;
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

// The next message of `queue`, waited for.
async function taken(ch, queue, options) {
  const deadline = Date.now() + 20000;
  for (;;) {
    const m = await ch.get(queue, options);
    if (m) return m;
    assert.ok(Date.now() < deadline, `${queue}: no message`);
    await sleep(5);
  }
}

// Publishes and waits for the answer, 'ack' or 'nack'.
function published(ch, exchange, key, body, options) {
  return new Promise((resolve) => {
    ch.publish(exchange, key, Buffer.from(body), { persistent: true, ...options }, (err) => resolve(err ? 'nack' : 'ack'));
  });
}

async function deadLetters(ch) {
  const [work, wait, dead] = [`${NAME}.work`, `${NAME}.wait`, `${NAME}.dead`];
  await ch.assertExchange(NAME, 'fanout', { durable: true });
  await ch.assertQueue(dead);
  await ch.bindQueue(dead, NAME, '');
  await ch.assertQueue(wait, { messageTtl: 100, deadLetterExchange: NAME, deadLetterRoutingKey: 'over' });
  await ch.assertQueue(work, { deadLetterExchange: '', deadLetterRoutingKey: wait });
  const begun = Date.now();
  await published(ch, '', work, 'bad', { headers: { mine: 'yes' }, messageId: 'id' });
  ch.nack(await taken(ch, work), false, false);
  const m = await taken(ch, dead, { noAck: true });
  assert.ok(Date.now() - begun >= 100, 'not before its time');
  assert.deepEqual([m.content.toString(), m.fields.exchange, m.fields.routingKey], ['bad', NAME, 'over']);
  assert.deepEqual([m.properties.messageId, m.properties.deliveryMode, m.properties.headers.mine], ['id', 2, 'yes']);
  const deaths = m.properties.headers['x-death'].map(({ time, ...death }) => {
    assert.equal(time['!'], 'timestamp');
    assert.ok(time.value >= Math.floor(begun / 1000) && time.value <= Date.now() / 1000, `time of death ${time.value}`);
    return death;
  });
  assert.deepEqual(deaths, [
    { count: 1, reason: 'expired', queue: wait, exchange: '', 'routing-keys': [wait] },
    { count: 1, reason: 'rejected', queue: work, exchange: '', 'routing-keys': [work] },
  ]);
  assert.deepEqual(
    ['exchange', 'queue', 'reason'].map((what) => m.properties.headers['x-first-death-' + what]), ['', work, 'rejected']);
  for (const queue of [work, wait, dead]) await ch.deleteQueue(queue);
  await ch.deleteExchange(NAME);
  ok('dead letters');
}

async function deliveryLimit(ch) {
  const [work, dead] = [`${NAME}.limited`, `${NAME}.failed`];
  await ch.assertQueue(dead);
  await ch.assertQueue(work, {
    deadLetterExchange: '', deadLetterRoutingKey: dead, arguments: { 'x-queue-type': 'quorum', 'x-delivery-limit': 2 },
  });
  await published(ch, '', work, 'bad');
  const seen = [];
  const { consumerTag } = await ch.consume(work, (m) => {
    seen.push([m.properties.headers['x-delivery-count'], m.fields.redelivered]);
    ch.nack(m);
  });
  const m = await taken(ch, dead, { noAck: true });
  await ch.cancel(consumerTag);
  assert.deepEqual(seen, [[undefined, false], [1, true], [2, true]]);
  assert.equal(m.properties.headers['x-death'][0].reason, 'delivery_limit');
  for (const queue of [work, dead]) await ch.deleteQueue(queue);
  ok('delivery limit');
}

async function priorities(ch) {
  const queue = `${NAME}.priorities`;
  await ch.assertQueue(queue, { maxPriority: 10 });
  const given = Array.from({ length: 100 }, (_, n) => (n * 7) % 13); // some above the highest
  await Promise.all(given.map((priority, n) => published(ch, '', queue, String(n), { priority })));
  const wanted = given.map((_, n) => n).sort((a, b) => Math.min(given[b], 10) - Math.min(given[a], 10) || a - b);
  const got = [];
  await new Promise((resolve) => {
    ch.consume(queue, (m) => {
      got.push(Number(m.content.toString()));
      ch.ack(m);
      if (got.length === given.length) resolve();
    }, { consumerTag: 'the-tag' });
  });
  await ch.cancel('the-tag');
  assert.deepEqual(got, wanted);
  await ch.deleteQueue(queue);
  ok('priorities');
}

async function refused(ch) {
  const queue = `${NAME}.full`;
  await ch.assertQueue(queue, { maxLength: 10, overflow: 'reject-publish' });
  const answers = await Promise.all(Array.from({ length: 15 }, (_, n) => published(ch, '', queue, String(n))));
  assert.deepEqual(answers, [...Array(10).fill('ack'), ...Array(5).fill('nack')]);
  ch.sendToQueue(queue, Buffer.from('one more'));
  await assert.rejects(ch.waitForConfirms(), /message nacked/);
  await ch.purgeQueue(queue);
  assert.equal(await published(ch, '', queue, 'there is room again'), 'ack');
  await ch.deleteQueue(queue);
  ok('refused publishings');
}

async function main() {
  const conn = await amqp.connect(process.env.AMQP_URL);
  for (const conversation of [deadLetters, deliveryLimit, priorities, refused]) {
    const ch = await conn.createConfirmChannel();
    await conversation(ch);
    await ch.close();
  }
  await conn.close();
}

main().then(() => clearTimeout(limit), failed);

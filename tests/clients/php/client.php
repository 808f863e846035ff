<?php
// The conversation of the clients' tests in php-amqplib.
declare(strict_types=1);

require_once 'PhpAmqpLib/autoload.php';

use PhpAmqpLib\Channel\AMQPChannel;
use PhpAmqpLib\Connection\AMQPStreamConnection;
use PhpAmqpLib\Exception\AMQPProtocolChannelException;
use PhpAmqpLib\Message\AMQPMessage;
use PhpAmqpLib\Wire\AMQPTable;

// php-amqplib of this age uses what newer PHP calls deprecated
error_reporting(E_ALL & ~E_DEPRECATED);

const LIMIT = 60;
const WAIT = 30;
$step = 'start';
$started = microtime(true);

function ok(string $name): void
{
    global $step, $started;
    echo "ok $name\n";
    $step = "after $name";
    if (microtime(true) - $started > LIMIT) {
        throw new RuntimeException('not done within ' . LIMIT . ' s');
    }
}

function expect($got, $wanted, string $what): void
{
    if ($got !== $wanted) {
        throw new RuntimeException(
            "$what: got " . substr(var_export($got, true), 0, 500) . ', wanted ' . substr(var_export($wanted, true), 0, 500));
    }
}

function connect(): AMQPStreamConnection
{
    $u = parse_url(getenv('AMQP_URL'));
    $vhost = ltrim($u['path'] ?? '', '/');
    // read/write timeout WAIT: nothing hangs
    return new AMQPStreamConnection(
        $u['host'], $u['port'] ?? 5672, urldecode($u['user'] ?? 'guest'), urldecode($u['pass'] ?? 'guest'),
        $vhost === '' ? '/' : urldecode($vhost), false, 'AMQPLAIN', null, 'en_US', 10.0, WAIT, null, false, 0, WAIT);
}

// The text of the channel error with which the call must end.
function closed_with(AMQPStreamConnection $conn, int $code, callable $call): string
{
    try {
        $call($conn->channel());
    } catch (AMQPProtocolChannelException $e) {
        expect($e->amqp_reply_code, $code, 'reply code');
        return $e->amqp_reply_text;
    }
    throw new RuntimeException("no channel error $code");
}

function message_count(AMQPStreamConnection $conn, string $queue): int
{
    $ch = $conn->channel();
    [, $messages] = $ch->queue_declare($queue, true);
    $ch->close();
    return $messages;
}

function gone(AMQPStreamConnection $conn, string $queue): void
{
    $deadline = microtime(true) + 20;
    while (microtime(true) < $deadline) {
        try {
            message_count($conn, $queue);
        } catch (AMQPProtocolChannelException $e) {
            if ($e->amqp_reply_code === 404) {
                return;
            }
            expect($e->amqp_reply_code, 405, 'reply code'); // the exclusive queue's owner is not quite gone yet
        }
        usleep(20000);
    }
    throw new RuntimeException("$queue is still there");
}

// The next message, waited for.
function take(AMQPChannel $ch, string $queue): AMQPMessage
{
    $deadline = microtime(true) + 20;
    while (microtime(true) < $deadline) {
        $m = $ch->basic_get($queue);
        if ($m !== null) {
            return $m;
        }
        usleep(5000);
    }
    throw new RuntimeException("no message in $queue");
}

function persistent(string $body): AMQPMessage
{
    return new AMQPMessage($body, ['delivery_mode' => AMQPMessage::DELIVERY_MODE_PERSISTENT]);
}

// A quorum queue has had enough of a message.
function delivery_limit(AMQPChannel $ch, string $name): void
{
    [$limited, $dead] = ["$name.limited", "$name.dead"];
    $ch->queue_declare($dead, false, true, false, false);
    $ch->queue_declare($limited, false, true, false, false, false, new AMQPTable([
        'x-queue-type' => 'quorum', 'x-delivery-limit' => 2,
        'x-dead-letter-exchange' => '', 'x-dead-letter-routing-key' => $dead,
    ]));
    $ch->basic_publish(persistent('bad'), '', $limited);
    for ($n = 0; $n <= 2; $n++) {
        $m = take($ch, $limited);
        expect($m->get('application_headers')->getNativeData()['x-delivery-count'], $n, 'x-delivery-count');
        $ch->basic_nack($m->getDeliveryTag(), false, true);
    }
    $m = take($ch, $dead);
    $ch->basic_ack($m->getDeliveryTag());
    $deaths = $m->get('application_headers')->getNativeData()['x-death'];
    expect(count($deaths), 1, 'deaths');
    expect(
        [$deaths[0]['queue'], $deaths[0]['reason'], $deaths[0]['count'], $deaths[0]['routing-keys']],
        [$limited, 'delivery_limit', 1, [$limited]], 'x-death');
    $ch->queue_delete($limited);
    $ch->queue_delete($dead);
    ok('delivery limit and dead letter');
}

function talk(): void
{
    $name = 'clients.php.' . bin2hex(random_bytes(16));
    $conn = connect();
    $ch = $conn->channel();
    ok('connect'); // with the mechanism AMQPLAIN

    $ch->exchange_declare($name, 'direct', false, true, false);
    expect($ch->queue_declare($name, false, true, false, false)[0], $name, 'queue name');
    $ch->queue_bind($name, $name, 'key');
    ok('declare');

    $events = [];
    $ch->confirm_select();
    $ch->set_ack_handler(function () use (&$events) { $events[] = 'ack'; });
    $ch->set_nack_handler(function () use (&$events) { $events[] = 'nack'; });
    $ch->set_return_listener(function ($code, $text, $exchange, $key, $m) use (&$events) {
        $events[] = "$code $text $exchange $key {$m->body}";
    });
    for ($i = 0; $i < 100; $i++) {
        $ch->basic_publish(persistent("m$i"), $name, 'key');
    }
    $ch->wait_for_pending_acks(WAIT);
    expect($events, array_fill(0, 100, 'ack'), 'confirms');
    expect(message_count($conn, $name), 100, 'messages');
    ok('publish with confirms');

    $events = [];
    $ch->basic_publish(persistent('lost'), $name, 'nowhere', true);
    $ch->wait_for_pending_acks_returns(WAIT);
    expect($events, ["312 NO_ROUTE $name nowhere lost", 'ack'], 'return, then confirm');
    ok('mandatory return');

    $box = [];
    $put = function (AMQPMessage $m) use (&$box) { $box[] = $m; };
    $next = function () use (&$box, $ch): AMQPMessage {
        while (!$box) {
            $ch->wait(null, false, WAIT);
        }
        return array_shift($box);
    };
    $ch->basic_qos(0, 10, false);
    $tag = $ch->basic_consume($name, '', false, false, false, false, $put);
    $held = [];
    while (count($held) < 10) {
        $held[] = $next();
    }
    expect(message_count($conn, $name), 90, 'messages ready beyond the prefetch window');
    for ($i = 0; $i < 100; $i++) {
        $m = array_shift($held);
        expect([$m->body, $m->isRedelivered(), $m->getExchange(), $m->getRoutingKey(), $m->getConsumerTag(), $m->get('delivery_mode')],
            ["m$i", false, $name, 'key', $tag, 2], 'delivery');
        $m->ack();
        if ($i < 90) {
            $held[] = $next();
        }
    }
    $ch->basic_cancel($tag);
    expect(message_count($conn, $name), 0, 'messages');
    ok('consume with prefetch and acks');

    $ch->basic_publish(persistent('again'), $name, 'key');
    $tag = $ch->basic_consume($name, 'the-tag', false, false, false, false, $put);
    $m = $next();
    expect([$m->body, $m->isRedelivered()], ['again', false], 'first delivery');
    $m->nack(true);
    $m = $next();
    expect([$m->body, $m->isRedelivered()], ['again', true], 'second delivery');
    $m->reject(false);
    $ch->basic_cancel($tag);
    expect(message_count($conn, $name), 0, 'messages');
    ok('nack and reject');

    expect($ch->basic_get($name), null, 'get from the empty queue');
    $ch->basic_publish(persistent('one'), $name, 'key');
    $ch->basic_publish(persistent('two'), $name, 'key');
    $ch->wait_for_pending_acks(WAIT);
    $m = $ch->basic_get($name);
    expect([$m->body, $m->getMessageCount(), $m->isRedelivered()], ['one', 1, false], 'get');
    $m->ack();
    $m = $ch->basic_get($name, true);
    expect([$m->body, $m->getMessageCount()], ['two', 0], 'get');
    ok('basic.get');

    $text = closed_with($conn, 404, fn (AMQPChannel $c) => $c->queue_declare("$name.no", true));
    expect($text, "NOT_FOUND - no queue '$name.no' in vhost '/'", 'text');
    $text = closed_with($conn, 406, fn (AMQPChannel $c) => $c->queue_declare($name, false, false, false, false));
    expect(strpos($text, "PRECONDITION_FAILED - inequivalent arg 'durable' for queue"), 0, $text);
    expect($conn->isConnected(), true, 'connected');
    expect(message_count($conn, $name), 0, 'on a new channel');
    expect($ch->queue_declare($name, true)[1], 0, 'on the old channel');
    ok('channel error');

    $values = [
        'string' => 'ünï', 'empty' => '', 'true' => true, 'false' => false, 'null' => null, 'int' => -5,
        'long' => 1 << 40, 'longtext' => str_repeat('x', 5000),
    ];
    $headers = $values + ['table' => $values + ['deeper' => ['a' => 'b']], 'array' => [1, 'two', null, ['x' => [true, 2]]]];
    $properties = [
        'content_type' => 'text/x', 'content_encoding' => 'utf-8', 'delivery_mode' => 2, 'priority' => 7,
        'correlation_id' => 'corr', 'reply_to' => 'reply', 'expiration' => '60000', 'message_id' => 'mid',
        'timestamp' => 1700000000, 'type' => 'kind', 'user_id' => urldecode(parse_url(getenv('AMQP_URL'))['user']),
        'app_id' => 'app', 'cluster_id' => 'cluster',
    ];
    $time = new DateTime('@1700000000');
    $m = new AMQPMessage('props', $properties + ['application_headers' => new AMQPTable($headers + ['time' => $time])]);
    $ch->basic_publish($m, $name, 'key');
    $ch->wait_for_pending_acks(WAIT);
    $m = $ch->basic_get($name, true);
    $back = $m->get('application_headers')->getNativeData();
    expect($back['time']->getTimestamp(), 1700000000, 'time');
    unset($back['time']);
    expect($back, $headers, 'headers');
    foreach ($properties as $key => $value) {
        expect($m->get($key), $value, $key);
    }
    ok('properties');

    $big = random_bytes(1 << 20);
    $ch->basic_publish(persistent($big), $name, 'key');
    $ch->basic_publish(persistent(''), $name, 'key');
    $ch->wait_for_pending_acks(WAIT);
    expect($ch->basic_get($name, true)->body === $big, true, '1 MiB body');
    ok('1 MiB body');
    expect($ch->basic_get($name, true)->body, '', 'empty body');
    ok('empty body');

    $tx = $conn->channel();
    $tx->tx_select();
    $tx->basic_publish(persistent('committed'), $name, 'key');
    expect(message_count($conn, $name), 0, 'messages before the commit');
    $tx->tx_commit();
    expect(message_count($conn, $name), 1, 'messages after the commit');
    $tx->basic_publish(persistent('rolled back'), $name, 'key');
    $tx->tx_rollback();
    $tx->tx_commit();
    expect(message_count($conn, $name), 1, 'messages after the rollback');
    $tx->close();
    expect($ch->basic_get($name, true)->body, 'committed', 'body');
    ok('transactions');

    $other = connect();
    [$mine] = $other->channel()->queue_declare('', false, false, true);
    $text = closed_with($conn, 405, fn (AMQPChannel $c) => $c->queue_declare($mine, true));
    expect(strpos($text, 'RESOURCE_LOCKED - '), 0, $text);
    $other->close();
    gone($conn, $mine);
    $ch->queue_declare("$name.auto", false, false, false, true);
    $ch->basic_cancel($ch->basic_consume("$name.auto"));
    gone($conn, "$name.auto");
    ok('exclusive and auto-delete queues');

    delivery_limit($ch, $name);

    $ch->queue_purge($name);
    $ch->queue_unbind($name, $name, 'key');
    $ch->queue_delete($name);
    $ch->exchange_delete($name);
    $ch->close();
    $conn->close();
    expect($conn->isConnected(), false, 'connected');
    ok('close');
}

try {
    talk();
} catch (Throwable $e) {
    echo "FAILED $step: ", get_class($e), ': ', substr($e->getMessage(), 0, 1000), "\n", $e->getTraceAsString(), "\n";
    exit(1);
}

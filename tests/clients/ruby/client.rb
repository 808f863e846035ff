# The conversation of the clients' tests in Bunny.
require "bunny"
require "securerandom"
require "timeout"

LIMIT = 60
NAME = "clients.ruby.#{SecureRandom.hex(16)}"
$stdout.sync = true
$step = "start"

def ok(name)
  puts "ok #{name}"
  $step = "after #{name}"
end

def expect(got, wanted, what)
  raise "#{what}: got #{got.inspect[0, 500]}, wanted #{wanted.inspect[0, 500]}" unless got == wanted
end

def connect
  # this client takes the path "/" for the empty vhost's name
  Bunny.new(ENV.fetch("AMQP_URL").delete_suffix("/"), recover_from_connection_close: false).tap(&:start)
end

# The text of the channel error with which the block must end.
def closed_with(conn, kind)
  ch = conn.create_channel
  begin
    yield ch
  rescue kind => e
    expect(ch.open?, false, "channel open")
    return e.channel_close.reply_text
  end
  raise "no #{kind}"
end

def count(conn, queue)
  ch = conn.create_channel
  ready = ch.queue_declare(queue, passive: true).message_count
  ch.close
  ready
end

def gone(conn, queue)
  deadline = Process.clock_gettime(Process::CLOCK_MONOTONIC) + 20
  loop do
    ch = conn.create_channel
    begin
      ch.queue_declare(queue, passive: true)
      ch.close
    rescue Bunny::NotFound
      return
    rescue Bunny::ResourceLocked
      # the exclusive queue's owner is not quite gone yet
    end
    raise "#{queue} is still there" if Process.clock_gettime(Process::CLOCK_MONOTONIC) > deadline
    sleep 0.02
  end
end

# The next message, waited for.
def take(queue)
  deadline = Process.clock_gettime(Process::CLOCK_MONOTONIC) + 20
  loop do
    info, properties, body = queue.pop(manual_ack: true)
    return [info, properties, body] if info
    raise "no message in #{queue.name}" if Process.clock_gettime(Process::CLOCK_MONOTONIC) > deadline
    sleep 0.005
  end
end

# A quorum queue has had enough of a message.
def delivery_limit(ch)
  dead = ch.queue("#{NAME}.dead", durable: true)
  limited = ch.queue("#{NAME}.limited", durable: true, arguments: {
    "x-queue-type" => "quorum", "x-delivery-limit" => 2,
    "x-dead-letter-exchange" => "", "x-dead-letter-routing-key" => dead.name
  })
  limited.publish("bad", persistent: true)
  3.times do |n|
    info, properties, = take(limited)
    expect(properties.headers["x-delivery-count"], n, "x-delivery-count")
    ch.nack(info.delivery_tag, false, true)
  end
  info, properties, = take(dead)
  ch.ack(info.delivery_tag)
  expect(properties.headers["x-death"].map { |death| death.values_at("queue", "reason", "count", "routing-keys") },
         [[limited.name, "delivery_limit", 1, [limited.name]]], "x-death")
  limited.delete
  dead.delete
  ok "delivery limit and dead letter"
end

def talk
  conn = connect
  ch = conn.create_channel
  ok "connect"

  x = ch.direct(NAME, durable: true)
  q = ch.queue(NAME, durable: true)
  q.bind(x, routing_key: "key")
  ok "declare"

  ch.confirm_select
  100.times { |i| x.publish("m#{i}", routing_key: "key", persistent: true) }
  expect(ch.wait_for_confirms, true, "all confirmed")
  expect(count(conn, NAME), 100, "messages")
  ok "publish with confirms"

  returned = []
  x.on_return { |info, _properties, body| returned << [info.reply_code, info.reply_text, info.exchange, info.routing_key, body] }
  x.publish("lost", routing_key: "nowhere", mandatory: true)
  expect(ch.wait_for_confirms, true, "confirmed")
  expect(returned, [[312, "NO_ROUTE", NAME, "nowhere", "lost"]], "returned before the confirm")
  ok "mandatory return"

  ch.prefetch(10)
  box = Queue.new
  consumer = q.subscribe(manual_ack: true) { |info, properties, body| box << [info, properties, body] }
  held = Array.new(10) { box.pop }
  expect(count(conn, NAME), 90, "messages ready beyond the prefetch window")
  expect(box.size, 0, "more than the prefetched messages")
  100.times do |i|
    info, properties, body = held.shift
    expect([body, info.redelivered?, info.exchange, info.routing_key, info.consumer_tag, properties.delivery_mode],
           ["m#{i}", false, NAME, "key", consumer.consumer_tag, 2], "delivery")
    ch.ack(info.delivery_tag)
    held << box.pop if i < 90
  end
  consumer.cancel
  expect(count(conn, NAME), 0, "messages")
  ok "consume with prefetch and acks"

  x.publish("again", routing_key: "key")
  consumer = q.subscribe(manual_ack: true) { |info, properties, body| box << [info, properties, body] }
  info, _, body = box.pop
  expect([body, info.redelivered?], ["again", false], "first delivery")
  ch.nack(info.delivery_tag, false, true)
  info, _, body = box.pop
  expect([body, info.redelivered?], ["again", true], "second delivery")
  ch.reject(info.delivery_tag, false)
  consumer.cancel
  expect(count(conn, NAME), 0, "messages")
  ok "nack and reject"

  expect(q.pop, [nil, nil, nil], "get from the empty queue")
  x.publish("one", routing_key: "key")
  x.publish("two", routing_key: "key")
  ch.wait_for_confirms
  info, _, body = q.pop(manual_ack: true)
  expect([body, q.message_count, info.redelivered], ["one", 1, false], "get") # Bunny does not show the count of get-ok
  ch.ack(info.delivery_tag)
  _, _, body = q.pop
  expect([body, q.message_count], ["two", 0], "get")
  ok "basic.get"

  text = closed_with(conn, Bunny::NotFound) { |c| c.queue_declare("#{NAME}.no", passive: true) }
  expect(text, "NOT_FOUND - no queue '#{NAME}.no' in vhost '/'", "text")
  text = closed_with(conn, Bunny::PreconditionFailed) { |c| c.queue_declare(NAME, durable: false) }
  expect(text.start_with?("PRECONDITION_FAILED - inequivalent arg 'durable' for queue"), true, text)
  expect(conn.open?, true, "connection open")
  expect(count(conn, NAME), 0, "on a new channel")
  expect(q.message_count, 0, "on the old channel")
  ok "channel error"

  values = {
    "string" => "ünï".b, "empty" => "", "true" => true, "false" => false, "null" => nil, "int" => -5,
    "long" => -2**63, "double" => 0.1, "time" => Time.at(1700000000), "longtext" => "x" * 5000
  }
  headers = values.merge(
    "table" => values.merge("deeper" => { "a" => {} }), "array" => [1, "two", nil, [], { "x" => [true, 2.5] }]
  )
  sent = {
    content_type: "text/x", content_encoding: "utf-8", headers: headers, priority: 7, correlation_id: "corr",
    reply_to: "reply", expiration: "60000", message_id: "mid", timestamp: 1700000000, type: "kind",
    user_id: conn.user, app_id: "app", cluster_id: "cluster"
  }
  x.publish("props", sent.merge(routing_key: "key", persistent: true))
  ch.wait_for_confirms
  _, properties, = q.pop
  expect(properties.to_hash, sent.merge(delivery_mode: 2, timestamp: Time.at(1700000000)), "properties")
  ok "properties"

  big = SecureRandom.bytes(1 << 20)
  x.publish(big, routing_key: "key", persistent: true)
  x.publish("", routing_key: "key", persistent: true)
  ch.wait_for_confirms
  expect(q.pop[2] == big, true, "1 MiB body")
  ok "1 MiB body"
  expect(q.pop[2], "", "empty body")
  ok "empty body"

  tx = conn.create_channel
  tx.tx_select
  tx.basic_publish("committed", NAME, "key")
  expect(count(conn, NAME), 0, "messages before the commit")
  tx.tx_commit
  expect(count(conn, NAME), 1, "messages after the commit")
  tx.basic_publish("rolled back", NAME, "key")
  tx.tx_rollback
  tx.tx_commit
  expect(count(conn, NAME), 1, "messages after the rollback")
  tx.close
  expect(q.pop[2], "committed", "body")
  ok "transactions"

  other = connect
  mine = other.create_channel.queue("", exclusive: true).name
  text = closed_with(conn, Bunny::ResourceLocked) { |c| c.queue_declare(mine, passive: true) }
  expect(text.start_with?("RESOURCE_LOCKED - "), true, text)
  other.close
  gone(conn, mine)
  auto = ch.queue("#{NAME}.auto", auto_delete: true)
  auto.subscribe { |*_| }.cancel
  gone(conn, auto.name)
  ok "exclusive and auto-delete queues"

  delivery_limit(ch)

  q.purge
  q.unbind(x, routing_key: "key")
  q.delete
  x.delete
  conn.close
  expect(conn.closed?, true, "closed")
  ok "close"
end

begin
  Timeout.timeout(LIMIT) { talk }
rescue Exception => e
  puts "FAILED #{$step}: #{e.class}: #{e.message[0, 1000]}"
  puts e.backtrace.first(5)
  exit! 1
end

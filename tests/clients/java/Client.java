// The conversation of the clients' tests in RabbitMQ's Java client.
import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.AlreadyClosedException;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.ConfirmListener;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.DefaultConsumer;
import com.rabbitmq.client.Envelope;
import com.rabbitmq.client.GetResponse;
import com.rabbitmq.client.MessageProperties;
import com.rabbitmq.client.RpcClient;
import com.rabbitmq.client.RpcServer;
import com.rabbitmq.client.ShutdownSignalException;
import com.rabbitmq.client.impl.LongStringHelper;
import java.io.IOException;
import java.math.BigDecimal;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.Date;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Random;
import java.util.UUID;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

public final class Client extends Steps {
    static final String NAME = "clients.java." + UUID.randomUUID();

    interface Call {
        void on(Channel ch) throws Exception;
    }

    static void expect(Object got, Object wanted, String what) {
        if (!Objects.equals(got, wanted)) {
            throw new AssertionError(what + ": got " + cut(got) + ", wanted " + cut(wanted));
        }
    }

    static String cut(Object o) {
        String s = String.valueOf(o);
        return s.length() > 500 ? s.substring(0, 500) + "..." : s;
    }

    static byte[] bytes(String s) {
        return s.getBytes(StandardCharsets.UTF_8);
    }

    static String text(byte[] b) {
        return new String(b, StandardCharsets.UTF_8);
    }

    /** A message as a consumer or a get gave it. */
    static final class Message {
        final String tag;
        final Envelope envelope;
        final AMQP.BasicProperties properties;
        final byte[] body;

        Message(String tag, Envelope envelope, AMQP.BasicProperties properties, byte[] body) {
            this.tag = tag;
            this.envelope = envelope;
            this.properties = properties;
            this.body = body;
        }
    }

    static BlockingQueue<Message> consume(Channel ch, String queue, String tag) throws IOException {
        BlockingQueue<Message> box = new LinkedBlockingQueue<>();
        ch.basicConsume(queue, false, tag, new DefaultConsumer(ch) {
            @Override
            public void handleDelivery(String t, Envelope e, AMQP.BasicProperties p, byte[] body) {
                box.add(new Message(t, e, p, body));
            }
        });
        return box;
    }

    static Message next(BlockingQueue<Message> box) throws InterruptedException {
        Message m = box.poll(30, TimeUnit.SECONDS);
        if (m == null) {
            throw new AssertionError("no message came");
        }
        return m;
    }

    /** The text of the channel error with which the call must end. */
    static String closedWith(Connection conn, int code, Call call) throws Exception {
        Channel ch = conn.createChannel();
        ShutdownSignalException signal;
        try {
            call.on(ch);
            throw new AssertionError("no channel error " + code);
        } catch (IOException e) {
            signal = (ShutdownSignalException) e.getCause();
        } catch (AlreadyClosedException e) {
            signal = e;
        }
        expect(signal.isHardError(), false, "connection error");
        AMQP.Channel.Close close = (AMQP.Channel.Close) signal.getReason();
        expect(close.getReplyCode(), code, "reply code");
        expect(ch.isOpen(), false, "channel open");
        return close.getReplyText();
    }

    static int count(Connection conn, String queue) throws Exception {
        Channel ch = conn.createChannel();
        int n = ch.queueDeclarePassive(queue).getMessageCount();
        ch.close();
        return n;
    }

    static void gone(Connection conn, String queue) throws Exception {
        long deadline = System.nanoTime() + 20_000_000_000L;
        while (true) {
            Channel ch = conn.createChannel();
            try {
                ch.queueDeclarePassive(queue);
                ch.close();
            } catch (IOException e) {
                AMQP.Channel.Close close = (AMQP.Channel.Close) ((ShutdownSignalException) e.getCause()).getReason();
                if (close.getReplyCode() == 404) {
                    return;
                }
                expect(close.getReplyCode(), 405, "reply code"); // the exclusive queue's owner is not quite gone yet
            }
            if (System.nanoTime() > deadline) {
                throw new AssertionError(queue + " is still there");
            }
            Thread.sleep(20);
        }
    }

    /** The next message, waited for. */
    static GetResponse take(Channel ch, String queue) throws Exception {
        long deadline = System.nanoTime() + 20_000_000_000L;
        while (true) {
            GetResponse got = ch.basicGet(queue, false);
            if (got != null) {
                return got;
            }
            if (System.nanoTime() > deadline) {
                throw new AssertionError("no message in " + queue);
            }
            Thread.sleep(5);
        }
    }

    /** A quorum queue has had enough of a message. */
    static void deliveryLimit(Channel ch) throws Exception {
        String limited = NAME + ".limited";
        String dead = NAME + ".dead";
        Map<String, Object> arguments = new HashMap<>();
        arguments.put("x-queue-type", "quorum");
        arguments.put("x-delivery-limit", 2);
        arguments.put("x-dead-letter-exchange", "");
        arguments.put("x-dead-letter-routing-key", dead);
        ch.queueDeclare(dead, true, false, false, null);
        ch.queueDeclare(limited, true, false, false, arguments);
        ch.basicPublish("", limited, MessageProperties.PERSISTENT_BASIC, bytes("bad"));
        for (long n = 0; n <= 2; n++) {
            GetResponse got = take(ch, limited);
            expect(got.getProps().getHeaders().get("x-delivery-count"), n, "x-delivery-count");
            ch.basicNack(got.getEnvelope().getDeliveryTag(), false, true);
        }
        GetResponse letter = take(ch, dead);
        ch.basicAck(letter.getEnvelope().getDeliveryTag(), false);
        List<?> deaths = (List<?>) letter.getProps().getHeaders().get("x-death");
        expect(deaths.size(), 1, "deaths");
        Map<?, ?> death = (Map<?, ?>) deaths.get(0);
        expect("" + death.get("queue") + death.get("reason") + death.get("count"), limited + "delivery_limit1", "x-death");
        ch.queueDelete(limited);
        ch.queueDelete(dead);
        ok("delivery limit and dead letter");
    }

    static Map<String, Object> values() {
        Map<String, Object> m = new HashMap<>();
        m.put("string", LongStringHelper.asLongString("\u00fcn\u00ef"));
        m.put("empty", LongStringHelper.asLongString(""));
        m.put("true", true);
        m.put("false", false);
        m.put("null", null);
        m.put("byte", (byte) -5);
        m.put("short", (short) -300);
        m.put("int", Integer.MAX_VALUE);
        m.put("long", Long.MIN_VALUE);
        m.put("float", 1.5f);
        m.put("double", 0.1);
        m.put("decimal", new BigDecimal("12.345"));
        m.put("time", new Date(1700000000000L));
        m.put("longtext", LongStringHelper.asLongString(String.join("", Collections.nCopies(5000, "x"))));
        return m;
    }

    static ConnectionFactory factory() throws Exception {
        ConnectionFactory f = new ConnectionFactory();
        // this client takes the path "/" for the empty vhost's name
        f.setUri(System.getenv("AMQP_URL").replaceFirst("/$", ""));
        return f;
    }

    static void talk() throws Exception {
        Connection conn = factory().newConnection();
        Channel ch = conn.createChannel();
        expect(((Map<?, ?>) conn.getServerProperties().get("capabilities")).get("publisher_confirms"), true, "capability");
        ok("connect");

        ch.exchangeDeclare(NAME, "direct", true);
        expect(ch.queueDeclare(NAME, true, false, false, null).getQueue(), NAME, "queue name");
        ch.queueBind(NAME, NAME, "key");
        ok("declare");

        ch.confirmSelect();
        for (int i = 0; i < 100; i++) {
            ch.basicPublish(NAME, "key", MessageProperties.PERSISTENT_BASIC, bytes("m" + i));
        }
        ch.waitForConfirmsOrDie(30000);
        expect(count(conn, NAME), 100, "messages");
        ok("publish with confirms");

        List<String> events = Collections.synchronizedList(new ArrayList<>());
        ch.addReturnListener((code, why, exchange, key, p, body) ->
            events.add(code + " " + why + " " + exchange + " " + key + " " + text(body)));
        ConfirmListener listener = new ConfirmListener() {
            @Override
            public void handleAck(long tag, boolean multiple) {
                events.add("ack");
            }

            @Override
            public void handleNack(long tag, boolean multiple) {
                events.add("nack");
            }
        };
        ch.addConfirmListener(listener);
        ch.basicPublish(NAME, "nowhere", true, MessageProperties.PERSISTENT_BASIC, bytes("lost"));
        ch.waitForConfirmsOrDie(30000);
        ch.removeConfirmListener(listener);
        ch.clearReturnListeners();
        List<String> wanted = Arrays.asList("312 NO_ROUTE " + NAME + " nowhere lost", "ack");
        expect(new ArrayList<>(events), wanted, "return, then confirm");
        ok("mandatory return");

        ch.basicQos(10);
        BlockingQueue<Message> box = consume(ch, NAME, "the-tag");
        List<Message> held = new ArrayList<>();
        while (held.size() < 10) {
            held.add(next(box));
        }
        expect(count(conn, NAME), 90, "messages ready beyond the prefetch window");
        expect(box.size(), 0, "more than the prefetched messages");
        for (int i = 0; i < 100; i++) {
            Message m = held.remove(0);
            expect(text(m.body) + " " + m.envelope.isRedeliver() + " " + m.envelope.getExchange() + " "
                    + m.envelope.getRoutingKey() + " " + m.tag + " " + m.properties.getDeliveryMode(),
                "m" + i + " false " + NAME + " key the-tag 2", "delivery");
            ch.basicAck(m.envelope.getDeliveryTag(), false);
            if (i < 90) {
                held.add(next(box));
            }
        }
        ch.basicCancel("the-tag");
        expect(count(conn, NAME), 0, "messages");
        ok("consume with prefetch and acks");

        ch.basicPublish(NAME, "key", MessageProperties.PERSISTENT_BASIC, bytes("again"));
        box = consume(ch, NAME, "");
        Message m = next(box);
        expect(text(m.body) + m.envelope.isRedeliver(), "againfalse", "first delivery");
        ch.basicNack(m.envelope.getDeliveryTag(), false, true);
        m = next(box);
        expect(text(m.body) + m.envelope.isRedeliver(), "againtrue", "second delivery");
        ch.basicReject(m.envelope.getDeliveryTag(), false);
        ch.basicCancel(m.tag);
        expect(count(conn, NAME), 0, "messages");
        ok("nack and reject");

        expect(ch.basicGet(NAME, false), null, "get from the empty queue");
        ch.basicPublish(NAME, "key", MessageProperties.PERSISTENT_BASIC, bytes("one"));
        ch.basicPublish(NAME, "key", MessageProperties.PERSISTENT_BASIC, bytes("two"));
        ch.waitForConfirmsOrDie(30000);
        GetResponse got = ch.basicGet(NAME, false);
        expect(text(got.getBody()) + got.getMessageCount() + got.getEnvelope().isRedeliver(), "one1false", "get");
        ch.basicAck(got.getEnvelope().getDeliveryTag(), false);
        got = ch.basicGet(NAME, true);
        expect(text(got.getBody()) + got.getMessageCount(), "two0", "get");
        ok("basic.get");

        String why = closedWith(conn, 404, c -> c.queueDeclarePassive(NAME + ".no"));
        expect(why, "NOT_FOUND - no queue '" + NAME + ".no' in vhost '/'", "text");
        why = closedWith(conn, 406, c -> c.queueDeclare(NAME, false, false, false, null));
        expect(why.startsWith("PRECONDITION_FAILED - inequivalent arg 'durable' for queue"), true, why);
        expect(conn.isOpen(), true, "connection open");
        expect(count(conn, NAME), 0, "on a new channel");
        expect(ch.queueDeclarePassive(NAME).getConsumerCount(), 0, "on the old channel");
        ok("channel error");

        Map<String, Object> headers = values();
        Map<String, Object> nested = values();
        nested.put("deeper", Collections.singletonMap("a", new HashMap<String, Object>()));
        headers.put("table", nested);
        headers.put("array", Arrays.asList(1, LongStringHelper.asLongString("two"), null, Arrays.asList(3L, false),
            Collections.singletonMap("x", Arrays.asList(true, 2.5))));
        headers.put("bytes", new byte[] {0, -1});
        AMQP.BasicProperties p = new AMQP.BasicProperties.Builder().headers(headers).contentType("text/x")
            .contentEncoding("utf-8").deliveryMode(2).priority(7).correlationId("corr").replyTo("reply")
            .expiration("60000").messageId("mid").timestamp(new Date(1700000000000L)).type("kind")
            .userId(factory().getUsername()).appId("app").clusterId("cluster").build();
        ch.basicPublish(NAME, "key", p, bytes("props"));
        ch.waitForConfirmsOrDie(30000);
        AMQP.BasicProperties q = ch.basicGet(NAME, true).getProps();
        Map<String, Object> back = new HashMap<>(q.getHeaders());
        expect(Arrays.equals((byte[]) back.remove("bytes"), (byte[]) headers.remove("bytes")), true, "header bytes");
        for (String key : headers.keySet()) {
            expect(back.get(key), headers.get(key), "header " + key);
        }
        expect(back, headers, "headers");
        expect(q.builder().headers(null).build().toString(), p.builder().headers(null).build().toString(), "properties");
        ok("properties");

        byte[] big = new byte[1 << 20];
        new Random().nextBytes(big);
        ch.basicPublish(NAME, "key", MessageProperties.PERSISTENT_BASIC, big);
        ch.basicPublish(NAME, "key", MessageProperties.PERSISTENT_BASIC, new byte[0]);
        ch.waitForConfirmsOrDie(30000);
        expect(Arrays.equals(ch.basicGet(NAME, true).getBody(), big), true, "1 MiB body");
        ok("1 MiB body");
        expect(ch.basicGet(NAME, true).getBody().length, 0, "length");
        ok("empty body");

        Channel tx = conn.createChannel();
        tx.txSelect();
        tx.basicPublish(NAME, "key", MessageProperties.PERSISTENT_BASIC, bytes("committed"));
        expect(count(conn, NAME), 0, "messages before the commit");
        tx.txCommit();
        expect(count(conn, NAME), 1, "messages after the commit");
        tx.basicPublish(NAME, "key", MessageProperties.PERSISTENT_BASIC, bytes("rolled back"));
        tx.txRollback();
        tx.txCommit();
        expect(count(conn, NAME), 1, "messages after the rollback");
        got = tx.basicGet(NAME, false);
        expect(text(got.getBody()), "committed", "body");
        tx.basicAck(got.getEnvelope().getDeliveryTag(), false);
        tx.txCommit();
        tx.close();
        expect(count(conn, NAME), 0, "messages after the committed ack");
        ok("transactions");

        Connection other = factory().newConnection();
        String mine = other.createChannel().queueDeclare().getQueue();
        expect(mine.startsWith("amq.gen-"), true, mine);
        why = closedWith(conn, 405, c -> c.queueDeclarePassive(mine));
        expect(why.startsWith("RESOURCE_LOCKED - "), true, why);
        other.close();
        gone(conn, mine);
        String auto = NAME + ".auto";
        ch.queueDeclare(auto, false, false, true, null);
        consume(ch, auto, "auto-tag");
        ch.basicCancel("auto-tag");
        gone(conn, auto);
        ok("exclusive and auto-delete queues");

        Channel rpc = conn.createChannel();
        String rpcQueue = rpc.queueDeclare().getQueue();
        RpcServer server = new RpcServer(rpc, rpcQueue) {
            @Override
            public byte[] handleCall(byte[] body, AMQP.BasicProperties unused) {
                return bytes(text(body).toUpperCase());
            }
        };
        Thread loop = new Thread(() -> {
            try {
                server.mainloop();
            } catch (IOException | ShutdownSignalException e) {
                // the channel was closed
            }
        });
        loop.start();
        Channel caller = conn.createChannel();
        RpcClient client = new RpcClient(caller, "", rpcQueue, 30000); // with direct reply-to
        for (int i = 0; i < 50; i++) {
            expect(client.stringCall("call " + i), "CALL " + i, "answer");
        }
        client.close();
        rpc.close(); // ends the main loop
        loop.join();
        caller.close();
        ok("rpc with direct reply-to");

        deliveryLimit(ch);

        ch.queueDelete(NAME);
        ch.exchangeDelete(NAME);
        ch.close();
        conn.close();
        expect(conn.getCloseReason().isInitiatedByApplication(), true, "closed by us");
        ok("close");
    }

    public static void main(String[] args) {
        run(Client::talk);
    }
}

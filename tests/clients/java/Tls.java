// Over TLS, in RabbitMQ's Java client: certificates of both sides, with passwords and without.
import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.Address;
import com.rabbitmq.client.AddressResolver;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.DefaultConsumer;
import com.rabbitmq.client.DefaultSaslConfig;
import com.rabbitmq.client.Envelope;
import com.rabbitmq.client.MessageProperties;
import com.rabbitmq.client.PossibleAuthenticationFailureException;
import com.rabbitmq.client.ShutdownSignalException;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.net.URI;
import java.security.KeyStore;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Random;
import java.util.UUID;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLParameters;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.TrustManagerFactory;

public final class Tls extends Steps {
    static final String NAME = "clients.java.tls." + UUID.randomUUID();
    // A broker that wants certificates of its clients, and one that only asks for them
    static final String REQUIRED = System.getenv("AMQP_URL");
    static final String OPTIONAL = System.getenv("AMQP_URL_OPTIONAL");
    static final String DIR = System.getenv("TLS_DIR");
    // Who the certificate `client` is
    static final String USER = System.getenv("TLS_USER");
    static final char[] PASSWORD = "secret".toCharArray();

    static void expect(boolean good, String what) {
        if (!good) {
            throw new AssertionError(what);
        }
    }

    static KeyStore store(String file) throws Exception {
        KeyStore store = KeyStore.getInstance("PKCS12");
        try (InputStream in = new FileInputStream(DIR + "/" + file + ".p12")) {
            store.load(in, PASSWORD);
        }
        return store;
    }

    /** A way to connect; `version`, `certificate` and `trust` name what is used. */
    static final class Way {
        String url = REQUIRED;
        String host;
        String version = "TLSv1.3";
        String certificate;
        String trust = "ca";
        boolean external;
        volatile SSLSocket socket;

        Way(String version) {
            this.version = version;
        }

        Way certificate(String name) {
            certificate = name;
            return this;
        }

        Way optional() {
            url = OPTIONAL;
            return this;
        }

        Way external() {
            external = true;
            return this;
        }

        Way host(String name) {
            host = name;
            return this;
        }

        Way trust(String name) {
            trust = name;
            return this;
        }

        Connection connect() throws Exception {
            KeyManagerFactory keys = KeyManagerFactory.getInstance("SunX509");
            if (certificate != null) {
                keys.init(store(certificate), PASSWORD);
            }
            TrustManagerFactory trusted = TrustManagerFactory.getInstance("PKIX");
            trusted.init(store(trust));
            SSLContext context = SSLContext.getInstance("TLS");
            context.init(certificate == null ? null : keys.getKeyManagers(), trusted.getTrustManagers(), null);

            URI uri = new URI(url);
            String[] login = uri.getUserInfo().split(":");
            ConnectionFactory f = new ConnectionFactory();
            f.setUsername(login[0]);
            f.setPassword(login[1]);
            f.setAutomaticRecoveryEnabled(false);
            f.useSslProtocol(context);
            if (external) {
                f.setSaslConfig(DefaultSaslConfig.EXTERNAL);
            }
            f.setSocketConfigurator(s -> {
                socket = (SSLSocket) s;
                SSLParameters parameters = socket.getSSLParameters();
                parameters.setProtocols(new String[] {version});
                parameters.setEndpointIdentificationAlgorithm("HTTPS"); // the server's name counts
                socket.setSSLParameters(parameters);
            });
            // By itself this client makes a host's name an address before it connects.
            Address server = new Address(host == null ? uri.getHost() : host, uri.getPort());
            return f.newConnection((AddressResolver) () -> Collections.singletonList(server));
        }

        /** What is told of why there is no connection. */
        String refused(String what) throws Exception {
            try {
                connect().close();
            } catch (IOException e) {
                StringBuilder told = new StringBuilder();
                for (Throwable t = e; t != null; t = t.getCause()) {
                    told.append(t).append('\n');
                }
                return told.toString();
            }
            throw new AssertionError(what + " gets in");
        }
    }

    /** There and back, small and large. */
    static void messages(Connection conn) throws Exception {
        Channel ch = conn.createChannel();
        ch.queueDeclare(NAME, true, false, false, null);
        ch.confirmSelect();
        List<byte[]> bodies = new ArrayList<>();
        Random random = new Random();
        for (int length : new int[] {1, 100, 5 << 20, 0, 3 << 20, 16383, 16384, 16385}) {
            byte[] body = new byte[length];
            random.nextBytes(body);
            bodies.add(body);
        }
        for (byte[] body : bodies) {
            ch.basicPublish("", NAME, MessageProperties.PERSISTENT_BASIC, body);
        }
        ch.waitForConfirmsOrDie(30000);
        ch.basicQos(3);
        BlockingQueue<byte[]> box = new LinkedBlockingQueue<>();
        ch.basicConsume(NAME, false, new DefaultConsumer(ch) {
            @Override
            public void handleDelivery(String t, Envelope e, AMQP.BasicProperties p, byte[] body) throws IOException {
                box.add(body);
                getChannel().basicAck(e.getDeliveryTag(), false);
            }
        });
        for (byte[] body : bodies) {
            byte[] got = box.poll(30, TimeUnit.SECONDS);
            expect(got != null, "no message came");
            expect(Arrays.equals(got, body), "a body of " + body.length + " comes back as one of " + got.length);
        }
        ch.queueDelete(NAME);
        ch.close();
    }

    /** The broker lets nobody say another name than his own in a message. */
    static void isUser(Connection conn, String name) throws Exception {
        for (String said : new String[] {name, name + "x"}) {
            Channel ch = conn.createChannel();
            ch.confirmSelect();
            ch.basicPublish("", ch.queueDeclare().getQueue(), new AMQP.BasicProperties.Builder().userId(said).build(), new byte[0]);
            boolean taken;
            try {
                taken = ch.waitForConfirms(30000);
                ch.close();
            } catch (ShutdownSignalException e) {
                taken = false;
            }
            expect(taken == said.equals(name), "a message of " + said + " where " + name + " is connected: " + taken);
        }
    }

    static void talk(String version) throws Exception {
        Way way = new Way(version).certificate("client");
        Connection conn = way.connect();
        expect(way.socket.getSession().getProtocol().equals(version), way.socket.getSession().getProtocol());
        isUser(conn, "guest");
        messages(conn);
        conn.close();
        ok(version + ": PLAIN with a certificate");

        conn = new Way(version).certificate("client").external().connect();
        isUser(conn, USER);
        messages(conn);
        conn.close();
        ok(version + ": EXTERNAL");

        // How much of the alert the client tells depends on when it comes.
        new Way(version).refused("who has no certificate");
        ok(version + ": no certificate where one is wanted");
        new Way(version).certificate("strange").refused("who has another authority's certificate");
        ok(version + ": a certificate of another authority");

        conn = new Way(version).optional().connect();
        isUser(conn, "guest");
        conn.close();
        conn = new Way(version).optional().certificate("client").external().connect();
        isUser(conn, USER);
        conn.close();
        try {
            new Way(version).optional().external().connect().close();
            throw new AssertionError("who names no user gets in");
        } catch (PossibleAuthenticationFailureException e) {
            ok(version + ": where a certificate is only asked for");
        }

        String told = new Way(version).certificate("client").host("127.0.0.1").refused("a server under a wrong name");
        expect(told.contains("No subject alternative names matching IP address 127.0.0.1"), told);
        told = new Way(version).certificate("client").trust("strange-ca").refused("a server of another authority");
        expect(told.contains("PKIX path"), told);
        ok(version + ": a server that is not the right one");
    }

    public static void main(String[] args) {
        run(() -> {
            talk("TLSv1.2");
            talk("TLSv1.3");
        });
    }
}

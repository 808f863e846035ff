//! Configuration files of RabbitMQ, its environment, and what is said of both.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use garenne::config::{Config, LogFormat, LoginFrom, Notes, Sources, TlsVersion, load, translate};
use tempfile::TempDir;

/// Reads this text as a rabbitmq.conf.
fn conf(text: &str) -> Result<(Config, Notes), String> {
    with_environment(text, &[])
}

fn with_environment(text: &str, variables: &[(&str, &str)]) -> Result<(Config, Notes), String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rabbitmq.conf");
    std::fs::write(&file, text).unwrap();
    let environment = variables.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    load(Sources { file: Some(file), environment: environment.collect(), ..Sources::default() })
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn keys_have_their_effect() {
    let check = |text: &str, has_it: &dyn Fn(&Config) -> bool| {
        let (config, notes) = conf(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(notes.unknown, Vec::<String>::new(), "{text}");
        assert_eq!(notes.explained, Vec::<String>::new(), "{text}");
        assert!(has_it(&config), "{text}: {config:#?}");
    };

    check("listeners.tcp.default = 5673", &|c| c.listen == [address("[::]:5673")]);
    check("listeners.tcp.1 = 127.0.0.1:1\nlisteners.tcp.2 = ::1:2\nlisteners.tcp.10 = [::1]:10", &|c| {
        c.listen == [address("127.0.0.1:1"), address("[::1]:2"), address("[::1]:10")]
    });
    check("listeners.tcp = none", &|c| c.listen.is_empty());
    check("heartbeat = 30\nchannel_max = 100\nframe_max = 65536", &|c| {
        (c.heartbeat_secs, c.channel_max, c.frame_bytes_max) == (30, 100, 65536)
    });
    check("max_message_size = 1048576", &|c| c.message_bytes_max == 1 << 20);
    check("handshake_timeout = 15000", &|c| c.handshake_timeout_secs == 15);
    check("consumer_timeout = 1800000", &|c| c.consumer_timeout_ms == Some(1_800_000));
    check(
        "connection_max = 10\nchannel_max_per_node = 20\nconsumer_max_per_channel = 30\nvhost_max = 3",
        &|c| {
            let limits = (c.connection_max, c.channel_max_per_node, c.consumer_max_per_channel, c.vhost_max);
            limits == (Some(10), Some(20), Some(30), Some(3))
        },
    );
    check("connection_max = infinity", &|c| c.connection_max.is_none());
    check("default_queue_type = quorum", &|c| c.default_queue_type.as_deref() == Some("quorum"));
    check("vm_memory_high_watermark.relative = 0.6", &|c| c.memory_high_watermark == 0.6);
    check("vm_memory_high_watermark.absolute = 2GB", &|c| {
        (c.memory_high_watermark, c.memory_bytes_total) == (1.0, Some(2_000_000_000))
    });
    check("total_memory_available_override_value = 4GiB\ndisk_free_limit.relative = 0.5", &|c| {
        c.disk_free_bytes_min == 2 << 30
    });
    check("disk_free_limit.absolute = 50MB", &|c| c.disk_free_bytes_min == 50_000_000);
    check("loopback_users.guest = false", &|c| c.loopback_users.is_empty());
    check("loopback_users = none", &|c| c.loopback_users.is_empty());
    check("loopback_users.anna = true", &|c| c.loopback_users == ["guest", "anna"]);
    check("load_definitions = defs.json", &|c| c.load_definitions == [PathBuf::from("defs.json")]);
    check("definitions.import_backend = local_filesystem\ndefinitions.local.path = d", &|c| {
        c.load_definitions == [PathBuf::from("d")]
    });
    check("cluster_name = c\ncluster_tags.zone = a\nnode_tags.uuid = b", &|c| {
        c.cluster_name() == "c" && c.cluster_tags["zone"] == "a" && c.node_tags["uuid"] == "b"
    });
    check("management.tcp.port = 1\nmanagement.tcp.ip = 127.0.0.1\nmanagement.path_prefix = /r", &|c| {
        c.http == Some(address("127.0.0.1:1")) && c.http_path_prefix == "/r"
    });
    check(
        "prometheus.tcp.port = 2\nprometheus.return_per_object_metrics = true\nprometheus.path = /m",
        &|c| c.metrics == Some(address("[::]:2")) && c.metrics_per_object && c.metrics_path == "/m",
    );
    check("prometheus.authentication.enabled = true", &|c| c.metrics_authentication);
    check("proxy_protocol = true", &|c| c.proxy_protocol);
    check("auth_mechanisms.1 = EXTERNAL\nauth_mechanisms.2 = PLAIN", &|c| {
        c.auth_mechanisms == ["EXTERNAL", "PLAIN"]
    });
    check("auth_backends.1 = internal", &|_| true);
    check("log.console.level = debug\nlog.connection.level = error", &|c| {
        c.log == "debug,garenne::connection=error"
    });
    check("log.console.formatter = json", &|c| c.log_format == LogFormat::Json);
    check("log.dir = logs\nlog.file = a.log", &|c| c.log_file == Some(PathBuf::from("logs/a.log")));
    check("default_user = anna\ndefault_pass = 's#cret'\ndefault_vhost = shop", &|c| {
        let first = &c.first;
        (&*first.users[0].name, &*first.users[0].password, &*first.vhosts[0].name)
            == ("anna", "s#cret", "shop")
            && (&*first.permissions[0].user, &*first.permissions[0].vhost) == ("anna", "shop")
    });
    check("default_user_tags.monitoring = true\ndefault_permissions.read = ^a", &|c| {
        c.first.users[0].tags == ["monitoring"] && c.first.permissions[0].read == "^a"
    });
    check("default_users.qa.vhost_pattern = qa.*\ndefault_users.qa.tags = policymaker,monitoring", &|c| {
        let user = &c.vhost_defaults.users[0];
        user.name == "qa" && user.vhost_pattern == "qa.*" && user.tags == ["policymaker", "monitoring"]
    });
    check("default_limits.vhosts.a.pattern = ^x\ndefault_limits.vhosts.a.max_queues = 5", &|c| {
        let limits = &c.vhost_defaults.limits[0];
        limits.vhost_pattern == "^x" && limits.max_queues == Some(5)
    });
    check(
        "default_policies.operator.p.vhost_pattern = ^x\ndefault_policies.operator.p.max_length = 5",
        &|c| c.vhost_defaults.policies[0].definition["max-length"] == 5,
    );
    check(
        "listeners.ssl.default = 5671\nssl_options.certfile = c.pem\nssl_options.keyfile = k.pem\n\
         ssl_options.cacertfile = ca.pem\nssl_options.verify = verify_peer\nssl_options.versions.1 = tlsv1.3\n\
         ssl_options.fail_if_no_peer_cert = true\nssl_options.password = p\nssl_options.ciphers.2 = B\n\
         ssl_options.ciphers.1 = A\nssl_options.honor_cipher_order = true\nssl_options.sni.a.b.certfile = d\n\
         ssl_options.sni.a.b.keyfile = e\nssl_cert_login_from = common_name",
        &|c| {
            let tls = c.tls.as_ref().unwrap();
            c.listen_tls == [address("[::]:5671")]
                && (tls.verify_peer, tls.require_certificate, tls.prefer_own_ciphers) == (true, true, true)
                && tls.versions == [TlsVersion::V1_3]
                && tls.ciphers == ["A", "B"]
                && tls.key_password.as_deref() == Some("p")
                && tls.server_names["a.b"].key == *"e"
                && tls.login_from == LoginFrom::CommonName
        },
    );
    check("management.ssl.port = 15671\nmanagement.ssl.certfile = c\nmanagement.ssl.keyfile = k", &|c| {
        c.http.is_none() && c.https == Some(address("[::]:15671")) && c.https_tls.is_some()
    });
}

#[test]
fn what_has_no_effect_is_explained_and_what_is_not_known_is_told_with_the_nearest() {
    let explained = |line: &str, why: &str| {
        let (_, notes) = conf(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert!(notes.explained.iter().any(|note| note.contains(why)), "{line}: {notes:?}");
        assert_eq!(notes.unknown, Vec::<String>::new(), "{line}");
    };
    let unknown = |line: &str, nearest: &str| {
        let (_, notes) = conf(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert!(notes.unknown[0].contains(nearest), "{line}: {notes:?}");
    };

    explained("cluster_formation.peer_discovery_backend = k8s", "a cluster of one");
    explained("collect_statistics_interval = 5000", "of the moment");
    explained("vm_memory_high_watermark_paging_ratio = 0.5", "message_memory_bytes_max");
    explained("mqtt.listeners.tcp.1 = 1883", "no such plugin");
    explained("log.syslog = true", "systemd");
    explained("deprecated_features.permit.global_qos = false", "works here");
    explained("ssl_options.certfile = c\nssl_options.keyfile = k\nssl_options.depth = 2", "no such choice");
    unknown("hartbeat = 60", "rabbitmq.conf:1: hartbeat is not known; the nearest is heartbeat");
    unknown("listener.tcp.default = 5672", "listeners.tcp");
}

#[test]
fn every_key_that_rabbitmq_3_10_knows_is_known() {
    let keys = include_str!("configuration/rabbitmq-3.10-keys.txt");
    let mut missing = Vec::new();

    for key in keys.lines() {
        let key = key.replace('$', "x");
        if let Ok((_, notes)) = conf(&format!("{key} = 1"))
            && !notes.unknown.is_empty()
        {
            missing.push(key);
        }
    }

    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn a_wrong_value_is_an_error_with_file_line_key_value_and_what_it_may_be() {
    let check = |text: &str, expected: &str| {
        let error = conf(text).map(|_| ()).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    };

    check("\nheartbeat = often", "rabbitmq.conf:2: heartbeat is 'often', and must be a whole number");
    check("heartbeat = 70000", "16 bits");
    check("listeners.tcp.1 = here", "listeners.tcp.1 is 'here', and must be a port, or ADDRESS:PORT");
    check("proxy_protocol = yes", "one of true, false");
    check("ssl_options.verify = sometimes", "one of verify_peer, verify_none");
    check("vm_memory_high_watermark.relative = 2", "a part between 0 and 1");
    check("disk_free_limit.absolute = much", "octets, such as");
    check("default_queue_type = fast", "one of classic, quorum, stream");
    check("auth_mechanisms.1 = MAGIC", "one of PLAIN, AMQPLAIN, EXTERNAL");
    check("auth_backends.1 = ldap", "one of internal");
    check("default_pass = encrypted:abc", "in clear");
    check("ssl_options.certfile = c", "certfile and keyfile belong together");
    check("listeners.ssl.1 = 5671", "listen_tls needs");
    check("ssl_options.certfile = c\nssl_options.keyfile = k\nssl_options.versions.1 = tlsv1", "not spoken");
    check("heartbeat = a\nchannel_max = b", "channel_max is 'b'");
    check("this is no line", "rabbitmq.conf:1: 'this is no line' is no line of the form key = value");
    let wrong = with_environment("", &[("RABBITMQ_NODE_PORT", "many")]).map(|_| ()).unwrap_err();
    assert_eq!(wrong, "RABBITMQ_NODE_PORT is 'many', and must be a port");
}

#[test]
fn the_environment_wins_over_files() {
    let check = |variables: &[(&str, &str)], has_it: &dyn Fn(&Config) -> bool| {
        let (config, notes) = with_environment("listeners.tcp.1 = 1\ndefault_user = a", variables).unwrap();
        assert_eq!(notes.unknown, Vec::<String>::new(), "{variables:?}");
        assert!(has_it(&config), "{variables:?}: {config:#?}");
    };

    check(&[("RABBITMQ_DEFAULT_USER", "u"), ("RABBITMQ_DEFAULT_PASS", "p")], &|c| {
        c.first.users[0].name == "u" && c.first.users[0].password == "p" && c.first.permissions[0].user == "u"
    });
    check(&[("RABBITMQ_USERNAME", "u"), ("RABBITMQ_PASSWORD", "p")], &|c| c.first.users[0].name == "u");
    check(&[("RABBITMQ_DEFAULT_VHOST", "v")], &|c| c.first.vhosts[0].name == "v");
    check(&[("RABBITMQ_NODENAME", "bunny")], &|c| c.node_name.starts_with("bunny@"));
    check(&[("RABBITMQ_NODENAME", "r@h.example")], &|c| c.cluster_name() == "r@h.example");
    check(&[("RABBITMQ_NODE_PORT", "7"), ("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")], &|c| {
        c.listen == [address("127.0.0.1:7")]
    });
    check(&[("RABBITMQ_MNESIA_DIR", "/d")], &|c| c.data_dir == *"/d");
    check(&[("RABBITMQ_LOGS", "-"), ("RABBITMQ_LOG", "debug,connection=error,+color")], &|c| {
        c.log_file.is_none() && c.log == "debug,garenne::connection=error"
    });
    check(&[("RABBITMQ_VM_MEMORY_HIGH_WATERMARK", "0.3")], &|c| c.memory_high_watermark == 0.3);
    check(&[("RABBITMQ_SERVICE_HOST", "10.0.0.1"), ("RABBITMQ_PORT_5672_TCP_PORT", "5672")], &|_| true);
    let (_, notes) =
        with_environment("", &[("RABBITMQ_NODE_PROT", "1"), ("RABBITMQ_DIST_PORT", "2")]).unwrap();
    assert!(notes.unknown[0].contains("the nearest is RABBITMQ_NODE_PORT"), "{notes:?}");
    assert!(notes.explained[0].contains("RABBITMQ_DIST_PORT has no effect"), "{notes:?}");
}

/// Files of RabbitMQ in a directory, named by the environment.
fn files(files: &[(&str, &str)]) -> (TempDir, Result<(Config, Notes), String>) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("conf.d")).unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let variables = [
        ("RABBITMQ_CONFIG_FILE", "rabbitmq"),
        ("RABBITMQ_CONFIG_FILES", "conf.d"),
        ("RABBITMQ_CONF_ENV_FILE", "env"),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", "enabled_plugins"),
    ];
    let environment =
        variables.map(|(name, file)| (name.into(), dir.path().join(file).display().to_string()));
    let loaded = load(Sources { environment: environment.into(), ..Sources::default() });
    (dir, loaded)
}

#[test]
fn conf_d_is_read_in_order_after_the_file_and_plugins_are_explained() {
    let (_dir, loaded) = files(&[
        ("rabbitmq.conf", "heartbeat = 1\nchannel_max = 1\ncluster_name = first"),
        ("conf.d/20-b.conf", "heartbeat = 3"),
        ("conf.d/10-a.conf", "heartbeat = 2\nchannel_max = 2"),
        ("conf.d/30-c.txt", "heartbeat = 4"),
        ("env", "# comment\nNODENAME=bunny@here\nexport RABBITMQ_DEFAULT_USER=\"anna\"\n"),
        ("enabled_plugins", "[rabbitmq_management,rabbitmq_mqtt]."),
    ]);
    let (config, notes) = loaded.unwrap();

    assert_eq!((config.heartbeat_secs, config.channel_max, config.cluster_name()), (3, 2, "first"));
    assert_eq!((&*config.node_name, &*config.first.users[0].name), ("bunny@here", "anna"));
    assert!(notes.honoured.iter().any(|note| note.contains("rabbitmq_management is built in")), "{notes:?}");
    assert!(notes.explained.iter().any(|note| note.contains("rabbitmq_mqtt has no effect")), "{notes:?}");
}

#[test]
fn a_translation_means_the_same() {
    let (config, _) = conf(
        "listeners.tcp.1 = 127.0.0.1:1\nlisteners.ssl.1 = 2\nssl_options.certfile = c\nssl_options.keyfile = k\n\
         heartbeat = 30\nmanagement.tcp.port = 3\nloopback_users = none\ndefault_user = anna\n\
         default_users.qa.vhost_pattern = qa\ncluster_tags.a = b\nmax_message_size = 1000",
    )
    .unwrap();

    let text = translate(&config).unwrap();

    let again: Config = toml::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert_eq!(translate(&again).unwrap(), text);
    assert_eq!((again.heartbeat_secs, again.listen.len(), again.tls), (30, 1, config.tls));
    assert!(!text.contains("channel_max"), "what is as always is left out: {text}");
}

#[test]
fn the_command_says_what_it_thinks_of_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rabbitmq.conf");
    let run = |text: &str, arguments: &[&str]| {
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_garenne"));
        command.args(arguments).env_clear().current_dir(dir.path());
        let output = command.output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(said).unwrap())
    };
    let check = |text: &str, arguments: &[&str], success: bool, expected: &str| {
        let (is_success, said) = run(text, arguments);
        assert_eq!(is_success, success, "{said}");
        assert!(said.contains(expected), "{said}");
    };

    check("heartbeat = 60", &["config", "check", "rabbitmq.conf"], true, "rabbitmq.conf:1: heartbeat");
    check("net_ticktime = 60", &["config", "check", "rabbitmq.conf"], true, "a cluster of one");
    check("hartbeat = 60", &["config", "check", "rabbitmq.conf"], false, "the nearest is heartbeat");
    check("heartbeat = x", &["config", "check", "rabbitmq.conf"], false, "must be a whole number");
    check("heartbeat = 61", &["config", "translate", "rabbitmq.conf"], true, "heartbeat_secs = 61");
    check("", &["--check", "--config", "rabbitmq.conf"], true, "the configuration can be used");
    check("", &["--check", "--data-dir", "rabbitmq.conf/below"], false, "data_dir: ");
    check(
        "load_definitions = nowhere.json",
        &["--check", "--config", "rabbitmq.conf"],
        false,
        "nowhere.json",
    );
}

//! The broker as a whole: overview, nodes, feature flags, the linter, backups, its log's level.

use serde_json::{Value, json};

use super::client::path;
use super::command::{Given, Noun, Session, Verb, named, required};
use super::failure::Result;
use super::health;
use super::listing::{list, rows_of, scoped};
use super::table::{Answer, Format};

pub const STATUS: Verb = Verb {
    name: "status",
    about: "Shows the broker at a glance",
    example: "status",
    arguments: &[],
    run: overview,
};

pub const HEALTHY: Verb = Verb {
    name: "healthy",
    about: "Runs the health checks that need no argument; exit code 69 when one does not pass",
    example: "healthy",
    arguments: &[],
    run: health::all,
};

pub const DOCTOR: Verb = Verb {
    name: "doctor",
    about: "Looks for what will hurt later: queues without bounds or dead letters, idle consumers, unroutable keys",
    example: "doctor --format json",
    arguments: &[],
    run: doctor,
};

pub const BACKUP: Verb = Verb {
    name: "backup",
    about: "Lets the broker write a consistent copy of its data, while it runs, to a directory of its machine",
    example: "backup --path /srv/backup/monday",
    arguments: &[named("path", "a directory that does not exist yet")],
    run: backup,
};

pub const WHOAMI: Verb = Verb {
    name: "whoami",
    about: "Shows as whom this command logs in, and with which tags",
    example: "whoami",
    arguments: &[],
    run: whoami,
};

pub const LOG_LEVEL: Verb = Verb {
    name: "log_level",
    about: "Changes what a running broker logs",
    example: "log_level --level debug",
    arguments: &[named("level", "error, warn, info, debug, or a filter such as info,garenne=debug")],
    run: log_level,
};

pub const SHUTDOWN: Verb = Verb {
    name: "shutdown",
    about: "Stops the broker: clients are told, everything is written",
    example: "shutdown",
    arguments: &[],
    run: shutdown,
};

pub const NODES: Noun = Noun {
    name: "nodes",
    aliases: &["node"],
    about: "Nodes of the cluster",
    verbs: &[
        Verb { name: "list", about: "Lists nodes", example: "nodes list", arguments: &[], run: nodes },
        Verb {
            name: "memory_breakdown_in_bytes",
            about: "Shows what a node needs its memory for",
            example: "nodes memory_breakdown_in_bytes --node rabbit@localhost",
            arguments: &[required("node", "the node")],
            run: memory,
        },
        Verb {
            name: "memory_breakdown_in_percent",
            about: "Shows what part of its memory a node needs for what",
            example: "nodes memory_breakdown_in_percent --node rabbit@localhost",
            arguments: &[required("node", "the node")],
            run: memory_percent,
        },
    ],
};

pub const SHOW: Noun = Noun {
    name: "show",
    aliases: &[],
    about: "Overview and memory",
    verbs: &[
        Verb {
            name: "overview",
            about: "Shows the broker at a glance",
            example: "show overview",
            arguments: &[],
            run: overview,
        },
        Verb {
            name: "churn",
            about: "Shows how fast connections, channels and queues come and go",
            example: "show churn",
            arguments: &[],
            run: churn,
        },
        Verb {
            name: "endpoint",
            about: "Shows which address this command uses",
            example: "show endpoint",
            arguments: &[],
            run: endpoint,
        },
        Verb {
            name: "memory_breakdown_in_bytes",
            about: "Shows what a node needs its memory for",
            example: "show memory_breakdown_in_bytes --node rabbit@localhost",
            arguments: &[required("node", "the node")],
            run: memory,
        },
        Verb {
            name: "memory_breakdown_in_percent",
            about: "Shows what part of its memory a node needs for what",
            example: "show memory_breakdown_in_percent --node rabbit@localhost",
            arguments: &[required("node", "the node")],
            run: memory_percent,
        },
    ],
};

pub const FEATURE_FLAGS: Noun = Noun {
    name: "feature_flags",
    aliases: &[],
    about: "Feature flags: what this version can do",
    verbs: &[
        Verb {
            name: "list",
            about: "Lists feature flags",
            example: "feature_flags list",
            arguments: &[],
            run: flags,
        },
        Verb {
            name: "enable",
            about: "Enables a feature flag",
            example: "feature_flags enable --name stream_queue",
            arguments: &[named("name", "the flag, or all")],
            run: enable,
        },
        Verb {
            name: "enable_all",
            about: "Enables all stable feature flags",
            example: "feature_flags enable_all",
            arguments: &[],
            run: enable_all,
        },
    ],
};

pub const DEPRECATED: Noun = Noun {
    name: "deprecated_features",
    aliases: &[],
    about: "Features that RabbitMQ deprecates, and whether they are used here",
    verbs: &[
        Verb {
            name: "list",
            about: "Lists deprecated features",
            example: "deprecated_features list",
            arguments: &[],
            run: deprecated,
        },
        Verb {
            name: "list_used",
            about: "Lists deprecated features in use",
            example: "deprecated_features list_used",
            arguments: &[],
            run: deprecated_used,
        },
    ],
};

pub const PLUGINS: Noun = Noun {
    name: "plugins",
    aliases: &[],
    about: "Plugins that the broker says it has",
    verbs: &[
        Verb {
            name: "list_all",
            about: "Lists the plugins of all nodes",
            example: "plugins list_all",
            arguments: &[],
            run: plugins,
        },
        Verb {
            name: "list_on_node",
            about: "Lists the plugins of a node",
            example: "plugins list_on_node --node rabbit@localhost",
            arguments: &[required("node", "the node")],
            run: plugins,
        },
    ],
};

pub const AUTH_ATTEMPTS: Noun = Noun {
    name: "auth_attempts",
    aliases: &[],
    about: "How often users logged in and failed to",
    verbs: &[Verb {
        name: "stats",
        about: "Shows attempts to log in, by protocol",
        example: "auth_attempts stats --node rabbit@localhost",
        arguments: &[required("node", "the node")],
        run: attempts,
    }],
};

pub const CONFIG_FILE: Noun = Noun {
    name: "config_file",
    aliases: &[],
    about: "The configuration file of this command",
    verbs: &[Verb {
        name: "show_path",
        about: "Prints the path of the file that is read",
        example: "config_file show_path",
        arguments: &[],
        run: file,
    }],
};

fn overview(session: &Session, _: &Given) -> Result<Answer> {
    let object = session.client.get("/overview")?;
    let columns = &[
        "product_name",
        "product_version",
        "rabbitmq_version",
        "cluster_name",
        "node",
        "object_totals.connections",
        "object_totals.channels",
        "object_totals.queues",
        "object_totals.exchanges",
        "object_totals.consumers",
        "queue_totals.messages",
        "queue_totals.messages_ready",
        "queue_totals.messages_unacknowledged",
        "message_stats.publish_details.rate",
        "message_stats.deliver_get_details.rate",
        "message_stats.ack_details.rate",
    ];
    Ok(Answer::Fields { object, columns })
}

fn churn(session: &Session, _: &Given) -> Result<Answer> {
    let overview = session.client.get("/overview")?;
    let object = overview.get("churn_rates").cloned().unwrap_or(Value::Null);
    let columns = &[
        "connection_created",
        "connection_closed",
        "channel_created",
        "channel_closed",
        "queue_declared",
        "queue_created",
        "queue_deleted",
    ];
    Ok(Answer::Fields { object, columns })
}

fn endpoint(session: &Session, _: &Given) -> Result<Answer> {
    let object = json!({ "endpoint": session.client.base(), "username": session.client.user() });
    Ok(Answer::Fields { object, columns: &["endpoint", "username"] })
}

fn whoami(session: &Session, _: &Given) -> Result<Answer> {
    let object = session.client.get("/whoami")?;
    Ok(Answer::Fields { object, columns: &["name", "tags"] })
}

fn doctor(session: &Session, given: &Given) -> Result<Answer> {
    let columns = &["severity", "vhost", "object", "name", "finding", "advice"];
    let path = scoped(session, "doctor");
    match session.format {
        Format::Table if rows_of(session.client.get(&path)?, &path)?.is_empty() => {
            Ok(Answer::Done("nothing to complain of".into()))
        }
        _ => list(session, given, path, columns),
    }
}

fn backup(session: &Session, given: &Given) -> Result<Answer> {
    let path = given.text("path");
    let object = session.client.without_timeout().post("/backup", &json!({ "path": path }))?;
    match object {
        Value::Object(_) => Ok(Answer::Fields { object, columns: &[] }),
        _ => Ok(Answer::Done(format!("backup written to {path}"))),
    }
}

fn log_level(session: &Session, given: &Given) -> Result<Answer> {
    let level = given.text("level");
    session.client.put("/log-level", &json!({ "level": level }))?;
    Ok(Answer::Done(format!("the broker logs {level} from now on")))
}

fn shutdown(session: &Session, _: &Given) -> Result<Answer> {
    session.client.put("/shutdown", &json!({}))?;
    Ok(Answer::Done("the broker is stopping".into()))
}

fn nodes(session: &Session, given: &Given) -> Result<Answer> {
    let columns = &[
        "name",
        "running",
        "uptime",
        "mem_used",
        "mem_limit",
        "mem_alarm",
        "disk_free",
        "disk_free_alarm",
        "fd_used",
    ];
    list(session, given, path(&["nodes"]), columns)
}

fn breakdown(session: &Session, given: &Given) -> Result<Vec<(String, u64)>> {
    let answer = session.client.get(&path(&["nodes", given.text("node"), "memory"]))?;
    let parts = answer["memory"].as_object().into_iter().flatten();
    let mut parts: Vec<(String, u64)> =
        parts.filter_map(|(name, bytes)| Some((name.clone(), bytes.as_u64()?))).collect();
    parts.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    Ok(parts)
}

fn memory(session: &Session, given: &Given) -> Result<Answer> {
    let rows = breakdown(session, given)?.into_iter();
    let rows = rows.map(|(name, bytes)| json!({ "key": name, "bytes": bytes })).collect();
    Ok(Answer::Rows { rows, columns: &["key", "bytes"] })
}

fn memory_percent(session: &Session, given: &Given) -> Result<Answer> {
    let parts = breakdown(session, given)?;
    let total: u64 = parts.iter().map(|(_, bytes)| bytes).sum();
    let percent = |bytes: u64| format!("{:.2}%", bytes as f64 * 100.0 / total.max(1) as f64);
    let rows =
        parts.into_iter().map(|(name, bytes)| json!({ "key": name, "percentage": percent(bytes) })).collect();
    Ok(Answer::Rows { rows, columns: &["key", "percentage"] })
}

fn flags(session: &Session, given: &Given) -> Result<Answer> {
    list(session, given, path(&["feature-flags"]), &["name", "state", "stability", "provided_by", "desc"])
}

fn enable(session: &Session, given: &Given) -> Result<Answer> {
    let name = given.text("name");
    session.client.put(&path(&["feature-flags", name, "enable"]), &json!({ "name": name }))?;
    Ok(Answer::Done(format!("feature flag '{name}' enabled")))
}

fn enable_all(session: &Session, _: &Given) -> Result<Answer> {
    let all = rows_of(session.client.get("/feature-flags")?, "/feature-flags")?;
    let is_left = |flag: &&Value| flag["state"] == "disabled" && flag["stability"] == "stable";
    let names: Vec<&str> = all.iter().filter(is_left).filter_map(|flag| flag["name"].as_str()).collect();
    for name in &names {
        session.client.put(&path(&["feature-flags", name, "enable"]), &json!({ "name": name }))?;
    }
    Ok(Answer::Done(format!("{} feature flags enabled", names.len())))
}

fn deprecated(session: &Session, given: &Given) -> Result<Answer> {
    list(
        session,
        given,
        path(&["deprecated-features"]),
        &["name", "deprecation_phase", "provided_by", "desc"],
    )
}

fn deprecated_used(session: &Session, given: &Given) -> Result<Answer> {
    let path = path(&["deprecated-features", "used"]);
    list(session, given, path, &["name", "deprecation_phase", "provided_by", "desc"])
}

fn plugins(session: &Session, given: &Given) -> Result<Answer> {
    let nodes = match given.maybe("node") {
        Some(node) => vec![session.client.get(&path(&["nodes", node]))?],
        None => rows_of(session.client.get("/nodes")?, "/nodes")?,
    };
    let names = |node: &Value| {
        let plugins = node["enabled_plugins"].as_array().cloned().unwrap_or_default();
        plugins.into_iter().map(|plugin| json!({ "node": node["name"], "name": plugin })).collect::<Vec<_>>()
    };
    Ok(Answer::Rows { rows: nodes.iter().flat_map(names).collect(), columns: &["node", "name"] })
}

fn attempts(session: &Session, given: &Given) -> Result<Answer> {
    let path = path(&["auth", "attempts", given.text("node")]);
    let columns = &["protocol", "auth_attempts", "auth_attempts_succeeded", "auth_attempts_failed"];
    list(session, given, path, columns)
}

fn file(session: &Session, _: &Given) -> Result<Answer> {
    match &session.file {
        Some(path) => Ok(Answer::Text(format!("{}\n", path.display()))),
        None => Ok(Answer::Done("no configuration file; ~/.config/garennectl.toml would be read".into())),
    }
}

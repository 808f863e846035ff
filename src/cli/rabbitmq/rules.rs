//! Policies, parameters and limits.

use serde_json::{Map, Value, json};

use super::CTL;
use super::access::{known_vhost, no_such_user, no_vhost};
use super::arguments::{Switch, flag, number, text};
use super::call::{Call, Fault, READING, Result, Verb, code};
use super::output::{Output, Rows};
use crate::cli::client::path;
use crate::cli::failure::Failure;

const POLICIES: &str = "Policies";
const PARAMETERS: &str = "Parameters";
const LIMITS: &str = "Virtual hosts";
const USERS: &str = "Users";

const POLICY: &[Switch] = &[number("priority"), text("apply-to")];
const POLICY_USAGE: &str =
    "[--vhost <vhost>] [--priority <priority>] [--apply-to <apply-to>] <name> <pattern> <definition>";
const LIST_USAGE: &str = "[--vhost <vhost>] [--no-table-headers] [--timeout <timeout>]";

pub const VERBS: &[Verb] = &[
    Verb {
        name: "set_policy",
        tools: CTL,
        section: POLICIES,
        about: "Makes or replaces a policy",
        usage: POLICY_USAGE,
        switches: POLICY,
        words: (3, 3),
        banner: |call| policy_banner(call, "policy"),
        run: |call| set_policy(call, "policies"),
    },
    Verb {
        name: "clear_policy",
        tools: CTL,
        section: POLICIES,
        about: "Deletes a policy",
        usage: "[--vhost <vhost>] <name>",
        switches: &[],
        words: (1, 1),
        banner: |call| format!("Clearing policy \"{}\" on vhost \"{}\" ...", call.word(0), call.vhost()),
        run: |call| clear(call, &path(&["policies", call.vhost(), call.word(0)])),
    },
    Verb {
        name: "list_policies",
        tools: READING,
        section: POLICIES,
        about: "Lists the policies of a vhost",
        usage: LIST_USAGE,
        switches: &[],
        words: (0, 0),
        banner: |call| format!("Listing policies for vhost \"{}\" ...", call.vhost()),
        run: |call| list_policies(call, "policies"),
    },
    Verb {
        name: "set_operator_policy",
        tools: CTL,
        section: POLICIES,
        about: "Makes or replaces an operator policy",
        usage: POLICY_USAGE,
        switches: POLICY,
        words: (3, 3),
        banner: |call| policy_banner(call, "operator policy override"),
        run: |call| set_policy(call, "operator-policies"),
    },
    Verb {
        name: "clear_operator_policy",
        tools: CTL,
        section: POLICIES,
        about: "Deletes an operator policy",
        usage: "[--vhost <vhost>] <name>",
        switches: &[],
        words: (1, 1),
        banner: |call| {
            format!("Clearing operator policy \"{}\" on vhost \"{}\" ...", call.word(0), call.vhost())
        },
        run: |call| clear(call, &path(&["operator-policies", call.vhost(), call.word(0)])),
    },
    Verb {
        name: "list_operator_policies",
        tools: READING,
        section: POLICIES,
        about: "Lists the operator policies of a vhost",
        usage: LIST_USAGE,
        switches: &[],
        words: (0, 0),
        banner: |call| format!("Listing operator policy overrides for vhost \"{}\" ...", call.vhost()),
        run: |call| list_policies(call, "operator-policies"),
    },
    Verb {
        name: "set_parameter",
        tools: CTL,
        section: PARAMETERS,
        about: "Sets a parameter of a component in a vhost",
        usage: "[--vhost <vhost>] <component_name> <name> <value>",
        switches: &[],
        words: (3, 3),
        banner: |call| {
            format!(
                "Setting runtime parameter \"{}\" for component \"{}\" to \"{}\" in vhost \"{}\" ...",
                call.word(1),
                call.word(0),
                call.word(2),
                call.vhost()
            )
        },
        run: |call| {
            let value = decode(call.word(2))?;
            let (component, name, vhost) = (call.word(0), call.word(1), call.vhost());
            let body = json!({ "component": component, "vhost": vhost, "name": name, "value": value });
            call.put(&path(&["parameters", component, vhost, name]), &body).map(|_| Output::Nothing)
        },
    },
    Verb {
        name: "clear_parameter",
        tools: CTL,
        section: PARAMETERS,
        about: "Removes a parameter",
        usage: "[--vhost <vhost>] <component_name> <name>",
        switches: &[],
        words: (2, 2),
        banner: |call| {
            format!(
                "Clearing runtime parameter \"{}\" for component \"{}\" on vhost \"{}\" ...",
                call.word(1),
                call.word(0),
                call.vhost()
            )
        },
        run: |call| clear(call, &path(&["parameters", call.word(0), call.vhost(), call.word(1)])),
    },
    Verb {
        name: "list_parameters",
        tools: READING,
        section: PARAMETERS,
        about: "Lists the parameters of a vhost",
        usage: LIST_USAGE,
        switches: &[],
        words: (0, 0),
        banner: |call| format!("Listing runtime parameters for vhost \"{}\" ...", call.vhost()),
        run: |call| {
            known_vhost(call)?;
            let all = call.list("/parameters")?;
            let own = all.iter().filter(|parameter| parameter["vhost"] == call.vhost());
            let row = |parameter: &Value| {
                vec![parameter["component"].clone(), parameter["name"].clone(), text_of(&parameter["value"])]
            };
            Ok(list(&["component", "name", "value"], own.map(row).collect()))
        },
    },
    Verb {
        name: "set_global_parameter",
        tools: CTL,
        section: PARAMETERS,
        about: "Sets a parameter of the whole broker",
        usage: "<name> <value>",
        switches: &[],
        words: (2, 2),
        banner: |call| {
            format!("Setting global runtime parameter \"{}\" to \"{}\" ...", call.word(0), call.word(1))
        },
        run: |call| {
            let body = json!({ "name": call.word(0), "value": decode(call.word(1))? });
            call.put(&path(&["global-parameters", call.word(0)]), &body).map(|_| Output::Nothing)
        },
    },
    Verb {
        name: "clear_global_parameter",
        tools: CTL,
        section: PARAMETERS,
        about: "Removes a parameter of the whole broker",
        usage: "<name>",
        switches: &[],
        words: (1, 1),
        banner: |call| format!("Clearing global runtime parameter \"{}\" ...", call.word(0)),
        run: |call| clear(call, &path(&["global-parameters", call.word(0)])),
    },
    Verb {
        name: "list_global_parameters",
        tools: READING,
        section: PARAMETERS,
        about: "Lists the parameters of the whole broker",
        usage: "[--no-table-headers] [--timeout <timeout>]",
        switches: &[],
        words: (0, 0),
        banner: |_| "Listing global runtime parameters ...".into(),
        run: |call| {
            let all = call.list("/global-parameters")?;
            let row = |parameter: &Value| vec![parameter["name"].clone(), text_of(&parameter["value"])];
            Ok(list(&["name", "value"], all.iter().map(row).collect()))
        },
    },
    Verb {
        name: "set_cluster_name",
        tools: CTL,
        section: "Configuration and Environment",
        about: "Sets the name of the cluster",
        usage: "<name>",
        switches: &[],
        words: (1, 1),
        banner: |call| format!("Setting cluster name to {} ...", call.word(0)),
        run: |call| call.put("/cluster-name", &json!({ "name": call.word(0) })).map(|_| Output::Nothing),
    },
    Verb {
        name: "set_vhost_limits",
        tools: CTL,
        section: LIMITS,
        about: "Sets how many connections and queues a vhost may have",
        usage: "[--vhost <vhost>] <definition>",
        switches: &[],
        words: (1, 1),
        banner: |call| {
            format!("Setting vhost limits to \"{}\" for vhost \"{}\" ...", call.word(0), call.vhost())
        },
        run: |call| {
            let limits = object(call.word(0))?;
            known_vhost(call)?;
            known_limits(
                &limits,
                &["max-connections", "max-queues"],
                "limits",
                "Validation failed\n\n",
                "\n",
            )?;
            set_limits(call, &["vhost-limits", call.vhost()], limits)
        },
    },
    Verb {
        name: "clear_vhost_limits",
        tools: CTL,
        section: LIMITS,
        about: "Lifts the limits of a vhost",
        usage: "[--vhost <vhost>]",
        switches: &[],
        words: (0, 0),
        banner: |call| format!("Clearing vhost \"{}\" limits ...", call.vhost()),
        run: |call| {
            let known = limits_of(call, &path(&["vhost-limits", call.vhost()]))?;
            if known.is_empty() {
                return Err(no_parameter());
            }
            clear_limits(call, &["vhost-limits", call.vhost()], known.keys().cloned().collect())
        },
    },
    Verb {
        name: "list_vhost_limits",
        tools: READING,
        section: LIMITS,
        about: "Lists the limits of a vhost, or of all",
        usage: "[--vhost <vhost>] [--global] [--no-table-headers]",
        switches: &[flag("global")],
        words: (0, 0),
        banner: |call| match call.given.is_set("global") {
            true => "Listing limits for all vhosts ...".into(),
            false => format!("Listing limits for vhost \"{}\" ...", call.vhost()),
        },
        run: vhost_limits,
    },
    Verb {
        name: "set_user_limits",
        tools: CTL,
        section: USERS,
        about: "Sets how many connections and channels a user may have",
        usage: "<username> <definition>",
        switches: &[],
        words: (2, 2),
        banner: |call| {
            format!("Setting user limits to \"{}\" for user \"{}\" ...", call.word(1), call.word(0))
        },
        run: |call| {
            let limits = object(call.word(1))?;
            if !call.has_user(call.word(0))? {
                return Err(no_such_user(call.word(0)));
            }
            known_limits(&limits, &["max-connections", "max-channels"], "user-limits", "", "")?;
            set_limits(call, &["user-limits", call.word(0)], limits)
        },
    },
    Verb {
        name: "clear_user_limits",
        tools: CTL,
        section: USERS,
        about: "Lifts a limit of a user, or all",
        usage: "<username> <limit_type> | all",
        switches: &[],
        words: (2, 2),
        banner: |call| match call.word(1) {
            "all" => format!("Clearing all limits for user \"{}\" ...", call.word(0)),
            limit => format!("Clearing \"{limit}\" limit for user \"{}\" ...", call.word(0)),
        },
        run: |call| {
            if !call.has_user(call.word(0))? {
                return Err(no_such_user(call.word(0)));
            }
            let known = limits_of(call, &path(&["user-limits", call.word(0)]))?;
            let is_meant = |name: &String| call.word(1) == "all" || call.word(1) == name;
            clear_limits(
                call,
                &["user-limits", call.word(0)],
                known.keys().filter(|n| is_meant(n)).cloned().collect(),
            )
        },
    },
    Verb {
        name: "list_user_limits",
        tools: READING,
        section: USERS,
        about: "Lists the limits of a user, or of all",
        usage: "[--user <username>] [--global]",
        switches: &[flag("global"), text("user")],
        words: (0, 0),
        banner: |call| match call.given.is_set("global") {
            true => "Listing limits for all users ...".into(),
            false => {
                format!("Listing limits for user \"{}\" ...", call.given.text("user").unwrap_or("guest"))
            }
        },
        run: user_limits,
    },
];

fn policy_banner(call: &Call, what: &str) -> String {
    format!(
        "Setting {what} \"{}\" for pattern \"{}\" to \"{}\" with priority \"{}\" for vhost \"{}\" ...",
        call.word(0),
        call.word(1),
        call.word(2),
        call.given.number("priority").unwrap_or(0),
        call.vhost()
    )
}

fn decode(text: &str) -> Result<Value> {
    serde_json::from_str(text)
        .map_err(|error| Fault::error(code::UNAVAILABLE, format!("JSON decoding error. Reason: {error}")))
}

fn object(text: &str) -> Result<Map<String, Value>> {
    match decode(text)? {
        Value::Object(map) => Ok(map),
        other => Err(Fault::error(
            code::UNAVAILABLE,
            format!("{other} is JSON, but not an object of names and values"),
        )),
    }
}

fn set_policy(call: &Call, what: &str) -> Result<Output> {
    let definition = decode(call.word(2))?;
    let body = json!({
        "pattern": call.word(1), "definition": definition, "priority": call.given.number("priority").unwrap_or(0),
        "apply-to": call.given.text("apply-to").unwrap_or("all"),
    });
    match call.client.put(&path(&[what, call.vhost(), call.word(0)]), &body) {
        Ok(_) => Ok(Output::Nothing),
        Err(Failure::NotFound { .. }) => Err(no_vhost(call.vhost())),
        Err(failure) => Err(call.fault(failure)),
    }
}

fn no_parameter() -> Fault {
    Fault::error(code::UNAVAILABLE, "Parameter does not exist")
}

fn clear(call: &Call, path: &str) -> Result<Output> {
    match call.client.delete(path) {
        Ok(_) => Ok(Output::Nothing),
        Err(Failure::NotFound { .. }) => Err(no_parameter()),
        Err(failure) => Err(call.fault(failure)),
    }
}

fn list(columns: &[&str], rows: Vec<Vec<Value>>) -> Output {
    Output::Rows(Rows {
        columns: columns.iter().map(|name| name.to_string()).collect(),
        rows,
        is_stream: false,
    })
}

/// JSON within a table, or within JSON: as text.
fn text_of(value: &Value) -> Value {
    value.to_string().into()
}

fn list_policies(call: &Call, what: &str) -> Result<Output> {
    known_vhost(call)?;
    let all = call.list(&path(&[what, call.vhost()]))?;
    let row = |policy: &Value| {
        let plain = |key: &str| policy[key].clone();
        let definition = text_of(&policy["definition"]);
        vec![
            plain("vhost"),
            plain("name"),
            plain("pattern"),
            plain("apply-to"),
            definition,
            plain("priority"),
        ]
    };
    let columns = &["vhost", "name", "pattern", "apply-to", "definition", "priority"];
    Ok(list(columns, all.iter().map(row).collect()))
}

fn known_limits(
    limits: &Map<String, Value>,
    known: &[&str],
    what: &str,
    before: &str,
    after: &str,
) -> Result<()> {
    let unknown: Vec<String> = limits
        .iter()
        .filter(|(name, _)| !known.contains(&name.as_str()))
        .map(|(name, value)| format!("{{<<\"{name}\">>,{value}}}"))
        .collect();
    if unknown.is_empty() {
        return Ok(());
    }
    let terms = unknown.join(",");
    Err(Fault::error(code::UNAVAILABLE, format!("{before}Unrecognised terms [{terms}] in {what}{after}")))
}

fn set_limits(call: &Call, of: &[&str], limits: Map<String, Value>) -> Result<Output> {
    for (name, value) in limits {
        call.put(&path(&[of, &[name.as_str()]].concat()), &json!({ "value": value }))?;
    }
    Ok(Output::Nothing)
}

fn clear_limits(call: &Call, of: &[&str], names: Vec<String>) -> Result<Output> {
    for name in names {
        call.delete(&path(&[of, &[name.as_str()]].concat()))?;
    }
    Ok(Output::Nothing)
}

/// `[{"vhost":..,"value":{..}}]`, of which there is one or none.
fn limits_of(call: &Call, path: &str) -> Result<Map<String, Value>> {
    let Some(Value::Array(all)) = call.find(path)? else { return Ok(Map::new()) };
    Ok(all
        .iter()
        .filter_map(|one| one["value"].as_object())
        .flatten()
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect())
}

fn all_limits(call: &Call, path: &str, who: &str) -> Result<Output> {
    let all = call.list(path)?;
    let rows = all.iter().map(|one| vec![one[who].clone(), text_of(&one["value"])]).collect();
    Ok(list(&[who, "limits"], rows))
}

fn vhost_limits(call: &Call) -> Result<Output> {
    if call.given.is_set("global") {
        return all_limits(call, "/vhost-limits", "vhost");
    }
    known_vhost(call)?;
    let limits = limits_of(call, &path(&["vhost-limits", call.vhost()]))?;
    Ok(match limits.is_empty() {
        true => list(&[], Vec::new()),
        false => Output::said(Value::Object(limits).to_string()),
    })
}

fn user_limits(call: &Call) -> Result<Output> {
    if call.given.is_set("global") {
        return all_limits(call, "/user-limits", "user");
    }
    let user = call.given.text("user").unwrap_or("guest");
    if !call.has_user(user)? {
        return Err(no_such_user(user));
    }
    Ok(Output::said(Value::Object(limits_of(call, &path(&["user-limits", user]))?).to_string()))
}

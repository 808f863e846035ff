//! Policies and operator policies: what queues and exchanges get by the pattern of their names.

use serde_json::{Map, Value, json};

use super::client::path;
use super::command::{
    Argument, Given, IDEMPOTENTLY, Noun, Session, Verb, default, delete, json, named, object, optional,
    required,
};
use super::failure::{Failure, Result};
use super::listing::{list, rows_of, scoped};
use super::table::Answer;

pub const NOUN: Noun = Noun {
    name: "policies",
    aliases: &["policy"],
    about: "Policies: settings for queues and exchanges by the pattern of their names",
    verbs: &USER,
};

pub const OPERATOR: Noun = Noun {
    name: "operator_policies",
    aliases: &["operator_policy"],
    about: "Operator policies: limits that win over what queues and users' policies say",
    verbs: &OPERATORS,
};

const USER: [Verb; 12] = verbs::<false>();
const OPERATORS: [Verb; 12] = verbs::<true>();

const APPLY_TO: Argument =
    default("apply-to", "all", "all, queues, exchanges, classic_queues, quorum_queues").alias("applies-to");
const PRIORITY: Argument = default("priority", "0", "the highest of those that match wins");

const fn either(is_operator: bool, user: &'static str, operator: &'static str) -> &'static str {
    if is_operator { operator } else { user }
}

const DECLARE: &[Argument] = &[
    named("name", "the policy"),
    required("pattern", "a regular expression over names"),
    APPLY_TO,
    PRIORITY,
    json("definition", "the settings"),
];
const DELETE: &[Argument] = &[named("name", "the policy"), IDEMPOTENTLY];
const LIST_IN: &[Argument] = &[optional("apply-to", "queues, exchanges, ...").alias("applies-to")];
const MATCHING: &[Argument] =
    &[named("name", "a queue or exchange"), required("type", "queues or exchanges")];
const PATCH: &[Argument] = &[named("name", "the policy"), object("definition", "the settings to add")];
const UPDATE: &[Argument] =
    &[named("name", "the policy"), required("definition-key", "the setting"), json("new-value", "its value")];
const UPDATE_ALL: &[Argument] = &[required("definition-key", "the setting"), json("new-value", "its value")];
const REMOVE: &[Argument] =
    &[named("name", "the policy"), required("definition-keys", "the settings, separated by commas")];
const REMOVE_ALL: &[Argument] = &[required("definition-keys", "the settings, separated by commas")];
const OVERRIDE: &[Argument] = &[
    named("name", "the policy to copy"),
    optional("override-name", "the name of the copy (overrides.NAME)"),
    object("definition", "the settings to add or change"),
];

const fn verbs<const O: bool>() -> [Verb; 12] {
    [
        Verb {
            name: "list",
            about: "Lists policies",
            example: either(O, "policies list", "operator_policies list"),
            arguments: &[],
            run: listed::<O>,
        },
        Verb {
            name: "declare",
            about: "Makes or replaces a policy",
            example: either(
                O,
                "policies declare --name short --pattern '^tmp' --apply-to queues --definition '{\"max-length\": 100}'",
                "operator_policies declare --name cap --pattern '.*' --apply-to queues --definition '{\"max-length\": 1000000}'",
            ),
            arguments: DECLARE,
            run: declare::<O>,
        },
        Verb {
            name: "delete",
            about: "Deletes a policy",
            example: either(O, "policies delete --name short", "operator_policies delete --name cap"),
            arguments: DELETE,
            run: deleted::<O>,
        },
        Verb {
            name: "list_in",
            about: "Lists policies of a vhost, also only those for one kind of thing",
            example: either(
                O,
                "--vhost / policies list_in --apply-to queues",
                "--vhost / operator_policies list_in --apply-to queues",
            ),
            arguments: LIST_IN,
            run: list_in::<O>,
        },
        Verb {
            name: "list_matching_object",
            about: "Lists the policies whose pattern matches a name, the one in force first",
            example: either(
                O,
                "policies list_matching_object --name orders --type queues",
                "operator_policies list_matching_object --name orders --type queues",
            ),
            arguments: MATCHING,
            run: list_matching::<O>,
        },
        Verb {
            name: "patch",
            about: "Adds settings to a policy, or changes them; the others stay",
            example: either(
                O,
                "policies patch --name short --definition '{\"message-ttl\": 60000}'",
                "operator_policies patch --name cap --definition '{\"message-ttl\": 60000}'",
            ),
            arguments: PATCH,
            run: patch::<O>,
        },
        Verb {
            name: "update_definition",
            about: "Changes one setting of a policy",
            example: either(
                O,
                "policies update_definition --name short --definition-key max-length --new-value 200",
                "operator_policies update_definition --name cap --definition-key max-length --new-value 200",
            ),
            arguments: UPDATE,
            run: update::<O>,
        },
        Verb {
            name: "update_definitions_of_all_in",
            about: "Changes one setting in all policies of a vhost that have it",
            example: either(
                O,
                "--vhost / policies update_definitions_of_all_in --definition-key max-length --new-value 200",
                "--vhost / operator_policies update_definitions_of_all_in --definition-key max-length --new-value 200",
            ),
            arguments: UPDATE_ALL,
            run: update_all::<O>,
        },
        Verb {
            name: "delete_definition_keys",
            about: "Takes settings out of a policy",
            example: either(
                O,
                "policies delete_definition_keys --name short --definition-keys max-length,message-ttl",
                "operator_policies delete_definition_keys --name cap --definition-keys max-length,message-ttl",
            ),
            arguments: REMOVE,
            run: remove::<O>,
        },
        Verb {
            name: "delete_definition_keys_from_all_in",
            about: "Takes settings out of all policies of a vhost",
            example: either(
                O,
                "--vhost / policies delete_definition_keys_from_all_in --definition-keys ha-mode",
                "--vhost / operator_policies delete_definition_keys_from_all_in --definition-keys ha-mode",
            ),
            arguments: REMOVE_ALL,
            run: remove_all::<O>,
        },
        Verb {
            name: "declare_override",
            about: "Makes a copy of a policy with a higher priority and other settings, to be deleted later",
            example: either(
                O,
                "policies declare_override --name short --override-name busy --definition '{\"max-length\": 900}'",
                "operator_policies declare_override --name cap --override-name busy --definition '{\"max-length\": 900}'",
            ),
            arguments: OVERRIDE,
            run: declare_override::<O>,
        },
        Verb {
            name: "declare_blanket",
            about: "Makes a policy for everything that no other policy is for",
            example: either(
                O,
                "policies declare_blanket --name rest --apply-to queues --definition '{\"max-length\": 1000000}'",
                "operator_policies declare_blanket --name rest --apply-to queues --definition '{\"max-length\": 1000000}'",
            ),
            arguments: BLANKET,
            run: declare_blanket::<O>,
        },
    ]
}

const BLANKET: &[Argument] = &[named("name", "the policy"), APPLY_TO, json("definition", "the settings")];

/// Lower than what people give their policies, so that it applies only where nothing else does.
const BLANKET_PRIORITY: i64 = -20;

const fn base(is_operator: bool) -> &'static str {
    either(is_operator, "policies", "operator-policies")
}

const COLUMNS: &[&str] = &["vhost", "name", "pattern", "apply-to", "priority", "definition"];

fn listed<const O: bool>(session: &Session, given: &Given) -> Result<Answer> {
    list(session, given, scoped(session, base(O)), COLUMNS)
}

fn declare<const O: bool>(session: &Session, given: &Given) -> Result<Answer> {
    let priority: i64 = given
        .text("priority")
        .parse()
        .map_err(|_| Failure::Usage(format!("--priority '{}' is no whole number", given.text("priority"))))?;
    put::<O>(session, given, given.text("pattern"), priority)
}

fn declare_blanket<const O: bool>(session: &Session, given: &Given) -> Result<Answer> {
    put::<O>(session, given, ".*", BLANKET_PRIORITY)
}

fn put<const O: bool>(session: &Session, given: &Given, pattern: &str, priority: i64) -> Result<Answer> {
    let (vhost, name) = (session.vhost(), given.text("name"));
    let definition = given.json("definition");
    if !definition.is_object() {
        return Err(Failure::Usage(format!(
            "--definition must be an object like {{\"max-length\": 10}}, not {definition}"
        )));
    }
    let body = json!({
        "pattern": pattern, "apply-to": given.text("apply-to"), "priority": priority,
        "definition": definition,
    });
    session.client.put(&path(&[base(O), vhost, name]), &body)?;
    Ok(Answer::Done(format!("policy '{name}' in vhost '{vhost}' declared")))
}

fn deleted<const O: bool>(session: &Session, given: &Given) -> Result<Answer> {
    let (vhost, name) = (session.vhost(), given.text("name"));
    delete(session, given, &path(&[base(O), vhost, name]), format!("policy '{name}' in vhost '{vhost}'"))
}

fn all<const O: bool>(session: &Session) -> Result<Vec<Value>> {
    let path = path(&[base(O), session.vhost()]);
    rows_of(session.client.get(&path)?, &path)
}

fn list_in<const O: bool>(session: &Session, given: &Given) -> Result<Answer> {
    let mut rows = all::<O>(session)?;
    if let Some(kind) = given.maybe("apply-to") {
        rows.retain(|policy| policy["apply-to"] == kind);
    }
    Ok(Answer::Rows { rows, columns: COLUMNS })
}

fn list_matching<const O: bool>(session: &Session, given: &Given) -> Result<Answer> {
    let (name, kind) = (given.text("name"), given.text("type"));
    let is_match = |policy: &Value| {
        let pattern = policy["pattern"].as_str().unwrap_or_default();
        let applies = policy["apply-to"].as_str().unwrap_or("all");
        let is_kind =
            applies == "all" || applies == kind || (kind == "queues" && applies.ends_with("_queues"));
        is_kind && fancy_regex::Regex::new(pattern).is_ok_and(|regex| regex.is_match(name).unwrap_or(false))
    };
    let mut rows: Vec<Value> = all::<O>(session)?.into_iter().filter(is_match).collect();
    rows.sort_by_key(|policy| std::cmp::Reverse(policy["priority"].as_i64()));
    Ok(Answer::Rows { rows, columns: COLUMNS })
}

/// Reads a policy, lets `change` have its definition, and writes it back.
fn edit<const O: bool>(
    session: &Session,
    name: &str,
    change: impl FnOnce(&mut Map<String, Value>),
) -> Result<()> {
    let path = path(&[base(O), session.vhost(), name]);
    let mut policy = session.client.get(&path)?;
    if let Some(definition) = policy.get_mut("definition").and_then(Value::as_object_mut) {
        change(definition);
        if definition.is_empty() {
            let text = format!("nothing would be left of policy '{name}'; use delete");
            return Err(Failure::Input(text));
        }
    }
    session.client.put(&path, &policy).map(drop)
}

fn edited(session: &Session, names: &[String]) -> Result<Answer> {
    let names = if names.is_empty() { "no policy".to_string() } else { names.join(", ") };
    Ok(Answer::Done(format!("changed in vhost '{}': {names}", session.vhost())))
}

fn patch<const O: bool>(session: &Session, given: &Given) -> Result<Answer> {
    let name = given.text("name");
    edit::<O>(session, name, |definition| definition.extend(given.object("definition")))?;
    edited(session, &[name.to_string()])
}

fn update<const O: bool>(session: &Session, given: &Given) -> Result<Answer> {
    let (name, key, value) = (given.text("name"), given.text("definition-key"), given.json("new-value"));
    edit::<O>(session, name, |definition| {
        definition.insert(key.to_string(), value);
    })?;
    edited(session, &[name.to_string()])
}

fn having<const O: bool>(session: &Session, keys: &[&str]) -> Result<Vec<String>> {
    let has = |policy: &&Value| keys.iter().any(|key| policy["definition"].get(*key).is_some());
    let name = |policy: &Value| policy["name"].as_str().map(String::from);
    Ok(all::<O>(session)?.iter().filter(has).filter_map(name).collect())
}

fn update_all<const O: bool>(session: &Session, given: &Given) -> Result<Answer> {
    let (key, value) = (given.text("definition-key"), given.json("new-value"));
    let names = having::<O>(session, &[key])?;
    for name in &names {
        edit::<O>(session, name, |definition| {
            definition.insert(key.to_string(), value.clone());
        })?;
    }
    edited(session, &names)
}

fn remove<const O: bool>(session: &Session, given: &Given) -> Result<Answer> {
    let name = given.text("name");
    edit::<O>(session, name, |definition| definition.retain(|key, _| !keys(given).contains(&key.as_str())))?;
    edited(session, &[name.to_string()])
}

fn remove_all<const O: bool>(session: &Session, given: &Given) -> Result<Answer> {
    let names = having::<O>(session, &keys(given))?;
    for name in &names {
        edit::<O>(session, name, |definition| {
            definition.retain(|key, _| !keys(given).contains(&key.as_str()))
        })?;
    }
    edited(session, &names)
}

fn keys<'a>(given: &'a Given) -> Vec<&'a str> {
    given.text("definition-keys").split(',').map(str::trim).collect()
}

/// So much higher than what it overrides.
const OVERRIDE_PRIORITY: i64 = 100;

fn declare_override<const O: bool>(session: &Session, given: &Given) -> Result<Answer> {
    let name = given.text("name");
    let copy = given.maybe("override-name").map_or(format!("overrides.{name}"), String::from);
    let mut policy = session.client.get(&path(&[base(O), session.vhost(), name]))?;
    if let Some(definition) = policy.get_mut("definition").and_then(Value::as_object_mut) {
        definition.extend(given.object("definition"));
    }
    let priority = policy["priority"].as_i64().unwrap_or(0);
    policy["priority"] = (priority + OVERRIDE_PRIORITY).into();
    policy["name"] = copy.clone().into();
    session.client.put(&path(&[base(O), session.vhost(), &copy]), &policy)?;
    Ok(Answer::Done(format!("policy '{copy}' overrides '{name}' until it is deleted")))
}

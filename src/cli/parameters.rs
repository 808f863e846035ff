//! Runtime parameters of components in a vhost, and of the whole broker.

use serde_json::json;

use super::client::path;
use super::command::{Given, IDEMPOTENTLY, Noun, Session, Verb, delete, json, optional, required};
use super::failure::Result;
use super::listing::list;
use super::table::Answer;

pub const NOUN: Noun = Noun {
    name: "parameters",
    aliases: &["parameter"],
    about: "Runtime parameters of a component in a vhost",
    verbs: &[
        Verb {
            name: "list_all",
            about: "Lists the parameters of all vhosts",
            example: "parameters list_all",
            arguments: &[],
            run: list_all,
        },
        Verb {
            name: "list",
            about: "Lists parameters",
            example: "parameters list --component shovel",
            arguments: &[optional("component", "only of this component")],
            run: listed,
        },
        Verb {
            name: "list_in",
            about: "Lists the parameters of a component in a vhost",
            example: "--vhost / parameters list_in --component shovel",
            arguments: &[required("component", "the component")],
            run: listed,
        },
        Verb {
            name: "set",
            about: "Sets a parameter",
            example: "parameters set --component limits --name soft --value '{\"queues\": 10}'",
            arguments: &[
                required("component", "the component"),
                required("name", "the parameter"),
                json("value", "JSON"),
            ],
            run: set,
        },
        Verb {
            name: "clear",
            about: "Removes a parameter",
            example: "parameters clear --component limits --name soft",
            arguments: &[
                required("component", "the component"),
                required("name", "the parameter"),
                IDEMPOTENTLY,
            ],
            run: clear,
        },
    ],
};

pub const GLOBAL: Noun = Noun {
    name: "global_parameters",
    aliases: &["global_parameter"],
    about: "Parameters of the whole broker",
    verbs: &[
        Verb {
            name: "list",
            about: "Lists global parameters",
            example: "global_parameters list",
            arguments: &[],
            run: global,
        },
        Verb {
            name: "set",
            about: "Sets a global parameter",
            example: "global_parameters set --name cluster_name --value '\"shop\"'",
            arguments: &[required("name", "the parameter"), json("value", "JSON")],
            run: set_global,
        },
        Verb {
            name: "clear",
            about: "Removes a global parameter",
            example: "global_parameters clear --name cluster_name",
            arguments: &[required("name", "the parameter"), IDEMPOTENTLY],
            run: clear_global,
        },
    ],
};

const COLUMNS: &[&str] = &["vhost", "component", "name", "value"];

fn list_all(session: &Session, given: &Given) -> Result<Answer> {
    list(session, given, path(&["parameters"]), COLUMNS)
}

fn listed(session: &Session, given: &Given) -> Result<Answer> {
    let path = match (given.maybe("component"), &session.named_vhost) {
        (Some(component), Some(vhost)) => path(&["parameters", component, vhost]),
        (Some(component), None) => path(&["parameters", component]),
        (None, _) => path(&["parameters"]),
    };
    list(session, given, path, COLUMNS)
}

fn set(session: &Session, given: &Given) -> Result<Answer> {
    let (component, name, vhost) = (given.text("component"), given.text("name"), session.vhost());
    let body = json!({ "component": component, "vhost": vhost, "name": name, "value": given.json("value") });
    session.client.put(&path(&["parameters", component, vhost, name]), &body)?;
    Ok(Answer::Done(format!("parameter '{name}' of component '{component}' in vhost '{vhost}' set")))
}

fn clear(session: &Session, given: &Given) -> Result<Answer> {
    let (component, name, vhost) = (given.text("component"), given.text("name"), session.vhost());
    let what = format!("parameter '{name}' of component '{component}' in vhost '{vhost}'");
    delete(session, given, &path(&["parameters", component, vhost, name]), what)
}

fn global(session: &Session, given: &Given) -> Result<Answer> {
    list(session, given, path(&["global-parameters"]), &["name", "value"])
}

fn set_global(session: &Session, given: &Given) -> Result<Answer> {
    let name = given.text("name");
    let body = json!({ "name": name, "value": given.json("value") });
    session.client.put(&path(&["global-parameters", name]), &body)?;
    Ok(Answer::Done(format!("global parameter '{name}' set")))
}

fn clear_global(session: &Session, given: &Given) -> Result<Answer> {
    let name = given.text("name");
    delete(session, given, &path(&["global-parameters", name]), format!("global parameter '{name}'"))
}

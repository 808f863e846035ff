//! Users: list, declare, delete, explain what they may; their limits, and hashes of passwords.

use base64::Engine;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256, Sha512};

use super::client::{path, with_query};
use super::command::{
    Given, IDEMPOTENTLY, Noun, Session, Verb, default, delete, json, named, optional, required,
};
use super::failure::{Failure, Result};
use super::listing::{PAGES, list};
use super::table::Answer;

pub const NOUN: Noun = Noun {
    name: "users",
    aliases: &["user"],
    about: "Users and what they may",
    verbs: &[
        Verb { name: "list", about: "Lists users", example: "users list", arguments: PAGES, run: listed },
        Verb {
            name: "declare",
            about: "Makes a user, or changes its password and tags",
            example: "users declare --name alice --password secret --tags monitoring",
            arguments: &[
                named("name", "the user"),
                optional("password", "in plain text; '-' reads it from the first line of standard input"),
                optional("password-hash", "as 'passwords salt_and_hash' prints it"),
                default("hashing-algorithm", "SHA256", "of the password hash: SHA256 or SHA512"),
                default(
                    "tags",
                    "",
                    "administrator, monitoring, policymaker, management; separated by commas",
                ),
            ],
            run: declare,
        },
        Verb {
            name: "delete",
            about: "Deletes a user",
            example: "users delete --name alice",
            arguments: &[named("name", "the user"), IDEMPOTENTLY],
            run: deleted,
        },
        Verb {
            name: "permissions",
            about: "Lists all permissions, or those of one user",
            example: "users permissions --name alice",
            arguments: &[optional("name", "the user")],
            run: permissions,
        },
        Verb {
            name: "connections",
            about: "Lists the connections of a user",
            example: "users connections --username alice",
            arguments: &[named("username", "the user").short('u')],
            run: connections,
        },
        Verb {
            name: "limits",
            about: "Lists limits of users",
            example: "users limits --username alice",
            arguments: &[optional("username", "the user").alias("user")],
            run: limits,
        },
        Verb {
            name: "explain",
            about: "Says whether a user may do a thing, and which rule decides",
            example: "users explain --name alice --action write --resource exchange --object orders --key eu.new",
            arguments: &[
                named("name", "the user"),
                required("action", "configure, write or read"),
                default("resource", "queue", "queue, exchange or topic"),
                required("object", "the name of the queue or exchange"),
                optional("key", "the routing key, for topic permissions"),
            ],
            run: explain,
        },
    ],
};

pub const LIMITS: Noun = Noun {
    name: "user_limits",
    aliases: &[],
    about: "How many connections and channels a user may have",
    verbs: &[
        Verb {
            name: "list",
            about: "Lists limits of users",
            example: "user_limits list",
            arguments: &[optional("username", "only of this user").alias("user")],
            run: limits,
        },
        Verb {
            name: "declare",
            about: "Sets a limit; -1 lifts it",
            example: "user_limits declare --username alice --name max-connections --value 10",
            arguments: &[
                required("username", "the user").alias("user"),
                required("name", "max-connections or max-channels"),
                json("value", "a number"),
            ],
            run: declare_limit,
        },
        Verb {
            name: "delete",
            about: "Removes a limit",
            example: "user_limits delete --username alice --name max-connections",
            arguments: &[
                required("username", "the user").alias("user"),
                required("name", "max-connections or max-channels"),
                IDEMPOTENTLY,
            ],
            run: delete_limit,
        },
    ],
};

pub const PASSWORDS: Noun = Noun {
    name: "passwords",
    aliases: &[],
    about: "Hashes of passwords",
    verbs: &[Verb {
        name: "salt_and_hash",
        about: "Prints a salted hash for 'users declare --password-hash' and definitions files",
        example: "passwords salt_and_hash --password secret",
        arguments: &[
            required("password", "in plain text; '-' reads it from standard input"),
            default("hashing-algorithm", "SHA256", "SHA256 or SHA512"),
        ],
        run: salt_and_hash,
    }],
};

fn listed(session: &Session, given: &Given) -> Result<Answer> {
    list(session, given, path(&["users"]), &["name", "tags", "limits"])
}

fn declare(session: &Session, given: &Given) -> Result<Answer> {
    let name = given.text("name");
    let mut body = Map::new();
    body.insert("tags".into(), given.text("tags").into());
    match (given.maybe("password").filter(|text| !text.is_empty()), given.maybe("password-hash")) {
        (Some(_), Some(hash)) if !hash.is_empty() => {
            return Err(Failure::Usage("--password and --password-hash exclude each other".into()));
        }
        (Some(password), _) => {
            body.insert("password".into(), password_of(password)?.into());
        }
        // Without either, the user cannot log in with a password: certificates are left.
        (None, hash) => {
            body.insert("password_hash".into(), hash.unwrap_or_default().into());
            let algorithm = algorithm(given)?;
            body.insert("hashing_algorithm".into(), format!("rabbit_password_hashing_{algorithm}").into());
        }
    }
    session.client.put(&path(&["users", name]), &Value::Object(body))?;
    Ok(Answer::Done(format!("user '{name}' declared; 'permissions declare' lets it into a vhost")))
}

fn password_of(argument: &str) -> Result<String> {
    if argument != "-" {
        return Ok(argument.to_string());
    }
    let mut line = String::new();
    std::io::stdin()
        .read_line(&mut line)
        .map_err(|error| Failure::Input(format!("no password on standard input: {error}")))?;
    match line.trim_end_matches(['\r', '\n']) {
        "" => Err(Failure::Input("no password on standard input".into())),
        password => Ok(password.to_string()),
    }
}

fn algorithm(given: &Given) -> Result<&'static str> {
    match given.text("hashing-algorithm").to_uppercase().replace('-', "").as_str() {
        "SHA256" => Ok("sha256"),
        "SHA512" => Ok("sha512"),
        other => Err(Failure::Usage(format!("hashing algorithm '{other}' is neither SHA256 nor SHA512"))),
    }
}

fn deleted(session: &Session, given: &Given) -> Result<Answer> {
    let name = given.text("name");
    delete(session, given, &path(&["users", name]), format!("user '{name}'"))
}

fn permissions(session: &Session, given: &Given) -> Result<Answer> {
    let columns = &["vhost", "user", "configure", "write", "read"];
    match given.maybe("name") {
        Some(name) => list(session, given, path(&["users", name, "permissions"]), columns),
        None => list(session, given, path(&["permissions"]), columns),
    }
}

fn connections(session: &Session, given: &Given) -> Result<Answer> {
    super::connections::of_user(session, given)
}

fn limits(session: &Session, given: &Given) -> Result<Answer> {
    let path = match given.maybe("username") {
        Some(user) => path(&["user-limits", user]),
        None => path(&["user-limits"]),
    };
    list(session, given, path, &["user", "value"])
}

fn declare_limit(session: &Session, given: &Given) -> Result<Answer> {
    let (user, name, value) = (given.text("username"), given.text("name"), given.json("value"));
    session.client.put(&path(&["user-limits", user, name]), &json!({ "value": value }))?;
    Ok(Answer::Done(format!("limit {name} of user '{user}' is {value}")))
}

fn delete_limit(session: &Session, given: &Given) -> Result<Answer> {
    let (user, name) = (given.text("username"), given.text("name"));
    delete(session, given, &path(&["user-limits", user, name]), format!("limit {name} of user '{user}'"))
}

fn explain(session: &Session, given: &Given) -> Result<Answer> {
    let text = |name: &str| Some(given.text(name).to_string());
    let path = with_query(
        path(&["users", given.text("name"), "explain"]),
        &[
            ("vhost", Some(session.vhost().to_string())),
            ("action", text("action")),
            ("resource", text("resource")),
            ("name", text("object")),
            ("key", given.maybe("key").map(String::from)),
        ],
    );
    let object = session.client.get(&path)?;
    Ok(Answer::Fields { object, columns: &["allowed", "because", "pattern"] })
}

fn salt_and_hash(_: &Session, given: &Given) -> Result<Answer> {
    let password = password_of(given.text("password"))?;
    let salt: [u8; 4] = rand::random();
    let hash = hash(&password, salt, algorithm(given)? == "sha512");
    Ok(Answer::Fields { object: json!({ "password_hash": hash }), columns: &["password_hash"] })
}

/// RabbitMQ's form: base64 of the salt and the digest of salt and password.
pub fn hash(password: &str, salt: [u8; 4], is_sha512: bool) -> String {
    let salted = [&salt, password.as_bytes()].concat();
    let digest = if is_sha512 { Sha512::digest(&salted).to_vec() } else { Sha256::digest(&salted).to_vec() };
    base64::engine::general_purpose::STANDARD.encode([&salt[..], &digest].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RabbitMQ's own example: password test12 with salt 908D C60A (rabbitmq.com/docs/passwords).
    #[test]
    fn a_password_is_hashed_as_rabbitmq_does() {
        let hash = hash("test12", [0x90, 0x8d, 0xc6, 0x0a], false);

        assert_eq!(hash, "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR");
    }
}

//! Limits of vhosts and of users.

use serde_json::{Map, Value as Json, json};

use super::answer::Answer;
use super::call::Call;
use super::error::Error;
use super::list::{self, Item};
use super::route::{Right, Route};
use super::sheet::Sheet;
use super::users;
use crate::auth::limits::{OF_USERS, OF_VHOSTS};
use crate::error;

pub fn routes() -> Vec<Route> {
    const RIGHT: Right = Right::Administer;
    let limit = json!({"value": 100});
    vec![
        Route::list("/vhost-limits", Right::Any, "The limits of vhosts", of_vhosts),
        Route::list("/vhost-limits/{vhost}", Right::Watch, "The limits of a vhost", of_vhosts),
        Route::put("/vhost-limits/{vhost}/{name}", RIGHT, "Limits a vhost", limit_vhost)
            .body(limit.clone(), &["value"]),
        Route::delete("/vhost-limits/{vhost}/{name}", RIGHT, "A vhost is not limited any more", clear_vhost),
        Route::list("/user-limits", Right::Any, "The limits of users", of_users),
        Route::list("/user-limits/{user}", Right::Any, "The limits of a user", of_user),
        Route::put("/user-limits/{user}/{name}", RIGHT, "Limits a user", limit_user).body(limit, &["value"]),
        Route::delete("/user-limits/{user}/{name}", RIGHT, "A user is not limited any more", clear_user),
    ]
}

/// The limits of a vhost or a user.
struct Limits {
    of: &'static str,
    name: String,
    value: Map<String, Json>,
}

impl Item for Limits {
    fn key(&self) -> (&str, &str) {
        ("", &self.name)
    }

    fn describe(&self, sheet: &mut Sheet<'_>) {
        sheet.put(self.of, self.name.as_str());
        sheet.put("value", self.value.clone());
    }
}

fn of_vhosts(call: &Call) -> Result<Answer, Error> {
    let limits = call.watched_vhosts()?.into_iter().filter_map(|vhost| {
        let value = vhost.about().limits.to_json();
        (!value.is_empty()).then(|| Limits { of: "vhost", name: vhost.name().to_string(), value })
    });
    list::all(call, limits.collect())
}

fn of_users(call: &Call) -> Result<Answer, Error> {
    limited(call, call.broker.all_users())
}

fn of_user(call: &Call) -> Result<Answer, Error> {
    limited(call, vec![users::named(call)?])
}

fn limited(call: &Call, users: Vec<std::sync::Arc<crate::auth::User>>) -> Result<Answer, Error> {
    let limits = users.into_iter().filter(|user| !user.limits.is_empty());
    let limits =
        limits.map(|user| Limits { of: "user", name: user.name.to_string(), value: user.limits.to_json() });
    list::all(call, limits.collect())
}

fn value(call: &Call) -> Result<Json, Error> {
    call.object()?.get("value").cloned().ok_or_else(|| Error::missing_field("value"))
}

fn limit_vhost(call: &Call) -> Result<Answer, Error> {
    let (value, vhost) = (value(call)?, call.vhost()?);
    let set = call.broker.set_vhost_limit(&call.actor(), vhost.name(), call.param("name"), &value);
    set.map(|()| Answer::Done).map_err(|error| match error {
        error::Error::Invalid(reason) => Error::BadRequest(format!("Validation failed\n\n{reason}\n")),
        other => other.into(),
    })
}

fn clear_vhost(call: &Call) -> Result<Answer, Error> {
    let vhost = call.vhost()?;
    known(call, OF_VHOSTS)?;
    call.broker.clear_vhost_limit(&call.actor(), vhost.name(), call.param("name"))?;
    Ok(Answer::Done)
}

fn limit_user(call: &Call) -> Result<Answer, Error> {
    let value = value(call)?;
    let set = call.broker.set_user_limit(&call.actor(), call.param("user"), call.param("name"), &value);
    set.map(|()| Answer::Done).map_err(|error| match error {
        error::Error::NoUser(name) => Error::Bad(json!(["no_such_user", name])),
        other => other.into(),
    })
}

fn clear_user(call: &Call) -> Result<Answer, Error> {
    let user = users::named(call)?;
    known(call, OF_USERS)?;
    call.broker.clear_user_limit(&call.actor(), &user.name, call.param("name"))?;
    Ok(Answer::Done)
}

/// Whether there is such a limit at all.
fn known(call: &Call, known: &[&str]) -> Result<(), Error> {
    let name = call.param("name");
    match known.contains(&name) {
        true => Ok(()),
        false => {
            let known = known.join(" or ");
            Err(Error::BadRequest(format!("Unrecognised terms in limits: '{name}' is not {known}")))
        }
    }
}

//! Users: listed, made, changed, deleted; and how passwords are hashed.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::answer::Answer;
use super::call::{Call, text};
use super::error::Error;
use super::list::{self, Item};
use super::permissions;
use super::route::{Right, Route};
use super::sheet::Sheet;
use super::topic_permissions;
use crate::auth::limits::OF_USERS;
use crate::auth::{Limits, PasswordHash, Permission, User};
use crate::broker::Wanted;
use crate::vhost::definitions::UserPermission;

pub fn routes() -> Vec<Route> {
    const SELF: Right = Right::Administer;
    let user = json!({
        "password": "", "password_hash": "", "hashing_algorithm": "rabbit_password_hashing_sha256",
        "tags": "management",
    });
    vec![
        Route::list("/users", SELF, "All users", all),
        Route::list(
            "/users/without-permissions",
            SELF,
            "Users who may do nothing anywhere",
            without_permissions,
        ),
        Route::post("/users/bulk-delete", SELF, "Deletes users, all of them or none", delete_many)
            .body(json!({"users": ["anna"]}), &["users"]),
        Route::get("/users/{user}", SELF, "A user", get),
        Route::put("/users/{user}", SELF, "Makes a user or changes it", put).body(user, &["tags"]),
        Route::delete("/users/{user}", SELF, "Deletes a user", delete),
        Route::list("/users/{user}/permissions", SELF, "Where a user may do what", its_permissions),
        Route::list(
            "/users/{user}/topic-permissions",
            SELF,
            "Which keys a user may use",
            its_topic_permissions,
        ),
        Route::get(
            "/auth/hash_password/{password}",
            SELF,
            "The hash of a password, as it is kept",
            hash_password,
        )
        .query(&[]),
    ]
}

impl Item for Arc<User> {
    fn key(&self) -> (&str, &str) {
        ("", &self.name)
    }

    fn describe(&self, sheet: &mut Sheet<'_>) {
        sheet.put("name", &*self.name);
        sheet.put("password_hash", self.password.hash.as_str());
        sheet.put("hashing_algorithm", self.password.algorithm.as_str());
        sheet.put("tags", self.tags.clone());
        sheet.put("limits", self.limits.to_json());
    }
}

fn all(call: &Call) -> Result<Answer, Error> {
    list::all(call, call.broker.all_users())
}

fn without_permissions(call: &Call) -> Result<Answer, Error> {
    list::all(call, call.broker.users_without_permissions())
}

/// The user of the path.
///
/// # Errors
/// `NotFound`.
pub fn named(call: &Call) -> Result<Arc<User>, Error> {
    call.broker.user(call.param("user")).ok_or(Error::NotFound)
}

fn get(call: &Call) -> Result<Answer, Error> {
    list::one(call, &named(call)?)
}

fn put(call: &Call) -> Result<Answer, Error> {
    let body = call.object()?;
    let name = call.param("user");
    let Some(tags) = crate::broker::tags(&body, "tags")? else {
        return Err(Error::BadRequest("tags_not_present".into()));
    };
    let algorithm = text(&body, "hashing_algorithm")?.filter(|name| !name.is_empty());
    text(&body, "password")?.map_or(Ok(()), |password| call.broker.check_password(password))?;
    let password = match (text(&body, "password")?, text(&body, "password_hash")?) {
        (Some(_), Some(_)) => {
            return Err(Error::BadRequest("both_password_and_password_hash_are_provided".into()));
        }
        // Nobody gets in without one.
        (None | Some(""), None) => PasswordHash::none(),
        (Some(password), None) => match algorithm {
            Some(algorithm) => PasswordHash::with(algorithm, password)?,
            None => PasswordHash::sha256(password),
        },
        (None, Some(hash)) => PasswordHash::import(hash, algorithm)?,
    };
    let limits = match body.get("limits") {
        Some(Json::Object(limits)) => Some(Limits::read(limits, OF_USERS)?),
        _ => None,
    };
    let actor = call.actor();
    let is_new = call.broker.put_user(&actor, Wanted { name: name.into(), password, tags, limits })?;
    if let Some(Json::Object(permissions)) = body.get("permissions").filter(|_| is_new) {
        for (vhost, permission) in permissions {
            let permission: Permission = serde_json::from_value(permission.clone())
                .map_err(|error| Error::BadRequest(format!("permissions of vhost '{vhost}': {error}")))?;
            let wanted = UserPermission { user: name.into(), vhost: vhost.clone(), permission };
            call.broker.put_permission(&actor, wanted)?;
        }
    }
    Ok(Answer::put(is_new))
}

fn delete(call: &Call) -> Result<Answer, Error> {
    let user = named(call)?;
    call.broker.delete_users(&call.actor(), &[&user.name])?;
    Ok(Answer::Done)
}

fn delete_many(call: &Call) -> Result<Answer, Error> {
    let body = call.object()?;
    let wrong = |value: &Json| Error::BadRequest(format!("users must be a list of names, and is {value}"));
    let users = body.get("users").ok_or_else(|| Error::missing_field("users"))?;
    let names = users.as_array().ok_or_else(|| wrong(users))?;
    let names = names.iter().map(Json::as_str).collect::<Option<Vec<&str>>>().ok_or_else(|| wrong(users))?;
    call.broker.delete_users(&call.actor(), &names).map_err(|error| match error {
        crate::error::Error::NoUser(name) => Error::Bad(json!(["no_such_user", name])),
        other => other.into(),
    })?;
    Ok(Answer::Done)
}

fn its_permissions(call: &Call) -> Result<Answer, Error> {
    let user = named(call)?;
    permissions::listed(call, |permission| permission.user == *user.name)
}

fn its_topic_permissions(call: &Call) -> Result<Answer, Error> {
    let user = named(call)?;
    topic_permissions::listed(call, |permission| permission.user == *user.name)
}

fn hash_password(call: &Call) -> Result<Answer, Error> {
    Ok(Answer::Json(json!({"ok": PasswordHash::sha256(call.param("password")).hash})))
}

//! Permissions: what users may do in vhosts.

use serde_json::json;

use super::answer::Answer;
use super::call::{Call, require, text};
use super::error::Error;
use super::list::{self, Item};
use super::route::{Right, Route};
use super::sheet::Sheet;
use crate::auth::Permission;
use crate::error;
use crate::vhost::definitions::UserPermission;

pub fn routes() -> Vec<Route> {
    const RIGHT: Right = Right::Administer;
    let permission = json!({"configure": ".*", "write": ".*", "read": ".*"});
    vec![
        Route::list("/permissions", RIGHT, "All permissions", all),
        Route::list("/vhosts/{vhost}/permissions", RIGHT, "Who may do what in a vhost", of_vhost),
        Route::get("/permissions/{vhost}/{user}", RIGHT, "What a user may do in a vhost", get),
        Route::put("/permissions/{vhost}/{user}", RIGHT, "Sets what a user may do in a vhost", put)
            .body(permission, &["configure", "write", "read"]),
        Route::delete(
            "/permissions/{vhost}/{user}",
            RIGHT,
            "A user may do nothing in a vhost any more",
            delete,
        ),
    ]
}

impl Item for UserPermission {
    fn key(&self) -> (&str, &str) {
        (&self.vhost, &self.user)
    }

    fn describe(&self, sheet: &mut Sheet<'_>) {
        let Permission { configure, write, read } = &self.permission;
        sheet.put("user", self.user.as_str());
        sheet.put("vhost", self.vhost.as_str());
        sheet.put("configure", configure.as_str());
        sheet.put("write", write.as_str());
        sheet.put("read", read.as_str());
    }
}

/// Answers with those that are wanted.
pub fn listed(call: &Call, is_wanted: impl Fn(&UserPermission) -> bool) -> Result<Answer, Error> {
    list::all(call, call.broker.permissions().into_iter().filter(is_wanted).collect())
}

fn all(call: &Call) -> Result<Answer, Error> {
    listed(call, |_| true)
}

fn of_vhost(call: &Call) -> Result<Answer, Error> {
    let vhost = call.vhost()?;
    listed(call, |permission| permission.vhost == **vhost.name())
}

fn get(call: &Call) -> Result<Answer, Error> {
    let (user, vhost) = (call.param("user").to_string(), call.param("vhost").to_string());
    let permission = call.broker.permission(&user, &vhost).ok_or(Error::NotFound)?;
    list::one(call, &UserPermission { user, vhost, permission })
}

fn put(call: &Call) -> Result<Answer, Error> {
    let body = call.object()?;
    require(&body, &["configure", "write", "read"])?;
    let field = |name: &str| match text(&body, name)? {
        Some(pattern) => Ok(pattern.to_string()),
        None => Err(Error::missing_field(name)),
    };
    let permission =
        Permission { configure: field("configure")?, write: field("write")?, read: field("read")? };
    let (user, vhost) = (call.param("user").into(), call.param("vhost").into());
    let put = call.broker.put_permission(&call.actor(), UserPermission { user, vhost, permission });
    put.map(Answer::put).map_err(nobody)
}

/// The user or the vhost of the path is not there: RabbitMQ says it so.
pub fn nobody(error: error::Error) -> Error {
    match error {
        error::Error::NoUser(_) | error::Error::NoVhost(_) => {
            Error::BadRequest("vhost_or_user_not_found".into())
        }
        other => other.into(),
    }
}

fn delete(call: &Call) -> Result<Answer, Error> {
    match call.broker.delete_permission(&call.actor(), call.param("user"), call.param("vhost"))? {
        true => Ok(Answer::Done),
        false => Err(Error::NotFound),
    }
}

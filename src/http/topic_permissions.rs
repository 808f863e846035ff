//! Topic permissions: which keys of topic exchanges users may use.

use serde_json::json;

use super::answer::Answer;
use super::call::{Call, require, text};
use super::error::Error;
use super::list::{self, Item};
use super::permissions::nobody;
use super::route::{Right, Route};
use super::sheet::Sheet;
use crate::auth::TopicPermission;
use crate::vhost::definitions::UserTopicPermission;

pub fn routes() -> Vec<Route> {
    const RIGHT: Right = Right::Administer;
    const ONE: &str = "/topic-permissions/{vhost}/{user}";
    let permission = json!({"exchange": "amq.topic", "write": "^{username}\\.", "read": ".*"});
    vec![
        Route::list("/topic-permissions", RIGHT, "All topic permissions", all),
        Route::list(
            "/vhosts/{vhost}/topic-permissions",
            RIGHT,
            "Who may use which keys in a vhost",
            of_vhost,
        ),
        Route::list(ONE, RIGHT, "Which keys a user may use in a vhost", of_user),
        Route::put(ONE, RIGHT, "Sets which keys of an exchange a user may use", put)
            .body(permission, &["exchange", "write", "read"]),
        Route::delete(ONE, RIGHT, "Nothing is said any more of the keys of a vhost", delete),
        Route::delete(
            "/topic-permissions/{vhost}/{user}/{exchange}",
            RIGHT,
            "Nothing is said any more of the keys of an exchange",
            delete,
        ),
    ]
}

impl Item for UserTopicPermission {
    fn key(&self) -> (&str, &str) {
        (&self.vhost, &self.user)
    }

    fn describe(&self, sheet: &mut Sheet<'_>) {
        sheet.put("user", self.user.as_str());
        sheet.put("vhost", self.vhost.as_str());
        sheet.put("exchange", self.exchange.as_str());
        sheet.put("write", self.permission.write.as_str());
        sheet.put("read", self.permission.read.as_str());
    }
}

/// Answers with those that are wanted.
pub fn listed(call: &Call, is_wanted: impl Fn(&UserTopicPermission) -> bool) -> Result<Answer, Error> {
    list::all(call, call.broker.topic_permissions().into_iter().filter(is_wanted).collect())
}

fn all(call: &Call) -> Result<Answer, Error> {
    listed(call, |_| true)
}

fn of_vhost(call: &Call) -> Result<Answer, Error> {
    let vhost = call.vhost()?;
    listed(call, |permission| permission.vhost == **vhost.name())
}

fn of_user(call: &Call) -> Result<Answer, Error> {
    let (user, vhost) = (call.param("user"), call.param("vhost"));
    let is_there = |permission: &UserTopicPermission| permission.user == user && permission.vhost == vhost;
    if !call.broker.topic_permissions().iter().any(is_there) {
        return Err(Error::NotFound);
    }
    listed(call, is_there)
}

fn put(call: &Call) -> Result<Answer, Error> {
    let body = call.object()?;
    require(&body, &["exchange", "write", "read"])?;
    let field = |name: &str| match text(&body, name)? {
        Some(text) => Ok(text.to_string()),
        None => Err(Error::missing_field(name)),
    };
    let wanted = UserTopicPermission {
        user: call.param("user").into(),
        vhost: call.param("vhost").into(),
        exchange: field("exchange")?,
        permission: TopicPermission { write: field("write")?, read: field("read")? },
    };
    // As RabbitMQ has it: new is what a user gets first in a vhost, for whichever exchange.
    let all = call.broker.topic_permissions();
    let is_first = !all.iter().any(|other| other.user == wanted.user && other.vhost == wanted.vhost);
    call.broker.put_topic_permission(&call.actor(), wanted).map_err(nobody)?;
    Ok(Answer::put(is_first))
}

fn delete(call: &Call) -> Result<Answer, Error> {
    let exchange = call.has_param("exchange").then(|| call.exchange("exchange"));
    let (user, vhost) = (call.param("user"), call.param("vhost"));
    match call.broker.delete_topic_permissions(&call.actor(), user, vhost, exchange)? {
        true => Ok(Answer::Done),
        false => Err(Error::NotFound),
    }
}

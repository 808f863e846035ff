//! Policies, of users and of operators.

use serde_json::{Map, Value as Json, json};

use super::answer::Answer;
use super::call::{Call, integer, require};
use super::error::Error;
use super::list::{self, Item};
use super::route::{Right, Route};
use super::sheet::Sheet;
use crate::error;
use crate::vhost::policy::Policy;

pub fn routes() -> Vec<Route> {
    let policy = json!({
        "pattern": "^jobs", "definition": {"message-ttl": 60000}, "priority": 0, "apply-to": "queues",
    });
    const NEEDED: &[&str] = &["pattern", "definition"];
    const ONE: &str = "/policies/{vhost}/{name}";
    const OPERATORS: &str = "/operator-policies/{vhost}/{name}";
    vec![
        Route::list("/policies", Right::Any, "All policies", all::<false>),
        Route::list("/policies/{vhost}", Right::See, "The policies of a vhost", all::<false>),
        Route::get(ONE, Right::Policies, "A policy", get::<false>),
        Route::put(ONE, Right::Policies, "Makes a policy or changes it", put::<false>)
            .body(policy.clone(), NEEDED),
        Route::delete(ONE, Right::Policies, "Deletes a policy", delete::<false>),
        Route::list("/operator-policies", Right::Any, "All policies of operators", all::<true>),
        Route::list(
            "/operator-policies/{vhost}",
            Right::See,
            "The policies of operators for a vhost",
            all::<true>,
        ),
        Route::get(OPERATORS, Right::Administer, "A policy of an operator", get::<true>),
        Route::put(OPERATORS, Right::Administer, "Makes an operator's policy or changes it", put::<true>)
            .body(policy, NEEDED),
        Route::delete(OPERATORS, Right::Administer, "Deletes an operator's policy", delete::<true>),
    ]
}

impl Item for Policy {
    fn key(&self) -> (&str, &str) {
        (&self.vhost, &self.name)
    }

    fn describe(&self, sheet: &mut Sheet<'_>) {
        sheet.put("vhost", self.vhost.as_str());
        sheet.put("name", self.name.as_str());
        sheet.put("pattern", self.pattern.as_str());
        sheet.with("apply-to", || json!(self.apply_to));
        sheet.put("definition", self.definition.clone());
        sheet.put("priority", self.priority);
    }
}

fn all<const OPERATOR: bool>(call: &Call) -> Result<Answer, Error> {
    let policies = call.vhosts()?.into_iter().flat_map(|vhost| vhost.policies());
    list::all(call, policies.filter(|policy| policy.operator == OPERATOR).collect())
}

fn get<const OPERATOR: bool>(call: &Call) -> Result<Answer, Error> {
    let policy = call.vhost()?.policy(call.param("name"), OPERATOR).ok_or(Error::NotFound)?;
    list::one(call, &policy)
}

fn put<const OPERATOR: bool>(call: &Call) -> Result<Answer, Error> {
    let mut body: Map<String, Json> = call.object()?;
    require(&body, &["pattern", "definition"])?;
    // Some tools send digits as text.
    if let Some(Json::String(_)) = body.get("priority") {
        let priority = integer(&body, "priority")?;
        body.insert("priority".into(), json!(priority));
    }
    let vhost = call.vhost()?;
    let policy = Policy::read(vhost.name(), call.param("name"), &body, OPERATOR).map_err(invalid)?;
    call.broker.put_policy(&call.actor(), policy).map(Answer::put).map_err(invalid)
}

/// What is wrong with a policy or a parameter, as RabbitMQ begins to say it.
pub fn invalid(error: error::Error) -> Error {
    match error {
        error::Error::Invalid(reason) => Error::BadRequest(format!("Validation failed\n\n{reason}\n")),
        other => other.into(),
    }
}

fn delete<const OPERATOR: bool>(call: &Call) -> Result<Answer, Error> {
    let vhost = call.vhost()?;
    match call.broker.delete_policy(&call.actor(), vhost.name(), call.param("name"), OPERATOR)? {
        true => Ok(Answer::Done),
        false => Err(Error::NotFound),
    }
}

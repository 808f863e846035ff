//! Parameters of components, global parameters, and the name of the cluster, which is one of them.

use serde_json::{Value as Json, json};

use super::answer::Answer;
use super::call::Call;
use super::error::Error;
use super::list::{self, Item};
use super::policies::invalid;
use super::route::{Right, Route};
use super::sheet::Sheet;
use crate::broker::{CLUSTER_NAME, Parameter};
use crate::error;
use crate::vhost::definitions::GlobalParameter;

pub fn routes() -> Vec<Route> {
    const RIGHT: Right = Right::Policies;
    const ONE: &str = "/parameters/{component}/{vhost}/{name}";
    const GLOBAL: &str = "/global-parameters/{name}";
    let parameter = json!({"value": {}});
    vec![
        Route::list("/parameters", RIGHT, "All parameters", all),
        Route::list("/parameters/{component}", RIGHT, "The parameters of a component", all),
        Route::list("/parameters/{component}/{vhost}", RIGHT, "Those in a vhost", all),
        Route::get(ONE, RIGHT, "A parameter", get),
        Route::put(ONE, RIGHT, "Sets a parameter", put).body(parameter.clone(), &["value"]),
        Route::delete(ONE, RIGHT, "Takes a parameter away", delete),
        Route::list("/global-parameters", RIGHT, "All global parameters", all_global),
        Route::get(GLOBAL, RIGHT, "A global parameter", get_global),
        Route::put(GLOBAL, RIGHT, "Sets a global parameter", put_global).body(parameter, &["value"]),
        Route::delete(GLOBAL, RIGHT, "Takes a global parameter away", delete_global),
        Route::put("/cluster-name", Right::Administer, "Names the cluster", name_cluster)
            .body(json!({"name": "rabbit@host"}), &["name"]),
    ]
}

impl Item for Parameter {
    fn key(&self) -> (&str, &str) {
        (&self.vhost, &self.name)
    }

    fn describe(&self, sheet: &mut Sheet<'_>) {
        sheet.put("value", self.value.clone());
        sheet.put("vhost", self.vhost.as_str());
        sheet.put("component", self.component.as_str());
        sheet.put("name", self.name.as_str());
    }
}

impl Item for GlobalParameter {
    fn key(&self) -> (&str, &str) {
        ("", &self.name)
    }

    fn describe(&self, sheet: &mut Sheet<'_>) {
        sheet.put("value", self.value.clone());
        sheet.put("name", self.name.as_str());
    }
}

fn all(call: &Call) -> Result<Answer, Error> {
    let vhosts = call.vhosts()?;
    let is_seen = |parameter: &Parameter| vhosts.iter().any(|vhost| **vhost.name() == *parameter.vhost);
    let component = call.has_param("component").then(|| call.param("component"));
    let is_of = |parameter: &Parameter| component.is_none_or(|component| parameter.component == component);
    let all = call.broker.parameters().into_iter();
    list::all(call, all.filter(|parameter| is_seen(parameter) && is_of(parameter)).collect())
}

/// The parameter of the path, of another value.
fn asked(call: &Call, value: Json) -> Parameter {
    Parameter {
        vhost: call.param("vhost").into(),
        component: call.param("component").into(),
        name: call.param("name").into(),
        value,
    }
}

fn get(call: &Call) -> Result<Answer, Error> {
    call.vhost()?;
    let asked = asked(call, Json::Null);
    let is_it = |parameter: &Parameter| {
        let value = Json::Null;
        Parameter { value, ..parameter.clone() } == asked
    };
    let found = call.broker.parameters().into_iter().find(is_it).ok_or(Error::NotFound)?;
    list::one(call, &found)
}

fn value(call: &Call) -> Result<Json, Error> {
    call.object()?.get("value").cloned().ok_or_else(|| Error::missing_field("value"))
}

fn put(call: &Call) -> Result<Answer, Error> {
    let parameter = asked(call, value(call)?);
    if parameter.component == "operator_policy" && !call.who.is_administrator() {
        return Err(Error::NotAuthorised("Not administrator user".into()));
    }
    call.broker.put_parameter(&call.actor(), &parameter).map(Answer::put).map_err(|error| match error {
        error::Error::Invalid(reason) if parameter.component == "policy" => Error::BadRequest(reason),
        other => invalid(other),
    })
}

fn delete(call: &Call) -> Result<Answer, Error> {
    let Parameter { vhost, component, name, .. } = asked(call, Json::Null);
    if component == "operator_policy" && !call.who.is_administrator() {
        return Err(Error::NotAuthorised("Not administrator user".into()));
    }
    match call.broker.delete_parameter(&call.actor(), &vhost, &component, &name)? {
        true => Ok(Answer::Done),
        false => Err(Error::NotFound),
    }
}

fn all_global(call: &Call) -> Result<Answer, Error> {
    list::all(call, call.broker.global_parameters())
}

fn get_global(call: &Call) -> Result<Answer, Error> {
    let mut all = call.broker.global_parameters().into_iter();
    let found = all.find(|parameter| parameter.name == call.param("name")).ok_or(Error::NotFound)?;
    list::one(call, &found)
}

fn put_global(call: &Call) -> Result<Answer, Error> {
    let value = value(call)?;
    Ok(Answer::put(call.broker.put_global_parameter(&call.actor(), call.param("name"), value)?))
}

fn delete_global(call: &Call) -> Result<Answer, Error> {
    match call.broker.delete_global_parameter(&call.actor(), call.param("name"))? {
        true => Ok(Answer::Done),
        false => Err(Error::NotFound),
    }
}

fn name_cluster(call: &Call) -> Result<Answer, Error> {
    let name = call.object()?.get("name").cloned().ok_or_else(|| Error::missing_field("name"))?;
    call.broker.put_global_parameter(&call.actor(), CLUSTER_NAME, name)?;
    Ok(Answer::Done)
}

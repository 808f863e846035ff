//! Who asks, and whether that user may: Basic credentials, and the tags of users.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::http::{HeaderMap, Method, header};

use super::call::Call;
use super::error::Error;
use super::route::{Right, Route};
use crate::auth::{User, basic_credentials};
use crate::broker::{Broker, Protocol};

/// Who makes a request.
#[derive(Clone, Debug)]
pub struct Who(Option<Arc<User>>);

impl Who {
    /// The name it logged in with.
    pub fn name(&self) -> &str {
        self.0.as_ref().map_or("", |user| &user.name)
    }

    /// The user.
    ///
    /// # Errors
    /// `Login`: nobody has.
    pub fn user(&self) -> Result<Arc<User>, Error> {
        self.0.clone().ok_or(Error::Nobody)
    }

    fn has(&self, tags: &[&str]) -> bool {
        self.0.as_ref().is_some_and(|user| tags.iter().any(|tag| user.has_tag(tag)))
    }

    /// It may do everything.
    pub fn is_administrator(&self) -> bool {
        self.has(&["administrator"])
    }

    /// It may see everything.
    pub fn is_monitoring(&self) -> bool {
        self.has(&["administrator", "monitoring"])
    }

    /// It may set policies and parameters where it has permissions.
    pub fn is_policymaker(&self) -> bool {
        self.has(&["administrator", "policymaker"])
    }

    /// It may use the API at all.
    pub fn is_management(&self) -> bool {
        self.has(&["administrator", "monitoring", "policymaker", "management"])
    }
}

/// Whether something may be changed: a page of another origin can have a browser send a form here, with the name and
/// password that the browser remembers. Programs do not say an origin.
///
/// # Errors
/// `NotAuthorised`.
pub fn check_origin(method: &Method, headers: &HeaderMap) -> Result<(), Error> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(origin) = text(header::ORIGIN).filter(|_| !method.is_safe()) else { return Ok(()) };
    let authority = origin.split_once("://").map(|(_, authority)| authority);
    if authority.is_some() && authority == text(header::HOST) {
        return Ok(());
    }
    Err(Error::NotAuthorised(format!("a page of another origin, '{origin}', cannot change anything here")))
}

/// Who the headers say it is. Nobody, if they say nothing.
///
/// # Errors
/// `Login`: the password is wrong, or the user may not come from there.
pub async fn who(broker: &Broker, peer: SocketAddr, headers: &HeaderMap) -> Result<Who, Error> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(Who(None)) };
    let (name, password) = basic_credentials(Some(value.as_bytes())).ok_or(Error::Login)?;
    log_in(broker, peer, &name, &password).await
}

/// Who has this name and password.
///
/// # Errors
/// `Login`, after a while: the password is wrong, or the user may not come from there.
pub async fn log_in(broker: &Broker, peer: SocketAddr, name: &str, password: &str) -> Result<Who, Error> {
    match broker.log_in(name, password, peer, Protocol::Http) {
        Ok(user) => Ok(Who(Some(user))),
        Err(refused) => {
            tokio::time::sleep(refused.wait).await;
            Err(Error::Login)
        }
    }
}

/// Whether a request may go on to where its route leads.
///
/// # Errors
/// `Login`, `NotAuthorised`; `NotFound` if the vhost of the path is not there.
pub fn allow(call: &Call, route: &Route) -> Result<(), Error> {
    if route.right == Right::Nobody {
        return Ok(());
    }
    call.who.user()?;
    let refuse = |reason: &str| Err(Error::NotAuthorised(reason.into()));
    if !call.who.is_management() {
        return refuse("Not management user");
    }
    let names_vhost = call.has_param("vhost");
    if names_vhost && !matches!(route.right, Right::Administer | Right::Any) {
        call.vhost()?;
    }
    let is_allowed = match route.right {
        Right::Nobody | Right::Any => true,
        Right::See => !names_vhost || call.who.is_administrator() || call.uses(call.param("vhost")),
        Right::Watch => !names_vhost || call.who.is_monitoring() || call.uses(call.param("vhost")),
        Right::Use => !names_vhost || call.uses(call.param("vhost")),
        Right::Policies => {
            call.who.is_administrator()
                || call.who.is_policymaker() && (!names_vhost || call.uses(call.param("vhost")))
        }
        Right::Monitor => call.who.is_monitoring(),
        Right::Administer => call.who.is_administrator(),
    };
    match (is_allowed, route.right) {
        (true, _) => Ok(()),
        (false, Right::Monitor) => refuse("Not monitor user"),
        (false, Right::Administer) => refuse("Not administrator user"),
        // As RabbitMQ has it: there an administrator only fails at the vhost's door.
        (false, Right::Use) if call.who.is_administrator() => refuse("Access refused."),
        (false, Right::Policies) => refuse("User not authorised to access object"),
        (false, _) => refuse("User not authorised to access virtual host"),
    }
}

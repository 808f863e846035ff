//! Policies and parameters: what operators set for many things at once, or for the broker as a whole.
//!
//! RabbitMQ keeps parameters for components that are plugins. Of components there are here those that it has
//! itself, the limits of vhosts and the policies of operators; everything else is refused as if its plugin was off.

use serde_json::{Map, Value as Json, json};

use super::audit::{Actor, AdminEvent};
use super::{Broker, Change};
use crate::auth::Limits;
use crate::auth::limits::OF_VHOSTS;
use crate::error::Error;
use crate::vhost::definitions::{Definition, GlobalParameter};
use crate::vhost::policy::Policy;

/// The component of the limits of vhosts, and what its only parameter is called.
pub(super) const VHOST_LIMITS: &str = "vhost-limits";
const LIMITS: &str = "limits";

/// The component of operators' policies.
pub(super) const OPERATOR_POLICY: &str = "operator_policy";

/// The global parameter that names the cluster.
pub const CLUSTER_NAME: &str = "cluster_name";

/// The global parameter that tells clusters apart whatever they are called.
pub const CLUSTER_ID: &str = "internal_cluster_id";

/// A parameter of a component.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// Its vhost.
    pub vhost: String,
    /// What it is for.
    pub component: String,
    /// Its name.
    pub name: String,
    /// What it is.
    pub value: Json,
}

impl Broker {
    // Policies ------------------------------------------------------------------------------------

    /// Makes a policy, or changes it. True if it is new.
    ///
    /// # Errors
    /// `NoVhost`; `Invalid`: what is wrong with it; `Store`.
    pub fn put_policy(&self, actor: &Actor, policy: Policy) -> Result<bool, Error> {
        let kind = if policy.operator { "operator policy" } else { "policy" };
        self.perform(actor, &format!("put {kind} '{}' in vhost '{}'", policy.name, policy.vhost), || {
            let vhost = self.vhost(&policy.vhost)?;
            let is_new = vhost.policy(&policy.name, policy.operator).is_none();
            let event = AdminEvent::policy_set(&policy);
            // It tells the store itself.
            vhost.set_policy(policy)?;
            Ok(Change { operations: Vec::new(), events: vec![event], value: is_new })
        })
    }

    /// Takes a policy away. False if there is none of that name.
    ///
    /// # Errors
    /// `NoVhost`, `Store`.
    pub fn delete_policy(
        &self,
        actor: &Actor,
        vhost: &str,
        name: &str,
        operator: bool,
    ) -> Result<bool, Error> {
        let kind = if operator { "operator policy" } else { "policy" };
        self.perform(actor, &format!("delete {kind} '{name}' in vhost '{vhost}'"), || {
            if !self.vhost(vhost)?.clear_policy(name, operator) {
                return Ok(Change::nothing(false));
            }
            let events = vec![AdminEvent::policy_cleared(vhost, name, operator)];
            Ok(Change { operations: Vec::new(), events, value: true })
        })
    }

    // Parameters ----------------------------------------------------------------------------------

    /// All parameters of components, by vhost, component and name.
    pub fn parameters(&self) -> Vec<Parameter> {
        let mut all = Vec::new();
        for vhost in self.vhosts() {
            let parameter = |component: &str, name: &str, value: Json| Parameter {
                vhost: vhost.name().to_string(),
                component: component.into(),
                name: name.into(),
                value,
            };
            for policy in vhost.policies().iter().filter(|policy| policy.operator) {
                let value = json!({
                    "pattern": policy.pattern, "definition": policy.definition, "priority": policy.priority,
                    "apply-to": policy.apply_to,
                });
                all.push(parameter(OPERATOR_POLICY, &policy.name, value));
            }
            let limits = vhost.about().limits.to_json();
            if !limits.is_empty() {
                all.push(parameter(VHOST_LIMITS, LIMITS, Json::Object(limits)));
            }
        }
        all
    }

    /// Sets a parameter of a component. True if it is new.
    ///
    /// # Errors
    /// `NoVhost`; `Invalid`: there is no such component, or the parameter cannot be so; `Store`.
    pub fn put_parameter(&self, actor: &Actor, parameter: &Parameter) -> Result<bool, Error> {
        let Parameter { vhost, component, name, value } = parameter;
        let is_new = || !self.parameters().iter().any(|other| is_same(other, parameter));
        self.vhost(vhost)?;
        match (component.as_str(), value) {
            (VHOST_LIMITS, Json::Object(map)) if name == LIMITS => {
                let limits = Limits::read(map, OF_VHOSTS)?;
                let is_new = is_new();
                self.set_vhost_limits(actor, vhost, limits).map(|()| is_new)
            }
            (VHOST_LIMITS, Json::Object(_)) => {
                Err(Error::Invalid(format!("the limits of a vhost are called '{LIMITS}', not '{name}'")))
            }
            (OPERATOR_POLICY, Json::Object(map)) => {
                self.put_policy(actor, Policy::read(vhost, name, map, true)?)
            }
            (VHOST_LIMITS | OPERATOR_POLICY, _) => {
                Err(Error::Invalid(format!("value must be an object, actually was {value}")))
            }
            ("policy", _) => Err(Error::Invalid("policies may not be set using this method".into())),
            _ => Err(Error::Invalid(format!("component {component} not found"))),
        }
    }

    /// Takes a parameter of a component away. False if there is none.
    ///
    /// # Errors
    /// `NoVhost`, `Store`.
    pub fn delete_parameter(
        &self,
        actor: &Actor,
        vhost: &str,
        component: &str,
        name: &str,
    ) -> Result<bool, Error> {
        let has_limits = !self.vhost(vhost)?.about().limits.is_empty();
        match component {
            VHOST_LIMITS if name == LIMITS && has_limits => {
                self.set_vhost_limits(actor, vhost, Limits::default()).map(|()| true)
            }
            OPERATOR_POLICY => self.delete_policy(actor, vhost, name, true),
            _ => Ok(false),
        }
    }

    // Global parameters ---------------------------------------------------------------------------

    /// All global parameters, by name.
    pub fn global_parameters(&self) -> Vec<GlobalParameter> {
        let mut all = self.globals().clone();
        all.entry(CLUSTER_NAME.into()).or_insert_with(|| self.config.cluster_name().into());
        all.into_iter().map(|(name, value)| GlobalParameter { name, value }).collect()
    }

    /// Sets a global parameter. True if it is new.
    ///
    /// # Errors
    /// `Invalid`: the name of the cluster must be text. `Store`.
    pub fn put_global_parameter(&self, actor: &Actor, name: &str, value: Json) -> Result<bool, Error> {
        let what = format!("put global parameter '{name}'");
        self.perform(actor, &what, || self.global_parameter_put(name, value))
    }

    pub(super) fn global_parameter_put(&self, name: &str, value: Json) -> Result<Change<bool>, Error> {
        check_global_parameter(name, &value)?;
        let before = self.globals_mut().insert(name.into(), value.clone());
        if before.as_ref() == Some(&value) {
            return Ok(Change::nothing(false));
        }
        let events = vec![AdminEvent::global_parameter_set(name, &value)];
        let parameter = GlobalParameter { name: name.into(), value };
        let operations = vec![Definition::GlobalParameter(parameter).define()];
        Ok(Change { operations, events, value: before.is_none() })
    }

    /// Takes a global parameter away. False if there is none.
    ///
    /// # Errors
    /// `Store`.
    pub fn delete_global_parameter(&self, actor: &Actor, name: &str) -> Result<bool, Error> {
        self.perform(actor, &format!("delete global parameter '{name}'"), || {
            let Some(value) = self.globals_mut().remove(name) else { return Ok(Change::nothing(false)) };
            let parameter = GlobalParameter { name: name.into(), value };
            let operations = vec![Definition::GlobalParameter(parameter).undefine()];
            Ok(Change { operations, events: vec![AdminEvent::global_parameter_cleared(name)], value: true })
        })
    }

    /// What the cluster is called: as somebody said, or as configured.
    pub fn cluster_name(&self) -> String {
        let said = self.globals().get(CLUSTER_NAME).and_then(Json::as_str).map(String::from);
        said.unwrap_or_else(|| self.config.cluster_name().into())
    }

    /// Tells this cluster from others, whatever they are called.
    pub fn cluster_id(&self) -> String {
        self.globals().get(CLUSTER_ID).and_then(Json::as_str).unwrap_or_default().into()
    }
}

/// Whether a global parameter can be so.
pub(super) fn check_global_parameter(name: &str, value: &Json) -> Result<(), Error> {
    if name.is_empty() {
        return Err(Error::Invalid("the name of a global parameter cannot be empty".into()));
    }
    match value {
        Json::String(text) if !text.is_empty() => Ok(()),
        _ if matches!(name, CLUSTER_NAME | CLUSTER_ID) => {
            Err(Error::Invalid(format!("{name} must be text, actually was {value}")))
        }
        _ => Ok(()),
    }
}

fn is_same(one: &Parameter, other: &Parameter) -> bool {
    one.vhost == other.vhost && one.component == other.component && one.name == other.name
}

/// Global parameters by name.
pub(super) type Globals = std::collections::BTreeMap<String, Json>;

impl Policy {
    /// Reads what is said of a policy elsewhere than in the store: fields that are not known do no harm.
    ///
    /// # Errors
    /// `Invalid` naming the field.
    pub fn read(vhost: &str, name: &str, map: &Map<String, Json>, operator: bool) -> Result<Policy, Error> {
        let missing = |field: &str| Error::Invalid(format!("Key \"{field}\" not found in {name}"));
        let pattern = match map.get("pattern").ok_or_else(|| missing("pattern"))? {
            Json::String(pattern) => pattern.clone(),
            other => return Err(Error::Invalid(format!("pattern should be a binary but was {other}"))),
        };
        let definition = match map.get("definition").ok_or_else(|| missing("definition"))? {
            Json::Object(definition) => definition.clone(),
            other => return Err(Error::Invalid(format!("definition should be an object but was {other}"))),
        };
        let priority = match map.get("priority") {
            None | Some(Json::Null) => 0,
            Some(value) => value.as_i64().ok_or_else(|| {
                Error::Invalid(format!("priority should be a number, actually was {value}"))
            })?,
        };
        let apply_to = match map.get("apply-to").or_else(|| map.get("apply_to")) {
            None | Some(Json::Null) => Default::default(),
            Some(value) => serde_json::from_value(value.clone()).map_err(|_| {
                Error::Invalid(format!(
                    "apply-to {value} unrecognised; should be 'queues', 'classic_queues', 'quorum_queues', \
                     'streams', 'exchanges' or 'all'"
                ))
            })?,
        };
        let (vhost, name) = (vhost.into(), name.into());
        Ok(Policy { vhost, name, pattern, apply_to, priority, definition, operator })
    }
}

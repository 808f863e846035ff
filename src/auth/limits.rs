//! Limits of users and of vhosts: how much of something there may be. A negative number is no limit.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use crate::error::Error;

/// How many connections.
pub const MAX_CONNECTIONS: &str = "max-connections";
/// How many channels of a user's connections together.
pub const MAX_CHANNELS: &str = "max-channels";
/// How many queues in a vhost.
pub const MAX_QUEUES: &str = "max-queues";

/// What a user can be limited in.
pub const OF_USERS: &[&str] = &[MAX_CONNECTIONS, MAX_CHANNELS];
/// What a vhost can be limited in.
pub const OF_VHOSTS: &[&str] = &[MAX_CONNECTIONS, MAX_QUEUES];

/// Limits by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Limits(BTreeMap<String, i64>);

impl Limits {
    /// Reads limits, of which there are `known` ones.
    ///
    /// # Errors
    /// `Invalid` naming the limit.
    pub fn read(map: &Map<String, Json>, known: &[&str]) -> Result<Limits, Error> {
        let mut limits = Limits::default();
        map.iter().try_for_each(|(name, value)| limits.set(name, value, known))?;
        Ok(limits)
    }

    /// Sets one of them.
    ///
    /// # Errors
    /// `Invalid` naming the limit.
    pub fn set(&mut self, name: &str, value: &Json, known: &[&str]) -> Result<(), Error> {
        if !known.contains(&name) {
            let known = known.join(" or ");
            return Err(Error::Invalid(format!("Unrecognised terms in limits: '{name}' is not {known}")));
        }
        let Some(number) = value.as_i64() else {
            return Err(Error::Invalid(format!("{name} should be a number, actually was {value}")));
        };
        self.0.insert(name.into(), number);
        Ok(())
    }

    /// Takes one away; false if it is not there.
    pub fn clear(&mut self, name: &str) -> bool {
        self.0.remove(name).is_some()
    }

    /// How much there may be; nothing if there is no limit.
    pub fn get(&self, name: &str) -> Option<u64> {
        self.0.get(name).and_then(|&number| u64::try_from(number).ok())
    }

    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As JSON.
    pub fn to_json(&self) -> Map<String, Json> {
        self.0.iter().map(|(name, &number)| (name.clone(), number.into())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn limits_are_numbers_and_negative_ones_are_none() {
        let map = json!({"max-queues": 5, "max-connections": -1});
        let limits = Limits::read(map.as_object().unwrap(), OF_VHOSTS).unwrap();

        assert_eq!((limits.get(MAX_QUEUES), limits.get(MAX_CONNECTIONS)), (Some(5), None));
        assert_eq!(Json::Object(limits.to_json()), map);
    }

    #[test]
    fn what_is_no_limit_is_named() {
        let refused =
            |json: Json| Limits::read(json.as_object().unwrap(), OF_VHOSTS).unwrap_err().to_string();

        assert_eq!(refused(json!({"max-queues": "a"})), "max-queues should be a number, actually was \"a\"");
        assert!(
            refused(json!({"max-channels": 1}))
                .contains("'max-channels' is not max-connections or max-queues")
        );
    }
}

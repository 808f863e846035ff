//! Which families are asked for: all that an endpoint has, or those that `/metrics/detailed` is told.

use fancy_regex::Regex;

use super::Endpoint;

/// The families of `/metrics/detailed`.
pub const FAMILIES: &[&str] = &[
    "alarm_metrics",
    "auth_attempt_metrics",
    "channel_exchange_metrics",
    "channel_metrics",
    "channel_queue_metrics",
    "connection_churn_metrics",
    "connection_coarse_metrics",
    "connection_metrics",
    "exchange_bindings",
    "exchange_metrics",
    "exchange_names",
    "garenne_metrics",
    "node_coarse_metrics",
    "node_metrics",
    "queue_coarse_metrics",
    "queue_consumer_count",
    "queue_delivery_metrics",
    "queue_metrics",
    "vhost_status",
];

/// Families of RabbitMQ's that tell of what Garenne does not have or does not count: they are empty.
const EMPTY: &[&str] = &[
    "channel_process_metrics",
    "channel_queue_exchange_metrics",
    "connection_process_metrics",
    "global",
    "memory",
    "node_persister_metrics",
    "queue_exchange_metrics",
    "ra_metrics",
    "stream_consumer_metrics",
];

/// What is asked for.
#[derive(Debug)]
pub struct Wanted {
    /// None for all.
    families: Option<Vec<String>>,
    /// None for all.
    vhosts: Option<Vec<String>>,
    queues: Option<Regex>,
}

impl Wanted {
    /// Reads a query.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(endpoint: Endpoint, query: &str) -> Result<Wanted, String> {
        if endpoint != Endpoint::Detailed {
            return Ok(Wanted { families: None, vhosts: None, queues: None });
        }
        let pairs: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let all = |name: &str| -> Vec<String> {
            pairs.iter().filter(|(other, _)| other == name).map(|(_, value)| value.clone()).collect()
        };
        let families = all("family");
        if let Some(unknown) = families.iter().find(|f| !FAMILIES.contains(&&***f) && !EMPTY.contains(&&***f))
        {
            return Err(format!("there is no family '{unknown}'; there are {}\n", FAMILIES.join(", ")));
        }
        let vhosts = Some(all("vhost")).filter(|vhosts| !vhosts.is_empty());
        let queues = all("queue").first().map(|text| {
            Regex::new(text)
                .map_err(|error| format!("queue is '{text}', which is no regular expression: {error}\n"))
        });
        Ok(Wanted { families: Some(families), vhosts, queues: queues.transpose()? })
    }

    /// Whether a family is.
    pub fn has(&self, family: &str) -> bool {
        self.families.as_ref().is_none_or(|families| families.iter().any(|other| other == family))
    }

    /// Whether one of these is.
    pub fn has_any(&self, families: &[&str]) -> bool {
        families.iter().any(|family| self.has(family))
    }

    /// Whether it is about a vhost.
    pub fn has_vhost(&self, name: &str) -> bool {
        self.vhosts.as_ref().is_none_or(|vhosts| vhosts.iter().any(|other| other == name))
    }

    /// Whether it is about a queue.
    pub fn has_queue(&self, name: &str) -> bool {
        self.queues.as_ref().is_none_or(|queues| queues.is_match(name).unwrap_or(false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_detailed_metrics_are_chosen_from() {
        let all = Wanted::read(Endpoint::Aggregated, "family=nothing").unwrap();
        assert!(all.has("queue_metrics") && all.has_vhost("v"));

        let some =
            Wanted::read(Endpoint::Detailed, "family=queue_metrics&family=vhost_status&vhost=v&queue=%5Ea")
                .unwrap();
        assert!(some.has("queue_metrics") && !some.has("channel_metrics"));
        assert!(some.has_vhost("v") && !some.has_vhost("/") && some.has_queue("ab") && !some.has_queue("ba"));
    }

    #[test]
    fn what_cannot_be_asked_for_is_named() {
        let refused = |query| Wanted::read(Endpoint::Detailed, query).unwrap_err();

        assert!(refused("family=queu").starts_with("there is no family 'queu'"));
        assert!(refused("queue=(").starts_with("queue is '('"));
    }
}

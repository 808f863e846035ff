//! The plans that command lines stand for.

use amqp::Table;

use super::{Consuming, Declaration, Declare, Disk, Drain, Fill, First, Idle, Publishing, Queues, Run};
use crate::load::{self, Until};
use crate::topology::{Exchange, Shape, Topology};
use crate::{consumer, declare, disk, error, first, idle, producer};

impl Run {
    pub(crate) fn plan(&self) -> error::Result<load::Plan> {
        let Run { target, publishing, consuming, queues, declaration, effort, .. } = self;
        let until = match self.count {
            Some(_) => Until::Published,
            None => Until::Elapsed { warm_up: self.warm_up, duration: self.duration },
        };
        let producers = publishing.options(self.count);
        let is_own = producers.producers > 0;
        Ok(load::Plan {
            mode: "run",
            uri: target.uri.clone(),
            topology: Topology::new(shape(queues, declaration))?,
            consumers: consumer::Options {
                body_bytes: is_own.then_some(publishing.size as u64),
                is_each_latency_noted: publishing.rate.is_some(),
                has_latency: is_own,
                ..consuming.options()
            },
            producers,
            threads: effort.threads.max(1),
            until,
            patience: effort.patience,
            must_keep_queues: self.keep_queues,
            broker: target.broker_pid,
        })
    }
}

impl Fill {
    pub(crate) fn plan(&self) -> error::Result<load::Plan> {
        let Fill { target, publishing, queues, declaration, effort, .. } = self;
        Ok(load::Plan {
            mode: "fill",
            uri: target.uri.clone(),
            topology: Topology::new(shape(queues, declaration))?,
            consumers: consumer::Options::default(),
            producers: publishing.options(Some(self.count)),
            threads: effort.threads.max(1),
            until: Until::Published,
            patience: effort.patience,
            must_keep_queues: true,
            broker: target.broker_pid,
        })
    }
}

impl Drain {
    pub(crate) fn plan(&self) -> error::Result<load::Plan> {
        let Drain { target, consuming, queues, effort, .. } = self;
        let shape = Shape {
            exchange: Exchange::Default,
            queues: queues.queues,
            keys: None,
            bindings: None,
            prefix: queues.queue_prefix.clone(),
            durable: false,
            queue_arguments: Table::new(),
        };
        Ok(load::Plan {
            mode: "drain",
            uri: target.uri.clone(),
            topology: Topology::new(shape)?,
            consumers: consuming.options(),
            producers: producer::Options::default(),
            threads: effort.threads.max(1),
            until: Until::Drained { count: self.count },
            patience: effort.patience,
            must_keep_queues: self.keep_queues,
            broker: target.broker_pid,
        })
    }
}

impl Declare {
    pub(crate) fn plan(&self) -> declare::Plan {
        declare::Plan {
            uri: self.target.uri.clone(),
            queues: self.queues,
            prefix: self.queue_prefix.clone(),
            must_keep_queues: self.keep_queues,
            broker: self.target.broker_pid,
        }
    }
}

impl Idle {
    pub(crate) fn plan(&self) -> idle::Plan {
        idle::Plan {
            uri: self.target.uri.clone(),
            connections: self.connections,
            queues: self.queues.queues.max(1),
            prefix: self.queues.queue_prefix.clone(),
            threads: self.threads.max(1),
            duration: self.duration,
            broker: self.target.broker_pid,
        }
    }
}

impl First {
    pub(crate) fn plan(&self) -> first::Plan {
        first::Plan {
            uri: self.target.uri.clone(),
            queue: (!self.connection_only).then(|| self.queue.clone()),
            patience: self.patience,
        }
    }
}

impl Disk {
    pub(crate) fn plan(&self) -> disk::Plan {
        disk::Plan { folder: self.folder.clone(), size: self.size, duration: self.duration }
    }
}

impl Publishing {
    fn options(&self, count: Option<u64>) -> producer::Options {
        producer::Options {
            producers: self.producers,
            body_bytes: self.size,
            is_persistent: self.persistent,
            is_mandatory: self.mandatory,
            confirm_window: self.confirm_window,
            per_second: self.rate,
            count,
        }
    }
}

impl Consuming {
    fn options(&self) -> consumer::Options {
        consumer::Options {
            consumers: self.consumers,
            ack_every: self.ack_every,
            prefetch: self.prefetch,
            ..consumer::Options::default()
        }
    }
}

fn shape(queues: &Queues, declaration: &Declaration) -> Shape {
    Shape {
        exchange: declaration.exchange,
        queues: queues.queues,
        keys: declaration.keys,
        bindings: declaration.bindings,
        prefix: queues.queue_prefix.clone(),
        durable: declaration.durable_queues,
        queue_arguments: declaration.queue_argument.iter().cloned().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Mode;
    use super::super::tests::parse;
    use super::*;
    use std::time::Duration;

    #[test]
    fn without_a_mode_it_runs_for_a_time() {
        let arguments = parse("amqp://broker --producers 2 --size 1024 --rate 5000 --warm-up 0.5").unwrap();
        assert!(arguments.mode.is_none());

        let plan = arguments.run.plan().unwrap();

        assert_eq!(plan.uri.host, "broker");
        assert_eq!((plan.producers.producers, plan.producers.per_second), (2, Some(5000.0)));
        assert_eq!(plan.consumers.body_bytes, Some(1024));
        let (warm_up, duration) = (Duration::from_millis(500), Duration::from_secs(10));
        assert_eq!(plan.until, Until::Elapsed { warm_up, duration });
    }

    #[test]
    fn a_mode_has_its_own_flags() {
        let Some(Mode::Fill(fill)) = parse("fill amqp://:1 --count 5 --durable-queues").unwrap().mode else {
            panic!("no fill")
        };
        let plan = fill.plan().unwrap();
        assert_eq!((plan.uri.port, plan.until, plan.producers.count), (1, Until::Published, Some(5)));
        assert_eq!(plan.consumers.consumers, 0);

        assert!(parse("fill --count 5 --consumers 2").is_err());
        assert!(parse("--count 5 --duration 3").is_err());
    }
}

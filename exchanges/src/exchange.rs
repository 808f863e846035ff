//! An exchange as it is declared and asked about; what is bound to it lives in the graph.

use crate::error::Error;
use crate::kind::Kind;
use crate::name::Name;
use crate::value::{Arguments, Value};

/// The argument that names where unrouted messages go.
pub(crate) const ALTERNATE: &str = "alternate-exchange";

/// How an exchange is asked for.
#[derive(Clone, Debug)]
pub struct Declaration {
    /// Its type.
    pub kind: Kind,
    /// Whether it outlives the broker.
    pub durable: bool,
    /// Whether it goes when the last binding from it goes.
    pub auto_delete: bool,
    /// Whether clients may not publish to it.
    pub internal: bool,
    /// Arguments, of which `alternate-exchange` means something to every kind.
    pub arguments: Arguments,
    /// Where unrouted messages go if the arguments have no `alternate-exchange`: what a policy says.
    /// Not compared when an exchange is declared again.
    pub alternate: Option<Name>,
}

/// An exchange as people ask about it.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// Its name.
    pub name: Name,
    /// Its type.
    pub kind: Kind,
    /// Whether it outlives the broker.
    pub durable: bool,
    /// Whether it goes when the last binding from it goes.
    pub auto_delete: bool,
    /// Whether clients may not publish to it.
    pub internal: bool,
    /// As it was declared with.
    pub arguments: Arguments,
    /// Where messages go that matched nothing here: by its arguments, else by policy.
    pub alternate: Option<Name>,
}

impl Declaration {
    /// A durable exchange without further ado.
    pub fn durable(kind: Kind) -> Self {
        Self {
            kind,
            durable: true,
            auto_delete: false,
            internal: false,
            arguments: Arguments::default(),
            alternate: None,
        }
    }
}

impl Exchange {
    /// The exchange that a declaration makes.
    pub(crate) fn declared(name: Name, declaration: Declaration) -> Result<Self, Error> {
        let Declaration { kind, durable, auto_delete, internal, arguments, alternate } = declaration;
        if let Some(value) = arguments.get(ALTERNATE.as_bytes())
            && value.as_bytes().is_none()
        {
            return Err(Error::InvalidType { name, field: ALTERNATE, received: value.type_name() });
        }
        let mut exchange = Self { name, kind, durable, auto_delete, internal, arguments, alternate: None };
        exchange.set_alternate(alternate);
        Ok(exchange)
    }

    /// Sets a policy's alternate, which counts only if the arguments have none.
    pub(crate) fn set_alternate(&mut self, alternate: Option<Name>) {
        let argued = self.arguments.bytes(ALTERNATE.as_bytes()).map(Name::from);
        self.alternate = argued.or(alternate);
    }

    /// Refuses a declaration that would make another exchange. The texts are RabbitMQ's.
    pub(crate) fn check_same(&self, declaration: &Declaration) -> Result<(), Error> {
        let mismatch = |field, received, current| {
            Err(Error::Mismatch { name: self.name.clone(), field, received, current })
        };
        if declaration.kind != self.kind {
            let quoted = |kind: Kind| format!("'{}'", kind.name());
            return mismatch("type", quoted(declaration.kind), quoted(self.kind));
        }
        let flags = [
            ("durable", declaration.durable, self.durable),
            ("auto_delete", declaration.auto_delete, self.auto_delete),
            ("internal", declaration.internal, self.internal),
        ];
        for (field, received, current) in flags {
            if received != current {
                return mismatch(field, format!("'{received}'"), format!("'{current}'"));
            }
        }
        let received = declaration.arguments.get(ALTERNATE.as_bytes());
        let current = self.arguments.get(ALTERNATE.as_bytes());
        if received != current {
            // RabbitMQ names the type only where one side has no value at all.
            let is_plain = received.is_some() && current.is_some();
            return mismatch(ALTERNATE, printed(received, is_plain), printed(current, is_plain));
        }
        Ok(())
    }
}

/// An argument as RabbitMQ prints it where two are not the same.
fn printed(value: Option<&Value<'_>>, is_plain: bool) -> String {
    let Some(value) = value else { return "none".to_owned() };
    let text = match value.as_bytes() {
        Some(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        None => value.to_string(),
    };
    if is_plain {
        return format!("'{text}'");
    }
    format!("the value '{text}' of type '{}'", value.type_name())
}

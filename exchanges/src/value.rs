//! Values of headers and arguments, compared by what they mean rather than by how they were sent.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::hash::{Hash, Hasher};

/// A field value (section 4.2.5.5). Borrows its bytes where it can, so that a message's headers are
/// looked at without copying; what a binding keeps is a `Value<'static>`.
///
/// Numbers are equal by value whatever their width or sign, floats without a fraction too; other types equal
/// only their own.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    /// No value. In a headers binding it asks only that the header be there.
    Void,
    /// True or false.
    Bool(bool),
    /// A signed integer of any width.
    Int(i64),
    /// An unsigned integer of any width.
    Uint(u64),
    /// A float of either width. All NaN are one value, and the two zeros are one.
    Float(f64),
    /// A string or byte array, long or short.
    Bytes(Cow<'a, [u8]>),
    /// Seconds since 1970.
    Timestamp(u64),
    /// Digits after the point, and the number without its point.
    Decimal(u8, u32),
    /// Values in order.
    Array(Vec<Value<'a>>),
    /// Values by name.
    Table(Table<'a>),
}

/// The arguments of a declaration or a binding, kept.
pub type Arguments = Table<'static>;

/// Values by name, in no particular order: two tables are equal if they hold the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Table<'a> {
    // Sorted by name, each name once, so that equal tables are the same list.
    entries: Vec<(Cow<'a, [u8]>, Value<'a>)>,
}

impl<'a> Value<'a> {
    /// A string.
    pub fn text(text: &'a str) -> Self {
        Self::Bytes(Cow::Borrowed(text.as_bytes()))
    }

    /// The bytes, if this is a string or byte array.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The type as RabbitMQ's error texts name it, as far as widths are still known.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Void => "void",
            Self::Bool(_) => "bool",
            Self::Int(_) => "signedint",
            Self::Uint(_) => "unsignedint",
            Self::Float(_) => "double",
            Self::Bytes(_) => "longstr",
            Self::Timestamp(_) => "timestamp",
            Self::Decimal(..) => "decimal",
            Self::Array(_) => "array",
            Self::Table(_) => "table",
        }
    }

    /// The same value with bytes of its own.
    pub fn into_owned(self) -> Value<'static> {
        match self {
            Self::Void => Value::Void,
            Self::Bool(value) => Value::Bool(value),
            Self::Int(value) => Value::Int(value),
            Self::Uint(value) => Value::Uint(value),
            Self::Float(value) => Value::Float(value),
            Self::Bytes(value) => Value::Bytes(Cow::Owned(value.into_owned())),
            Self::Timestamp(value) => Value::Timestamp(value),
            Self::Decimal(scale, digits) => Value::Decimal(scale, digits),
            Self::Array(values) => Value::Array(values.into_iter().map(Value::into_owned).collect()),
            Self::Table(table) => Value::Table(table.into_owned()),
        }
    }

    fn as_integer(&self) -> Option<i128> {
        match self {
            Self::Int(value) => Some((*value).into()),
            Self::Uint(value) => Some((*value).into()),
            // Beyond that not every integer has a float.
            Self::Float(value) if value.fract() == 0.0 && value.abs() <= EXACT_MAX => Some(*value as i128),
            _ => None,
        }
    }
}

/// Integers up to here are floats, too: 2^53.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

impl PartialEq for Value<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Void, Self::Void) => true,
            (Self::Bool(one), Self::Bool(two)) => one == two,
            (Self::Float(one), Self::Float(two)) => float_bits(*one) == float_bits(*two),
            (
                Self::Int(_) | Self::Uint(_) | Self::Float(_),
                Self::Int(_) | Self::Uint(_) | Self::Float(_),
            ) => self.as_integer().is_some() && self.as_integer() == other.as_integer(),
            (Self::Bytes(one), Self::Bytes(two)) => one == two,
            (Self::Timestamp(one), Self::Timestamp(two)) => one == two,
            (Self::Decimal(scale, digits), Self::Decimal(other_scale, other_digits)) => {
                (scale, digits) == (other_scale, other_digits)
            }
            (Self::Array(one), Self::Array(two)) => one == two,
            (Self::Table(one), Self::Table(two)) => one == two,
            _ => false,
        }
    }
}

impl Eq for Value<'_> {}

// What is equal must hash alike, so integers hash as one wide type and floats by canonical bits.
impl Hash for Value<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Void => state.write_u8(0),
            Self::Bool(value) => (1u8, value).hash(state),
            Self::Int(_) | Self::Uint(_) | Self::Float(_) if self.as_integer().is_some() => {
                (2u8, self.as_integer()).hash(state);
            }
            Self::Int(_) | Self::Uint(_) => unreachable!("an integer is one"),
            Self::Float(value) => (3u8, float_bits(*value)).hash(state),
            Self::Bytes(value) => (4u8, value).hash(state),
            Self::Timestamp(value) => (5u8, value).hash(state),
            Self::Decimal(scale, digits) => (6u8, scale, digits).hash(state),
            Self::Array(values) => (7u8, values).hash(state),
            Self::Table(table) => (8u8, table).hash(state),
        }
    }
}

/// As Erlang prints a term, which is what RabbitMQ's error texts show.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Void => f.write_str("undefined"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Uint(value) | Self::Timestamp(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value:?}"),
            Self::Bytes(value) => print_binary(value, f),
            Self::Decimal(scale, digits) => write!(f, "{{{scale},{digits}}}"),
            Self::Array(values) => {
                f.write_str("[")?;
                for (place, value) in values.iter().enumerate() {
                    let comma = if place == 0 { "" } else { "," };
                    write!(f, "{comma}{{{},{value}}}", value.type_name())?;
                }
                f.write_str("]")
            }
            Self::Table(table) => {
                f.write_str("[")?;
                for (place, (name, value)) in table.iter().enumerate() {
                    let comma = if place == 0 { "" } else { "," };
                    f.write_str(comma)?;
                    f.write_str("{")?;
                    print_binary(name, f)?;
                    write!(f, ",{},{value}}}", value.type_name())?;
                }
                f.write_str("]")
            }
        }
    }
}

impl<'a> Table<'a> {
    /// The value of that name.
    pub fn get(&self, name: &[u8]) -> Option<&Value<'a>> {
        let place = self.entries.binary_search_by(|(other, _)| other.as_ref().cmp(name)).ok()?;
        Some(&self.entries[place].1)
    }

    /// The string of that name; nothing if it is missing or of another type.
    pub fn bytes(&self, name: &[u8]) -> Option<&[u8]> {
        self.get(name)?.as_bytes()
    }

    /// Names and values, sorted by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], &Value<'a>)> {
        self.entries.iter().map(|(name, value)| (name.as_ref(), value))
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The same table with bytes of its own.
    pub fn into_owned(self) -> Table<'static> {
        let own =
            |(name, value): (Cow<'_, [u8]>, Value<'_>)| (Cow::Owned(name.into_owned()), value.into_owned());
        Table { entries: self.entries.into_iter().map(own).collect() }
    }
}

/// A name that comes twice keeps its first value, as RabbitMQ's lookups do.
impl<'a, N: Into<Cow<'a, [u8]>>> FromIterator<(N, Value<'a>)> for Table<'a> {
    fn from_iter<I: IntoIterator<Item = (N, Value<'a>)>>(values: I) -> Self {
        let mut entries: Vec<(Cow<'a, [u8]>, Value<'a>)> =
            values.into_iter().map(|(name, value)| (name.into(), value)).collect();
        entries.sort_by(|(one, _), (two, _)| one.cmp(two));
        entries.dedup_by(|(later, _), (first, _)| later == first);
        Self { entries }
    }
}

/// A binary as Erlang prints it: as text if every byte is a character of Latin 1 that can be seen, else as
/// numbers.
fn print_binary(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let is_seen = |byte: &u8| matches!(byte, 8..=13 | 27 | 32..=126 | 160..=255);
    if bytes.is_empty() {
        return f.write_str("<<>>");
    }
    if !bytes.iter().all(is_seen) {
        for (place, byte) in bytes.iter().enumerate() {
            write!(f, "{}{byte}", if place == 0 { "<<" } else { "," })?;
        }
        return f.write_str(">>");
    }
    f.write_str("<<\"")?;
    for character in String::from_utf8_lossy(bytes).chars() {
        match character {
            '"' => f.write_str("\\\""),
            '\\' => f.write_str("\\\\"),
            '\x08' => f.write_str("\\b"),
            '\t' => f.write_str("\\t"),
            '\n' => f.write_str("\\n"),
            '\x0b' => f.write_str("\\v"),
            '\x0c' => f.write_str("\\f"),
            '\r' => f.write_str("\\r"),
            '\x1b' => f.write_str("\\e"),
            other => f.write_char(other),
        }?;
    }
    f.write_str("\">>")
}

fn float_bits(value: f64) -> u64 {
    if value.is_nan() {
        f64::NAN.to_bits()
    } else if value == 0.0 {
        0
    } else {
        value.to_bits()
    }
}

#[cfg(test)]
mod tests {
    use hashbrown::HashSet;

    use super::*;

    #[test]
    fn integers_are_equal_by_value_whatever_their_width() {
        assert_eq!(Value::Int(5), Value::Uint(5));
        assert_ne!(Value::Int(-1), Value::Uint(u64::MAX));
        assert_eq!(Value::Int(5), Value::Float(5.0));
        assert_ne!(Value::Int(5), Value::Float(5.5));
        assert_ne!(Value::Uint(5), Value::Timestamp(5));
    }

    #[test]
    fn equal_values_hash_alike() {
        let set: HashSet<Value> = HashSet::from([Value::Int(5), Value::Float(0.0), Value::Float(f64::NAN)]);

        assert!(set.contains(&Value::Uint(5)));
        assert!(set.contains(&Value::Float(-0.0)));
        assert!(set.contains(&Value::Float(-f64::NAN)));
    }

    #[test]
    fn tables_are_equal_in_any_order_also_nested() {
        let inner = |names: [&'static str; 2]| {
            Value::Table(names.map(|name| (name.as_bytes(), Value::Void)).into_iter().collect())
        };
        let one: Table = [(b"a".as_slice(), Value::Int(1)), (b"b", inner(["x", "y"]))].into_iter().collect();
        let two: Table = [(b"b".as_slice(), inner(["y", "x"])), (b"a", Value::Uint(1))].into_iter().collect();

        assert_eq!(one, two);
    }

    #[test]
    fn a_name_that_comes_twice_keeps_its_first_value() {
        let table: Table = [(b"a".as_slice(), Value::Int(1)), (b"a", Value::Int(2))].into_iter().collect();

        assert_eq!(table.len(), 1);
        assert_eq!(table.get(b"a"), Some(&Value::Int(1)));
    }

    #[test]
    fn values_print_as_rabbitmq_prints_them() {
        let list = Value::Array(vec![Value::text("a"), Value::Int(1)]);

        assert_eq!(Value::text("most").to_string(), r#"<<"most">>"#);
        assert_eq!(Value::text("").to_string(), "<<>>");
        assert_eq!(Value::text("it's \"é\"\\\n\x1b").to_string(), r#"<<"it's \"é\"\\\n\e">>"#);
        assert_eq!(Value::text("ł\x7f").to_string(), "<<197,130,127>>");
        assert_eq!(list.to_string(), r#"[{longstr,<<"a">>},{signedint,1}]"#);
    }
}

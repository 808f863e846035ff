//! Field tables (specification 4.2.5.5): values, typed getters, and a decoder that keeps order.
//!
//! The type letters are RabbitMQ's, not the specification's (they differ in `s`, `l` and `L`).
//! Integers of any width become one kind of value, since no rule of the broker depends on the width.
//! What a client sent as message headers is kept as bytes and never passes through here on its way out.

use bytes::BufMut;

use crate::limits::{SHORT_STRING_BYTES_MAX, TABLE_DEPTH_MAX};

/// A value of a table.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `V`: present without a value.
    Void,
    /// `t`
    Bool(bool),
    /// `b B s u I i l L`: an integer of any width.
    Int(i64),
    /// `f d`
    Float(f64),
    /// `S x`: a long string, which need not be text.
    Bytes(Vec<u8>),
    /// `T`: seconds since 1970.
    Timestamp(u64),
    /// `D`: scale and unscaled value.
    Decimal(u8, i32),
    /// `A`
    Array(Vec<Value>),
    /// `F`
    Table(Table),
}

impl Value {
    /// A long string.
    pub fn text(text: impl Into<String>) -> Value {
        Value::Bytes(text.into().into_bytes())
    }

    /// The text of a long string that is UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Bytes(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }
}

/// A table: names and values in the order they came. A name should stand once; the first one counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table(pub Vec<(String, Value)>);

impl Table {
    /// A table without entries.
    pub fn new() -> Self {
        Table(Vec::new())
    }

    /// The value of `name`, if there is one.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v)
    }

    /// The text of `name`, if it is a long string of UTF-8.
    pub fn get_str(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(Value::as_str)
    }

    /// Whether `name` is there and true.
    pub fn is_true(&self, name: &str) -> bool {
        matches!(self.get(name), Some(Value::Bool(true)))
    }

    /// Adds an entry at the end.
    pub fn insert(&mut self, name: impl Into<String>, value: Value) {
        self.0.push((name.into(), value));
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The entries in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(n, v)| (n.as_str(), v))
    }

    /// Reads a table with its length in front; the bytes must end with it.
    pub fn decode(bytes: &[u8]) -> Result<Table, Malformed> {
        let mut reader = Reader { bytes };
        let table = reader.table(0)?;
        if reader.bytes.is_empty() { Ok(table) } else { Err(Malformed("bytes after the table")) }
    }

    /// Appends the table with its length in front. Names are cut at 255 bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let at = out.len();
        out.put_u32(0);
        for (name, value) in &self.0 {
            let name = &name.as_bytes()[..name.len().min(SHORT_STRING_BYTES_MAX)];
            out.put_u8(name.len() as u8);
            out.put_slice(name);
            value.encode(out);
        }
        let len = (out.len() - at - 4) as u32;
        out[at..at + 4].copy_from_slice(&len.to_be_bytes());
    }
}

impl<N: Into<String>> FromIterator<(N, Value)> for Table {
    fn from_iter<I: IntoIterator<Item = (N, Value)>>(entries: I) -> Self {
        Table(entries.into_iter().map(|(n, v)| (n.into(), v)).collect())
    }
}

impl Value {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Value::Void => out.put_u8(b'V'),
            Value::Bool(b) => {
                out.put_u8(b't');
                out.put_u8(u8::from(*b));
            }
            Value::Int(i) => {
                out.put_u8(b'l');
                out.put_i64(*i);
            }
            Value::Float(f) => {
                out.put_u8(b'd');
                out.put_f64(*f);
            }
            Value::Bytes(bytes) => {
                out.put_u8(b'S');
                out.put_u32(bytes.len() as u32);
                out.put_slice(bytes);
            }
            Value::Timestamp(seconds) => {
                out.put_u8(b'T');
                out.put_u64(*seconds);
            }
            Value::Decimal(scale, value) => {
                out.put_u8(b'D');
                out.put_u8(*scale);
                out.put_i32(*value);
            }
            Value::Array(values) => {
                out.put_u8(b'A');
                let at = out.len();
                out.put_u32(0);
                values.iter().for_each(|v| v.encode(out));
                let len = (out.len() - at - 4) as u32;
                out[at..at + 4].copy_from_slice(&len.to_be_bytes());
            }
            Value::Table(table) => {
                out.put_u8(b'F');
                table.encode(out);
            }
        }
    }
}

/// Bytes that are no table: what was wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Malformed {}

/// Checks a table with its length in front without building it: lengths, type letters, depth. Returns
/// the bytes it takes.
pub fn check(bytes: &[u8]) -> Result<usize, Malformed> {
    let mut reader = Reader { bytes };
    reader.skip_table(0)?;
    Ok(bytes.len() - reader.bytes.len())
}

/// The entries of a table that [`check`] has seen: each name, and its value as the bytes it came as,
/// type letter first.
pub fn raw_entries(table: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut reader = Reader { bytes: table.get(4..).unwrap_or_default() };
    std::iter::from_fn(move || {
        let name = reader.short_string().ok()?;
        let before = reader.bytes;
        reader.skip_value(0).ok()?;
        Some((name, &before[..before.len() - reader.bytes.len()]))
    })
}

/// The values of an array as [`raw_entries`] shows it, each as the bytes it came as; none if it is no array.
pub fn raw_items(array: &[u8]) -> impl Iterator<Item = &[u8]> {
    let is_array = array.first() == Some(&b'A');
    let mut reader = Reader { bytes: array.get(5..).filter(|_| is_array).unwrap_or_default() };
    std::iter::from_fn(move || {
        let before = reader.bytes;
        reader.skip_value(0).ok()?;
        Some(&before[..before.len() - reader.bytes.len()])
    })
}

/// An array of values as [`raw_items`] shows them, type letter first.
pub fn array_of_raw<'a>(items: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut out = vec![b'A', 0, 0, 0, 0];
    items.into_iter().for_each(|item| out.put_slice(item));
    let len = (out.len() - 5) as u32;
    out[1..5].copy_from_slice(&len.to_be_bytes());
    out
}

/// The same table without the entry `name`.
pub fn without(table: &[u8], name: &[u8]) -> Vec<u8> {
    from_raw(raw_entries(table).filter(|(other, _)| *other != name))
}

/// A table, with its length in front, of entries as [`raw_entries`] shows them. Names are at most 255 bytes.
pub fn from_raw<'a>(entries: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Vec<u8> {
    let mut out = vec![0; 4];
    for (name, value) in entries {
        out.put_u8(name.len() as u8);
        out.put_slice(name);
        out.put_slice(value);
    }
    let len = (out.len() - 4) as u32;
    out[..4].copy_from_slice(&len.to_be_bytes());
    out
}

/// A value as it travels, type letter first.
pub fn encode_value(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    value.encode(&mut out);
    out
}

/// Reads a value as [`raw_entries`] shows it.
pub fn decode_value(raw: &[u8]) -> Result<Value, Malformed> {
    Reader { bytes: raw }.value(0)
}

/// A cursor over the bytes of a table, a property list or a method's arguments.
pub(crate) struct Reader<'a> {
    pub(crate) bytes: &'a [u8],
}

const SHORT: Malformed = Malformed("a field runs past its end");
const DEEP: Malformed = Malformed("tables are nested too deep");

impl<'a> Reader<'a> {
    pub(crate) fn take(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.bytes.split_at_checked(n).ok_or(SHORT)?;
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.bytes.split_first_chunk().ok_or(SHORT)?;
        self.bytes = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn short_string(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.u8()?;
        self.take(len.into())
    }

    pub(crate) fn long_string(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.u32()?;
        self.take(len as usize)
    }

    fn name(&mut self) -> Result<String, Malformed> {
        let name = self.short_string()?;
        Ok(String::from_utf8_lossy(name).into_owned())
    }

    fn table(&mut self, depth: usize) -> Result<Table, Malformed> {
        let mut inner = Reader { bytes: self.long_string()? };
        let mut entries = Vec::new();
        while !inner.bytes.is_empty() {
            let name = inner.name()?;
            entries.push((name, inner.value(depth)?));
        }
        Ok(Table(entries))
    }

    fn value(&mut self, depth: usize) -> Result<Value, Malformed> {
        if depth >= TABLE_DEPTH_MAX {
            return Err(DEEP);
        }
        Ok(match self.u8()? {
            b'V' => Value::Void,
            b't' => Value::Bool(self.u8()? != 0),
            b'b' => Value::Int(i64::from(self.u8()? as i8)),
            b'B' => Value::Int(i64::from(self.u8()?)),
            b's' => Value::Int(i64::from(self.u16()? as i16)),
            b'u' => Value::Int(i64::from(self.u16()?)),
            b'I' => Value::Int(i64::from(self.u32()? as i32)),
            b'i' => Value::Int(i64::from(self.u32()?)),
            b'l' | b'L' => Value::Int(self.u64()? as i64),
            b'f' => Value::Float(f64::from(f32::from_bits(self.u32()?))),
            b'd' => Value::Float(f64::from_bits(self.u64()?)),
            b'S' | b'x' => Value::Bytes(self.long_string()?.to_vec()),
            b'T' => Value::Timestamp(self.u64()?),
            b'D' => Value::Decimal(self.u8()?, self.u32()? as i32),
            b'A' => {
                let mut inner = Reader { bytes: self.long_string()? };
                let mut values = Vec::new();
                while !inner.bytes.is_empty() {
                    values.push(inner.value(depth + 1)?);
                }
                Value::Array(values)
            }
            b'F' => Value::Table(self.table(depth + 1)?),
            _ => return Err(Malformed("unknown field type")),
        })
    }

    fn skip_table(&mut self, depth: usize) -> Result<(), Malformed> {
        let mut inner = Reader { bytes: self.long_string()? };
        while !inner.bytes.is_empty() {
            inner.short_string()?;
            inner.skip_value(depth)?;
        }
        Ok(())
    }

    fn skip_value(&mut self, depth: usize) -> Result<(), Malformed> {
        if depth >= TABLE_DEPTH_MAX {
            return Err(DEEP);
        }
        let fixed = match self.u8()? {
            b'V' => 0,
            b't' | b'b' | b'B' => 1,
            b's' | b'u' => 2,
            b'I' | b'i' | b'f' => 4,
            b'D' => 5,
            b'l' | b'L' | b'd' | b'T' => 8,
            b'S' | b'x' => return self.long_string().map(drop),
            b'F' => return self.skip_table(depth + 1),
            b'A' => {
                let mut inner = Reader { bytes: self.long_string()? };
                while !inner.bytes.is_empty() {
                    inner.skip_value(depth + 1)?;
                }
                return Ok(());
            }
            _ => return Err(Malformed("unknown field type")),
        };
        self.take(fixed).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bytes of tables within tables, built without building (and dropping) the tables themselves.
    fn nested(depth: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for level in (0..depth).rev() {
            bytes.put_u32((level * 7) as u32);
            if level > 0 {
                bytes.put_slice(b"\x01tF");
            }
        }
        bytes
    }

    #[test]
    fn two_hundred_levels_are_read_and_twenty_thousand_are_refused() {
        assert!(Table::decode(&nested(200)).is_ok());
        assert!(check(&nested(200)).is_ok());

        assert_eq!(check(&nested(20_000)), Err(DEEP));
        assert_eq!(Table::decode(&nested(20_000)), Err(DEEP));
    }

    #[test]
    fn a_length_past_the_end_is_refused() {
        assert_eq!(Table::decode(&[0, 0, 0, 9, 1, b'a', b'V']), Err(SHORT));
        assert_eq!(check(&[0, 0, 0, 3, 1, b'a', b'?']), Err(Malformed("unknown field type")));
    }

    #[test]
    fn an_entry_can_be_taken_out_without_touching_the_others() {
        let entries = [("a", Value::Int(1)), ("b", Value::text("x")), ("c", Value::Void)];
        let mut bytes = Vec::new();
        Table::from_iter(entries.clone()).encode(&mut bytes);

        let left = without(&bytes, b"b");

        let expected = Table::from_iter([entries[0].clone(), entries[2].clone()]);
        assert_eq!(Table::decode(&left), Ok(expected));
        let raw = raw_entries(&bytes).find(|(name, _)| *name == b"b").unwrap().1;
        assert_eq!(decode_value(raw), Ok(Value::text("x")));
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Void),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            (-1e9..1e9f64).prop_map(Value::Float),
            proptest::collection::vec(any::<u8>(), 0..20).prop_map(Value::Bytes),
            any::<u64>().prop_map(Value::Timestamp),
            any::<(u8, i32)>().prop_map(|(s, v)| Value::Decimal(s, v)),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                proptest::collection::vec(("[a-z]{1,8}", inner), 0..4).prop_map(|e| Value::Table(Table(e))),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_table_is_read_as_it_was_written(
            entries in proptest::collection::vec(("[a-z]{1,8}", value()), 0..6)
        ) {
            let table = Table(entries);
            let mut bytes = Vec::new();
            table.encode(&mut bytes);

            prop_assert_eq!(check(&bytes), Ok(bytes.len()));
            prop_assert_eq!(Table::decode(&bytes), Ok(table));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(check(&bytes) == Ok(bytes.len()), Table::decode(&bytes).is_ok());
        }
    }
}

//! A thing as it is described in JSON, of which only the columns that were asked for are filled in.

use serde_json::{Map, Value as Json};

/// Which columns are wanted, `message_stats.publish` among them; all if nobody said.
#[derive(Clone, Debug, Default)]
pub struct Columns(Option<Vec<String>>);

impl Columns {
    /// Reads names with commas between.
    pub fn read(text: Option<&str>) -> Columns {
        let names = text.map(|text| text.split(',').map(String::from).collect::<Vec<_>>());
        Columns(names.filter(|names| names.iter().any(|name| !name.is_empty())))
    }

    /// All of one name.
    pub fn only(name: &str) -> Columns {
        Columns(Some(vec![name.into()]))
    }

    fn wants(&self, key: &str) -> bool {
        let is_this = |name: &String| name == key || name.split('.').next() == Some(key);
        self.0.as_ref().is_none_or(|names| names.iter().any(is_this))
    }

    /// What of an object was asked for.
    pub fn of(&self, whole: Json) -> Json {
        let Json::Object(mut map) = whole else { return whole };
        map.retain(|key, _| self.wants(key));
        Json::Object(self.cut(map))
    }

    /// What of an object was asked for, down to the last dot.
    fn cut(&self, whole: Map<String, Json>) -> Map<String, Json> {
        let Some(names) = self.0.as_ref().filter(|names| names.iter().any(|name| name.contains('.'))) else {
            return whole;
        };
        let mut cut = Map::new();
        for name in names {
            let path: Vec<&str> = name.split('.').collect();
            if let Some(value) = look(&whole, &path) {
                put(&mut cut, &path, value.clone());
            }
        }
        cut
    }
}

fn look<'a>(map: &'a Map<String, Json>, path: &[&str]) -> Option<&'a Json> {
    let (first, rest) = path.split_first()?;
    let value = map.get(*first)?;
    if rest.is_empty() { Some(value) } else { look(value.as_object()?, rest) }
}

fn put(map: &mut Map<String, Json>, path: &[&str], value: Json) {
    match path {
        [] => {}
        [last] => drop(map.insert((*last).into(), value)),
        [first, rest @ ..] => {
            let inner = map.entry(*first).or_insert_with(|| Json::Object(Map::new()));
            if let Json::Object(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}

/// A description that is being filled in.
#[derive(Debug)]
pub struct Sheet<'a> {
    columns: &'a Columns,
    map: Map<String, Json>,
}

impl<'a> Sheet<'a> {
    /// An empty one.
    pub fn new(columns: &'a Columns) -> Sheet<'a> {
        Sheet { columns, map: Map::new() }
    }

    /// Fills in a column.
    pub fn put(&mut self, key: &str, value: impl Into<Json>) {
        if self.columns.wants(key) {
            self.map.insert(key.into(), value.into());
        }
    }

    /// Fills in a column that takes work to find out.
    pub fn with(&mut self, key: &str, value: impl FnOnce() -> Json) {
        if self.columns.wants(key) {
            self.map.insert(key.into(), value());
        }
    }

    /// Fills in the columns that another place describes.
    pub fn extend(&mut self, columns: Map<String, Json>) {
        columns.into_iter().for_each(|(key, value)| self.put(&key, value));
    }

    /// Whether one of these columns is wanted.
    pub fn wants(&self, keys: &[&str]) -> bool {
        keys.iter().any(|key| self.columns.wants(key))
    }

    /// What was filled in.
    pub fn done(self) -> Json {
        Json::Object(self.columns.cut(self.map))
    }
}

/// A value deep in a description, by names with dots between.
pub fn deep<'a>(value: &'a Json, path: &str) -> Option<&'a Json> {
    let path: Vec<&str> = path.split('.').collect();
    look(value.as_object()?, &path)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_wanted_columns_are_filled_in_down_to_the_last_dot() {
        let columns = Columns::read(Some("name,message_stats.publish_details.rate"));
        let mut sheet = Sheet::new(&columns);

        sheet.put("name", "q");
        sheet.with("memory", || panic!("nobody asked"));
        sheet.put("message_stats", json!({"publish": 7, "publish_details": {"rate": 1.5}}));

        assert_eq!(sheet.done(), json!({"name": "q", "message_stats": {"publish_details": {"rate": 1.5}}}));
    }

    #[test]
    fn without_columns_everything_is_filled_in() {
        let columns = Columns::read(None);
        let mut sheet = Sheet::new(&columns);

        sheet.put("name", "q");

        assert!(sheet.wants(&["anything"]));
        assert_eq!(sheet.done(), json!({"name": "q"}));
    }
}

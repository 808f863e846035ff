//! Lists: which of the things are wanted, in which order, and which page of them.
//!
//! Only what is shown is described; what is sorted by is described for all. A page is cut out without ordering what
//! is on other pages.

use std::cmp::Ordering;

use fancy_regex::{Regex, RegexBuilder};
use serde_json::{Value as Json, json};

use super::answer::{Answer, Items};
use super::call::Call;
use super::error::Error;
use super::sheet::{Columns, Sheet, deep};

/// So many things are on a page if nobody says, and at most.
const PAGE_SIZE: usize = 100;
const PAGE_SIZE_MAX: usize = 500;

/// How far a regular expression looks before it gives up, in steps.
const REGEX_STEPS_MAX: usize = 100_000;

/// Something that is listed.
pub trait Item: Send + 'static {
    /// What it is found by: `vhost` first where names are not unique.
    fn key(&self) -> (&str, &str);

    /// Fills in what is known of it.
    fn describe(&self, sheet: &mut Sheet<'_>);
}

/// Answers with one thing.
pub fn one(call: &Call, item: &impl Item) -> Result<Answer, Error> {
    let columns = Columns::read(call.query("columns"));
    Ok(Answer::Json(described(item, &columns)))
}

/// Answers with all things: RabbitMQ has no pages of these.
///
/// # Errors
/// None; as the others.
pub fn whole<T: Item>(call: &Call, mut items: Vec<T>) -> Result<Answer, Error> {
    let columns = Columns::read(call.query("columns"));
    let window = 0..items.len();
    order(call, &mut items, window)?;
    Ok(Answer::List { items: all_described(items, columns), around: None })
}

/// Answers with things that are in the order of their keys already: if a page of that is wanted, it is all that is
/// looked at. `page` gives so many of them, behind so many others.
///
/// # Errors
/// Those of [`all`].
pub fn ordered<T: Item>(
    call: &Call,
    total: usize,
    page: impl FnOnce(usize, usize) -> Vec<T>,
) -> Result<Answer, Error> {
    let is_given = |name| call.query(name).is_some_and(|value| !value.is_empty());
    match Page::read(call)? {
        Some(wanted) if !["name", "sort", "sort_reverse"].into_iter().any(is_given) => {
            let window = wanted.window(total);
            wanted.check(&window, total)?;
            let items = page(window.start, window.len());
            let columns = Columns::read(call.query("columns"));
            Ok(wanted.answer(items, columns, total, total))
        }
        _ => all(call, page(0, usize::MAX)),
    }
}

/// Answers with things, as the request wants them.
///
/// # Errors
/// `BadRequest`: a page that is none, a name that is no regular expression, a column that cannot be sorted by.
pub fn all<T: Item>(call: &Call, mut items: Vec<T>) -> Result<Answer, Error> {
    let columns = Columns::read(call.query("columns"));
    let total = items.len();
    let page = Page::read(call)?;
    if let Some(filter) = Filter::read(call)? {
        items.retain(|item| filter.fits(item.key().1));
    }
    let filtered = items.len();
    let window = page.as_ref().map_or(0..filtered, |page| page.window(filtered));
    page.as_ref().map_or(Ok(()), |page| page.check(&window, filtered))?;
    order(call, &mut items, window.clone())?;
    items.truncate(window.end);
    items.drain(..window.start);
    Ok(match page {
        Some(page) => page.answer(items, columns, filtered, total),
        None => Answer::List { items: all_described(items, columns), around: None },
    })
}

fn all_described<T: Item>(items: Vec<T>, columns: Columns) -> Items {
    Box::new(items.into_iter().map(move |item| described(&item, &columns)))
}

fn described(item: &impl Item, columns: &Columns) -> Json {
    let mut sheet = Sheet::new(columns);
    item.describe(&mut sheet);
    sheet.done()
}

/// Puts things into order, so far as they are shown.
fn order<T: Item>(call: &Call, items: &mut Vec<T>, window: std::ops::Range<usize>) -> Result<(), Error> {
    let is_reverse = call.is_true("sort_reverse");
    let Some(column) = call.query("sort").filter(|column| !column.is_empty()) else {
        let by_key = |a: &T, b: &T| a.key().cmp(&b.key());
        cut_sorted(items, window, move |a, b| if is_reverse { by_key(b, a) } else { by_key(a, b) });
        return Ok(());
    };
    let only = Columns::only(column);
    let mut keyed: Vec<(Json, T)> = items
        .drain(..)
        .map(|item| (deep(&described(&item, &only), column).cloned().unwrap_or(Json::Null), item))
        .collect();
    let by = move |a: &(Json, T), b: &(Json, T)| compare(&a.0, &b.0).then_with(|| a.1.key().cmp(&b.1.key()));
    cut_sorted(&mut keyed, window, move |a, b| if is_reverse { by(b, a) } else { by(a, b) });
    items.extend(keyed.into_iter().map(|(_, item)| item));
    Ok(())
}

/// Sorts what is in the window to where it belongs; the rest stays in any order around it.
fn cut_sorted<T>(items: &mut [T], window: std::ops::Range<usize>, by: impl Fn(&T, &T) -> Ordering) {
    if window.is_empty() {
        return;
    }
    if window.end < items.len() {
        items.select_nth_unstable_by(window.end, &by);
    }
    if window.start > 0 {
        items[..window.end].select_nth_unstable_by(window.start, &by);
    }
    items[window].sort_by(&by);
}

/// Numbers before texts; what has no such column stands first.
fn compare(a: &Json, b: &Json) -> Ordering {
    let rank = |value: &Json| match value {
        Json::Null => 0,
        Json::Bool(_) => 1,
        Json::Number(_) => 2,
        Json::String(_) => 3,
        Json::Array(_) | Json::Object(_) => 4,
    };
    match (a, b) {
        (Json::Number(a), Json::Number(b)) => a.as_f64().unwrap_or(0.0).total_cmp(&b.as_f64().unwrap_or(0.0)),
        (Json::String(a), Json::String(b)) => a.cmp(b),
        (Json::Bool(a), Json::Bool(b)) => a.cmp(b),
        _ => rank(a).cmp(&rank(b)),
    }
}

/// A page of a list.
struct Page {
    number: usize,
    size: usize,
}

impl Page {
    fn read(call: &Call) -> Result<Option<Page>, Error> {
        let invalid = || Error::BadRequest("Pagination parameters are invalid".into());
        let number = |name| match call.query(name).filter(|text| !text.is_empty()) {
            None => Ok(None),
            Some(text) => text.parse::<i64>().map(Some).map_err(|_| invalid()),
        };
        let (page, size) = (number("page")?, number("page_size")?);
        let Some(page) = page else { return Ok(None) };
        let is_page = page >= 1 && size.is_none_or(|size| (1..=PAGE_SIZE_MAX as i64).contains(&size));
        if !is_page {
            let size = size.map_or("undefined".into(), |size| size.to_string());
            let text = format!("Invalid pagination parameters: page number {page}, page size {size}");
            return Err(Error::Wrong("invalid_pagination_parameters", text));
        }
        Ok(Some(Page { number: page as usize, size: size.map_or(PAGE_SIZE, |size| size as usize) }))
    }

    /// Whether there is such a page of so many things.
    fn check(&self, window: &std::ops::Range<usize>, filtered: usize) -> Result<(), Error> {
        let Page { number, size } = *self;
        if window.is_empty() && number > 1 {
            let text = format!("Page out of range, page: {number} page size: {size}, len: {filtered}");
            return Err(Error::Wrong("page_out_of_range", text));
        }
        Ok(())
    }

    /// The things on it, and how many there are.
    fn answer<T: Item>(&self, items: Vec<T>, columns: Columns, filtered: usize, total: usize) -> Answer {
        let around = json!({
            "filtered_count": filtered,
            "item_count": items.len(),
            "page": self.number,
            "page_count": self.count(filtered),
            "page_size": self.size,
            "total_count": total,
        });
        Answer::List { items: all_described(items, columns), around: Some(around) }
    }

    fn window(&self, total: usize) -> std::ops::Range<usize> {
        let start = (self.number - 1).saturating_mul(self.size).min(total);
        start..(start + self.size).min(total)
    }

    fn count(&self, total: usize) -> usize {
        total.div_ceil(self.size)
    }
}

/// Which names are wanted.
enum Filter {
    Contains(String),
    Fits(Box<Regex>),
}

impl Filter {
    fn read(call: &Call) -> Result<Option<Filter>, Error> {
        let Some(name) = call.query("name").filter(|name| !name.is_empty()) else { return Ok(None) };
        if call.query("page").is_none() {
            // Only pages are filtered, as in RabbitMQ.
            return Ok(None);
        }
        if !call.is_true("use_regex") {
            return Ok(Some(Filter::Contains(name.to_lowercase())));
        }
        let regex = RegexBuilder::new(&format!("(?i){name}")).backtrack_limit(REGEX_STEPS_MAX).build();
        let regex = regex.map_err(|_| Error::BadRequest("Pagination parameters are invalid".into()))?;
        Ok(Some(Filter::Fits(Box::new(regex))))
    }

    fn fits(&self, name: &str) -> bool {
        match self {
            Filter::Contains(part) => name.to_lowercase().contains(part),
            Filter::Fits(regex) => regex.is_match(name).unwrap_or(false),
        }
    }
}

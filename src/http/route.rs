//! A route: a method, a path, who may go there, and what is done; written down once, for the router and for the
//! document that describes the API.

use axum::http::Method;
use serde_json::Value as Json;

use super::answer::Answer;
use super::call::Call;
use super::error::Error;

/// Who may make a request, by the tags of users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Everybody, without a name.
    Nobody,
    /// Every user with one of the tags.
    Any,
    /// Who has permissions in the vhost of the path; administrators.
    See,
    /// Who has permissions in the vhost of the path; monitoring.
    Watch,
    /// Who has permissions in the vhost of the path.
    Use,
    /// Policymakers who have permissions in the vhost of the path; administrators.
    Policies,
    /// Monitoring.
    Monitor,
    /// Administrators.
    Administer,
}

/// What is done with a request; may block.
pub type Handle = fn(&Call) -> Result<Answer, Error>;

/// One route.
#[derive(Clone, Debug)]
pub struct Route {
    /// How.
    pub method: Method,
    /// Where, with names in braces.
    pub path: &'static str,
    /// Who.
    pub right: Right,
    /// What it is for.
    pub about: &'static str,
    /// What is done.
    pub handle: Handle,
    /// An example of the body, from which its schema is made; null if there is none.
    pub body: Json,
    /// Which of the body's fields have to be there.
    pub required: &'static [&'static str],
    /// What the body is written in.
    pub format: Format,
    /// Parameters behind the question mark.
    pub query: &'static [&'static str],
}

/// What a body is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// JSON.
    Json,
    /// JSON; or a form whose field `file` is that.
    JsonOrUpload,
    /// A form.
    Form,
}

/// The parameters of everything that is listed.
pub const LIST: &[&str] =
    &["columns", "sort", "sort_reverse", "page", "page_size", "name", "use_regex", "pagination"];

impl Route {
    fn new(method: Method, path: &'static str, right: Right, about: &'static str, handle: Handle) -> Route {
        Route {
            method,
            path,
            right,
            about,
            handle,
            body: Json::Null,
            required: &[],
            format: Format::Json,
            query: &[],
        }
    }

    /// A thing.
    pub fn get(path: &'static str, right: Right, about: &'static str, handle: Handle) -> Route {
        Route { query: &["columns"], ..Route::new(Method::GET, path, right, about, handle) }
    }

    /// A list of things.
    pub fn list(path: &'static str, right: Right, about: &'static str, handle: Handle) -> Route {
        Route { query: LIST, ..Route::new(Method::GET, path, right, about, handle) }
    }

    /// Makes a thing or changes it.
    pub fn put(path: &'static str, right: Right, about: &'static str, handle: Handle) -> Route {
        Route::new(Method::PUT, path, right, about, handle)
    }

    /// Does something.
    pub fn post(path: &'static str, right: Right, about: &'static str, handle: Handle) -> Route {
        Route::new(Method::POST, path, right, about, handle)
    }

    /// Takes a thing away.
    pub fn delete(path: &'static str, right: Right, about: &'static str, handle: Handle) -> Route {
        Route::new(Method::DELETE, path, right, about, handle)
    }

    /// The body is like this one, and some of its fields have to be there.
    pub fn body(self, example: Json, required: &'static [&'static str]) -> Route {
        Route { body: example, required, ..self }
    }

    /// A form may bring the body as its file.
    pub fn upload(self) -> Route {
        Route { format: Format::JsonOrUpload, ..self }
    }

    /// The body is a form with fields like these, and some of them have to be there.
    pub fn form(self, example: Json, required: &'static [&'static str]) -> Route {
        Route { format: Format::Form, ..self.body(example, required) }
    }

    /// These may stand behind the question mark.
    pub fn query(self, query: &'static [&'static str]) -> Route {
        Route { query, ..self }
    }
}

//! The HTTP API: RabbitMQ's management API under `/api`, for the tools that know it, and what Garenne adds.
//!
//! A request becomes a `Call`; a `Route` names who may make it and the function that answers it. Functions may
//! wait for the store, so each runs on a thread of its own; what they answer is JSON, written as it is made when it
//! is long. One line a resource in `routes`, a file a resource beside this one.

mod admin;
mod answer;
mod auth;
mod call;
mod error;
mod list;
mod openapi;
mod route;
mod sheet;

mod auth_attempts;
mod bindings;
mod browse;
mod channels;
mod connections;
mod consumers;
mod definitions;
mod exchanges;
mod features;
mod health;
mod limits;
mod messages;
mod nodes;
mod overview;
mod parameters;
mod permissions;
mod policies;
mod queues;
mod stats;
mod topic_permissions;
mod trails;
mod users;
mod vhosts;
mod watermarks;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, RawPathParams, Request};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter};
use tokio::sync::Semaphore;
use tower::Layer;
use tracing::{debug, error};

use crate::broker::Broker;
use crate::web::{From, Port};
use call::Call;
use error::Error;
use route::Route;

/// So many requests are answered at a time; more wait.
const CALLS_MAX: usize = 64;

/// The largest body of a request, in octets. Definitions are the largest there are.
const BODY_BYTES_MAX: usize = 20 * 1024 * 1024;

/// What every request needs.
#[derive(Debug)]
struct Context {
    broker: Arc<Broker>,
    calls: Semaphore,
}

/// All routes, resource by resource.
fn routes() -> Vec<Route> {
    [
        overview::routes(),
        nodes::routes(),
        health::routes(),
        features::routes(),
        connections::routes(),
        channels::routes(),
        consumers::routes(),
        exchanges::routes(),
        queues::routes(),
        bindings::routes(),
        messages::routes(),
        browse::routes(),
        admin::routes(),
        users::routes(),
        permissions::routes(),
        topic_permissions::routes(),
        vhosts::routes(),
        limits::routes(),
        policies::routes(),
        parameters::routes(),
        definitions::routes(),
        auth_attempts::routes(),
        trails::routes(),
        watermarks::routes(),
        openapi::routes(),
    ]
    .concat()
}

/// Serves the API until the caller stops polling.
///
/// # Errors
/// The listener's.
pub async fn serve(port: Port, broker: Arc<Broker>) -> std::io::Result<()> {
    let context = Arc::new(Context { broker, calls: Semaphore::new(CALLS_MAX) });
    let app = tower::util::MapRequestLayer::new(without_trailing_slash).layer(router(&context));
    let app = axum::ServiceExt::<Request>::into_make_service_with_connect_info::<From>(app);
    axum::serve(port, app).await
}

fn router(context: &Arc<Context>) -> axum::Router {
    let mut paths: BTreeMap<&'static str, Vec<Route>> = BTreeMap::new();
    for route in routes() {
        paths.entry(route.path).or_default().push(route);
    }
    let mut api = axum::Router::new();
    let prefix = &context.broker.config.http_path_prefix;
    for (path, routes) in paths {
        let allow = allowed(&routes);
        let mut methods = MethodRouter::new()
            .options({
                let allow = allow.clone();
                || async { [(header::ALLOW, allow)].into_response() }
            })
            .fallback(|| async {
                (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, allow)]).into_response()
            });
        for route in routes {
            methods = method(methods, route, context.clone());
        }
        api = api.route(&format!("{prefix}/api{path}"), methods);
    }
    api.fallback(|| async { Error::NotFound.into_response() })
}

/// What may be done at a path, in RabbitMQ's order: browsers and tools ask for it before they do it, without a name.
fn allowed(routes: &[Route]) -> HeaderValue {
    let has = |method: &Method| routes.iter().any(|route| route.method == *method);
    let mut names = if has(&Method::GET) { vec!["HEAD", "GET"] } else { Vec::new() };
    let others = [Method::PUT, Method::POST, Method::DELETE];
    names.extend(others.iter().filter(|method| has(method)).map(Method::as_str));
    names.push("OPTIONS");
    HeaderValue::from_str(&names.join(", ")).expect("methods are plain text")
}

fn method(methods: MethodRouter, route: Route, context: Arc<Context>) -> MethodRouter {
    let filter = MethodFilter::try_from(route.method.clone()).expect("routes have plain methods");
    methods.on(
        filter,
        move |ConnectInfo(From(peer)): ConnectInfo<From>,
              params: Result<RawPathParams, _>,
              request: Request| {
            let (route, context) = (route.clone(), context.clone());
            async move {
                let Ok(params) = params else {
                    return Error::BadRequest("a name in the path is not UTF-8 when it is decoded".into())
                        .into_response();
                };
                let params =
                    params.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
                answer(route, &context, peer, params, request).await
            }
        },
    )
}

async fn answer(
    route: Route,
    context: &Context,
    peer: SocketAddr,
    params: Vec<(String, String)>,
    request: Request,
) -> Response {
    let call = match Call::read(&context.broker, peer, params, request, BODY_BYTES_MAX).await {
        Ok(call) => call,
        Err(error) => return error.into_response(),
    };
    // Not before: neither who waits for the answer to a wrong password nor who sends slowly takes anybody's turn.
    let Ok(_turn) = context.calls.acquire().await else { return Error::Stopping.into_response() };
    let what = format!("{} {}", route.method, route.path);
    let (done, response) = tokio::sync::oneshot::channel();
    let work = move || {
        let answered = auth::allow(&call, &route).and_then(|()| (route.handle)(&call));
        answer::send(answered, done);
    };
    let work = tokio::task::spawn_blocking(work);
    match response.await {
        Ok(response) => {
            debug!(%peer, what, status = response.status().as_u16(), "answered");
            with_headers(response)
        }
        Err(_) => {
            if let Err(panic) = work.await {
                error!(what, %panic, "an answer could not be made; please report this");
            }
            Error::Internal("the broker has made a mistake; its log says more".into()).into_response()
        }
    }
}

/// What RabbitMQ's API says with every answer.
fn with_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::VARY, HeaderValue::from_static("accept, accept-encoding, origin"));
    response
}

/// `/api/queues/%2F/` is `/api/queues/%2F`.
fn without_trailing_slash(mut request: Request) -> Request {
    let uri = request.uri();
    let path = uri.path().trim_end_matches('/');
    if path.len() < uri.path().len() && !path.is_empty() {
        let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        if let Ok(uri) = format!("{path}{query}").parse::<Uri>() {
            *request.uri_mut() = uri;
        }
    }
    request
}

//! Metrics for Prometheus, with RabbitMQ's names: `/metrics` sums up, `/metrics/per-object` tells of each queue,
//! channel and connection, `/metrics/detailed` of the families that are asked for. What only Garenne has begins
//! with `garenne_`.

mod families;
mod garenne;
mod node;
mod objects;
mod queues;
mod text;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::broker::Broker;
use crate::web::Port;
use families::Wanted;
use text::Text;

/// What the answers are written in.
const KIND: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Which of the endpoints is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Endpoint {
    Aggregated,
    PerObject,
    Detailed,
}

impl Endpoint {
    fn name(self) -> &'static str {
        match self {
            Endpoint::Aggregated => "aggregated",
            Endpoint::PerObject => "per-object",
            Endpoint::Detailed => "detailed",
        }
    }
}

/// Serves metrics until the caller stops polling.
///
/// # Errors
/// The listener's.
pub async fn serve(port: Port, broker: Arc<Broker>) -> std::io::Result<()> {
    axum::serve(port, router(broker)).await
}

fn router(broker: Arc<Broker>) -> axum::Router {
    let path = broker.config.metrics_path.trim_end_matches('/').to_string();
    let path = if path.starts_with('/') { path } else { format!("/{path}") };
    axum::Router::new()
        .route(&path, get(aggregated))
        .route(&format!("{path}/per-object"), get(per_object))
        .route(&format!("{path}/detailed"), get(detailed))
        .route(&format!("{path}/memory-breakdown"), get(memory))
        .with_state(broker)
}

async fn aggregated(State(broker): State<Arc<Broker>>, request: Request) -> Response {
    let endpoint = if broker.config.metrics_per_object { Endpoint::PerObject } else { Endpoint::Aggregated };
    answer(broker, request, endpoint).await
}

async fn per_object(State(broker): State<Arc<Broker>>, request: Request) -> Response {
    answer(broker, request, Endpoint::PerObject).await
}

async fn detailed(State(broker): State<Arc<Broker>>, request: Request) -> Response {
    answer(broker, request, Endpoint::Detailed).await
}

async fn memory(State(broker): State<Arc<Broker>>, request: Request) -> Response {
    if let Err(refused) = allow(&broker, request.headers()) {
        return *refused;
    }
    let mut text = Text::new("rabbitmq_");
    node::memory(&broker, &mut text);
    written(text.done())
}

async fn answer(broker: Arc<Broker>, request: Request, endpoint: Endpoint) -> Response {
    if let Err(refused) = allow(&broker, request.headers()) {
        return *refused;
    }
    let wanted = match Wanted::read(endpoint, request.uri().query().unwrap_or_default()) {
        Ok(wanted) => wanted,
        Err(reason) => return (StatusCode::BAD_REQUEST, reason).into_response(),
    };
    // Queues are locked one after the other, which may take a while where there are many.
    match tokio::task::spawn_blocking(move || write(&broker, endpoint, &wanted)).await {
        Ok(text) => written(text),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn written(text: String) -> Response {
    ([(header::CONTENT_TYPE, KIND)], text).into_response()
}

/// Who may scrape, if not everybody.
fn allow(broker: &Broker, headers: &HeaderMap) -> Result<(), Box<Response>> {
    if !broker.config.metrics_authentication {
        return Ok(());
    }
    let ask = || {
        let ask = [(header::WWW_AUTHENTICATE, "Basic realm=\"RabbitMQ Prometheus\"")];
        Box::new((StatusCode::UNAUTHORIZED, ask).into_response())
    };
    let (name, password) =
        crate::auth::basic_credentials(headers.get(header::AUTHORIZATION).map(|v| v.as_bytes()))
            .ok_or_else(ask)?;
    let user = broker.authenticate(&name, &password).ok_or_else(ask)?;
    let may = user.has_tag("monitoring") || user.has_tag("administrator");
    if may { Ok(()) } else { Err(ask()) }
}

fn write(broker: &Broker, endpoint: Endpoint, wanted: &Wanted) -> String {
    let prefix = if endpoint == Endpoint::Detailed { "rabbitmq_detailed_" } else { "rabbitmq_" };
    let mut text = Text::new(prefix);
    node::identity(broker, endpoint.name(), &mut text);
    node::families(broker, wanted, &mut text);
    queues::families(broker, endpoint, wanted, &mut text);
    objects::families(broker, endpoint, wanted, &mut text);
    garenne::families(broker, endpoint, wanted, &mut text);
    text.done()
}

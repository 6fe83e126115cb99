//! Refusals: a status and one sentence that names the thing, the value and the remedy.

use axum::Json;
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// Longest text of a caller's own that an answer repeats (characters).
const MAX_QUOTED: usize = 80;

/// Why a request gets no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Refusal {
    pub status: StatusCode,
    pub detail: String,
}

#[derive(Serialize)]
struct Body<'a> {
    detail: &'a str,
}

impl Refusal {
    /// A parameter that cannot be taken: 400.
    pub fn parameter(name: &str, value: &str, remedy: &str) -> Refusal {
        Refusal {
            status: StatusCode::BAD_REQUEST,
            detail: format!("{name} is {}; {remedy}", quoted(value)),
        }
    }

    /// Something that is not there: 404.
    pub fn missing(detail: String) -> Refusal {
        Refusal {
            status: StatusCode::NOT_FOUND,
            detail,
        }
    }

    /// Too much at once: 503.
    pub fn busy(detail: String) -> Refusal {
        Refusal {
            status: StatusCode::SERVICE_UNAVAILABLE,
            detail,
        }
    }

    /// The journal could not be read: 500.
    pub fn journal(error: &dyn std::error::Error) -> Refusal {
        tracing::error!(%error, "the API could not read the journal");
        Refusal {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            detail: format!(
                "the journal could not be read: {error}; see `trackside journal verify`"
            ),
        }
    }

    /// A status that a layer gave without words.
    pub fn of_status(status: StatusCode) -> Refusal {
        let detail = match status {
            StatusCode::PAYLOAD_TOO_LARGE => format!(
                "the request body is over {} bytes; no route needs one",
                super::MAX_BODY_BYTES
            ),
            StatusCode::GATEWAY_TIMEOUT => format!(
                "no answer within {} s; ask for a shorter time or fewer rows",
                super::REQUEST_TIMEOUT.as_secs()
            ),
            other => other.canonical_reason().unwrap_or("refused").to_owned(),
        };
        Refusal { status, detail }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = Json(Body {
            detail: &self.detail,
        });
        (self.status, [(header::CACHE_CONTROL, "no-store")], body).into_response()
    }
}

/// A caller's text in quotes, shortened.
pub(crate) fn quoted(value: &str) -> String {
    let cut: String = value.chars().take(MAX_QUOTED).collect();
    if cut.len() < value.len() {
        format!("{cut:?}…")
    } else {
        format!("{cut:?}")
    }
}

pub(crate) async fn no_such_route(uri: Uri) -> Refusal {
    Refusal::missing(format!(
        "there is no {}; the routes are /health, /api/v1/{{state,cars,telemetry,predictions,scores,sessions,records,insights,strategy,analytics/drivers}}, /ws, /metrics and /",
        quoted(uri.path())
    ))
}

pub(crate) async fn only_get(method: Method, uri: Uri) -> Refusal {
    Refusal {
        status: StatusCode::METHOD_NOT_ALLOWED,
        detail: format!("{method} {} is not served; use GET", quoted(uri.path())),
    }
}

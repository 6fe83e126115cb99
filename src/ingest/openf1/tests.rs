//! The feed against a small HTTP server and, where there is one, a mosquitto.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use axum::extract::{Query, State as Shared};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::json;

use super::*;
use crate::ingest::mqtt::tests::{Mosquitto, PATIENCE, Sink, publish, until};

#[derive(Clone, Default)]
struct Api {
    /// Answers of `/token` before it relents.
    troubles: Arc<Mutex<Vec<u16>>>,
    tokens: Arc<AtomicU32>,
    throttled: Arc<AtomicU32>,
    expires_in: Arc<Mutex<serde_json::Value>>,
}

async fn token(Shared(api): Shared<Api>, headers: HeaderMap, form: String) -> Response {
    assert_eq!(headers["content-type"], "application/x-www-form-urlencoded");
    let form = reqwest::Url::parse(&format!("http://form/?{form}")).unwrap();
    let form: Vec<_> = form.query_pairs().into_owned().collect();
    if let Some(status) = api.troubles.lock().unwrap().pop() {
        return (StatusCode::from_u16(status).unwrap(), "Service Unavailable").into_response();
    }
    let right = [("username", "team"), ("password", "pit wall & more")];
    if form != right.map(|(k, v)| (k.to_owned(), v.to_owned())) {
        return (StatusCode::UNAUTHORIZED, r#"{"detail":"Incorrect"}"#).into_response();
    }
    let n = api.tokens.fetch_add(1, Ordering::SeqCst);
    let expires_in = api.expires_in.lock().unwrap().clone();
    Json(json!({"access_token": format!("token-{n}"), "expires_in": expires_in, "token_type": "bearer"}))
        .into_response()
}

async fn sessions(headers: HeaderMap, Query(q): Query<Vec<(String, String)>>) -> Response {
    assert_eq!(q, [("session_key".into(), "latest".into())]);
    let bearer = headers["authorization"].to_str().unwrap();
    assert!(bearer.starts_with("Bearer token-"), "{bearer}");
    Json(json!([{"session_key": 9472, "meeting_key": 1229}])).into_response()
}

async fn drivers(Shared(api): Shared<Api>) -> Response {
    if api.throttled.fetch_add(1, Ordering::SeqCst) == 0 {
        return (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "1")]).into_response();
    }
    Json(json!([{"driver_number": 1}, {"driver_number": 44}])).into_response()
}

async fn serve(api: Api) -> String {
    let router = Router::new()
        .route("/token", post(token))
        .route("/v1/sessions", get(sessions))
        .route("/v1/drivers", get(drivers))
        .route("/v1/meetings", get(async || (StatusCode::OK, "<html>")))
        .route("/v1/starting_grid", get(async || StatusCode::NOT_FOUND))
        .with_state(api);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    url
}

fn options(api_url: String) -> Options {
    Options {
        api_url,
        mqtt_url: "mqtt://127.0.0.1:1".into(),
        username: "team".into(),
        password: Some("pit wall & more".into()),
        ..Options::default()
    }
}

#[test]
fn options_are_checked_with_key_and_allowed_values() {
    options("https://api.openf1.org".into()).validate().unwrap();
    let fault = |change: fn(&mut Options)| {
        let mut options = options("https://api.openf1.org".into());
        change(&mut options);
        options.validate().unwrap_err().to_string()
    };
    assert!(fault(|o| o.api_url = "ftp://x".into()).contains("api_url"));
    assert!(fault(|o| o.mqtt_url = "mqtt.openf1.org".into()).contains("mqtt_url"));
    assert!(fault(|o| o.username.clear()).contains("username"));
    assert!(fault(|o| o.password = None).contains("password_file"));
    assert!(fault(|o| o.queries = vec!["nothing?x=1".into()]).contains("nothing"));
    assert!(fault(|o| o.topics.clear()).contains("topics"));
}

#[tokio::test]
async fn a_502_is_tried_again_and_a_401_rarely() {
    let api = Api::default();
    *api.expires_in.lock().unwrap() = json!("3600");
    *api.troubles.lock().unwrap() = vec![502, 503];
    let options = options(serve(api.clone()).await);
    let http = options.http().unwrap();
    let url = format!("{}/token", options.api_url);
    let password = Secret::from("pit wall & more");

    let fetch = |name: &'static str| {
        let (http, url, password) = (http.clone(), url.clone(), password.clone());
        async move { token::fetch(&http, &url, name, &password).await }
    };
    for status in [503, 502] {
        let error = fetch("team").await.unwrap_err();
        assert!(
            matches!(error, TokenError::Unavailable { status: s, .. } if s == status),
            "{error}"
        );
    }
    let token = fetch("team").await.unwrap();
    assert_eq!(token.text.reveal(), "token-0");
    assert_eq!(token.life, Duration::from_secs(3600));
    let error = fetch("nobody").await.unwrap_err();
    assert!(
        matches!(error, TokenError::Denied { status: 401, .. }),
        "{error}"
    );
    assert!(
        error.to_string().contains("check username") && error.to_string().contains("Incorrect")
    );
    let dead = "http://127.0.0.1:1/token";
    let error = token::fetch(&http, dead, "team", &password)
        .await
        .unwrap_err();
    assert!(matches!(error, TokenError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn a_denied_login_is_told_and_does_not_storm() {
    let api = Api::default();
    let mut options = options(serve(api.clone()).await);
    options.password = Some("wrong".into());
    let (intake, _queue) = Intake::new(&tokio::runtime::Handle::current());
    let (to, mut status) = watch::channel(SourceStatus::new("openf1", "openf1"));
    let stop = CancellationToken::new();
    let running = tokio::spawn(run(options, intake, to, stop.clone()));
    let refused = status.wait_for(|s| s.state == State::Refused);
    tokio::time::timeout(PATIENCE, refused)
        .await
        .unwrap()
        .unwrap();
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert_eq!(api.tokens.load(Ordering::SeqCst), 0);
    stop.cancel();
    tokio::time::timeout(PATIENCE, running)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(status.borrow().state, State::Stopped);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_by_rest_become_messages_and_what_fails_is_left_out() {
    let api = Api::default();
    let options = options(serve(api.clone()).await);
    let (intake, mut queue) = Intake::new(&tokio::runtime::Handle::current());
    let queries = rest::Queries {
        http: options.http().unwrap(),
        api_url: options.api_url.clone(),
        token: "token-7".into(),
        queries: options.queries.clone(),
    };
    assert_eq!(queries.run(&intake).await, 3);
    drop(intake);
    let messages = std::thread::spawn(move || {
        let mut all = Vec::new();
        while queue.gather(&mut all, 100, Duration::from_secs(1), Duration::ZERO) {}
        all.iter()
            .map(|q| {
                (
                    q.message.topic.to_string(),
                    String::from_utf8(q.message.payload.to_vec()).unwrap(),
                )
            })
            .collect::<Vec<_>>()
    });
    let messages = messages.join().unwrap();
    let expected = [
        ("v1/sessions", r#"{"meeting_key":1229,"session_key":9472}"#),
        ("v1/drivers", r#"{"driver_number":1}"#),
        ("v1/drivers", r#"{"driver_number":44}"#),
    ];
    assert_eq!(messages.len(), 3);
    for ((topic, payload), (t, p)) in messages.iter().zip(expected) {
        assert_eq!(topic, t);
        let (payload, p): (serde_json::Value, serde_json::Value) = (
            serde_json::from_str(payload).unwrap(),
            serde_json::from_str(p).unwrap(),
        );
        assert_eq!(payload, p);
    }
    assert_eq!(
        api.throttled.load(Ordering::SeqCst),
        2,
        "asked again after the 429"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_refreshed_before_it_ends_and_nothing_is_missed() {
    let Some(mosquitto) = Mosquitto::plain() else {
        return;
    };
    let api = Api::default();
    // The shortest life that is believed: refreshed after some seven seconds.
    *api.expires_in.lock().unwrap() = json!("1");
    let options = Options {
        mqtt_url: mosquitto.broker(Version::V5).url,
        ..options(serve(api.clone()).await)
    };
    let (intake, queue) = Intake::new(&tokio::runtime::Handle::current());
    let sink = Sink::start(queue, Duration::ZERO);
    let (to, status) = watch::channel(SourceStatus::new("openf1", "openf1"));
    let stop = CancellationToken::new();
    let running = tokio::spawn(run(options, intake, to, stop.clone()));
    until("the rows by REST", || sink.len() == 3).await;
    let (mut sent, began) = (0, Instant::now());
    while status.borrow().connections < 3 {
        assert!(began.elapsed() < PATIENCE, "no refresh");
        publish(mosquitto.broker(Version::V4), sent..sent + 100, 0)
            .await
            .unwrap();
        sent += 100;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    until("every message", || sink.distinct() == sent as usize + 3).await;
    assert!(api.tokens.load(Ordering::SeqCst) >= 3);
    stop.cancel();
    tokio::time::timeout(PATIENCE, running)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(status.borrow().state, State::Stopped);
}

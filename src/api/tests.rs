//! The API over a hand-made context: journals in a temporary folder, a race folded from records.

use std::collections::BTreeMap;
use std::time::Instant;

use ::tower::ServiceExt;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use futures_util::StreamExt;
use serde_json::Value;
use tokio_tungstenite::tungstenite::Message;

use super::*;
use crate::ingest::mqtt::tests::PATIENCE;
use crate::journal::{Journal, Options};
use crate::predict::{Models, Scores};
use crate::race::Race;
use crate::record::prediction::{LapTimePrediction, Provenance, Quantiles};
use crate::record::{Entry, Prediction, Record, Time, decode};

/// Everything that a test may push on.
struct World {
    _dir: tempfile::TempDir,
    records: Journal,
    predictions: Journal,
    race: Race,
    state: watch::Sender<Arc<Snapshot>>,
    health: watch::Sender<Arc<Health>>,
    context: Context,
}

fn entry(topic: &str, json: &str) -> Entry {
    let payload = bytes::Bytes::copy_from_slice(json.as_bytes());
    decode(topic, &payload).unwrap().entry
}

/// Two cars, two laps of the first, tyres, race control.
fn a_race() -> Vec<Entry> {
    let mut entries = vec![entry(
        "v1/sessions",
        r#"{"meeting_key":1229,"session_key":9472,"session_type":"Race","session_name":"Race","circuit_short_name":"Sakhir","year":2024,"date_start":"2024-03-02T15:00:00+00:00"}"#,
    )];
    for (n, acronym, position) in [(1, "VER", 1), (16, "LEC", 2)] {
        entries.push(entry(
            "v1/drivers",
            &format!(
                r#"{{"meeting_key":1229,"session_key":9472,"driver_number":{n},"name_acronym":"{acronym}","full_name":"{acronym} <b>","team_name":"T","team_colour":"3671C6"}}"#
            ),
        ));
        entries.push(entry(
            "v1/position",
            &format!(
                r#"{{"meeting_key":1229,"session_key":9472,"driver_number":{n},"date":"2024-03-02T15:03:42+00:00","position":{position}}}"#
            ),
        ));
        entries.push(entry(
            "v1/stints",
            &format!(
                r#"{{"meeting_key":1229,"session_key":9472,"driver_number":{n},"stint_number":1,"lap_start":1,"lap_end":1,"compound":"SOFT","tyre_age_at_start":3}}"#
            ),
        ));
    }
    for (lap, s1, s2, s3) in [(1, 31.0, 42.0, 24.0), (2, 30.5, 41.5, 24.5)] {
        entries.push(entry(
            "v1/laps",
            &format!(
                r#"{{"meeting_key":1229,"session_key":9472,"driver_number":1,"lap_number":{lap},"date_start":"2024-03-02T15:0{}:30+00:00","duration_sector_1":{s1},"duration_sector_2":{s2},"duration_sector_3":{s3},"lap_duration":{},"is_pit_out_lap":false}}"#,
                2 + 2 * lap,
                s1 + s2 + s3
            ),
        ));
    }
    for i in 0..20 {
        entries.push(entry(
            "v1/car_data",
            &format!(
                r#"{{"meeting_key":1229,"session_key":9472,"driver_number":1,"date":"2024-03-02T15:08:{:02}.5+00:00","rpm":11000,"speed":{},"n_gear":8,"throttle":100,"brake":0,"drs":0}}"#,
                i,
                280 + i
            ),
        ));
    }
    entries.push(entry(
        "v1/race_control",
        r#"{"meeting_key":1229,"session_key":9472,"date":"2024-03-02T15:08:25+00:00","category":"SafetyCar","message":"SAFETY CAR DEPLOYED"}"#,
    ));
    entries
}

fn laptime(seq: u64, lap_number: u16) -> LapTimePrediction {
    LapTimePrediction {
        provenance: Provenance {
            session_key: 9472,
            made_at: Time::from_millis(1_709_391_000_000 + seq as i64),
            seq,
            model: "floor-1".into(),
            backend: "cpu".into(),
            stale_s: 0.5,
        },
        driver_number: 1,
        lap_number,
        sectors_known: 0,
        lap_time: Quantiles {
            p10: 96.0,
            p50: 96.4,
            p90: 97.1,
        },
    }
}

fn prediction(seq: u64, lap: u16) -> Entry {
    Record::Prediction(Box::new(Prediction::LapTime(laptime(seq, lap)))).into()
}

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let open =
            |name| Journal::open(&dir.path().join(name), Options::default(), &mut |_| ()).unwrap();
        let (records, predictions) = (open("records"), open("predictions"));
        let race = Race::new();
        let (state, state_rx) = watch::channel(Arc::new(snapshot(0, &race)));
        let (health, health_rx) = watch::channel(Arc::new(Health::starting(Instant::now())));
        let insights = crate::insight::Outlets::default();
        let context = Context {
            records: records.reader(),
            predictions: predictions.reader(),
            state: state_rx,
            health: health_rx,
            metrics: crate::observability::detached_metrics(),
            insights: insights.latest.subscribe(),
            alerts: broadcast::channel(crate::live::ALERTS).0,
            news: insights.news.clone(),
            strategist: None,
        };
        World {
            _dir: dir,
            records,
            predictions,
            race,
            state,
            health,
            context,
        }
    }

    /// A world in which a race is on.
    fn racing() -> World {
        let mut world = World::new();
        world.commit(a_race());
        for lap in 1..=5 {
            world
                .predictions
                .append(vec![prediction(10 + u64::from(lap), lap)]);
        }
        world.predictions.commit().unwrap();
        world
    }

    fn commit(&mut self, entries: Vec<Entry>) {
        let mut seq = self.records.next_seq();
        for entry in &entries {
            self.race.apply(seq, entry);
            seq += 1;
        }
        self.records.append(entries);
        self.records.commit().unwrap();
        self.state.send_replace(Arc::new(snapshot(seq, &self.race)));
    }

    fn healthy(&self, change: impl FnOnce(&mut Health)) {
        let mut health = Health::starting(Instant::now());
        health.status = health::Status::Ok;
        change(&mut health);
        self.health.send_replace(Arc::new(health));
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let app = router(self.context.clone(), CancellationToken::new());
        let response = app.oneshot(request).await.unwrap();
        let status = response.status();
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        let value = serde_json::from_slice(&body)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into_owned()));
        (status, value)
    }

    async fn refused(&self, path: &str) -> (u16, String) {
        let (status, body) = self.get(path).await;
        let detail = body["detail"].as_str();
        let detail = detail.unwrap_or_else(|| panic!("{path}: {status} {body}"));
        (status.as_u16(), detail.to_owned())
    }
}

fn snapshot(seq: u64, race: &Race) -> Snapshot {
    Snapshot {
        seq,
        race: race.clone(),
        laptime: BTreeMap::from([(1, laptime(20, 3))]),
        pit: BTreeMap::new(),
        order: None,
        scores: Scores::default(),
        predictor: ("floor-1".to_owned(), "cpu"),
        models: Models::none(),
        laps: None,
    }
}

#[tokio::test]
async fn the_tower_has_a_row_a_car_in_running_order() {
    let world = World::racing();
    let (status, tower) = world.get("/api/v1/state").await;
    assert_eq!(status, 200);
    assert_eq!(tower["session"]["session_key"], 9472);
    assert_eq!(tower["session"]["kind"], "race");
    assert_eq!(tower["track_status"], "safety_car");
    let rows = tower["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    let (first, second) = (&rows[0], &rows[1]);
    assert_eq!(
        (&first["acronym"], &second["acronym"]),
        (&"VER".into(), &"LEC".into())
    );
    assert_eq!(first["laps"], 2);
    assert_eq!(first["last_lap"]["s"], 96.5);
    assert_eq!(first["last_lap"]["rating"], "purple");
    // Sector 3 of lap 2 was slower than that of lap 1.
    let ratings: Vec<_> = (0..3)
        .map(|i| first["sectors"][i]["rating"].clone())
        .collect();
    assert_eq!(ratings, ["purple", "purple", "yellow"]);
    assert_eq!(first["tyre"]["compound"], "SOFT");
    assert_eq!(first["tyre"]["age"], 5);
    assert_eq!(first["next_lap"]["p50"], 96.4);
    assert_eq!(second["next_lap"], Value::Null);
    assert_eq!(tower["race_control"][0]["message"], "SAFETY CAR DEPLOYED");

    let (status, car) = world.get("/api/v1/cars/1").await;
    assert_eq!(
        (status.as_u16(), car["laps"].as_array().unwrap().len()),
        (200, 2)
    );
    let (status, detail) = world.refused("/api/v1/cars/44").await;
    assert_eq!(status, 404);
    assert!(
        detail.contains("44") && detail.contains("[1, 16]"),
        "{detail}"
    );
    assert_eq!(world.refused("/api/v1/cars/0").await.0, 400);
    assert_eq!(world.get("/api/v1/scores").await.0, 200);
    let (status, insights) = world.get("/api/v1/insights").await;
    assert_eq!(
        (status.as_u16(), &insights["lap"]),
        (200, &serde_json::json!({}))
    );
    // Two laps tell nothing about a driver.
    let (status, analytics) = world.get("/api/v1/analytics/drivers").await;
    assert_eq!(
        (status.as_u16(), &analytics["drivers"], &analytics["field"]),
        (200, &serde_json::json!([]), &serde_json::Value::Null)
    );
    // Nobody simulates here: said, with the key that says so.
    let (status, detail) = world.refused("/api/v1/strategy/1").await;
    assert!(
        status == 404 && detail.contains("[compute] live"),
        "{detail}"
    );
}

#[tokio::test]
async fn telemetry_is_the_newest_within_the_bounds() {
    let world = World::racing();
    let (status, all) = world.get("/api/v1/telemetry/1").await;
    assert_eq!(status, 200, "{all}");
    let speeds = |v: &Value| -> Vec<i64> {
        let samples = v["car_data"].as_array().unwrap();
        samples
            .iter()
            .map(|s| s["speed"].as_i64().unwrap())
            .collect()
    };
    assert_eq!(speeds(&all), (280..300).collect::<Vec<_>>());
    assert_eq!(all["truncated"], false);
    let (_, some) = world.get("/api/v1/telemetry/1?limit=3").await;
    assert_eq!(speeds(&some), [297, 298, 299]);
    assert_eq!(some["truncated"], true);
    let (_, part) = world
        .get("/api/v1/telemetry/1?from=2024-03-02T15:08:04Z&to=2024-03-02T15:08:06.500+00:00")
        .await;
    assert_eq!(speeds(&part), [284, 285, 286]);
    let (_, none) = world.get("/api/v1/telemetry/1?session_key=1").await;
    assert!(speeds(&none).is_empty());
    for wrong in [
        "limit=0",
        "limit=1000000",
        "from=noon",
        "speed=1",
        "from=2024-03-02T15:00:00Z&to=2024-03-02T19:00:00Z",
        "from=2024-03-02T15:00:01Z&to=2024-03-02T15:00:00Z",
    ] {
        let (status, detail) = world.refused(&format!("/api/v1/telemetry/1?{wrong}")).await;
        assert_eq!(status, 400, "{wrong}: {detail}");
    }
    let empty = World::new();
    assert_eq!(empty.refused("/api/v1/telemetry/1").await.0, 404);
}

#[tokio::test]
async fn the_journal_is_served_in_pages_that_join() {
    let world = World::racing();
    let total = a_race().len() as u64;
    let (mut from, mut seqs) = (0, Vec::new());
    while from < total {
        let (status, page) = world
            .get(&format!("/api/v1/records?from_seq={from}&limit=7"))
            .await;
        assert_eq!(status, 200);
        let records = page["records"].as_array().unwrap();
        assert!(records.len() <= 7 && !records.is_empty());
        seqs.extend(records.iter().map(|r| r["seq"].as_u64().unwrap()));
        from = page["next_seq"].as_u64().unwrap();
    }
    assert_eq!(seqs, (0..total).collect::<Vec<_>>());
    let (_, laps) = world.get("/api/v1/records?from_seq=0&kinds=laps").await;
    let topics: Vec<_> = laps["records"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| &r["topic"])
        .collect();
    assert_eq!(topics, ["v1/laps", "v1/laps"]);
    assert_eq!(laps["next_seq"].as_u64(), Some(total));
    let (status, detail) = world.refused("/api/v1/records?from_seq=1000").await;
    assert_eq!(status, 400);
    assert!(
        detail.contains("1000") && detail.contains(&total.to_string()),
        "{detail}"
    );

    let (_, newest) = world
        .get("/api/v1/predictions/laptime?driver_number=1&limit=2")
        .await;
    let laps = |v: &Value| -> Vec<i64> {
        let records = v["records"].as_array().unwrap();
        records
            .iter()
            .map(|r| r["payload"]["lap_number"].as_i64().unwrap())
            .collect()
    };
    assert_eq!(laps(&newest), [4, 5]);
    let (_, oldest) = world
        .get("/api/v1/predictions/laptime?from_seq=0&limit=2")
        .await;
    assert_eq!(laps(&oldest), [1, 2]);
    assert_eq!(oldest["next_seq"], 2);
    let (_, pit) = world.get("/api/v1/predictions/pit").await;
    assert!(laps(&pit).is_empty());
    assert_eq!(world.refused("/api/v1/predictions/weather").await.0, 404);
    assert_eq!(
        world
            .refused("/api/v1/predictions/race?driver_number=1")
            .await
            .0,
        400
    );
    let (_, latest) = world.get("/api/v1/predictions").await;
    assert_eq!(latest["laptime"]["1"]["lap_number"], 3);
    let (_, sessions) = world.get("/api/v1/sessions").await;
    assert_eq!(sessions["sessions"][0]["session_key"], 9472);
}

#[tokio::test]
async fn health_answers_what_an_operator_asks() {
    let world = World::racing();
    let (status, health) = world.get("/health").await;
    assert_eq!(
        (status.as_u16(), &health["status"]),
        (503, &"starting".into())
    );
    assert_eq!(world.get("/health/live").await.0, 200);
    assert_eq!(world.get("/health/ready").await.0, 503);

    world.healthy(|h| h.last_record_age_s = Some(1.0));
    let (status, health) = world.get("/health").await;
    assert_eq!(status, 200);
    assert!(health["last_record_age_s"].as_f64().unwrap() >= 1.0);
    assert!(health["uptime_s"].is_number() && health["version"].is_string());
    assert_eq!(world.get("/health/ready").await.0, 200);

    world.healthy(|h| {
        h.status = health::Status::DiskFull;
        h.why.push("the disk is full".into());
    });
    let (status, health) = world.get("/health").await;
    assert_eq!(
        (status.as_u16(), &health["why"][0]),
        (503, &"the disk is full".into())
    );
    assert_eq!(world.get("/health/ready").await.0, 503);

    // Nobody renews it any more.
    let mut old = Health::starting(Instant::now());
    old.status = health::Status::Ok;
    let later = old.seen_at(old.at + health::MAX_AGE + std::time::Duration::from_secs(1));
    assert_eq!(later.status, health::Status::Degraded);
    assert!(later.why[0].contains("16 s ago"), "{:?}", later.why);
}

#[tokio::test]
async fn every_refusal_is_json_with_the_security_headers() {
    let world = World::racing();
    let app = || router(world.context.clone(), CancellationToken::new());
    let cases = [
        (Request::get("/nothing/here").body(Body::empty()), 404),
        (Request::post("/api/v1/state").body(Body::empty()), 405),
        (Request::get("/api/v1/state?x=1").body(Body::empty()), 400),
        (Request::get("/ws").body(Body::empty()), 426),
        (
            Request::get("/api/v1/state")
                .header(header::CONTENT_LENGTH, MAX_BODY_BYTES + 1)
                .body(Body::from(vec![b'x'; MAX_BODY_BYTES + 1])),
            413,
        ),
    ];
    for (request, status) in cases {
        let request = request.unwrap();
        let uri = request.uri().clone();
        let response = app().oneshot(request).await.unwrap();
        assert_eq!(response.status(), status, "{uri}");
        let headers = response.headers().clone();
        assert_eq!(headers[header::CONTENT_TYPE], "application/json", "{uri}");
        assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert!(!body["detail"].as_str().unwrap().is_empty(), "{uri}");
    }
}

#[tokio::test]
async fn the_page_carries_no_inline_script_and_nothing_from_elsewhere() {
    let world = World::new();
    for (path, content_type) in [
        ("/", "text/html; charset=utf-8"),
        ("/app.js", "text/javascript; charset=utf-8"),
        ("/style.css", "text/css; charset=utf-8"),
        ("/icon.svg", "image/svg+xml"),
    ] {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let app = router(world.context.clone(), CancellationToken::new());
        let response = app.oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        assert_eq!(response.headers()[header::CONTENT_TYPE], content_type);
        let policy = response.headers()[header::CONTENT_SECURITY_POLICY]
            .to_str()
            .unwrap();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"));
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        let text = String::from_utf8(body.to_vec()).unwrap();
        assert!(!text.is_empty(), "{path} is empty");
        let text = text.replace("http://www.w3.org/2000/svg", "");
        for banned in [
            "innerHTML",
            "http://",
            "https://",
            "onclick=",
            "<script>",
            "style=\"",
            "eval(",
        ] {
            assert!(!text.contains(banned), "{path} contains {banned}");
        }
    }
}

/// A world that is served for real.
async fn served(world: &World) -> (Server, CancellationToken) {
    let stop = CancellationToken::new();
    let listen = "127.0.0.1:0".parse().unwrap();
    let server = serve(listen, world.context.clone(), stop.clone())
        .await
        .unwrap();
    (server, stop)
}

type Client =
    tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

async fn connect(server: &Server, query: &str) -> Client {
    let url = format!("ws://{}/ws?{query}", server.address());
    tokio_tungstenite::connect_async(url).await.unwrap().0
}

async fn next(client: &mut Client) -> Option<Value> {
    loop {
        match tokio::time::timeout(PATIENCE, client.next())
            .await
            .unwrap()?
        {
            Ok(Message::Text(text)) => return Some(serde_json::from_str(&text).unwrap()),
            Ok(Message::Ping(_) | Message::Pong(_)) => {}
            Ok(_) | Err(_) => return None,
        }
    }
}

fn car_data(i: u64) -> Entry {
    entry(
        "v1/car_data",
        &format!(
            r#"{{"meeting_key":1229,"session_key":9472,"driver_number":{},"date":"2024-03-02T15:{:02}:{:02}.5+00:00","rpm":{},"speed":200}}"#,
            1 + i % 20,
            (i / 60) % 60,
            i % 60,
            i % 15_000
        ),
    )
}

/// The seam between catch-up and live: a client that connects in the middle of a flood gets every
/// record from where it asked exactly once and in order, whatever is committed meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn catch_up_and_live_join_without_a_gap_or_a_double() {
    const BEFORE: u64 = 5_000;
    const AFTER: u64 = 5_000;
    const FROM: u64 = 123;
    let mut world = World::new();
    for chunk in 0..BEFORE / 500 {
        let entries = (0..500).map(|i| car_data(chunk * 500 + i)).collect();
        world.records.append(entries);
        world.records.commit().unwrap();
    }
    let (server, stop) = served(&world).await;
    let query = format!("topics=records,predictions&from_seq={FROM}&from_prediction=0");
    let mut client = connect(&server, &query).await;
    let hello = next(&mut client).await.unwrap();
    assert_eq!(
        (&hello["type"], &hello["from_seq"]),
        (&"hello".into(), &FROM.into())
    );
    assert_eq!(hello["reset"], false);

    // Commits go on, in slices of many sizes, while the client catches up.
    let mut records = world.records;
    let mut predictions = world.predictions;
    let writer = tokio::task::spawn_blocking(move || {
        let (mut i, mut size) = (BEFORE, 1);
        while i < BEFORE + AFTER {
            let n = size.min(BEFORE + AFTER - i);
            records.append((i..i + n).map(car_data).collect());
            records.commit().unwrap();
            predictions.append(vec![prediction(i, 1)]);
            predictions.commit().unwrap();
            i += n;
            size = size % 97 + 1;
            std::thread::sleep(Duration::from_millis(1));
        }
        (records, predictions.next_seq())
    });
    let (mut wanted, mut wanted_prediction, mut caught_up) = (FROM, 0, 0);
    while wanted < BEFORE + AFTER {
        let message = next(&mut client).await.expect("the server went away");
        match message["type"].as_str().unwrap() {
            "record" => {
                assert_eq!(message["seq"].as_u64(), Some(wanted));
                assert_eq!(message["payload"]["rpm"].as_u64(), Some(wanted % 15_000));
                assert_eq!(message["topic"], "v1/car_data");
                wanted += 1;
            }
            "prediction" => {
                assert_eq!(message["seq"].as_u64(), Some(wanted_prediction));
                assert_eq!(message["topic"], "trackside/v1/predictions/laptime/1");
                wanted_prediction += 1;
            }
            "caught_up" => caught_up += 1,
            other => panic!("unasked for: {other}"),
        }
    }
    let (_records, predictions_made) = writer.await.unwrap();
    while wanted_prediction < predictions_made {
        let message = next(&mut client).await.unwrap();
        if message["type"] == "prediction" {
            assert_eq!(message["seq"].as_u64(), Some(wanted_prediction));
            wanted_prediction += 1;
        }
    }
    assert_eq!(caught_up, 2, "one word a stream that what follows is live");
    stop.cancel();
    assert_eq!(next(&mut client).await, None);
    tokio::time::timeout(SHUTDOWN_GRACE, server.finished())
        .await
        .unwrap();
}

/// A client that reads nothing holds up neither the writer nor another client.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_client_slows_only_itself() {
    const COUNT: u64 = 40_000;
    let mut world = World::new();
    let (server, stop) = served(&world).await;
    let mut slow = connect(&server, "topics=records&from_seq=0").await;
    let hello = next(&mut slow).await.unwrap();
    assert_eq!(hello["type"], "hello");
    let mut quick = connect(&server, "topics=records&from_seq=0").await;
    for chunk in 0..COUNT / 1_000 {
        world
            .records
            .append((0..1_000).map(|i| car_data(chunk * 1_000 + i)).collect());
        world.records.commit().unwrap();
    }
    let mut got = 0;
    while got < COUNT {
        let message = next(&mut quick).await.unwrap();
        got += u64::from(message["type"] == "record");
    }
    // The slow one then reads at its own pace, and misses nothing.
    let mut wanted = 0;
    while wanted < COUNT {
        let message = next(&mut slow).await.unwrap();
        if message["type"] == "record" {
            assert_eq!(message["seq"].as_u64(), Some(wanted));
            wanted += 1;
        }
    }
    stop.cancel();
    server.finished().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_comes_at_once_and_then_the_latest_wins() {
    let mut world = World::racing();
    world.healthy(|_| ());
    let (server, stop) = served(&world).await;
    let mut client = connect(&server, "topics=state,health").await;
    let mut first = Vec::new();
    for _ in 0..3 {
        first.push(
            next(&mut client).await.unwrap()["type"]
                .as_str()
                .unwrap()
                .to_owned(),
        );
    }
    first.sort();
    assert_eq!(first, ["health", "hello", "state"]);
    // A hundred snapshots in a burst are a few states, the last of them the newest.
    let begun = Instant::now();
    for i in 0..100 {
        world.commit(vec![car_data(i)]);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let newest = world.records.next_seq();
    let mut states = 0;
    loop {
        let message = next(&mut client).await.unwrap();
        if message["type"] != "state" {
            continue;
        }
        states += 1;
        if message["seq"].as_u64() == Some(newest) {
            break;
        }
    }
    let most = begun.elapsed().as_millis() / STATE_MILLIS + 2;
    assert!(states <= most, "{states} states, at most {most}");
    stop.cancel();
    server.finished().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alerts_and_insights_come_to_those_who_ask_for_them() {
    use crate::compute::By;
    use crate::insight::{Insight, Limit, Origin, TelemetryAlert};
    let world = World::racing();
    let (server, stop) = served(&world).await;
    let mut wall = connect(&server, "topics=alerts").await;
    let mut idle = connect(&server, "topics=health").await;
    let at = Time::from_millis(1_709_391_000_000);
    for client in [&mut wall, &mut idle] {
        assert_eq!(next(client).await.unwrap()["type"], "hello");
    }
    assert_eq!(world.context.alerts.receiver_count(), 1);
    let flag = crate::live::Alert {
        seq: 41,
        at,
        session_key: 9472,
        event: crate::race::Event::SessionStarted,
    };
    world.context.alerts.send(flag).unwrap();
    let message = next(&mut wall).await.unwrap();
    assert_eq!(message["type"], "alert");
    assert_eq!(message["payload"]["seq"], 41);
    let hot = |driver_number| {
        Insight::Telemetry(TelemetryAlert {
            origin: Origin {
                session_key: 9472,
                made_at: at,
                seq: 42,
                backend: By::Cpu,
            },
            driver_number,
            limit: Limit {
                channel: "oil_c".to_owned(),
                is_upper: true,
                limit: 140.0,
            },
            broken: true,
            seen: 141.5,
        })
    };
    world.context.news.send(hot(44)).unwrap();
    let message = next(&mut wall).await.unwrap();
    assert_eq!(message["type"], "alert");
    assert_eq!(message["payload"]["insight"], "telemetry");
    assert_eq!(message["payload"]["driver_number"], 44);
    assert_eq!(message["payload"]["seen"], 141.5);

    // One that is far behind is told how many it missed, and goes on with the newest.
    for n in 0..=crate::insight::INSIGHTS {
        world.context.news.send(hot((n % 99) as u8 + 1)).unwrap();
    }
    let mut missed = 0;
    let mut heard = 0;
    while heard + missed <= crate::insight::INSIGHTS as u64 {
        let message = next(&mut wall).await.unwrap();
        match message["type"].as_str() {
            Some("alert") => heard += 1,
            Some("missed") => {
                assert_eq!(message["stream"], "insights");
                missed += message["count"].as_u64().unwrap();
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(heard + missed, crate::insight::INSIGHTS as u64 + 1);
    stop.cancel();
    server.finished().await;
}

const STATE_MILLIS: u128 = stream::STATE_INTERVAL.as_millis();

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_another_journal_is_set_back_and_wrong_wishes_are_refused() {
    let world = World::racing();
    let (server, stop) = served(&world).await;
    let mut client = connect(&server, "topics=records&from_seq=999999").await;
    let hello = next(&mut client).await.unwrap();
    assert_eq!(hello["reset"], true);
    assert_eq!(hello["from_seq"], hello["next_seq"]);
    for wrong in [
        "topics=tea",
        "topics=state&from_seq=1",
        "topics=records&kinds=lap",
        "from_seq=x",
    ] {
        let url = format!("ws://{}/ws?{wrong}", server.address());
        let error = tokio_tungstenite::connect_async(url).await.unwrap_err();
        let tokio_tungstenite::tungstenite::Error::Http(response) = error else {
            panic!("{wrong}: {error}");
        };
        assert_eq!(response.status().as_u16(), 400, "{wrong}");
    }
    // A flood from a client ends it.
    use futures_util::SinkExt;
    for _ in 0..=stream::MAX_INBOUND {
        let _ = client.send(Message::text("hello?")).await;
    }
    while let Some(message) = next(&mut client).await {
        assert_ne!(message["type"], "record");
    }
    stop.cancel();
    server.finished().await;
}

#[tokio::test]
async fn a_taken_address_is_named_with_a_remedy() {
    let world = World::new();
    let (server, stop) = served(&world).await;
    let again = serve(server.address(), world.context.clone(), stop.clone()).await;
    let text = again.unwrap_err().to_string();
    assert!(
        text.contains(&server.address().to_string()) && text.contains("[api] listen"),
        "{text}"
    );
    stop.cancel();
    server.finished().await;
}

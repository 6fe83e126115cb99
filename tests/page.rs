//! The pit-wall page shows the race that the daemon takes in, in a real browser, without an error.

#![forbid(unsafe_code)]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use support::{
    Broker, BrokerOptions, Browser, Daemon, Publisher, Recording, Scratch, mqtt_source, wait_for,
};

const READY_WITHIN: Duration = Duration::from_secs(180);
const SHOWN_WITHIN: Duration = Duration::from_secs(180);
/// Of the recording's first ten minutes: the formation lap and the first laps of every car …
const FIRST_MESSAGES: usize = 80_000;
/// … and at least a lap more.
const MORE_MESSAGES: usize = 24_000;
/// Cars in that race.
const CARS: usize = 20;
/// What each row of the timing tower shows, top to bottom.
const ROWS: &str = "[...document.querySelectorAll('#rows tr')].map(row => {
  const cell = name => row.querySelector(`[data-cell=${name}]`)?.innerText.trim() ?? '';
  return Object.fromEntries(['position', 'car', 'gap', 'last', 'tyre', 'next', 'win', 'pit']
    .map(name => [name, cell(name)]));
})";
/// A desk, the narrowest laptop that is promised, a phone (CSS pixels).
const WINDOWS: [(u32, u32); 3] = [(1920, 1080), (1280, 800), (390, 844)];
/// Columns that a phone must show.
const ON_A_PHONE: [&str; 7] = ["position", "car", "gap", "last", "tyre", "next", "pit"];
/// `TRACKSIDE_SCREENSHOTS=FOLDER` keeps what the page looked like.
const SCREENSHOTS: &str = "TRACKSIDE_SCREENSHOTS";

type Row = BTreeMap<String, String>;

#[test]
fn the_page_shows_the_race_as_it_moves() {
    let Some(path) = support::data("recordings/2024-bahrain-race-first-10-minutes.ndjson.zst")
    else {
        return;
    };
    let scratch = Scratch::new();
    let broker = Broker::start(&scratch.join("broker"), BrokerOptions::default());
    let daemon = Daemon::start(
        &scratch.join("daemon"),
        &mqtt_source(&broker, "page"),
        READY_WITHIN,
    );
    daemon.wait_connected(READY_WITHIN);
    let url = format!("http://{}/", daemon.address());
    // Opened before anything has happened, as on a morning in the garage.
    let mut browser = Browser::open(&scratch.join("browser"), &url);
    let publisher = Publisher::connect(&broker, "page-publisher");
    let mut recording = Recording::open(&path);
    for message in recording.by_ref().take(FIRST_MESSAGES) {
        publisher.publish(&message.topic, message.payload);
    }
    publisher.wait_accepted(FIRST_MESSAGES, SHOWN_WITHIN);
    let before = settled(&daemon, &mut browser, FIRST_MESSAGES);

    for message in recording.take(MORE_MESSAGES) {
        publisher.publish(&message.topic, message.payload);
    }
    publisher.wait_accepted(FIRST_MESSAGES + MORE_MESSAGES, SHOWN_WITHIN);
    let after = settled(&daemon, &mut browser, FIRST_MESSAGES + MORE_MESSAGES);

    for rows in [&before, &after] {
        let driving = rows.iter().filter(|r| r["gap"] != "–").count();
        assert!(driving >= CARS - 1, "few gaps: {rows:#?}");
        let tyres = rows.iter().filter(|r| is_tyre(&r["tyre"])).count();
        assert_eq!(tyres, CARS, "a car without tyres: {rows:#?}");
        assert_eq!(rows[0]["position"], "1");
        assert_eq!(rows[0]["gap"], "leader");
    }
    let predicted = |column: &str| after.iter().filter(|r| has_number(&r[column])).count();
    for column in ["last", "next", "win", "pit"] {
        let cars = predicted(column);
        assert!(cars >= CARS - 1, "{column} of only {cars} cars: {after:#?}");
    }
    for column in ["gap", "last", "tyre", "next", "pit"] {
        let earlier: BTreeMap<&str, &str> = before
            .iter()
            .map(|r| (r["car"].as_str(), r[column].as_str()))
            .collect();
        let moved = after
            .iter()
            .filter(|r| earlier.get(r["car"].as_str()) != Some(&r[column].as_str()))
            .count();
        assert!(moved >= CARS / 2, "{column} of only {moved} cars has moved");
    }

    let pictures = std::env::var_os(SCREENSHOTS).map_or_else(|| scratch.join(""), Into::into);
    for (width, height) in WINDOWS {
        browser.resize(width, height);
        let wider = browser.evaluate("document.documentElement.scrollWidth > innerWidth");
        assert_eq!(wider, false, "the page scrolls sideways at {width} pixels");
        let picture = pictures.join(format!("page-{width}.png"));
        browser.screenshot(&picture);
        assert!(std::fs::metadata(&picture).is_ok_and(|m| m.len() > 10_000));
    }
    // The window is a phone's now: what matters must be within it without scrolling the table.
    for column in ON_A_PHONE {
        let right = browser.evaluate(&format!(
            "Math.round(document.querySelector('#rows [data-cell={column}]').getBoundingClientRect().right)"
        ));
        let right = right.as_i64().expect("a place");
        assert!(
            (1..=390).contains(&right),
            "{column} ends at {right} of 390 pixels"
        );
    }
    assert!(browser.faults().is_empty(), "{:#?}", browser.faults());
    let own = [url.clone(), url.replacen("http", "ws", 1)];
    let foreign: Vec<_> = browser
        .requests()
        .iter()
        .filter(|asked| !own.iter().any(|prefix| asked.starts_with(prefix)))
        .collect();
    assert!(foreign.is_empty(), "asked elsewhere: {foreign:?}");
    assert!(browser.requests().len() >= 4, "{:?}", browser.requests());
}

/// The rows, once the daemon has taken in `messages` and the page shows what the daemon says.
fn settled(daemon: &Daemon, browser: &mut Browser, messages: usize) -> Vec<Row> {
    wait_for("the daemon to have it all", SHOWN_WITHIN, || {
        let health = daemon.json("/health");
        let taken = health["sources"][0]["messages"].as_u64()?;
        let predicted = health["predictor"]["seq"].as_u64()?;
        let next = health["journal"]["next_seq"].as_u64()?;
        (taken >= messages as u64 && predicted + 1 >= next).then_some(())
    });
    wait_for(
        "the page to show what the daemon says",
        SHOWN_WITHIN,
        || {
            let state = daemon.json("/api/v1/state");
            let cars = state["rows"].as_array()?;
            let rows: Vec<Row> = serde_json::from_value(browser.evaluate(ROWS)).ok()?;
            let same = cars.len() == CARS
                && rows.len() == CARS
                && cars.iter().zip(&rows).all(|(car, row)| {
                    let acronym = car["acronym"].as_str().unwrap_or_default();
                    !acronym.is_empty()
                        && row["car"].contains(acronym)
                        && car["gap"].as_f64().is_none_or(|gap| {
                            car["position"] == 1 || row["gap"] == format!("+{gap:.3}")
                        })
                });
            same.then_some(rows)
        },
    )
}

/// A compound's letter and an age, such as `S 4`.
fn is_tyre(text: &str) -> bool {
    text.starts_with(['S', 'M', 'H', 'I', 'W']) && has_number(text)
}

fn has_number(text: &str) -> bool {
    text.contains(|c: char| c.is_ascii_digit())
}

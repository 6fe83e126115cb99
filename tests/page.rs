//! The pit-wall page shows the race that the daemon takes in, in a real browser, without an error.

#![forbid(unsafe_code)]

mod support;

use std::time::Duration;

use support::{
    Broker, BrokerOptions, Browser, Daemon, Publisher, Recording, Scratch, mqtt_source, wait_for,
};

const READY_WITHIN: Duration = Duration::from_secs(60);
const SHOWN_WITHIN: Duration = Duration::from_secs(60);
/// Of the recording's first ten minutes: enough for a few laps of every car.
const MESSAGES: usize = 60_000;
/// Cars in that race.
const CARS: u64 = 20;
/// The text of each row of the timing tower, top to bottom.
const ROWS: &str = "[...document.querySelectorAll('#rows tr')].map(row => row.textContent)";
/// A desk, the narrowest laptop that is promised, a phone (CSS pixels).
const WINDOWS: [(u32, u32); 3] = [(1920, 1080), (1280, 800), (390, 844)];

#[test]
fn the_page_shows_the_running_order() {
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
    for message in Recording::open(&path).take(MESSAGES) {
        publisher.publish(&message.topic, message.payload);
    }
    publisher.wait_accepted(MESSAGES, SHOWN_WITHIN);

    wait_for("every car to be on the page", SHOWN_WITHIN, || {
        let cars = browser.evaluate("document.querySelectorAll('#rows tr').length");
        (cars.as_u64() == Some(CARS)).then_some(())
    });
    // What the page shows must come to be what the daemon says.
    wait_for("the page's order to be the daemon's", SHOWN_WITHIN, || {
        let state = daemon.json("/api/v1/state");
        let acronyms = state["rows"].as_array()?.iter();
        let rows = browser.evaluate(ROWS);
        let rows = rows.as_array()?;
        let same = rows.len() == acronyms.len()
            && acronyms.zip(rows).all(|(car, row)| {
                let acronym = car["acronym"].as_str().unwrap_or_default();
                !acronym.is_empty() && row.as_str().is_some_and(|r| r.contains(acronym))
            });
        same.then_some(())
    });
    for (width, height) in WINDOWS {
        browser.resize(width, height);
        let wider = browser.evaluate("document.documentElement.scrollWidth > innerWidth");
        assert_eq!(wider, false, "the page scrolls sideways at {width} pixels");
    }
    assert!(browser.faults().is_empty(), "{:#?}", browser.faults());
}

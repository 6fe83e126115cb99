//! `POST /token`: user name and password for a token of about an hour.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::rest::body;
use crate::ingest::secret::Secret;

/// Largest answer that is read (B).
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// A token is taken to live at least and at most this long, whatever the service says.
const LIFE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(24 * 3600));
/// Characters of an unexpected answer that are shown.
const SHOWN: usize = 120;

/// A token and how long it lives from now.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token {
    pub text: Secret,
    pub life: Duration,
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub(super) enum TokenError {
    #[error("{url} answers {status}: {answer}; check username and password")]
    Denied {
        url: String,
        status: u16,
        answer: String,
    },
    #[error("{url} answers {status}: {answer}; trying again")]
    Unavailable {
        url: String,
        status: u16,
        answer: String,
    },
    #[error("{url} cannot be reached: {fault}; trying again")]
    Unreachable { url: String, fault: String },
    #[error("{url} answers with no token: {fault}; trying again")]
    Nonsense { url: String, fault: String },
}

#[derive(Deserialize)]
struct Answer {
    access_token: Secret,
    #[serde(deserialize_with = "seconds")]
    expires_in: f64,
}

/// OpenF1 writes seconds as a string; the standard says a number.
fn seconds<'de, D: Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Seconds {
        Number(f64),
        Text(String),
    }
    match Seconds::deserialize(d)? {
        Seconds::Number(s) => Ok(s),
        Seconds::Text(t) => t.trim().parse().map_err(|_| {
            serde::de::Error::custom(format!("expires_in {t:?} is no number of seconds"))
        }),
    }
}

fn parse(bytes: &[u8]) -> Result<Token, String> {
    let answer: Answer = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    if answer.access_token.reveal().is_empty() {
        return Err("access_token is empty".into());
    }
    // Not finite or negative: take the shortest life.
    let life = Duration::try_from_secs_f64(answer.expires_in).unwrap_or_default();
    Ok(Token {
        text: answer.access_token,
        life: life.clamp(LIFE.0, LIFE.1),
    })
}

/// Asks for a token once.
pub(super) async fn fetch(
    http: &reqwest::Client,
    url: &str,
    username: &str,
    password: &Secret,
) -> Result<Token, TokenError> {
    let unreachable = |fault: String| TokenError::Unreachable {
        url: url.into(),
        fault,
    };
    let form = [("username", username), ("password", password.reveal())];
    let response = http
        .post(url)
        .form(&form)
        .send()
        .await
        .map_err(|e| unreachable(chain(&e)))?;
    let status = response.status().as_u16();
    let bytes = body(response, MAX_ANSWER_BYTES)
        .await
        .map_err(unreachable)?;
    let answer = || {
        let text = String::from_utf8_lossy(&bytes);
        text.trim().chars().take(SHOWN).collect::<String>()
    };
    match status {
        200..=299 => parse(&bytes).map_err(|fault| TokenError::Nonsense {
            url: url.into(),
            fault,
        }),
        400 | 401 | 403 | 422 => Err(TokenError::Denied {
            url: url.into(),
            status,
            answer: answer(),
        }),
        _ => Err(TokenError::Unavailable {
            url: url.into(),
            status,
            answer: answer(),
        }),
    }
}

/// An error with its causes: reqwest's own words alone say little.
fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(e) = cause {
        text = format!("{text}: {e}");
        cause = e.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expires_in_may_be_text_or_number_and_is_bounded() {
        let life = |value: &str| {
            let text =
                format!(r#"{{"access_token":"t","expires_in":{value},"token_type":"bearer"}}"#);
            parse(text.as_bytes()).map(|t| t.life.as_secs())
        };
        assert_eq!(life("\"3600\"").unwrap(), 3600);
        assert_eq!(life("3600").unwrap(), 3600);
        assert_eq!(life("\" 60.5 \"").unwrap(), 60);
        assert_eq!(life("-5").unwrap(), 10);
        assert_eq!(life("\"inf\"").unwrap(), 10);
        assert_eq!(life("1e12").unwrap(), 24 * 3600);
        assert!(life("\"an hour\"").unwrap_err().contains("an hour"));
        assert!(life("null").is_err());
        assert!(parse(br#"{"expires_in":"3600"}"#).is_err());
        assert!(
            parse(br#"{"access_token":"","expires_in":1}"#)
                .unwrap_err()
                .contains("empty")
        );
        assert!(parse(b"Service Unavailable").is_err());
    }
}

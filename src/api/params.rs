//! Query parameters, read strictly: an unknown name or a value out of range is refused by name.

use std::ops::RangeInclusive;
use std::str::FromStr;

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;

use super::Refusal;
use crate::record::{Kind, Time};

/// Most parameters that a request may carry.
pub const MAX_PARAMETERS: usize = 16;

/// The parameters of one request.
#[derive(Clone, Debug, Default)]
pub struct Params(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Params, Refusal> {
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let Query(pairs) = Query::<Vec<(String, String)>>::from_request_parts(parts, state)
            .await
            .map_err(|_| Refusal::parameter("query", &query, "write name=value&name=value"))?;
        if pairs.len() > MAX_PARAMETERS {
            return Err(Refusal::parameter(
                "query",
                &query,
                &format!("give at most {MAX_PARAMETERS} parameters"),
            ));
        }
        Ok(Params(pairs))
    }
}

impl Params {
    /// Refuses a name that is not among `known`, and a name given twice.
    pub fn only(self, known: &[&str]) -> Result<Params, Refusal> {
        for (i, (name, value)) in self.0.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                let remedy = if known.is_empty() {
                    "this route takes no parameters".to_owned()
                } else {
                    format!("this route takes {}", known.join(", "))
                };
                return Err(Refusal::parameter("parameter", name, &remedy));
            }
            if self.0[..i].iter().any(|(earlier, _)| earlier == name) {
                return Err(Refusal::parameter(name, value, "give it once"));
            }
        }
        Ok(self)
    }

    /// The text of a parameter.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    /// A whole number within `range`.
    pub fn number<T>(&self, name: &str, range: RangeInclusive<T>) -> Result<Option<T>, Refusal>
    where
        T: FromStr + PartialOrd + std::fmt::Display,
    {
        self.text(name)
            .map(|text| number(name, text, range))
            .transpose()
    }

    /// An ISO 8601 time. A `+` that the query's encoding turned into a space is put back.
    pub fn time(&self, name: &str) -> Result<Option<Time>, Refusal> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        let parsed = text.parse::<Time>().or_else(|e| match text.rfind(' ') {
            Some(at) => format!("{}+{}", &text[..at], &text[at + 1..]).parse(),
            None => Err(e),
        });
        parsed.map(Some).map_err(|_| {
            Refusal::parameter(
                name,
                text,
                "write an ISO 8601 time such as 2024-03-02T15:02:42Z",
            )
        })
    }

    /// Collections by name, separated by commas.
    pub fn kinds(&self, name: &str) -> Result<Option<Vec<Kind>>, Refusal> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        text.split(',')
            .map(|part| {
                Kind::from_name(part.trim()).ok_or_else(|| {
                    let names: Vec<_> = Kind::ALL.iter().map(|k| k.name()).collect();
                    Refusal::parameter(name, part, &format!("the kinds are {}", names.join(", ")))
                })
            })
            .collect::<Result<_, _>>()
            .map(Some)
    }
}

/// `text` as a whole number within `range`.
pub fn number<T>(name: &str, text: &str, range: RangeInclusive<T>) -> Result<T, Refusal>
where
    T: FromStr + PartialOrd + std::fmt::Display,
{
    match text.parse::<T>() {
        Ok(n) if range.contains(&n) => Ok(n),
        _ => Err(Refusal::parameter(
            name,
            text,
            &format!(
                "give a whole number from {} to {}",
                range.start(),
                range.end()
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(pairs: &[(&str, &str)]) -> Params {
        Params(
            pairs
                .iter()
                .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
                .collect(),
        )
    }

    #[test]
    fn a_wrong_value_is_named_with_its_remedy() {
        let p = params(&[("limit", "9000")]);
        let refusal = p.number("limit", 1..=500usize).unwrap_err();
        assert_eq!(
            refusal.detail,
            "limit is \"9000\"; give a whole number from 1 to 500"
        );
        assert!(p.clone().only(&["limit"]).is_ok());
        let refusal = p.only(&["from_seq"]).unwrap_err();
        assert!(refusal.detail.contains("\"limit\"") && refusal.detail.contains("from_seq"));
        let twice = params(&[("limit", "1"), ("limit", "2")]);
        assert!(twice.only(&["limit"]).is_err());
    }

    #[test]
    fn times_survive_a_plus_that_became_a_space() {
        let whole: Time = "2024-03-02T15:02:42.5+00:00".parse().unwrap();
        for text in [
            "2024-03-02T15:02:42.5+00:00",
            "2024-03-02T15:02:42.5 00:00",
            "2024-03-02T15:02:42.5Z",
        ] {
            let p = params(&[("from", text)]);
            assert_eq!(p.time("from").unwrap(), Some(whole), "{text}");
        }
        assert!(params(&[("from", "yesterday")]).time("from").is_err());
        assert!(params(&[("from", " ")]).time("from").is_err());
    }

    #[test]
    fn kinds_are_collection_names() {
        let p = params(&[("kinds", "laps, pit")]);
        assert_eq!(p.kinds("kinds").unwrap(), Some(vec![Kind::Lap, Kind::Pit]));
        let refusal = params(&[("kinds", "lap")]).kinds("kinds").unwrap_err();
        assert!(refusal.detail.contains("car_data"), "{}", refusal.detail);
    }
}

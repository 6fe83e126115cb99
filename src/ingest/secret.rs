//! Passwords: read from the configuration or from a file, never shown.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, Serializer};

/// Most bytes of a password file that are read.
const MAX_SECRET_BYTES: u64 = 4096;

/// A text that neither `Debug` nor `Serialize` gives away.
///
/// ```
/// use trackside::ingest::secret::Secret;
/// let secret = Secret::from("box, box");
/// assert_eq!(format!("{secret:?}"), "***");
/// assert_eq!(secret.reveal(), "box, box");
/// ```
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Secret(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str("***")
    }
}

/// A password file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error("password file {path}: {source}; it must be readable by the daemon's user")]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("password file {path}: {fault}; it must hold the password as one line of UTF-8")]
    Content { path: PathBuf, fault: &'static str },
}

/// The password: as given, else the first line of `file`, else none.
///
/// # Errors
/// If the file cannot be read, is empty, is too large, or is not UTF-8.
pub fn resolve(given: Option<&Secret>, file: Option<&Path>) -> Result<Option<Secret>, Unreadable> {
    use std::io::Read;
    if let Some(secret) = given {
        return Ok(Some(secret.clone()));
    }
    let Some(path) = file else { return Ok(None) };
    let io = |source| Unreadable::Io {
        path: path.into(),
        source,
    };
    let content = |fault| Unreadable::Content {
        path: path.into(),
        fault,
    };
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .map_err(io)?
        .take(MAX_SECRET_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(io)?;
    if bytes.len() as u64 > MAX_SECRET_BYTES {
        return Err(content("more than 4096 bytes"));
    }
    let text = String::from_utf8(bytes).map_err(|_| content("not UTF-8"))?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(Some(Secret(line.into()))),
        _ => Err(content("empty")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_gives_its_first_line_and_says_what_is_wrong_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        let read = || resolve(None, Some(&path)).map_err(|e| e.to_string());

        assert!(read().unwrap_err().contains("password"));
        std::fs::write(&path, "undercut\nsecond line\n").unwrap();
        assert_eq!(read().unwrap(), Some("undercut".into()));
        std::fs::write(&path, "\n").unwrap();
        assert!(read().unwrap_err().contains("empty"));
        std::fs::write(&path, vec![b'x'; 5000]).unwrap();
        assert!(read().unwrap_err().contains("4096"));
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(read().unwrap_err().contains("UTF-8"));

        let given = Secret::from("given");
        assert_eq!(resolve(Some(&given), Some(&path)).unwrap(), Some(given));
        assert_eq!(resolve(None, None).unwrap(), None);
    }

    #[test]
    fn it_is_not_written_out() {
        let json = serde_json::to_string(&Secret::from("overcut")).unwrap();
        assert_eq!(json, r#""***""#);
    }
}

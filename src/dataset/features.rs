//! Arrays for training: one folder, a `.npy` file (little-endian `f32`, C order) an array, and `schema.json`
//! that says what they are. NumPy reads them as they are.
//!
//! ```
//! use trackside::dataset::features::Writer;
//! let dir = tempfile::tempdir().unwrap();
//! let mut writer = Writer::create(dir.path(), "laptime", 1).unwrap();
//! writer.array("x", &[2, 3], &["a", "b", "c"], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
//! writer.finish(serde_json::json!({ "races": ["2024 R1"] })).unwrap();
//! let bytes = std::fs::read(dir.path().join("x.npy")).unwrap();
//! assert_eq!(&bytes[..6], b"\x93NUMPY");
//! assert_eq!(bytes.len() % 64, 24); // a header of whole 64-byte lines, then 6 numbers
//! ```

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// Writes one folder of arrays.
pub struct Writer {
    folder: PathBuf,
    model: String,
    version: u32,
    arrays: Vec<Value>,
}

impl Writer {
    /// Makes the folder. `version` is that of the features' definition: training refuses another.
    ///
    /// # Errors
    /// If the folder cannot be made.
    pub fn create(folder: &Path, model: &str, version: u32) -> std::io::Result<Writer> {
        std::fs::create_dir_all(folder)?;
        Ok(Writer {
            folder: folder.to_owned(),
            model: model.to_owned(),
            version,
            arrays: Vec::new(),
        })
    }

    /// Writes `name.npy`. `columns` names the last dimension, or is empty.
    ///
    /// # Errors
    /// If the shape or the columns do not fit the values, or the file cannot be written.
    pub fn array(
        &mut self,
        name: &str,
        shape: &[usize],
        columns: &[&str],
        values: &[f32],
    ) -> std::io::Result<()> {
        let fits = shape.iter().product::<usize>() == values.len()
            && (columns.is_empty() || shape.last() == Some(&columns.len()));
        if !fits {
            let what = format!(
                "array {name}: shape {shape:?} and {} columns do not fit {} values",
                columns.len(),
                values.len()
            );
            return Err(std::io::Error::other(what));
        }
        let path = self.folder.join(format!("{name}.npy"));
        let mut file = BufWriter::new(File::create(path)?);
        file.write_all(&header(shape))?;
        for value in values {
            file.write_all(&value.to_le_bytes())?;
        }
        file.flush()?;
        self.arrays
            .push(json!({ "name": name, "shape": shape, "columns": columns }));
        Ok(())
    }

    /// Writes `schema.json` with `about` in it, at last: a folder without it is not complete.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn finish(self, about: Value) -> std::io::Result<()> {
        let schema = json!({
            "model": self.model,
            "features_version": self.version,
            "made_by": concat!("trackside ", env!("CARGO_PKG_VERSION")),
            "arrays": self.arrays,
            "about": about,
        });
        let text = serde_json::to_string_pretty(&schema).map_err(std::io::Error::other)?;
        std::fs::write(self.folder.join("schema.json"), text)
    }
}

/// The header of format 1.0, padded to whole lines of 64 bytes.
fn header(shape: &[usize]) -> Vec<u8> {
    let dims: String = shape.iter().map(|d| format!("{d},")).collect();
    let text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({dims}), }}");
    let unpadded = 10 + text.len() + 1;
    let padding = unpadded.next_multiple_of(64) - unpadded;
    let length = (text.len() + padding + 1) as u16;
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend(length.to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes.extend(std::iter::repeat_n(b' ', padding));
    bytes.push(b'\n');
    bytes
}

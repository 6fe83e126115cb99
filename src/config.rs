//! Configuration: one TOML file, every key overridable as `TRACKSIDE__SECTION__KEY`.
//!
//! Parsed once into typed values; nothing past this point sees a string. A wrong key or value is
//! refused with the line, what was found and what is allowed.
//!
//! **Invariant:** a [`Config`] that exists is valid.

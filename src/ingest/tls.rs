//! TLS for every outgoing connection: rustls with ring, the system's roots or a named authority,
//! and a client certificate where one is asked for.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// Why no TLS connection can be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{what} {path}: {fault}; a PEM file is needed")]
    Pem {
        what: &'static str,
        path: PathBuf,
        fault: String,
    },
    #[error("{what} {path} holds no certificate; a PEM file with at least one is needed")]
    NoCertificate { what: &'static str, path: PathBuf },
    #[error(
        "the system has no usable root certificates ({0}); install ca-certificates or name a ca_file"
    )]
    NoRoots(String),
    #[error("client certificate and key do not serve: {0}")]
    ClientAuth(rustls::Error),
    #[error("TLS: {0}")]
    Rustls(#[from] rustls::Error),
}

/// A client's configuration: trusts `ca_file` alone if given, else the system's roots; shows
/// `client` (certificate chain, key) if given.
///
/// # Errors
/// If a file is missing or holds no usable PEM, or the system has no roots.
pub fn client_config(
    ca_file: Option<&Path>,
    client: Option<(&Path, &Path)>,
) -> Result<ClientConfig, Error> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        Some(path) => {
            for certificate in certificates("ca_file", path)? {
                roots.add(certificate).map_err(|e| Error::Pem {
                    what: "ca_file",
                    path: path.into(),
                    fault: e.to_string(),
                })?;
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            let (added, _) = roots.add_parsable_certificates(found.certs);
            if added == 0 {
                let fault = found.errors.first().map(ToString::to_string);
                return Err(Error::NoRoots(fault.unwrap_or_else(|| "none found".into())));
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    match client {
        None => Ok(builder.with_no_client_auth()),
        Some((chain, key)) => {
            let certificates = certificates("client_cert_file", chain)?;
            let key = PrivateKeyDer::from_pem_file(key).map_err(|e| Error::Pem {
                what: "client_key_file",
                path: key.into(),
                fault: e.to_string(),
            })?;
            builder
                .with_client_auth_cert(certificates, key)
                .map_err(Error::ClientAuth)
        }
    }
}

/// A configuration with which no TLS connection succeeds: for clients that speak none.
///
/// # Errors
/// Never, as long as ring offers a protocol version.
pub fn trusting_nobody() -> Result<ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth())
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let fault = |e: rustls::pki_types::pem::Error| Error::Pem {
        what,
        path: path.into(),
        fault: e.to_string(),
    };
    let found = CertificateDer::pem_file_iter(path)
        .map_err(fault)?
        .collect::<Result<Vec<_>, _>>()
        .map_err(fault)?;
    if found.is_empty() {
        return Err(Error::NoCertificate {
            what,
            path: path.into(),
        });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let fault = |p: &Path| client_config(Some(p), None).unwrap_err().to_string();
        assert!(fault(&path).contains("ca.pem"), "{}", fault(&path));
        std::fs::write(&path, "not a certificate").unwrap();
        assert!(
            fault(&path).contains("holds no certificate"),
            "{}",
            fault(&path)
        );
        std::fs::write(
            &path,
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        )
        .unwrap();
        assert!(fault(&path).contains("ca.pem"), "{}", fault(&path));
    }
}

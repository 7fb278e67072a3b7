//! TLS verification of the instance's certificate against the system's certificate authorities and those of `ca_file`.
//!
//! Verification cannot be disabled. TLS 1.2 and 1.3, HTTP/1.1.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls_platform_verifier::Verifier;

use super::{Connection, Error};

/// The TLS configuration that all slots of a connection share.
pub fn config(connection: &Connection) -> Result<ClientConfig, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(Error::Tls)?;
    let extra_roots = read_ca_file(connection)?;
    let mut config = if connection.base_url.starts_with("https") {
        let verifier = Verifier::new_with_extra_roots(extra_roots, provider).map_err(Error::Tls)?;
        // rustls calls every custom verifier dangerous; this one performs all checks of the default verifier.
        builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()
    } else {
        // Not used: an instance over plain HTTP has no certificate, and the machine may have no authorities.
        builder.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth()
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn read_ca_file(connection: &Connection) -> Result<Vec<CertificateDer<'static>>, Error> {
    let Some(path) = &connection.ca_file else { return Ok(Vec::new()) };
    let pem = std::fs::read(path).map_err(|source| Error::CaFile { path: path.clone(), source })?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found.map_err(|source| Error::CaPem { path: path.clone(), source })?;
    if found.is_empty() {
        return Err(Error::CaEmpty { path: path.clone() });
    }
    Ok(found)
}

//! Tests of TLS: the client verifies the instance's certificate against the configured authority and the host name, and
//! sends nothing if verification fails.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use nowbridge::model::{Answer, FailureClass};
use nowbridge::servicenow::{Auth, Client, Connection, Request};
use nowbridge::simulators::servicenow::{Options, RunningSimulator, Simulator};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use secrecy::SecretString;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// A certificate authority that the machine does not trust.
fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority")
}

/// Starts a TLS proxy for the simulator with a certificate for `name`; returns its local port.
async fn tls_proxy(running: &RunningSimulator, authority: &CertifiedIssuer<'static, KeyPair>, name: &str) -> u16 {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
    let certificate = params.signed_by(&key, authority).expect("a certificate");
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("TLS 1.2 and 1.3");
    let config = config
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .expect("a server's configuration");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let simulator = running.url().trim_start_matches("http://").to_owned();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, simulator) = (acceptor.clone(), simulator.clone());
            tokio::spawn(async move {
                // A client that does not trust the certificate disconnects here.
                let Ok(mut client) = acceptor.accept(stream).await else { return };
                let mut server = TcpStream::connect(simulator).await.expect("the simulator listens");
                let _ = copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    port
}

fn client(port: u16, ca_file: Option<&std::path::Path>) -> Client {
    let auth = Auth::Basic { user: "nowbridge".into(), password: SecretString::from("nowbridge") };
    let mut connection = Connection::new(format!("https://localhost:{port}"), "incident", auth);
    connection.deadline = Duration::from_secs(20);
    connection.ca_file = ca_file.map(Into::into);
    Client::new(connection, nowbridge::runtime::clock::mono).expect("a client")
}

fn create() -> Request {
    Request::Create {
        correlation: "k".into(),
        correlation_display: "nowbridge".into(),
        fields: vec![("short_description".into(), "disk full".into())],
        notes: Vec::new(),
    }
}

#[tokio::test]
async fn nothing_is_sent_unless_authority_and_host_name_are_verified() {
    let running = Simulator::start(Options::default()).await.expect("the simulator starts");
    let authority = authority();
    let mut ca_file = tempfile::NamedTempFile::new().expect("a file");
    ca_file.write_all(authority.pem().as_bytes()).expect("written");
    let (valid, wrong_name) =
        (tls_proxy(&running, &authority, "localhost").await, tls_proxy(&running, &authority, "other.example").await);

    for (port, ca_file, certificate) in
        [(valid, None, "an unknown authority"), (wrong_name, Some(ca_file.path()), "another host's certificate")]
    {
        let Answer::Failed(failure) = client(port, ca_file).perform(0, create()).await.answer else {
            panic!("{certificate} was trusted");
        };
        // Nothing was sent, so the write is not ambiguous.
        assert!(
            matches!(failure.class, FailureClass::Transient | FailureClass::Unavailable),
            "{certificate}: {failure:?}"
        );
        assert!(failure.message.contains("certificate"), "{certificate}: {}", failure.message);
    }

    let answer = client(valid, Some(ca_file.path())).perform(0, create()).await.answer;
    assert!(matches!(answer, Answer::Applied { .. }), "{answer:?}");
    assert_eq!(running.rows("incident", 0, 10)["total"], 1, "only the trusted connection wrote");
}

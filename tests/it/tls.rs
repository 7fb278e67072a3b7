//! TLS towards the instance: the certificate is verified against the configured authority and the host's name, and
//! nothing is sent where it does not hold.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use nowbridge::model::{Answer, Class};
use nowbridge::servicenow::{Auth, Client, Connection, Request};
use nowbridge::simulators::servicenow::{Options, Running, Simulator};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use secrecy::SecretString;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// An authority that the machine does not know.
fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority")
}

/// A front for the simulator that speaks TLS with a certificate for `name`; its port on this machine.
async fn front(running: &Running, authority: &CertifiedIssuer<'static, KeyPair>, name: &str) -> u16 {
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
    let behind = running.url().trim_start_matches("http://").to_owned();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, behind) = (acceptor.clone(), behind.clone());
            tokio::spawn(async move {
                // A client that does not trust us hangs up here.
                let Ok(mut outside) = acceptor.accept(stream).await else { return };
                let mut inside = TcpStream::connect(behind).await.expect("the simulator listens");
                let _ = copy_bidirectional(&mut outside, &mut inside).await;
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
async fn an_instance_is_trusted_by_its_authority_and_its_name_and_else_nothing_is_sent() {
    let running = Simulator::start(Options::default()).await.expect("the simulator starts");
    let authority = authority();
    let mut ca_file = tempfile::NamedTempFile::new().expect("a file");
    ca_file.write_all(authority.pem().as_bytes()).expect("written");
    let (right, wrong_name) =
        (front(&running, &authority, "localhost").await, front(&running, &authority, "other.example").await);

    for (port, ca_file, what) in
        [(right, None, "an unknown authority"), (wrong_name, Some(ca_file.path()), "another host's certificate")]
    {
        let Answer::Failed(failure) = client(port, ca_file).perform(0, create()).await.answer else {
            panic!("{what} was trusted");
        };
        // Nothing was sent, so nothing is in doubt.
        assert!(matches!(failure.class, Class::Transient | Class::Unavailable), "{what}: {failure:?}");
        assert!(failure.message.contains("certificate"), "{what}: {}", failure.message);
    }

    let answer = client(right, Some(ca_file.path())).perform(0, create()).await.answer;
    assert!(matches!(answer, Answer::Applied { .. }), "{answer:?}");
    assert_eq!(running.rows("incident", 0, 10)["total"], 1, "only the trusted connection wrote");
}

//! From the configuration's plain values to ready clients.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};

use secrecy::SecretString;

use crate::check;
use crate::config::{self, Instance, Secret, Sink, Source};
use crate::kafka::KafkaOptions;
use crate::kafka::options::{Mechanism, Sasl, Security, Tls};
use crate::quota::{Pace, PaceSettings};
use crate::runtime::clock;
use crate::servicenow::{Auth, Client, Connection, Credentials};

/// How to reach Kafka.
pub fn kafka(kafka: &config::Kafka) -> KafkaOptions {
    let sasl = kafka.sasl.as_ref().map(|s| Sasl {
        mechanism: match s.mechanism {
            "SCRAM-SHA-256" => Mechanism::ScramSha256,
            "SCRAM-SHA-512" => Mechanism::ScramSha512,
            _ => Mechanism::Plain,
        },
        username: s.user.clone(),
        password: secret(&s.password),
    });
    let tls = kafka.tls.as_ref().map(|t| Tls {
        ca: t.ca_file.clone(),
        certificate: t.certificate_file.clone(),
        key: t.key_file.clone(),
        key_password: t.key_password.as_ref().map(secret),
    });
    KafkaOptions {
        properties: kafka.properties.clone(),
        security: Security { tls, sasl },
        ..KafkaOptions::new(kafka.bootstrap.clone())
    }
}

/// Credentials as the client wants them.
pub fn auth(instance: &Instance) -> Auth {
    match &instance.auth {
        config::Auth::Basic { user, password } => Auth::Basic { user: user.clone(), password: secret(password) },
        config::Auth::ClientCredentials { client_id, client_secret, .. } => Auth::ClientCredentials {
            client_id: client_id.clone(),
            client_secret: secret(client_secret),
            token_url: None,
        },
    }
}

/// A client of one table of an instance.
///
/// # Errors
/// The address, the CA file or the proxy can't be used.
pub fn client(instance: &Instance, table: &str, state_column: &str) -> Result<Client> {
    Client::new(connection(instance, table, state_column), clock::mono)
        .with_context(|| format!("instance {}", instance.name))
}

/// The clients of the routes: those of one instance share its credentials, so that wrong ones are tried for all.
#[derive(Default)]
pub struct Clients {
    first: BTreeMap<String, Credentials>,
}

impl Clients {
    /// The client of a sink route.
    ///
    /// # Errors
    /// As [`client`], or the staging table has no name that a table can have.
    pub fn of_sink(&mut self, sink: &Sink) -> Result<Client> {
        self.sharing(&sink.instance, of_sink(sink)).with_context(|| format!("sink {}", sink.name))
    }

    /// The client of a source route.
    ///
    /// # Errors
    /// As [`client`].
    pub fn of_source(&mut self, source: &Source) -> Result<Client> {
        let instance = &source.instance;
        self.sharing(instance, connection(instance, &source.table, "state"))
            .with_context(|| format!("source {}", source.name))
    }

    fn sharing(&mut self, instance: &Instance, connection: Connection) -> Result<Client> {
        if let Some(first) = self.first.get(&instance.name) {
            return Ok(Client::sharing(connection, clock::mono, first)?);
        }
        let client = Client::new(connection, clock::mono)?;
        self.first.insert(instance.name.clone(), client.credentials());
        Ok(client)
    }
}

fn of_sink(sink: &Sink) -> Connection {
    let mut connection = connection(&sink.instance, &sink.table, &sink.settings.states.column);
    check::write_by(&mut connection, &sink.write);
    connection
}

fn connection(instance: &Instance, table: &str, state_column: &str) -> Connection {
    let mut connection = Connection::new(instance.url.clone(), table, auth(instance));
    connection.deadline = instance.request_deadline;
    connection.slots = instance.concurrency;
    connection.login_pause = instance.auth_retry.0;
    connection.proxy = instance.proxy.clone().map(Into::into);
    connection.ca_file.clone_from(&instance.ca_file);
    connection.state_column = state_column.into();
    connection.bridge_user = instance.auth.user().into();
    connection
}

/// The quota of an instance, shared by its routes; whether source routes are among them.
pub fn pace(instance: &Instance, sources: bool) -> Arc<Pace> {
    let rule_window = instance.rule_window;
    let mut settings = PaceSettings { slots: instance.concurrency, rule_window, sources, ..PaceSettings::default() };
    if let Some(rate) = instance.rate {
        settings.rate = NonZeroU32::new(rate.count);
        settings.per = rate.per;
    }
    Arc::new(Pace::new(&settings))
}

fn secret(secret: &Secret) -> SecretString {
    SecretString::from(secret.expose().to_owned())
}

/// Looks whether the instance's secret has changed in its file; gives the credentials with the new one.
pub fn new_credentials(instance: &Arc<Instance>) -> Arc<dyn Fn() -> Option<Auth> + Send + Sync> {
    let instance = Arc::clone(instance);
    let latest: Mutex<Option<Secret>> = Mutex::new(None);
    Arc::new(move || {
        let mut latest = latest.lock().unwrap_or_else(PoisonError::into_inner);
        let first = match &instance.auth {
            config::Auth::Basic { password, .. } => password,
            config::Auth::ClientCredentials { client_secret, .. } => client_secret,
        };
        // A file that can't be read for a moment is looked at again at the next call.
        let changed = latest.as_ref().unwrap_or(first).changed().ok().flatten()?;
        let mut fresh = Instance::clone(&instance);
        match &mut fresh.auth {
            config::Auth::Basic { password, .. } => *password = changed.clone(),
            config::Auth::ClientCredentials { client_secret, .. } => *client_secret = changed.clone(),
        }
        *latest = Some(changed);
        Some(auth(&fresh))
    })
}

//! Authentication: Basic with account lockout, bearer tokens, and the OAuth token endpoint.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::tz::TimeZone;
use serde_json::json;

use super::database::Database;
use super::options::{OauthClient, Options, Settings, User};
use super::reply::Reply;
use super::time;

/// An account.
pub(super) struct Account {
    pub user: User,
    /// Its index in [`super::table_storage::Actors`].
    pub actor: u32,
    pub zone: TimeZone,
}

impl Account {
    pub fn has_role(&self, role: &str) -> bool {
        self.user.roles.iter().any(|own| own == role || own == "admin")
    }

    pub fn is_admin(&self) -> bool {
        self.has_role("admin")
    }
}

#[derive(Default)]
struct Attempts {
    failed: u32,
    /// Unix milliseconds. `None`: not locked; `i64::MAX`: forever.
    locked_until: Option<i64>,
}

struct Token {
    text: String,
    /// Unix milliseconds.
    expires: i64,
}

/// Accounts, failed logins and tokens.
pub(super) struct Auth {
    accounts: HashMap<String, Arc<Account>>,
    attempts: HashMap<String, Attempts>,
    clients: Vec<OauthClient>,
    /// By client id and user. Until it expires, a further token request returns the same token.
    tokens: HashMap<(String, String), Token>,
    /// By token: account and expiry, Unix milliseconds.
    by_token: HashMap<String, (Arc<Account>, i64)>,
    rng: fastrand::Rng,
    lockouts: u64,
}

impl Auth {
    /// # Errors
    /// The time zone of an account or the account of an OAuth client does not exist.
    pub fn new(options: &Options, database: &mut Database) -> Result<Self, String> {
        let mut accounts = HashMap::new();
        for user in &options.users {
            let zone = match user.time_zone.as_str() {
                "UTC" | "GMT" => TimeZone::UTC,
                name => TimeZone::get(name)
                    .map_err(|_| format!("user {}: there is no time zone {name} on this host", user.name))?,
            };
            let actor = database.actors.id(&user.name);
            accounts.insert(user.name.clone(), Arc::new(Account { user: user.clone(), actor, zone }));
        }
        for client in &options.oauth_clients {
            if !accounts.contains_key(&client.user) {
                return Err(format!("OAuth client {}: there is no user {}", client.id, client.user));
            }
        }
        Ok(Self {
            accounts,
            attempts: HashMap::new(),
            clients: options.oauth_clients.clone(),
            tokens: HashMap::new(),
            by_token: HashMap::new(),
            rng: fastrand::Rng::with_seed(options.seed ^ 0x0a07),
            lockouts: 0,
        })
    }

    pub fn account(&self, name: &str) -> Option<Arc<Account>> {
        self.accounts.get(name).cloned()
    }

    /// Returns the locked accounts, and the number of lockouts so far.
    pub fn lockouts(&self) -> (Vec<String>, u64) {
        let now = time::now_ms();
        let locked = self.attempts.iter().filter(|(_, attempts)| attempts.locked_until.is_some_and(|at| at > now));
        (locked.map(|(name, _)| name.clone()).collect(), self.lockouts)
    }

    /// Unlocks an account.
    pub fn unlock(&mut self, name: &str) {
        self.attempts.remove(name);
    }

    /// Returns the account of an `Authorization` header's value.
    pub fn authorize(&mut self, header: &str, settings: &Settings) -> Option<Arc<Account>> {
        let (scheme, rest) = header.split_once(' ')?;
        if scheme.eq_ignore_ascii_case("bearer") {
            let (account, expires) = self.by_token.get(rest.trim())?;
            return (*expires > time::now_ms()).then(|| account.clone());
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let decoded = STANDARD.decode(rest.trim()).ok()?;
        let text = std::str::from_utf8(&decoded).ok()?;
        let (name, password) = text.split_once(':')?;
        self.password(name, password, settings)
    }

    /// Checks a password and counts wrong ones. A locked account is rejected even with the right password.
    fn password(&mut self, name: &str, password: &str, settings: &Settings) -> Option<Arc<Account>> {
        let account = self.accounts.get(name)?.clone();
        let now = time::now_ms();
        if account.user.password == password && !self.attempts.contains_key(name) {
            return Some(account);
        }
        let attempts = self.attempts.entry(name.into()).or_default();
        match attempts.locked_until {
            Some(until) if until > now => return None,
            Some(_) => *attempts = Attempts::default(),
            None => {}
        }
        if account.user.password == password {
            self.attempts.remove(name);
            return Some(account);
        }
        attempts.failed += 1;
        if settings.lockout_after > 0 && attempts.failed >= settings.lockout_after {
            let seconds = settings.unlock_after_seconds.map(|s| i64::try_from(s).unwrap_or(i64::MAX / 2_000));
            attempts.locked_until = Some(seconds.map_or(i64::MAX, |s| now.saturating_add(s.saturating_mul(1_000))));
            self.lockouts += 1;
        }
        None
    }

    /// Handles `POST /oauth_token.do`. As on a real instance, almost all errors return the same response.
    pub fn token(&mut self, content_type: &str, form: &[(String, String)], settings: &Settings) -> Reply {
        let get = |name: &str| form.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value.as_str());
        let is_form = content_type.to_ascii_lowercase().starts_with("application/x-www-form-urlencoded");
        let (id, secret) = (get("client_id"), get("client_secret"));
        let client = self.clients.iter().find(|client| is_form && client.id == id && client.secret == secret).cloned();
        let Some(client) = client else { return access_denied() };
        let account = match get("grant_type") {
            "client_credentials" => self.account(&client.user),
            "password" => {
                let (name, password) = (get("username").to_owned(), get("password").to_owned());
                self.password(&name, &password, settings)
            }
            _ => None,
        };
        let Some(account) = account else { return access_denied() };
        let now = time::now_ms();
        self.by_token.retain(|_, (_, expires)| *expires > now);
        let key = (client.id, account.user.name.clone());
        if self.tokens.get(&key).is_none_or(|token| token.expires <= now) {
            let lifetime = i64::try_from(settings.token_lifetime_seconds.saturating_mul(1_000)).unwrap_or(i64::MAX);
            let text = format!("{:043x}{:043x}", self.rng.u128(..), self.rng.u128(..));
            self.by_token.insert(text.clone(), (account, now.saturating_add(lifetime)));
            self.tokens.insert(key.clone(), Token { text, expires: now.saturating_add(lifetime) });
        }
        let Some(token) = self.tokens.get(&key) else { return access_denied() };
        let remaining = (token.expires - now).div_euclid(1_000);
        Reply::json(
            200,
            json!({"access_token": token.text, "scope": "useraccount", "token_type": "Bearer", "expires_in": remaining})
                .to_string()
                .into_bytes(),
        )
    }

    /// Revokes all tokens.
    pub fn revoke(&mut self) {
        self.tokens.clear();
        self.by_token.clear();
    }
}

/// The error response of the token endpoint.
pub(super) fn access_denied() -> Reply {
    Reply::json(401, br#"{"error_description":"access_denied","error":"server_error"}"#.to_vec())
}

//! Avro binary encoding with the schemas of `schemas/`, which are embedded in the program.
//!
//! The input of the encoder is the JSON form of a record, so the two forms cannot diverge. The output is a plain datum
//! without the framing of a schema registry. Fields of an alert event that its schema does not name are encoded as JSON
//! text in `extra`, and decoded back to fields. Fields that are null are left out of the JSON.

use std::sync::LazyLock;

use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value as Avro;
use apache_avro::writer::datum::GenericDatumWriter;
use apache_avro::{Error, Schema as Parsed};
use serde_json::{Map, Value};

/// A schema of `schemas/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schema {
    AlertEvent,
    Change,
    /// The headers of a dead letter.
    DeadLetter,
    Result,
}

static PARSED: LazyLock<[Result<Parsed, String>; 4]> =
    LazyLock::new(|| Schema::ALL.map(|schema| Parsed::parse_str(schema.text()).map_err(|error| error.to_string())));

/// Bytes or a value do not match a schema.
#[derive(Debug, thiserror::Error)]
pub enum AvroError {
    /// An embedded schema is invalid. A test prevents the release of such a program.
    #[error("the embedded schema is invalid: {0}")]
    Schema(String),
    /// A field is missing or has another type.
    #[error("the value does not match the schema {name}; compare it with `schemas/{name}.avsc`")]
    Encode {
        name: &'static str,
        #[source]
        source: Box<Error>,
    },
    /// The bytes were not written with this schema, are truncated, or have trailing bytes.
    #[error("the bytes are not a plain Avro datum of the schema {name}")]
    Decode {
        name: &'static str,
        /// `None` if the datum is truncated or has trailing bytes.
        #[source]
        source: Option<Box<Error>>,
    },
}

impl Schema {
    /// All schemas.
    pub const ALL: [Self; 4] = [Self::AlertEvent, Self::Change, Self::DeadLetter, Self::Result];

    /// Returns the file name in `schemas/`, without its extension.
    pub fn name(self) -> &'static str {
        match self {
            Self::AlertEvent => "alert-event",
            Self::Change => "change",
            Self::DeadLetter => "dead-letter",
            Self::Result => "result",
        }
    }

    /// Returns the content of the file in `schemas/`.
    pub fn text(self) -> &'static str {
        match self {
            Self::AlertEvent => include_str!("../../schemas/alert-event.avsc"),
            Self::Change => include_str!("../../schemas/change.avsc"),
            Self::DeadLetter => include_str!("../../schemas/dead-letter.avsc"),
            Self::Result => include_str!("../../schemas/result.avsc"),
        }
    }

    fn parsed(self) -> Result<&'static Parsed, AvroError> {
        let index = Self::ALL.iter().position(|schema| *schema == self).unwrap_or_default();
        match PARSED.get(index) {
            Some(Ok(parsed)) => Ok(parsed),
            Some(Err(error)) => Err(AvroError::Schema(error.clone())),
            None => Err(AvroError::Schema("it is not in the list of schemas".into())),
        }
    }
}

/// Encodes the JSON form of a record.
///
/// # Errors
/// It does not match the schema.
pub fn encode(schema: Schema, json: Value) -> Result<Vec<u8>, AvroError> {
    let parsed = schema.parsed()?;
    let failed = |error| AvroError::Encode { name: schema.name(), source: Box::new(error) };
    let json = if schema == Schema::AlertEvent { move_unknown_to_extra(json, parsed) } else { json };
    let value = value_of(json).resolve(parsed).map_err(failed)?;
    let writer = GenericDatumWriter::builder(parsed).build().map_err(failed)?;
    writer.write_value_to_vec(value).map_err(failed)
}

/// Decodes bytes to the JSON form of a record.
///
/// # Errors
/// They do not match the schema, are truncated, or have trailing bytes.
pub fn decode(schema: Schema, bytes: &[u8]) -> Result<Value, AvroError> {
    let parsed = schema.parsed()?;
    let failed = |error| AvroError::Decode { name: schema.name(), source: Some(Box::new(error)) };
    let mut input = Input { rest: bytes, exhausted: false };
    let reader = GenericDatumReader::builder(parsed).build().map_err(failed)?;
    let value = reader.read_value(&mut input).map_err(failed)?;
    if input.exhausted || !input.rest.is_empty() {
        return Err(AvroError::Decode { name: schema.name(), source: None });
    }
    let mut json = Value::try_from(value).map_err(failed)?;
    strip_nulls(&mut json);
    if schema == Schema::AlertEvent {
        restore_from_extra(&mut json);
    }
    Ok(json)
}

/// Bytes that record a read past their end: the Avro library decodes some truncated values as empty ones.
struct Input<'a> {
    rest: &'a [u8],
    /// Something was read after the end.
    exhausted: bool,
}

impl std::io::Read for Input<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.exhausted |= self.rest.is_empty() && !buffer.is_empty();
        self.rest.read(buffer)
    }
}

/// Converts JSON to an Avro value without a schema.
fn value_of(json: Value) -> Avro {
    match json {
        Value::Null => Avro::Null,
        Value::Bool(value) => Avro::Boolean(value),
        Value::Number(number) => {
            number.as_i64().map_or_else(|| Avro::Double(number.as_f64().unwrap_or_default()), Avro::Long)
        }
        Value::String(text) => Avro::String(text),
        Value::Array(items) => Avro::Array(items.into_iter().map(value_of).collect()),
        Value::Object(object) => Avro::Map(object.into_iter().map(|(key, value)| (key, value_of(value))).collect()),
    }
}

/// Moves fields that the schema does not name to `extra`.
fn move_unknown_to_extra(json: Value, parsed: &Parsed) -> Value {
    let Value::Object(object) = json else { return json };
    let Parsed::Record(record) = parsed else { return Value::Object(object) };
    let (mut known, extra): (Map<_, _>, Map<_, _>) =
        object.into_iter().partition(|(name, _)| name != "extra" && record.lookup.contains_key(name));
    if !extra.is_empty() {
        known.insert("extra".into(), Value::Object(extra).to_string().into());
    }
    Value::Object(known)
}

/// The reverse of [`move_unknown_to_extra`].
fn restore_from_extra(json: &mut Value) {
    let Value::Object(object) = json else { return };
    let Some(Value::String(text)) = object.remove("extra") else { return };
    if let Ok(Value::Object(extra)) = serde_json::from_str(&text) {
        for (name, value) in extra {
            object.entry(name).or_insert(value);
        }
    }
}

fn strip_nulls(json: &mut Value) {
    match json {
        Value::Object(object) => {
            object.retain(|_, value| !value.is_null());
            object.values_mut().for_each(strip_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_nulls),
        _ => {}
    }
}

//! SASL and TLS, with valid and with invalid credentials.

use std::time::Duration;

use nowbridge::kafka::options::{Mechanism, Sasl, Security, Tls};
use nowbridge::kafka::topics::{Purpose, Strictness, TopicSpec, Topics};
use nowbridge::kafka::{KafkaOptions, Outcome, Producer};

use super::member::{Member, PATIENCE, fill, request};
use crate::support::kafka::{LocalBroker, secure, unique};
use crate::support::kafka_local::{PLAIN_USER, SCRAM_USER};

fn tls(broker: &LocalBroker, client: Option<&str>) -> Tls {
    let file = |extension: &str| client.map(|name| broker.certificate(&format!("{name}.{extension}")));
    Tls { ca: Some(broker.certificate("ca.crt")), certificate: file("crt"), key: file("key"), key_password: None }
}

fn sasl(broker: &LocalBroker, mechanism: Mechanism, (username, password): (&str, &str)) -> KafkaOptions {
    let sasl = Sasl { mechanism, username: username.into(), password: password.into() };
    let security = Security { tls: Some(tls(broker, None)), sasl: Some(sasl) };
    KafkaOptions { security, ..KafkaOptions::new(&broker.sasl) }
}

fn certified(broker: &LocalBroker, client: Option<&str>) -> KafkaOptions {
    KafkaOptions { security: Security { tls: Some(tls(broker, client)), sasl: None }, ..KafkaOptions::new(&broker.ssl) }
}

#[tokio::test(flavor = "multi_thread")]
async fn valid_credentials_work_and_invalid_ones_do_not() {
    let Some(broker) = secure("valid_credentials_work_and_invalid_ones_do_not") else { return };
    let valid = [
        sasl(&broker, Mechanism::ScramSha256, SCRAM_USER),
        sasl(&broker, Mechanism::ScramSha512, SCRAM_USER),
        sasl(&broker, Mechanism::Plain, PLAIN_USER),
        certified(&broker, Some("client")),
    ];
    for options in valid {
        check_produce_and_consume(&options).await;
    }
    let topic = unique("secret");
    let (name, _) = SCRAM_USER;
    let invalid = [
        sasl(&broker, Mechanism::ScramSha512, (name, "wrong")),
        sasl(&broker, Mechanism::ScramSha256, ("nobody", "wrong")),
        sasl(&broker, Mechanism::Plain, (name, "wrong")),
        certified(&broker, Some("stranger")),
        certified(&broker, None),
    ];
    for options in invalid {
        let (producer, _deliveries) = Producer::new(&options, Duration::from_secs(2)).expect("a producer");
        let outcome = producer.produce_and_wait(request(&topic, 0, "key", Some("value"))).await;
        assert!(!matches!(outcome, Ok(Outcome::Acked { .. })), "{options:?}: {outcome:?}");
        let result = Topics::new(&options, Duration::from_secs(2)).describe(&topic).await;
        assert!(result.is_err(), "{options:?}: {result:?}");
        let shown = format!("{options:?}");
        assert!(!shown.contains("wrong") && !shown.contains("secret"), "{shown}");
    }
}

async fn check_produce_and_consume(options: &KafkaOptions) {
    let topic = unique("secure");
    let topics = Topics::new(options, PATIENCE);
    let spec = TopicSpec::new(&topic, Purpose::Stream).partitions(1);
    let lax = Strictness { unsafe_topics: true, embedded: false };
    topics.create_missing(&[spec], lax).await.expect("created");
    fill(options, &topic, 0, ["hello".to_owned()]).await;
    let mut member = Member::join(options, &topic, &unique("group"));
    let epoch = member.assigned(1).await[&0];
    member.handle.fetch(0, epoch, 0);
    assert_eq!(member.records(1).await[0].1.value.as_deref(), Some(&b"hello"[..]));
    member.handle.close();
}

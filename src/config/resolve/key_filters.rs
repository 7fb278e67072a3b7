//! Checks that no two sinks write tickets for the same keys of a topic: every such alert would get two tickets.

use super::super::resolved::{Config, Sink};
use super::super::validate::join;
use super::Context;

/// Reports each pair of sinks with the same topic, instance and table whose key filters can match the same key.
pub(super) fn check_key_filters(config: &Config, context: &mut Context<'_>) {
    for (number, sink) in config.sinks.iter().enumerate() {
        let same = |other: &&Sink| {
            (&sink.topic, &sink.instance.url, &sink.table) == (&other.topic, &other.instance.url, &other.table)
                && overlap(sink.mapping.key_filter(), other.mapping.key_filter())
        };
        if let Some(other) = config.sinks.iter().take(number).find(same) {
            let message = format!(
                "the sink `{}` writes tickets for the same alerts of `{}` into the same table, so each of them would \
                 get two; remove one of the two, or give each a `key_filter` that matches no key of the other",
                other.name, sink.topic
            );
            context.error(&join(&join("sinks", &sink.name), "key_filter"), &message);
        }
    }
}

/// True if a key can pass both filters. An empty filter passes all keys.
fn overlap(one: &[String], other: &[String]) -> bool {
    let any = ["*".to_owned()];
    let patterns = |filter: &[String]| if filter.is_empty() { any.to_vec() } else { filter.to_vec() };
    let others = patterns(other);
    patterns(one).iter().any(|pattern| others.iter().any(|other| patterns_overlap(pattern, other)))
}

/// True if a text can match both patterns, in which `*` matches any text.
fn patterns_overlap(one: &str, other: &str) -> bool {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    // `reached[i][j]`: the first i characters of one pattern and the first j of the other can match the same text.
    let mut reached = vec![vec![false; other.len() + 1]; one.len() + 1];
    reached[0][0] = true;
    for i in 0..=one.len() {
        for j in 0..=other.len() {
            if !reached[i][j] {
                continue;
            }
            let (first, second) = (one.get(i).copied(), other.get(j).copied());
            if first == Some('*') {
                reached[i + 1][j] = true;
                if second.is_some() {
                    reached[i][j + 1] = true;
                }
            }
            if second == Some('*') {
                reached[i][j + 1] = true;
                if first.is_some() {
                    reached[i + 1][j] = true;
                }
            }
            if first.is_some() && first == second {
                reached[i + 1][j + 1] = true;
            }
        }
    }
    reached[one.len()][other.len()]
}

#[cfg(test)]
mod tests {
    use super::patterns_overlap;

    #[test]
    fn patterns_overlap_if_a_text_can_match_both() {
        for (one, other) in [("*", ""), ("a*", "*b"), ("a*c", "ab*"), ("x", "x"), ("a*b*c", "*abc"), ("**", "y*")] {
            assert!(patterns_overlap(one, other) && patterns_overlap(other, one), "{one} {other}");
        }
        for (one, other) in [("a*", "b*"), ("x", "xy"), ("a*b", "a*c"), ("a*c", "ab"), ("", "x*")] {
            assert!(!patterns_overlap(one, other) && !patterns_overlap(other, one), "{one} {other}");
        }
    }
}

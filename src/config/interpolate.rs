//! Replaces `${NAME}` and `${NAME:-default}` in the strings of the file. `$${` is a literal `${`.
//!
//! It works on parsed values, so that no variable can change the structure of the file.

/// Looks up an environment variable.
pub(super) type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Returns the text with its variables replaced.
///
/// # Errors
/// A message with the problem and the remedy. It never contains the value of a variable.
pub(super) fn interpolate(text: &str, env: Env<'_>) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, after) = rest.split_at(at);
        let after = after.get(2..).unwrap_or_default();
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = after;
            continue;
        }
        out.push_str(before);
        let Some((inside, next)) = after.split_once('}') else {
            return Err("`${` has no closing `}`; write `$${` for a literal `${`".into());
        };
        let (name, default) = inside.split_once(":-").map_or((inside, None), |(name, default)| (name, Some(default)));
        if !is_name(name) {
            return Err(format!("`${{{name}}}` is not a variable; a name consists of letters, digits and `_`"));
        }
        match (env(name).filter(|value| !value.is_empty() || default.is_none()), default) {
            (Some(value), _) => out.push_str(&value),
            (None, Some(default)) => out.push_str(default),
            (None, None) => {
                return Err(format!(
                    "the environment variable {name} is not set; set it, or add a default: `${{{name}:-default}}`"
                ));
            }
        }
        rest = next;
    }
    out.push_str(rest);
    Ok(out)
}

fn is_name(name: &str) -> bool {
    name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && name.chars().next().is_some_and(|c| !c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_defaults_and_escapes() {
        let env = |name: &str| match name {
            "A" => Some("1".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let result = |text| interpolate(text, &env);
        assert_eq!(result("x${A}y${A}"), Ok("x1y1".into()));
        assert_eq!(result("${B:-d}${EMPTY:-e}${EMPTY}"), Ok("de".into()));
        assert_eq!(result("$${A} $5 {{ x }}"), Ok("${A} $5 {{ x }}".into()));
        assert!(result("${B}").unwrap_err().contains("B is not set"));
        assert!(result("${A").unwrap_err().contains("no closing"));
        assert!(result("${A B}").unwrap_err().contains("not a variable"));
    }
}

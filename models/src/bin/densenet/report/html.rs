//! HTML, as text that is also XML.

use serde_json::Value;

/// Text between tags or in an attribute. Control characters, which XML has none of, are shown as a
/// replacement.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\r' | '\t' => escaped.push(' '),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            letter if letter.is_control() => escaped.push('\u{fffd}'),
            letter => escaped.push(letter),
        }
    }
    escaped
}

/// A number of the measures: where it is in their JSON (RFC 6901), all of its digits for programs,
/// and how it is shown. A dash if it is missing.
pub fn number(measures: &Value, path: &[&str], shown: fn(f64) -> String) -> String {
    let path: String = path
        .iter()
        .map(|key| format!("/{}", key.replace('~', "~0").replace('/', "~1")))
        .collect();
    match measures.pointer(&path).filter(|value| value.is_number()) {
        Some(value) => format!(
            "<data data-json=\"{}\" value=\"{value}\">{}</data>",
            escape(&path),
            shown(value.as_f64().unwrap_or(f64::NAN))
        ),
        None => "\u{2013}".to_string(),
    }
}

/// A count.
pub fn whole(value: f64) -> String {
    densenet_models::shell::thousands(value as usize)
}

/// Four digits.
pub fn four(value: f64) -> String {
    format!("{value:.4}")
}

/// A share in percent.
pub fn percent(value: f64) -> String {
    format!("{:.2}%", 100.0 * value)
}

/// A section of the page under a heading.
pub fn section(id: &str, heading: &str, body: &str) -> String {
    format!("<section id=\"{id}\">\n<h2>{heading}</h2>\n{body}</section>\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn text_is_escaped_and_has_no_control_characters() {
        assert_eq!(
            escape("<b a=\"1\" b='2'>&amp;\n\u{0}\u{7f}\u{ffff}\u{e9}"),
            "&lt;b a=&quot;1&quot; b=&#39;2&#39;&gt;&amp;amp; \u{fffd}\u{fffd}\u{fffd}\u{e9}"
        );
    }

    #[test]
    fn a_number_says_where_it_is_in_the_json() {
        let measures = json!({"a/b": {"c~<": 0.123_456_789}, "none": null});
        assert_eq!(
            number(&measures, &["a/b", "c~<"], four),
            "<data data-json=\"/a~1b/c~0&lt;\" value=\"0.123456789\">0.1235</data>"
        );
        assert_eq!(number(&measures, &["none"], four), "\u{2013}");
    }
}

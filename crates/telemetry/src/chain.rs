//! An error and its sources on one line.

use std::error::Error;

/// The error and its sources, joined by colons. A source whose text is already
/// included is omitted, because some libraries repeat it.
///
/// Print it only where the error is handled.
pub fn error_chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let line = cause.to_string();
        if !text.contains(line.trim()) {
            text.push_str(": ");
            text.push_str(line.trim());
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        source: Option<Box<Layer>>,
    }

    fn layers(texts: &[&'static str]) -> Layer {
        let (text, rest) = texts.split_first().unwrap();
        let source = (!rest.is_empty()).then(|| Box::new(layers(rest)));
        Layer { text, source }
    }

    #[test]
    fn each_text_appears_once() {
        for (texts, chain) in [
            (&["a"][..], "a"),
            (&["can't open", "no such file"], "can't open: no such file"),
            (
                &["transport error", "refused", "refused"],
                "transport error: refused",
            ),
            (&["outer: inner", "inner", "root"], "outer: inner: root"),
        ] {
            assert_eq!(error_chain(&layers(texts)), chain);
        }
    }
}

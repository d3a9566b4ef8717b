//! `lockstep explain`: prints the page of an error code, without a connection.

use crate::failure::{CONFIGURATION, Failure};
use crate::output::{self, Format};
use lockstep_api::{Code, Exit};
use serde::Serialize;

/// How many codes are suggested for an unknown one.
const SUGGESTIONS: usize = 3;

/// Explains an error code.
#[derive(Debug, clap::Args)]
pub struct Explain {
    /// Error code, such as LS2012; without it, all codes are listed.
    code: Option<String>,
}

#[derive(Serialize)]
struct Page {
    code: Code,
    title: &'static str,
    page: &'static str,
}

#[derive(Serialize)]
struct Title {
    code: Code,
    title: &'static str,
}

impl Explain {
    /// # Errors
    /// There is no such code.
    pub fn execute(self, format: Format) -> Result<Exit, Failure> {
        match self.code {
            Some(name) => explain(find(&name)?, format)?,
            None => list(format)?,
        }
        Ok(Exit::Done)
    }
}

fn explain(code: Code, format: Format) -> Result<(), Failure> {
    match format {
        Format::Table => output::text(code.page()),
        Format::Json | Format::Jsonl => output::value(
            format,
            &Page {
                code,
                title: code.title(),
                page: code.page(),
            },
        ),
    }
}

fn list(format: Format) -> Result<(), Failure> {
    let titles: Vec<Title> = Code::ALL
        .iter()
        .map(|&code| Title {
            code,
            title: code.title(),
        })
        .collect();
    match format {
        Format::Table => {
            let lines = titles
                .iter()
                .map(|entry| format!("{}  {}\n", entry.code, entry.title));
            output::text(&lines.collect::<String>())
        }
        Format::Json | Format::Jsonl => output::values(format, &titles),
    }
}

fn find(name: &str) -> Result<Code, Failure> {
    Code::find(&name.to_ascii_uppercase()).ok_or_else(|| {
        let nearest: Vec<String> = Code::nearest(name, SUGGESTIONS)
            .into_iter()
            .map(|code| format!("{code} ({})", code.title()))
            .collect();
        let remedy = if nearest.is_empty() {
            "lockstep explain without a code lists all of them".to_owned()
        } else {
            format!(
                "the nearest are {}; lockstep explain without a code lists all of them",
                nearest.join(", ")
            )
        };
        let what = format!("there is no error code {name:?}");
        Failure::refused(CONFIGURATION, what).remedy(remedy)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_found_in_either_case() {
        assert_eq!(find("LS2012").unwrap(), Code::LS2012);
        assert_eq!(find("ls2012").unwrap(), Code::LS2012);
    }

    #[test]
    fn an_unknown_code_suggests_the_nearest_ones() {
        let text = find("LS2006").unwrap_err().text();
        assert!(text.contains("no error code \"LS2006\""), "{text}");
        assert!(
            text.contains("LS2005 (") && text.contains("LS2007 ("),
            "{text}"
        );
        assert!(find("help").unwrap_err().text().contains("lists all"));
    }
}

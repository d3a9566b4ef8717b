//! Functions of text: positions count characters, from 1.

use super::datum::Datum;
use super::errors::{Outcome, unsupported};

pub fn initcap(text: &str) -> String {
    let mut start = true;
    text.chars()
        .map(|c| {
            let out = if start {
                c.to_ascii_uppercase()
            } else {
                c.to_ascii_lowercase()
            };
            start = !c.is_alphanumeric();
            out
        })
        .collect()
}

/// SUBSTR(text, from [, length]); a negative start counts from the end.
pub fn substr(text: &str, args: &[Datum]) -> Outcome<Datum> {
    let chars: Vec<char> = text.chars().collect();
    let from = args[1].integer()?;
    let start = match from {
        0 => 0,
        1.. => from - 1,
        _ => chars.len() as i64 + from,
    };
    let length = match args.get(2) {
        Some(Datum::Null) => return Ok(Datum::Null),
        Some(length) => length.integer()?,
        None => i64::MAX,
    };
    let (Ok(start), true) = (usize::try_from(start), length > 0) else {
        return Ok(Datum::Null);
    };
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    Ok(Datum::text(
        chars
            .into_iter()
            .skip(start)
            .take(length)
            .collect::<String>(),
    ))
}

/// INSTR(text, wanted [, from [, nth]]).
pub fn instr(text: &str, args: &[Datum]) -> Outcome<Datum> {
    let Some(wanted) = args[1].string() else {
        return Ok(Datum::Null);
    };
    let from = args.get(2).map_or(Ok(1), Datum::integer)?;
    let nth = args.get(3).map_or(Ok(1), Datum::integer)?;
    if from < 1 || nth < 1 {
        return Err(unsupported("INSTR counting backwards").into());
    }
    let found = text
        .char_indices()
        .enumerate()
        .skip(from as usize - 1)
        .filter(|(_, (at, _))| text[*at..].starts_with(&wanted))
        .nth(nth as usize - 1);
    Ok(Datum::int(
        found.map_or(0, |(position, _)| position as i64 + 1),
    ))
}

pub fn translate(text: &str, from: &str, to: &str) -> String {
    let to: Vec<char> = to.chars().collect();
    text.chars()
        .filter_map(|c| match from.chars().position(|f| f == c) {
            Some(at) => to.get(at).copied(),
            None => Some(c),
        })
        .collect()
}

pub fn pad(name: &str, text: &str, args: &[Datum]) -> Outcome<Datum> {
    let width = usize::try_from(args[1].integer()?).unwrap_or(0);
    let with: Vec<char> = match args.get(2) {
        Some(with) => with.string().unwrap_or_default().chars().collect(),
        None => vec![' '],
    };
    let have = text.chars().count();
    if have >= width || with.is_empty() {
        return Ok(Datum::text(text.chars().take(width).collect::<String>()));
    }
    let padding: String = with.iter().cycle().take(width - have).collect();
    Ok(Datum::text(if name == "LPAD" {
        padding + text
    } else {
        text.to_owned() + &padding
    }))
}

/// LIKE: `%` any run, `_` any one character, and an escape.
pub fn like(text: &str, pattern: &str, escape: Option<char>) -> bool {
    let text: Vec<char> = text.chars().collect();
    let mut parsed = Vec::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        parsed.push(match c {
            c if Some(c) == escape => (chars.next().unwrap_or(c), false),
            c => (c, c == '%' || c == '_'),
        });
    }
    let (mut t, mut p) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match parsed.get(p) {
            Some(('%', true)) => {
                retry = Some((t, p));
                p += 1;
                continue;
            }
            Some((c, wild)) if *wild || *c == text[t] => {
                t += 1;
                p += 1;
                continue;
            }
            _ => {}
        }
        let Some((from, at)) = retry else {
            return false;
        };
        retry = Some((from + 1, at));
        (t, p) = (from + 1, at + 1);
    }
    parsed[p..].iter().all(|part| *part == ('%', true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn like_matches_as_oracle_does() {
        let cases = [
            ("shop.orders", "shop%", None, true),
            ("shop", "s_op", None, true),
            ("shop", "s_p", None, false),
            ("a%b", "a!%b", Some('!'), true),
            ("axb", "a!%b", Some('!'), false),
            ("abcbc", "%bc", None, true),
            ("", "%", None, true),
        ];
        for (text, pattern, escape, want) in cases {
            assert_eq!(like(text, pattern, escape), want, "{text} LIKE {pattern}");
        }
    }
}

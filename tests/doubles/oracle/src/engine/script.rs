//! Scripts as SQL*Plus reads them: a statement ends at a semicolon at a line's
//! end; a block or a CREATE TRIGGER at a line that holds only `/`.

use super::database::Engine;
use crate::api::{Credentials, Frontend, Login, OraError};

/// A statement of a script failed.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// SYS could not log in.
    #[error("cannot log in as SYS to run the script")]
    Login(#[source] OraError),
    #[error("the script failed at line {line}: {statement}")]
    Statement {
        /// Its first line, from 1.
        line: usize,
        statement: String,
        source: OraError,
    },
}

/// Cuts a script into statements with the number of their first line.
fn statements(text: &str) -> Vec<(usize, String)> {
    let mut out = Vec::new();
    let mut current = String::new();
    let mut first = 0;
    for (number, line) in text.lines().enumerate() {
        let trimmed = line.trim();
        if current.is_empty() {
            let upper = trimmed.to_uppercase();
            let sqlplus = ["SET ", "PROMPT", "WHENEVER", "REM", "--", "EXIT", "CONNECT"];
            if trimmed.is_empty()
                || trimmed == "/"
                || sqlplus.iter().any(|word| upper.starts_with(word))
            {
                continue;
            }
            first = number + 1;
        }
        let upper = current.trim_start().to_uppercase();
        let begin = if current.is_empty() {
            trimmed.to_uppercase()
        } else {
            upper
        };
        let block = ["BEGIN", "DECLARE", "CREATE TRIGGER", "CREATE OR REPLACE"]
            .iter()
            .any(|word| begin.starts_with(word));
        if trimmed == "/" {
            out.push((first, std::mem::take(&mut current)));
            continue;
        }
        current.push_str(line);
        current.push('\n');
        // A comment after the semicolon would hide it; scripts here have none.
        if !block && trimmed.ends_with(';') {
            let statement = std::mem::take(&mut current);
            out.push((first, statement.trim().trim_end_matches(';').to_owned()));
        }
    }
    if !current.trim().is_empty() {
        out.push((first, current.trim().trim_end_matches(';').to_owned()));
    }
    out
}

/// Runs a script as SYS on the first instance and commits at its end.
pub fn run(engine: &Engine, text: &str) -> Result<(), ScriptError> {
    let login = Login {
        credentials: Credentials::OperatingSystem,
        sysdba: true,
        service: String::new(),
        frontend: Frontend::Bequeath,
        machine: "localhost".to_owned(),
        program: "sqlplus".to_owned(),
        os_user: "oracle".to_owned(),
        process: std::process::id().to_string(),
        address: String::new(),
    };
    let mut session = engine
        .instance(1)
        .connect(login)
        .map_err(ScriptError::Login)?;
    for (line, statement) in statements(text) {
        session
            .execute(&statement, &[])
            .map_err(|source| ScriptError::Statement {
                line,
                statement: statement.chars().take(80).collect(),
                source,
            })?;
    }
    session.commit().map_err(|source| ScriptError::Statement {
        line: 0,
        statement: "COMMIT".to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_and_blocks_are_told_apart() {
        let script =
            "-- a comment\nCREATE TABLE t (\n  a NUMBER\n);\n\nBEGIN\n  NULL;\nEND;\n/\nCOMMIT;\n";
        let cut = statements(script);
        let lines: Vec<usize> = cut.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [2, 6, 10]);
        assert_eq!(cut[1].1, "BEGIN\n  NULL;\nEND;\n");
        assert_eq!(cut[2].1, "COMMIT");
    }
}

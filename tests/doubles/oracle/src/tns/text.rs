//! What a thin driver sees in a statement's text.
//!
//! The driver finds the bind variables by itself and sends values by its own
//! count: every occurrence in SQL, each name once in PL/SQL, and no values
//! for variables after `RETURNING … INTO`. The frontend has to count the same
//! way, so this follows the driver's rules, not the engine's grammar.

/// A bind variable as the driver counts it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// Name without the colon, upper case unless quoted; digits where the
    /// statement has `:1`.
    pub name: String,
    /// After `RETURNING … INTO`: comes back and is never sent.
    pub returned: bool,
}

/// A statement and its bind variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    pub sql: String,
    /// BEGIN, DECLARE or CALL.
    pub is_block: bool,
    pub is_query: bool,
    /// The variables in the order in which they are sent.
    pub variables: Vec<Variable>,
}

impl Statement {
    /// Reads a statement's text.
    pub fn new(sql: String) -> Self {
        let mut scan = Scan {
            chars: sql.chars().collect(),
            ..Scan::default()
        };
        scan.run();
        let Scan {
            kind, variables, ..
        } = scan;
        Self {
            sql,
            is_block: kind == Kind::Block,
            is_query: kind == Kind::Query,
            variables,
        }
    }

    /// Whether values come back by RETURNING INTO.
    pub fn is_returning(&self) -> bool {
        self.variables.iter().any(|variable| variable.returned)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Kind {
    #[default]
    Unknown,
    Query,
    Dml,
    Block,
    Ddl,
    Other,
}

#[derive(Default)]
struct Scan {
    chars: Vec<char>,
    at: usize,
    kind: Kind,
    returning: bool,
    into: bool,
    after_string: bool,
    variables: Vec<Variable>,
}

impl Scan {
    fn run(&mut self) {
        while let Some(&c) = self.chars.get(self.at) {
            if self.kind == Kind::Ddl {
                return;
            }
            match c {
                _ if c.is_alphabetic() => self.word(),
                '\'' => self.string(),
                '"' => self.skip_past('"'),
                '-' if self.next_is('-') => self.skip_past('\n'),
                '/' if self.next_is('*') => self.block_comment(),
                ':' if !self.after_string => self.variable(),
                _ => self.at += 1,
            }
            if c != '\'' && !c.is_whitespace() {
                self.after_string = false;
            }
        }
    }

    fn next_is(&self, c: char) -> bool {
        self.chars.get(self.at + 1) == Some(&c)
    }

    fn word(&mut self) {
        let start = self.at;
        while self.chars.get(self.at).is_some_and(|c| c.is_alphabetic()) {
            self.at += 1;
        }
        let word: String = self.chars[start..self.at].iter().collect();
        let word = word.to_ascii_uppercase();
        match self.kind {
            Kind::Unknown => self.kind = kind(&word),
            Kind::Dml if word == "RETURNING" => self.returning = true,
            Kind::Dml if self.returning && word == "INTO" => self.into = true,
            _ => {}
        }
    }

    fn string(&mut self) {
        self.after_string = true;
        let quoted = self.at > 0 && matches!(self.chars[self.at - 1], 'q' | 'Q');
        if !quoted {
            return self.skip_past('\'');
        }
        let open = self.chars.get(self.at + 1).copied().unwrap_or('\'');
        let close = match open {
            '[' => ']',
            '{' => '}',
            '<' => '>',
            '(' => ')',
            other => other,
        };
        let rest = self.chars.get(self.at + 2..).unwrap_or_default();
        let end = rest.windows(2).position(|pair| pair == [close, '\'']);
        self.at = end.map_or(self.chars.len(), |end| self.at + 2 + end + 2);
    }

    /// Moves behind the next such character after the present one.
    fn skip_past(&mut self, end: char) {
        let rest = &self.chars[self.at + 1..];
        let found = rest.iter().position(|c| *c == end);
        self.at = found.map_or(self.chars.len(), |found| self.at + found + 2);
    }

    fn block_comment(&mut self) {
        let rest = &self.chars[self.at + 2..];
        let found = rest.windows(2).position(|pair| pair == ['*', '/']);
        self.at = found.map_or(self.chars.len(), |found| self.at + found + 4);
    }

    fn variable(&mut self) {
        self.at += 1;
        while self.chars.get(self.at).is_some_and(|c| c.is_whitespace()) {
            self.at += 1;
        }
        let start = self.at;
        let name: String = match self.chars.get(start) {
            Some('"') => {
                self.skip_past('"');
                self.chars[start + 1..self.at.saturating_sub(1).max(start + 1)]
                    .iter()
                    .collect()
            }
            Some(c) if c.is_ascii_digit() => self.take(|c| c.is_ascii_digit()),
            Some(c) if c.is_alphabetic() => self
                .take(|c| c.is_alphanumeric() || matches!(c, '_' | '$' | '#'))
                .to_uppercase(),
            _ => return,
        };
        let repeated = self.variables.iter().any(|variable| variable.name == name);
        if self.kind != Kind::Block || !repeated {
            self.variables.push(Variable {
                name,
                returned: self.into,
            });
        }
    }

    fn take(&mut self, belongs: impl Fn(char) -> bool) -> String {
        let start = self.at;
        while self.chars.get(self.at).is_some_and(|c| belongs(*c)) {
            self.at += 1;
        }
        self.chars[start..self.at].iter().collect()
    }
}

fn kind(word: &str) -> Kind {
    match word {
        "SELECT" | "WITH" => Kind::Query,
        "INSERT" | "UPDATE" | "DELETE" | "MERGE" => Kind::Dml,
        "BEGIN" | "DECLARE" | "CALL" => Kind::Block,
        "CREATE" | "ALTER" | "DROP" | "GRANT" | "REVOKE" | "ANALYZE" | "AUDIT" | "COMMENT"
        | "TRUNCATE" => Kind::Ddl,
        _ => Kind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names in order, those that are returned with a `>` in front.
    fn names(sql: &str) -> String {
        let names: Vec<String> = Statement::new(sql.to_owned())
            .variables
            .into_iter()
            .map(|variable| {
                format!(
                    "{}{}",
                    if variable.returned { ">" } else { "" },
                    variable.name
                )
            })
            .collect();
        names.join(" ")
    }

    #[test]
    fn tns_bind_variables_are_counted_as_drivers_count_them() {
        for (sql, expected) in [
            (
                "select * from t where a = :a and b = :B and c = :a",
                "A B A",
            ),
            ("begin p(:a, :b, :a); end;", "A B"),
            ("select :1, :2 from dual", "1 2"),
            (
                "insert into t values (:x) returning id, y into :id, :y",
                "X >ID >Y",
            ),
            (
                "insert into t values (:x) /* :no */ -- :no\n returning id into :o",
                "X >O",
            ),
            ("select ':no', q'[:no']', \":no\", : yes from t", "YES"),
            ("select 'it''s :no' || :yes from t", "YES"),
            ("begin :out := f(:\"In\"); end;", "OUT In"),
            (
                "create trigger t before insert on x begin :new.a := 1; end;",
                "",
            ),
            ("select json('{\"a\" : :b}') from t where c=:d", "D"),
            ("update t set a = 'x' where b = :b_1$#", "B_1$#"),
            ("  /* lead */ begin null; end;", ""),
        ] {
            assert_eq!(names(sql), expected, "{sql}");
        }
    }

    #[test]
    fn tns_unfinished_text_is_no_trouble() {
        for sql in [
            "",
            "'",
            "\"",
            "/*",
            "--",
            ":",
            "q'",
            "q'[",
            "select :\"",
            ": ",
        ] {
            names(sql);
        }
    }
}

//! What the client library finds out about a statement by itself: its type,
//! its bind names, and where `RETURNING … INTO` begins. Only words, literals
//! and comments are told apart; grammar is the server's.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum StatementType {
    /// Anything the library has no word for.
    Unknown = 0,
    Select = 1,
    Update = 2,
    Delete = 3,
    Insert = 4,
    Create = 5,
    Drop = 6,
    Alter = 7,
    /// A block that starts with BEGIN.
    Begin = 8,
    /// A block that starts with DECLARE.
    Declare = 9,
    Call = 10,
    Explain = 15,
    Merge = 16,
    Rollback = 17,
    Commit = 21,
}

impl StatementType {
    /// Whether it is PL/SQL, where a bind name counts once however often it
    /// appears.
    pub fn is_block(self) -> bool {
        matches!(self, Self::Begin | Self::Declare | Self::Call)
    }

    fn may_bind(self) -> bool {
        !matches!(self, Self::Create | Self::Drop | Self::Alter)
    }

    fn of(word: &str) -> Self {
        match word.to_ascii_uppercase().as_str() {
            "SELECT" | "WITH" => Self::Select,
            "UPDATE" => Self::Update,
            "DELETE" => Self::Delete,
            "INSERT" => Self::Insert,
            "CREATE" => Self::Create,
            "DROP" => Self::Drop,
            "ALTER" => Self::Alter,
            "BEGIN" => Self::Begin,
            "DECLARE" => Self::Declare,
            "CALL" => Self::Call,
            "EXPLAIN" => Self::Explain,
            "MERGE" => Self::Merge,
            "ROLLBACK" => Self::Rollback,
            "COMMIT" => Self::Commit,
            _ => Self::Unknown,
        }
    }
}

/// What was found in a statement.
#[derive(Debug, PartialEq, Eq)]
pub struct Prepared {
    pub kind: StatementType,
    /// Bind names in order of appearance, repeats included, upper case unless
    /// quoted, without colons.
    pub names: Vec<String>,
    /// Index in `names` of the first variable of `RETURNING … INTO`.
    pub returning: Option<usize>,
}

pub fn prepare(sql: &str) -> Prepared {
    let mut lexer = Lexer { rest: sql };
    let mut kind = None;
    let mut names = Vec::new();
    let mut returning = None;
    let mut returning_seen = false;
    while let Some(token) = lexer.next() {
        match token {
            Token::Word(word) => {
                let kind = *kind.get_or_insert_with(|| StatementType::of(word));
                let dml = matches!(
                    kind,
                    StatementType::Insert | StatementType::Update | StatementType::Delete
                );
                if dml
                    && (word.eq_ignore_ascii_case("RETURNING")
                        || word.eq_ignore_ascii_case("RETURN"))
                {
                    returning_seen = true;
                } else if returning_seen && returning.is_none() && word.eq_ignore_ascii_case("INTO")
                {
                    returning = Some(names.len());
                }
            }
            Token::Bind(name) => names.push(name),
        }
    }
    let kind = kind.unwrap_or(StatementType::Unknown);
    // :NEW and :OLD in a trigger's text are the trigger's own.
    if !kind.may_bind() {
        names.clear();
    }
    Prepared {
        kind,
        names,
        returning,
    }
}

enum Token<'a> {
    Word(&'a str),
    Bind(String),
}

struct Lexer<'a> {
    rest: &'a str,
}

fn in_name(letter: char) -> bool {
    letter.is_alphanumeric() || matches!(letter, '_' | '$' | '#')
}

impl<'a> Lexer<'a> {
    fn take(&mut self, length: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        taken
    }

    /// Skips `open` and everything up to and including `close`.
    fn skip(&mut self, open: usize, close: &str) {
        let body = &self.rest[open..];
        let end = body
            .find(close)
            .map_or(self.rest.len(), |at| open + at + close.len());
        self.take(end);
    }

    fn skip_q_quote(&mut self) {
        let close = match self.rest[2..].chars().next() {
            Some('[') => "]'".to_owned(),
            Some('{') => "}'".to_owned(),
            Some('(') => ")'".to_owned(),
            Some('<') => ">'".to_owned(),
            Some(other) => format!("{other}'"),
            None => "'".to_owned(),
        };
        let open =
            (2 + self.rest[2..].chars().next().map_or(0, char::len_utf8)).min(self.rest.len());
        self.skip(open, &close);
    }

    fn bind(&mut self) -> Option<Token<'a>> {
        let after = &self.rest[1..];
        if let Some(quoted) = after.strip_prefix('"') {
            let end = quoted.find('"')?;
            self.take(2 + end + 1);
            return Some(Token::Bind(quoted[..end].to_owned()));
        }
        let length = after.find(|letter| !in_name(letter)).unwrap_or(after.len());
        if length == 0 {
            return None;
        }
        let name = after[..length].to_uppercase();
        self.take(1 + length);
        Some(Token::Bind(name))
    }

    fn next(&mut self) -> Option<Token<'a>> {
        loop {
            let first = self.rest.chars().next()?;
            let second = self.rest.as_bytes().get(1).copied();
            match first {
                'q' | 'Q' if second == Some(b'\'') => self.skip_q_quote(),
                '\'' => self.skip(1, "'"),
                '"' => self.skip(1, "\""),
                '-' if second == Some(b'-') => self.skip(2, "\n"),
                '/' if second == Some(b'*') => self.skip(2, "*/"),
                ':' => {
                    if let Some(bind) = self.bind() {
                        return Some(bind);
                    }
                    self.take(1);
                }
                letter if in_name(letter) => {
                    let length = self
                        .rest
                        .find(|letter| !in_name(letter))
                        .unwrap_or(self.rest.len());
                    return Some(Token::Word(self.take(length)));
                }
                other => {
                    self.take(other.len_utf8());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(sql: &str, kind: StatementType, names: &[&str], returning: Option<usize>) {
        let expected = Prepared {
            kind,
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            returning,
        };
        assert_eq!(prepare(sql), expected, "{sql}");
    }

    #[test]
    fn statements_are_read_as_far_as_the_client_needs() {
        use StatementType::*;
        check(
            "select :a, :A, :1 from dual",
            Select,
            &["A", "A", "1"],
            None,
        );
        check(
            "-- :no\n(/* :no */ select ':no' from \"x:no\" where a = :b)",
            Select,
            &["B"],
            None,
        );
        check(
            "select q'[it's :no]' || Q'!:no!' || 'it''s :no' from dual",
            Select,
            &[],
            None,
        );
        check("begin :out := :in_1; end;", Begin, &["OUT", "IN_1"], None);
        check(
            "insert into t (a) values (:v) returning id into :id",
            Insert,
            &["V", "ID"],
            Some(1),
        );
        check(
            "insert into t select a into_x, returning_y from s",
            Insert,
            &[],
            None,
        );
        check(
            "delete from t return a, b into :x, :y",
            Delete,
            &["X", "Y"],
            Some(0),
        );
        check(
            "create trigger x before insert on t for each row begin :new.a := 1; end;",
            Create,
            &[],
            None,
        );
        check(
            "update t set a = :\"Mixed\" where b=:c",
            Update,
            &["Mixed", "C"],
            None,
        );
        check("", Unknown, &[], None);
        check("select 'unfinished :x", Select, &[], None);
        check("select q'", Select, &[], None);
        check("select :é from dual", Select, &["É"], None);
    }
}

//! PL/SQL, as much of it as a cutover meets.
//!
//! A block may declare variables and hold: assignments, DML, SELECT INTO, IF,
//! nested blocks, EXECUTE IMMEDIATE of a text without binds, COMMIT, ROLLBACK,
//! SAVEPOINT, RAISE_APPLICATION_ERROR, DBMS_SESSION.SLEEP, DBMS_LOCK.SLEEP,
//! DBMS_APPLICATION_INFO.SET_*, DBMS_SESSION.SET_IDENTIFIER and the calls of
//! DBMS_SCHEDULER in [`super::jobs`] and of DBMS_JOB in [`super::dbms_job`]. Everything else is ORA-06550 with a
//! sentence. Exception handlers and loops are not there.

use super::kinds::{NUMBER, WIDE};
use super::lex::{Cursor, Lexed};
use super::prepare::{self, Body};
use super::{dbms_job, jobs};
use crate::api::{Kind, OraError, StatementKind};
use sqlparser::ast::{Expr, Query};
use sqlparser::tokenizer::Token;

#[derive(Debug, Default)]
pub struct Block {
    /// Declared variables: name, type, initial value.
    pub declared: Vec<(String, Kind, Option<Expr>)>,
    /// What it does, in order.
    pub steps: Vec<Step>,
}

/// One statement of a block.
#[derive(Debug)]
pub enum Step {
    Null,
    Sql(Body),
    SelectInto(Box<Query>, Vec<String>),
    Assign(String, Expr),
    If(Vec<(Expr, Vec<Step>)>, Vec<Step>),
    Nested(Block),
    Immediate(Expr),
    Commit,
    Rollback(Option<String>),
    Savepoint(String),
    Call(String, Vec<Argument>),
}

/// An argument of a procedure call, by name or by position.
#[derive(Debug)]
pub struct Argument {
    /// Its name in `name => value`.
    pub name: Option<String>,
    pub value: Expr,
}

/// Procedures that can be called; the scheduler's are in [`jobs`].
const PROCEDURES: [&str; 9] = [
    "DBMS_SESSION.SLEEP",
    "DBMS_LOCK.SLEEP",
    "DBMS_SESSION.SET_IDENTIFIER",
    "DBMS_APPLICATION_INFO.SET_MODULE",
    "DBMS_APPLICATION_INFO.SET_ACTION",
    "DBMS_APPLICATION_INFO.SET_CLIENT_INFO",
    "DBMS_OUTPUT.PUT_LINE",
    "DBMS_OUTPUT.ENABLE",
    "RAISE_APPLICATION_ERROR",
];

fn refused(cursor: &Cursor<'_>, sentence: &str) -> OraError {
    let near = match cursor.peek() {
        Some(token) => format!("near \"{token}\""),
        None => "at the end".to_owned(),
    };
    cursor.error((6550, &format!("PL/SQL: {sentence}, {near}")))
}

const SEMICOLON: &str = "a semicolon is missing";

/// Reads a block: `[DECLARE …] BEGIN … END;` or `CALL procedure(…)`.
///
/// # Errors
/// ORA-06550 with a sentence.
pub fn parse(mut cursor: Cursor<'_>) -> Result<Block, OraError> {
    if cursor.eat("CALL") {
        let step = procedure(&mut cursor)?;
        cursor.finish()?;
        return Ok(Block {
            declared: Vec::new(),
            steps: vec![step],
        });
    }
    let block = block(&mut cursor)?;
    while cursor.eat_token(&Token::SemiColon) || cursor.eat_token(&Token::Div) {}
    if cursor.at_end() {
        Ok(block)
    } else {
        Err(refused(&cursor, "text follows the block's END"))
    }
}

fn block(cursor: &mut Cursor<'_>) -> Result<Block, OraError> {
    let mut declared = Vec::new();
    if cursor.eat("DECLARE") {
        while !cursor.sees("BEGIN") {
            if cursor.at_end() {
                return Err(refused(cursor, "BEGIN is missing"));
            }
            declared.push(declaration(cursor)?);
        }
    }
    cursor.expect("BEGIN", (6550, "PL/SQL: BEGIN is missing"))?;
    let steps = steps(cursor, &["END"])?;
    cursor.expect("END", (6550, "PL/SQL: END is missing"))?;
    if matches!(cursor.peek(), Some(Token::Word(_))) {
        cursor.bump();
    }
    Ok(Block { declared, steps })
}

fn declaration(cursor: &mut Cursor<'_>) -> Result<(String, Kind, Option<Expr>), OraError> {
    let name = cursor.name((6550, "PL/SQL: a variable's name is expected"))?;
    let kind_text = cursor.until(|c| {
        c.peek() == Some(&Token::SemiColon)
            || c.peek() == Some(&Token::Assignment)
            || c.sees("DEFAULT")
    });
    let upper = kind_text.text().to_uppercase();
    let kind = match upper.split(['(', ' ']).next().unwrap_or_default() {
        "NUMBER" | "INTEGER" | "PLS_INTEGER" | "BINARY_INTEGER" => NUMBER,
        "VARCHAR2" | "CHAR" => WIDE,
        "DATE" => Kind::Date,
        "TIMESTAMP" => Kind::Timestamp(9),
        "RAW" => Kind::Raw(2000),
        _ => return Err(refused(&kind_text, "this type is not supported")),
    };
    let value = if cursor.eat_token(&Token::Assignment) || cursor.eat("DEFAULT") {
        Some(expression(cursor)?)
    } else {
        None
    };
    semicolon(cursor)?;
    Ok((name, kind, value))
}

fn semicolon(cursor: &mut Cursor<'_>) -> Result<(), OraError> {
    if cursor.eat_token(&Token::SemiColon) {
        Ok(())
    } else {
        Err(refused(cursor, SEMICOLON))
    }
}

fn expression(cursor: &mut Cursor<'_>) -> Result<Expr, OraError> {
    let part = cursor
        .until(|c| matches!(c.peek(), Some(Token::SemiColon | Token::Comma)) || c.sees("THEN"));
    prepare::expr(&part)
}

fn steps(cursor: &mut Cursor<'_>, ends: &[&str]) -> Result<Vec<Step>, OraError> {
    let mut out = Vec::new();
    while !ends.iter().any(|end| cursor.sees(end)) {
        if cursor.at_end() {
            return Err(refused(cursor, "END is missing"));
        }
        if cursor.sees("EXCEPTION") {
            return Err(refused(cursor, "exception handlers are not supported"));
        }
        out.push(step(cursor)?);
        semicolon(cursor)?;
    }
    Ok(out)
}

fn step(cursor: &mut Cursor<'_>) -> Result<Step, OraError> {
    const NAME: (u32, &str) = (6550, "PL/SQL: a name is expected");
    if cursor.eat("NULL") {
        return Ok(Step::Null);
    }
    if cursor.eat("COMMIT") {
        cursor.eat("WORK");
        return Ok(Step::Commit);
    }
    if cursor.eat("ROLLBACK") {
        let to = if cursor.eat("TO") {
            cursor.eat("SAVEPOINT");
            Some(cursor.name(NAME)?)
        } else {
            None
        };
        return Ok(Step::Rollback(to));
    }
    if cursor.eat("SAVEPOINT") {
        return Ok(Step::Savepoint(cursor.name(NAME)?));
    }
    if cursor.eat("IF") {
        return condition(cursor);
    }
    if cursor.eat("EXECUTE IMMEDIATE") {
        return Ok(Step::Immediate(expression(cursor)?));
    }
    for word in [
        "FOR", "WHILE", "LOOP", "OPEN", "FETCH", "CLOSE", "GOTO", "RETURN", "FORALL",
    ] {
        if cursor.sees(word) {
            return Err(refused(cursor, "loops and cursors are not supported"));
        }
    }
    let kind = prepare::kind_of(cursor);
    match kind {
        StatementKind::Block => return Ok(Step::Nested(block(cursor)?)),
        StatementKind::Query => return select_into(cursor),
        StatementKind::Insert | StatementKind::Update | StatementKind::Delete => {
            let mut text = cursor.until(|c| c.peek() == Some(&Token::SemiColon));
            return Ok(Step::Sql(prepare::sql(&mut text, kind)?));
        }
        _ => {}
    }
    if let Some(target) = target(&mut cursor.clone()) {
        let mut ahead = *cursor;
        let _ = self::target(&mut ahead);
        if ahead.eat_token(&Token::Assignment) {
            *cursor = ahead;
            return Ok(Step::Assign(target, expression(cursor)?));
        }
    }
    procedure(cursor)
}

/// A variable that can be assigned to: `:bind`, `:NEW.column` or `name`.
fn target(cursor: &mut Cursor<'_>) -> Option<String> {
    match cursor.bump()? {
        Token::Placeholder(name) if matches!(name.as_str(), ":NEW" | ":OLD") => {
            if !cursor.eat_token(&Token::Period) {
                return None;
            }
            let column = cursor.name((6550, "")).ok()?;
            Some(format!("{name}.{column}"))
        }
        Token::Placeholder(name) => Some(name.clone()),
        Token::Word(word) => Some(super::lex::ident(word)),
        _ => None,
    }
}

fn condition(cursor: &mut Cursor<'_>) -> Result<Step, OraError> {
    let mut branches = Vec::new();
    loop {
        let test = expression(cursor)?;
        cursor.expect("THEN", (6550, "PL/SQL: THEN is missing"))?;
        branches.push((test, steps(cursor, &["ELSIF", "ELSE", "END"])?));
        if !cursor.eat("ELSIF") {
            break;
        }
    }
    let other = if cursor.eat("ELSE") {
        steps(cursor, &["END"])?
    } else {
        Vec::new()
    };
    cursor.expect("END IF", (6550, "PL/SQL: END IF is missing"))?;
    Ok(Step::If(branches, other))
}

/// `SELECT … INTO … FROM …`: the INTO is cut out and the rest is SQL.
fn select_into(cursor: &mut Cursor<'_>) -> Result<Step, OraError> {
    let mut text = cursor.until(|c| c.peek() == Some(&Token::SemiColon));
    let head = text.until(|c| c.sees("INTO"));
    if !text.eat("INTO") {
        return Err(refused(&text, "a SELECT in PL/SQL needs INTO"));
    }
    let mut into = Vec::new();
    loop {
        match target(&mut text) {
            Some(name) => into.push(name),
            None => return Err(refused(&text, "a variable is expected after INTO")),
        }
        if !text.eat_token(&Token::Comma) {
            break;
        }
    }
    let tokens: Vec<_> = head.rest().iter().chain(text.rest()).cloned().collect();
    let offsets = vec![head.offset(); tokens.len() + 1];
    let lexed = Lexed {
        text: "".into(),
        tokens,
        offsets,
    };
    match prepare::sql(&mut lexed.cursor(), StatementKind::Query)? {
        Body::Query(query) => Ok(Step::SelectInto(query, into)),
        _ => Err(refused(&text, "a query is expected")),
    }
}

fn procedure(cursor: &mut Cursor<'_>) -> Result<Step, OraError> {
    let start = *cursor;
    let mut name = cursor.name((6550, "PL/SQL: a statement is expected"))?;
    while cursor.eat_token(&Token::Period) {
        name = format!(
            "{name}.{}",
            cursor.name((6550, "PL/SQL: a name is expected"))?
        );
    }
    let name = name.trim_start_matches("SYS.").to_owned();
    let known = [&PROCEDURES[..], &jobs::PROCEDURES, &dbms_job::PROCEDURES];
    if !known.iter().any(|all| all.contains(&name.as_str())) {
        return Err(start.error((
            6550,
            &format!(
                "PLS-00201: identifier '{name}' must be declared (the simulator does not know it)"
            ),
        )));
    }
    let mut arguments = Vec::new();
    if cursor.eat_token(&Token::LParen) && !cursor.eat_token(&Token::RParen) {
        loop {
            arguments.push(argument(cursor)?);
            if cursor.eat_token(&Token::RParen) {
                break;
            }
            if !cursor.eat_token(&Token::Comma) {
                return Err(refused(cursor, "a comma or parenthesis is expected"));
            }
        }
    }
    Ok(Step::Call(name, arguments))
}

fn argument(cursor: &mut Cursor<'_>) -> Result<Argument, OraError> {
    let named =
        matches!(cursor.peek(), Some(Token::Word(_))) && cursor.peek_at(1) == Some(&Token::RArrow);
    let name = if named {
        let name = cursor.name((6550, "PL/SQL: a name is expected"))?;
        cursor.bump();
        Some(name)
    } else {
        None
    };
    // The closing parenthesis of the call itself ends the last argument.
    let part = cursor.until(|c| matches!(c.peek(), Some(Token::RParen | Token::Comma)));
    let boolean = ["TRUE", "FALSE"]
        .into_iter()
        .find(|word| part.rest().len() == 1 && part.sees(word));
    let value = match boolean {
        Some(word) => Expr::value(sqlparser::ast::Value::SingleQuotedString(word.to_owned())),
        None => prepare::expr(&part)?,
    };
    Ok(Argument { name, value })
}

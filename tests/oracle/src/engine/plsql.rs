//! PL/SQL, as much of it as a cutover meets.
//!
//! A block may declare variables and hold: assignments, DML, SELECT INTO, IF,
//! nested blocks, EXECUTE IMMEDIATE of a text without binds, COMMIT, ROLLBACK,
//! SAVEPOINT, RAISE_APPLICATION_ERROR, DBMS_SESSION.SLEEP, DBMS_LOCK.SLEEP,
//! DBMS_APPLICATION_INFO.SET_*, DBMS_SESSION.SET_IDENTIFIER and the calls of
//! DBMS_SCHEDULER in [`super::jobs`]. Everything else is ORA-06550 with a
//! sentence. Exception handlers and loops are not there.

use sqlparser::ast::{Expr, Query};
use sqlparser::tokenizer::Token;

use crate::api::{Kind, OraError, Reply, StatementKind};

use super::call::Call;
use super::datum::{self, Datum};
use super::errors::{Outcome, Stop, ora, stop};
use super::exec::{Exec, Scope, Variable, Variables};
use super::jobs;
use super::kinds::{NUMBER, WIDE};
use super::lex::{Cursor, Lexed};
use super::prepare::{self, Body};
use super::sessions::SessionKey;
use super::state::State;

/// A block.
#[derive(Debug, Default)]
pub struct Block {
    /// Declared variables: name, type, initial value.
    declared: Vec<(String, Kind, Option<Expr>)>,
    /// What it does, in order.
    steps: Vec<Step>,
}

/// One statement of a block.
#[derive(Debug)]
enum Step {
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
    /// Its value.
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
    if !PROCEDURES.contains(&name.as_str()) && !jobs::PROCEDURES.contains(&name.as_str()) {
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
    let mut depth = 0_i32;
    // The closing parenthesis of the call itself ends the last argument.
    let part = {
        let mut ahead = *cursor;
        let mut tokens = 0;
        while let Some(token) = ahead.peek() {
            match token {
                Token::LParen => depth += 1,
                Token::RParen if depth == 0 => break,
                Token::RParen => depth -= 1,
                Token::Comma if depth == 0 => break,
                _ => {}
            }
            ahead.bump();
            tokens += 1;
        }
        let end = cursor.index() + tokens;
        let part = cursor.until(|c| c.index() >= end);
        part
    };
    let boolean = ["TRUE", "FALSE"]
        .into_iter()
        .find(|word| part.rest().len() == 1 && part.sees(word));
    let value = match boolean {
        Some(word) => Expr::value(sqlparser::ast::Value::SingleQuotedString(word.to_owned())),
        None => prepare::expr(&part)?,
    };
    Ok(Argument { name, value })
}

/// Runs a block as a statement of its own.
pub fn run(
    call: &mut Call<'_>,
    block: &Block,
    _lexed: &Lexed,
    mut vars: Variables,
) -> Result<Reply, OraError> {
    let before: Vec<(String, Datum)> = vars
        .iter()
        .map(|(name, variable)| (name.clone(), variable.value.clone()))
        .collect();
    run_block(call, block, &mut vars)?;
    let mut out = Vec::new();
    for (name, old) in before {
        let Some(variable) = vars.get(&name) else {
            continue;
        };
        if variable.value != old || assigns(&block.steps, &name) {
            let value = variable.value.to_value(variable.kind).map_err(plain)?;
            out.push((name.trim_start_matches(':').to_owned(), value));
        }
    }
    Ok(Reply::Block { out })
}

fn assigns(steps: &[Step], name: &str) -> bool {
    steps.iter().any(|step| match step {
        Step::Assign(target, _) => target == name,
        Step::SelectInto(_, into) => into.iter().any(|target| target == name),
        Step::Sql(
            Body::Insert(_, Some(returning))
            | Body::Update(_, Some(returning))
            | Body::Delete(_, Some(returning)),
        ) => returning.into.iter().any(|target| target == &name[1..]),
        Step::If(branches, other) => {
            branches.iter().any(|(_, steps)| assigns(steps, name)) || assigns(other, name)
        }
        Step::Nested(block) => assigns(&block.steps, name),
        _ => false,
    })
}

fn plain(stop: Stop) -> OraError {
    match stop {
        Stop::Ora(error) => error,
        Stop::Blocked(_) => ora(60, "deadlock detected while waiting for resource"),
    }
}

fn run_block(call: &mut Call<'_>, block: &Block, vars: &mut Variables) -> Result<(), OraError> {
    let key = call.key;
    call.attempt(|st| declare(st, key, block, vars))?;
    run_steps(call, &block.steps, vars)
}

fn run_steps(call: &mut Call<'_>, steps: &[Step], vars: &mut Variables) -> Result<(), OraError> {
    let key = call.key;
    for step in steps {
        match step {
            Step::Commit => call.commit(),
            Step::Rollback(None) => call.rollback(),
            Step::Rollback(Some(name)) => call.st.rollback_to_savepoint(key, name)?,
            Step::Savepoint(name) => call.st.savepoint(key, name),
            Step::Nested(block) => run_block(call, block, vars)?,
            Step::If(branches, other) => {
                let chosen = call.attempt(|st| choose(st, key, branches, other, vars))?;
                run_steps(call, chosen, vars)?;
            }
            Step::Immediate(expr) => {
                let text = call.attempt(|st| Exec::new(st, key, vars).eval(expr, &Scope::EMPTY))?;
                let text = text.string().unwrap_or_default();
                call.st.fault_at(&text)?;
                let prepared = call.st.prepared(&text)?;
                if !prepared.binds.is_empty() {
                    return Err(ora(
                        6550,
                        "PL/SQL: EXECUTE IMMEDIATE with USING is not supported",
                    ));
                }
                call.run(&prepared, Variables::new())?;
            }
            Step::Call(name, arguments) => {
                let mut values = Vec::with_capacity(arguments.len());
                for argument in arguments {
                    let value = &argument.value;
                    let value =
                        call.attempt(|st| Exec::new(st, key, vars).eval(value, &Scope::EMPTY))?;
                    values.push((argument.name.clone(), value));
                }
                call_procedure(call, name, &values)?;
            }
            simple => call.attempt(|st| run_simple(st, key, simple, vars))?,
        }
    }
    Ok(())
}

/// Runs a block inside a statement: a trigger's body. What would end the
/// transaction or wait is refused there.
pub fn run_inner(
    st: &mut State,
    key: SessionKey,
    block: &Block,
    vars: &mut Variables,
) -> Outcome<()> {
    declare(st, key, block, vars)?;
    inner_steps(st, key, &block.steps, vars)
}

fn inner_steps(
    st: &mut State,
    key: SessionKey,
    steps: &[Step],
    vars: &mut Variables,
) -> Outcome<()> {
    for step in steps {
        match step {
            Step::Commit | Step::Rollback(_) | Step::Savepoint(_) => {
                return stop(4092, "cannot COMMIT in a trigger");
            }
            Step::Nested(block) => run_inner(st, key, block, vars)?,
            Step::If(branches, other) => {
                let chosen = choose(st, key, branches, other, vars)?;
                inner_steps(st, key, chosen, vars)?;
            }
            Step::Call(name, arguments) if name == "RAISE_APPLICATION_ERROR" => {
                let mut values = Vec::new();
                for argument in arguments {
                    let value = Exec::new(st, key, vars).eval(&argument.value, &Scope::EMPTY)?;
                    values.push((None, value));
                }
                return Err(application_error(&values).into());
            }
            Step::Call(..) | Step::Immediate(_) => {
                return stop(6550, "PL/SQL: a trigger may not call procedures here");
            }
            simple => run_simple(st, key, simple, vars)?,
        }
    }
    Ok(())
}

fn declare(st: &mut State, key: SessionKey, block: &Block, vars: &mut Variables) -> Outcome<()> {
    for (name, kind, initial) in &block.declared {
        let value = match initial {
            Some(expr) => Exec::new(st, key, vars).eval(expr, &Scope::EMPTY)?,
            None => Datum::Null,
        };
        let value = datum::fit(value, *kind, &|| name.clone())?;
        vars.insert(name.clone(), Variable { value, kind: *kind });
    }
    Ok(())
}

fn choose<'s>(
    st: &mut State,
    key: SessionKey,
    branches: &'s [(Expr, Vec<Step>)],
    other: &'s [Step],
    vars: &Variables,
) -> Outcome<&'s [Step]> {
    for (test, steps) in branches {
        if Exec::new(st, key, vars).truth(test, &Scope::EMPTY)? == Some(true) {
            return Ok(steps);
        }
    }
    Ok(other)
}

fn run_simple(st: &mut State, key: SessionKey, step: &Step, vars: &mut Variables) -> Outcome<()> {
    match step {
        Step::Assign(target, expr) => {
            let value = Exec::new(st, key, vars).eval(expr, &Scope::EMPTY)?;
            assign(vars, target, value)
        }
        Step::SelectInto(query, into) => {
            let relation = Exec::new(st, key, vars).query(query, None)?;
            let row = match relation.rows.as_slice() {
                [] => return stop(1403, "no data found"),
                [row] => row,
                _ => {
                    return stop(
                        1422,
                        "exact fetch returns more than requested number of rows",
                    );
                }
            };
            if row.len() != into.len() {
                return stop(
                    6550,
                    "PL/SQL: wrong number of values in the INTO list of a FETCH statement",
                );
            }
            into.iter()
                .zip(row.iter())
                .try_for_each(|(name, value)| assign(vars, name, value.clone()))
        }
        Step::Sql(body) => {
            let mut exec = Exec::new(st, key, vars);
            let reply = match body {
                Body::Insert(insert, returning) => exec.insert(insert, returning.as_ref())?,
                Body::Update(update, returning) => exec.update(update, returning.as_ref())?,
                Body::Delete(delete, returning) => exec.delete(delete, returning.as_ref())?,
                _ => return stop(900, "invalid SQL statement"),
            };
            if let Reply::Affected { returned, .. } = reply {
                for (name, value) in returned {
                    let kind = vars
                        .get(&format!(":{name}"))
                        .map_or(WIDE, |variable| variable.kind);
                    assign(vars, &format!(":{name}"), Datum::from_value(&value, kind)?)?;
                }
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn assign(vars: &mut Variables, target: &str, value: Datum) -> Outcome<()> {
    let Some(variable) = vars.get_mut(target) else {
        return stop(
            6550,
            format!("PLS-00201: identifier '{target}' must be declared"),
        );
    };
    // A trigger's row and a client's variable are converted where they end up.
    variable.value = if target.starts_with(':') {
        value
    } else {
        datum::fit(value, variable.kind, &|| target.to_owned())?
    };
    Ok(())
}

fn application_error(values: &[(Option<String>, Datum)]) -> OraError {
    let code = values
        .first()
        .and_then(|(_, value)| value.integer().ok())
        .unwrap_or(0);
    let message = values
        .get(1)
        .and_then(|(_, value)| value.string())
        .unwrap_or_default();
    match u32::try_from(-code) {
        Ok(code @ 20_000..=20_999) => ora(code, message),
        _ => ora(
            21_000,
            format!("error number argument to raise_application_error of {code} is out of range"),
        ),
    }
}

fn call_procedure(
    call: &mut Call<'_>,
    name: &str,
    values: &[(Option<String>, Datum)],
) -> Result<(), OraError> {
    let text = |at: usize| values.get(at).and_then(|(_, value)| value.string());
    match name {
        "DBMS_SESSION.SLEEP" | "DBMS_LOCK.SLEEP" => {
            let seconds = text(0)
                .and_then(|text| text.parse::<f64>().ok())
                .unwrap_or(0.0);
            if !(0.0..=86_400.0).contains(&seconds) {
                return Err(ora(38148, "invalid time limit specified"));
            }
            call.sleep(seconds)
        }
        "RAISE_APPLICATION_ERROR" => Err(application_error(values)),
        "DBMS_OUTPUT.PUT_LINE" | "DBMS_OUTPUT.ENABLE" => Ok(()),
        name if jobs::PROCEDURES.contains(&name) => jobs::procedure(call, name, values),
        name => {
            if let Some(session) = call.st.sessions.get_mut(&call.key) {
                match name {
                    "DBMS_SESSION.SET_IDENTIFIER" => session.client_identifier = text(0),
                    "DBMS_APPLICATION_INFO.SET_MODULE" => {
                        session.module = text(0);
                        session.action = text(1);
                    }
                    "DBMS_APPLICATION_INFO.SET_ACTION" => session.action = text(0),
                    _ => session.client_info = text(0),
                }
            }
            Ok(())
        }
    }
}

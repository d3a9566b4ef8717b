//! A statement's text made ready: its kind, its binds, its parsed form.

use super::errors::{ora, unsupported};
use super::lex::{Cursor, Dialect19, Lexed, lex};
use super::plsql;
use crate::api::{OraError, StatementKind};
use sqlparser::ast::{self, Expr, Statement};
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan};
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

/// How many parsed statements are kept. Applications and the range together
/// use some dozens; literals in place of binds must not fill the memory.
const CACHED_STATEMENTS: usize = 1_000;

/// Function that stands for a flashback version query in a parsed statement.
pub const VERSIONS_SINCE: &str = "VERSIONS_SINCE";

/// A statement ready to run.
#[derive(Debug)]
pub struct Prepared {
    pub kind: StatementKind,
    /// Bind names in order of appearance, repeats included.
    pub binds: Vec<String>,
    pub lexed: Lexed,
    pub body: Body,
}

#[derive(Debug)]
pub enum Body {
    Query(Box<ast::Query>),
    Insert(Box<ast::Insert>, Option<Returning>),
    Update(Box<ast::Update>, Option<Returning>),
    Delete(Box<ast::Delete>, Option<Returning>),
    CreateTable(Box<ast::CreateTable>),
    Block(plsql::Block),
    /// Recognised by hand when it runs.
    Command,
}

/// `RETURNING expressions INTO binds`.
#[derive(Debug, Clone)]
pub struct Returning {
    pub exprs: Vec<Expr>,
    /// The variables, names without the colon.
    pub into: Vec<String>,
}

/// Tells the kind of a statement by its first word.
pub fn kind_of(cursor: &Cursor<'_>) -> StatementKind {
    const KINDS: [(&str, StatementKind); 11] = [
        ("SELECT", StatementKind::Query),
        ("WITH", StatementKind::Query),
        ("INSERT", StatementKind::Insert),
        ("UPDATE", StatementKind::Update),
        ("DELETE", StatementKind::Delete),
        ("MERGE", StatementKind::Merge),
        ("BEGIN", StatementKind::Block),
        ("DECLARE", StatementKind::Block),
        ("CALL", StatementKind::Block),
        ("CREATE", StatementKind::Create),
        ("DROP", StatementKind::Drop),
    ];
    if cursor.peek() == Some(&Token::LParen) {
        return StatementKind::Query;
    }
    KINDS
        .iter()
        .find(|(word, _)| cursor.sees(word))
        .map_or(StatementKind::Other, |(_, kind)| *kind)
}

/// Makes a statement ready.
///
/// # Errors
/// ORA-00900 and its kin where the text is no statement the engine knows.
pub fn prepare(text: &str) -> Result<Prepared, OraError> {
    let lexed = lex(text)?;
    let cursor = lexed.cursor();
    let kind = kind_of(&cursor);
    // A trigger's :NEW and :OLD are no binds.
    let binds = if kind == StatementKind::Create {
        Vec::new()
    } else {
        cursor.binds()
    };
    let body = body(kind, cursor)?;
    Ok(Prepared {
        kind,
        binds,
        lexed,
        body,
    })
}

fn body(kind: StatementKind, mut cursor: Cursor<'_>) -> Result<Body, OraError> {
    match kind {
        StatementKind::Block => Ok(Body::Block(plsql::parse(cursor)?)),
        StatementKind::Merge => Err(unsupported("MERGE")),
        StatementKind::Query
        | StatementKind::Insert
        | StatementKind::Update
        | StatementKind::Delete => sql(&mut cursor, kind),
        StatementKind::Create if cursor.sees("CREATE TABLE") => {
            let table = cursor.until(|c| {
                // Physical attributes are the storage's business: there is none.
                [
                    "TABLESPACE",
                    "PCTFREE",
                    "STORAGE",
                    "SEGMENT",
                    "LOGGING",
                    "ORGANIZATION",
                ]
                .iter()
                .any(|word| c.sees(word))
            });
            match parse_statement(&table)? {
                Statement::CreateTable(table) => Ok(Body::CreateTable(Box::new(table))),
                _ => Err(unsupported("this form of CREATE TABLE")),
            }
        }
        _ => Ok(Body::Command),
    }
}

/// Parses a query or DML statement, also for PL/SQL and triggers.
pub fn sql(cursor: &mut Cursor<'_>, kind: StatementKind) -> Result<Body, OraError> {
    let head = cursor.until(|c| {
        kind != StatementKind::Query && (c.sees("RETURNING") || c.sees("RETURN"))
            || c.peek() == Some(&Token::SemiColon)
    });
    let returning = if cursor.eat("RETURNING") || cursor.eat("RETURN") {
        Some(returning(cursor)?)
    } else {
        None
    };
    cursor.finish()?;
    match parse_statement(&head)? {
        Statement::Query(query) => Ok(Body::Query(query)),
        Statement::Insert(insert) => Ok(Body::Insert(Box::new(insert), returning)),
        Statement::Update(update) => Ok(Body::Update(Box::new(update), returning)),
        Statement::Delete(delete) => Ok(Body::Delete(Box::new(delete), returning)),
        _ => Err(ora(900, "invalid SQL statement")),
    }
}

fn returning(cursor: &mut Cursor<'_>) -> Result<Returning, OraError> {
    let mut exprs = Vec::new();
    loop {
        let part = cursor.until(|c| c.peek() == Some(&Token::Comma) || c.sees("INTO"));
        exprs.push(expr(&part)?);
        if !cursor.eat_token(&Token::Comma) {
            break;
        }
    }
    cursor.expect("INTO", (925, "missing INTO keyword"))?;
    let mut into = Vec::new();
    while let Some(Token::Placeholder(name)) = cursor.bump() {
        into.push(name[1..].to_owned());
        if !cursor.eat_token(&Token::Comma) {
            break;
        }
    }
    if into.len() != exprs.len() {
        return Err(ora(913, "too many values"));
    }
    Ok(Returning { exprs, into })
}

pub fn expr(cursor: &Cursor<'_>) -> Result<Expr, OraError> {
    let tokens = rewrite(cursor.rest());
    let mut parser = Parser::new(&Dialect19).with_tokens_with_locations(tokens);
    let parsed = parser.parse_expr().map_err(|error| syntax(error, cursor))?;
    match parser.peek_token().token {
        Token::EOF => Ok(parsed),
        other => Err(ora(907, format!("missing right parenthesis near {other}"))),
    }
}

fn parse_statement(cursor: &Cursor<'_>) -> Result<Statement, OraError> {
    let tokens = rewrite(cursor.rest());
    let mut parser = Parser::new(&Dialect19).with_tokens_with_locations(tokens);
    let parsed = parser
        .parse_statement()
        .map_err(|error| syntax(error, cursor))?;
    let next = parser.peek_token();
    if next.token == Token::EOF {
        Ok(parsed)
    } else {
        let at = offset_of(cursor, next.span.start);
        Err(ora(933, "SQL command not properly ended").at(at))
    }
}

fn offset_of(cursor: &Cursor<'_>, at: Location) -> u32 {
    let mut search = *cursor;
    for token in cursor.rest() {
        if token.span.start == at {
            return u32::try_from(search.offset()).unwrap_or(0);
        }
        search.bump();
    }
    u32::try_from(search.offset()).unwrap_or(0)
}

/// Oracle's words for what the parser stumbled over.
fn syntax(error: ParserError, cursor: &Cursor<'_>) -> OraError {
    let text = match error {
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => text,
        ParserError::RecursionLimitExceeded => {
            return ora(913, "statement nested too deeply");
        }
    };
    let at = place(&text).map_or(0, |location| offset_of(cursor, location));
    let (code, message) = if text.contains("Expected: an expression") {
        (936, "missing expression")
    } else if text.contains("Expected: )") {
        (907, "missing right parenthesis")
    } else if text.contains("Expected: identifier") {
        (903, "invalid table name")
    } else {
        (900, "invalid SQL statement")
    };
    ora(code, format!("{message} ({text})")).at(at)
}

/// The place in `… at Line: 1, Column: 8`.
fn place(text: &str) -> Option<Location> {
    let tail = &text[text.rfind("Line: ")? + 6..];
    let (line, column) = tail.split_once(", Column: ")?;
    Some(Location {
        line: line.parse().ok()?,
        column: column.trim().parse().ok()?,
    })
}

/// Brings what only Oracle writes into a form the parser takes:
/// `AS OF SCN x` becomes `FOR SYSTEM_TIME AS OF x`, and `VERSIONS BETWEEN SCN x
/// AND MAXVALUE` becomes `FOR SYSTEM_TIME AS OF VERSIONS_SINCE(x)`.
fn rewrite(tokens: &[TokenWithSpan]) -> Vec<TokenWithSpan> {
    let is = |at: usize, word: &str| {
        matches!(tokens.get(at).map(|t| &t.token), Some(Token::Word(w))
            if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word))
    };
    let mut out = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while at < tokens.len() {
        let span = tokens[at].span;
        if is(at, "AS") && is(at + 1, "OF") && is(at + 2, "SCN") {
            for word in ["FOR", "SYSTEM_TIME", "AS", "OF"] {
                out.push(word_token(word, span));
            }
            at += 3;
        } else if is(at, "VERSIONS") && is(at + 1, "BETWEEN") && is(at + 2, "SCN") {
            for word in ["FOR", "SYSTEM_TIME", "AS", "OF", VERSIONS_SINCE] {
                out.push(word_token(word, span));
            }
            let token = Token::LParen;
            out.push(TokenWithSpan { token, span });
            at += 3;
        } else if is(at, "AND") && is(at + 1, "MAXVALUE") {
            let token = Token::RParen;
            out.push(TokenWithSpan { token, span });
            at += 2;
        } else if let Some(Token::Placeholder(name)) = tokens.get(at).map(|t| &t.token)
            && matches!(name.as_str(), ":NEW" | ":OLD")
            && let Some(Token::Word(column)) = tokens.get(at + 2).map(|t| &t.token)
        {
            let token = Token::Placeholder(format!("{name}.{}", super::lex::ident(column)));
            out.push(TokenWithSpan { token, span });
            at += 3;
        } else {
            out.push(tokens[at].clone());
            at += 1;
        }
    }
    out
}

fn word_token(word: &str, span: Span) -> TokenWithSpan {
    TokenWithSpan {
        token: Token::make_word(word, None),
        span,
    }
}

/// Parsed statements by their text.
#[derive(Debug, Default)]
pub struct Cache {
    map: HashMap<Arc<str>, Arc<Prepared>>,
}

impl Cache {
    /// The statement, parsed at most once while it is kept.
    ///
    /// # Errors
    /// As [`prepare`].
    pub fn get(&mut self, text: &str) -> Result<Arc<Prepared>, OraError> {
        if let Some(known) = self.map.get(text) {
            return Ok(Arc::clone(known));
        }
        let prepared = Arc::new(prepare(text)?);
        if self.map.len() >= CACHED_STATEMENTS {
            self.map.clear();
        }
        self.map.insert(text.into(), Arc::clone(&prepared));
        Ok(prepared)
    }
}

/// Visits an expression's parts, subqueries not entered, until told to stop.
pub fn walk<B>(expr: &Expr, visit: &mut dyn FnMut(&Expr) -> ControlFlow<B>) -> ControlFlow<B> {
    visit(expr)?;
    for part in parts(expr) {
        walk(part, visit)?;
    }
    ControlFlow::Continue(())
}

/// The direct parts of an expression; subqueries have none.
pub fn parts(expr: &Expr) -> Vec<&Expr> {
    match expr {
        Expr::IsNull(e)
        | Expr::IsNotNull(e)
        | Expr::Nested(e)
        | Expr::UnaryOp { expr: e, .. }
        | Expr::Cast { expr: e, .. }
        | Expr::Extract { expr: e, .. }
        | Expr::Ceil { expr: e, .. }
        | Expr::Floor { expr: e, .. }
        | Expr::InSubquery { expr: e, .. } => vec![e],
        Expr::InList { expr: e, list, .. } => std::iter::once(&**e).chain(list).collect(),
        Expr::Between {
            expr: e, low, high, ..
        } => vec![e, low, high],
        Expr::BinaryOp { left, right, .. } => vec![left, right],
        Expr::Like {
            expr: e, pattern, ..
        } => vec![e, pattern],
        Expr::Substring {
            expr: e,
            substring_from,
            substring_for,
            ..
        } => std::iter::once(&**e)
            .chain(substring_from.as_deref())
            .chain(substring_for.as_deref())
            .collect(),
        Expr::Trim {
            expr: e, trim_what, ..
        } => std::iter::once(&**e).chain(trim_what.as_deref()).collect(),
        Expr::Case {
            operand,
            conditions,
            else_result,
            ..
        } => operand
            .as_deref()
            .into_iter()
            .chain(
                conditions
                    .iter()
                    .flat_map(|when| [&when.condition, &when.result]),
            )
            .chain(else_result.as_deref())
            .collect(),
        Expr::Tuple(list) => list.iter().collect(),
        Expr::Function(function) => arguments(function),
        _ => Vec::new(),
    }
}

/// The expressions a function is called with.
pub fn arguments(function: &ast::Function) -> Vec<&Expr> {
    let ast::FunctionArguments::List(list) = &function.args else {
        return Vec::new();
    };
    list.args
        .iter()
        .filter_map(|arg| match arg {
            ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(expr))
            | ast::FunctionArg::Named {
                arg: ast::FunctionArgExpr::Expr(expr),
                ..
            } => Some(expr),
            _ => None,
        })
        .collect()
}

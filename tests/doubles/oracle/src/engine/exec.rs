//! What one statement needs while it runs: the state, who runs it, variables.

use super::datum::{Datum, Row};
use super::errors::Outcome;
use super::sessions::SessionKey;
use super::state::State;
use crate::api::{Bind, Kind};
use sqlparser::ast::{Ident, Query};
use std::collections::HashMap;
use std::sync::Arc;

/// A variable: a bind (`:NAME`), a trigger's `:NEW.COLUMN`, or a PL/SQL
/// local (`NAME`).
#[derive(Debug, Clone)]
pub struct Variable {
    pub value: Datum,
    pub kind: Kind,
}

pub type Variables = HashMap<String, Variable>;

/// Pairs a statement's bind names with what the client sent: by name first,
/// then by position; in SQL a repeated name may have been bound repeatedly.
///
/// # Errors
/// ORA-01008 where a name has no value.
pub fn bind_variables(names: &[String], binds: &[Bind]) -> Outcome<Variables> {
    let mut distinct: Vec<&String> = Vec::new();
    for name in names {
        if !distinct.contains(&name) {
            distinct.push(name);
        }
    }
    let per_occurrence = binds.len() == names.len() && names.len() > distinct.len();
    let mut variables = Variables::new();
    for (position, name) in distinct.iter().enumerate() {
        let position = if per_occurrence {
            names
                .iter()
                .position(|other| other == *name)
                .unwrap_or(position)
        } else {
            position
        };
        let Some(bind) = binds
            .iter()
            .find(|bind| bind.name.trim_start_matches(':') == name.as_str())
            .or_else(|| binds.get(position))
        else {
            return super::errors::stop(1008, "not all variables bound");
        };
        let value = Datum::from_value(&bind.value, bind.kind)?;
        variables.insert(
            format!(":{name}"),
            Variable {
                value,
                kind: bind.kind,
            },
        );
    }
    Ok(variables)
}

/// A column of an intermediate result.
#[derive(Debug, Clone)]
pub struct ColRef {
    /// Table name or alias it can be qualified by.
    pub qualifier: Option<Arc<str>>,
    pub name: Arc<str>,
    pub kind: Kind,
    /// Whether NULL can occur.
    pub nullable: bool,
}

#[derive(Debug, Default)]
pub struct Relation {
    pub cols: Vec<ColRef>,
    pub rows: Vec<Row>,
}

/// Where names are looked up: one row, inside the rows of outer queries.
#[derive(Clone, Copy)]
pub struct Scope<'s> {
    pub cols: &'s [ColRef],
    pub row: &'s [Datum],
    /// The rows of the group, where aggregates may stand.
    pub group: Option<&'s [Row]>,
    /// ROWNUM of the row, 1 for the first.
    pub rownum: u64,
    /// The enclosing query's row.
    pub outer: Option<&'s Scope<'s>>,
}

impl<'s> Scope<'s> {
    /// The scope of an expression without a table.
    pub const EMPTY: Scope<'static> = Scope {
        cols: &[],
        row: &[],
        group: None,
        rownum: 0,
        outer: None,
    };

    /// A scope over one row.
    pub fn new(cols: &'s [ColRef], row: &'s [Datum], outer: Option<&'s Scope<'s>>) -> Self {
        Scope {
            cols,
            row,
            group: None,
            rownum: 0,
            outer,
        }
    }
}

/// Whether an identifier means a name.
pub fn same(ident: &Ident, name: &str) -> bool {
    if ident.quote_style.is_some() {
        ident.value == name
    } else {
        ident.value.eq_ignore_ascii_case(name)
    }
}

/// An identifier as the dictionary holds it.
pub fn upper(ident: &Ident) -> String {
    if ident.quote_style.is_some() {
        ident.value.clone()
    } else {
        ident.value.to_uppercase()
    }
}

pub struct Exec<'a> {
    pub st: &'a mut State,
    /// Whose statement it is.
    pub key: SessionKey,
    /// Binds and PL/SQL variables.
    pub vars: &'a Variables,
    /// Only the columns are wanted: tables yield no rows.
    pub describing: bool,
    /// Schema in which unqualified names are looked up.
    pub schema: String,
    /// Named subqueries of WITH, innermost last.
    pub named: Vec<(String, Arc<Relation>)>,
    /// Results of subqueries that depend on no outer row; `None` marks those
    /// that do.
    pub constant: HashMap<*const Query, Option<Arc<Relation>>>,
    /// Nesting of triggers and subqueries.
    pub depth: usize,
    /// The query names ORA_ROWSCN, so its tables have that pseudocolumn.
    pub row_scn: bool,
}

impl<'a> Exec<'a> {
    /// A statement of a session.
    pub fn new(st: &'a mut State, key: SessionKey, vars: &'a Variables) -> Self {
        let schema = st
            .session(key)
            .map(|session| session.schema.clone())
            .unwrap_or_default();
        Self {
            st,
            key,
            vars,
            describing: false,
            schema,
            named: Vec::new(),
            constant: HashMap::new(),
            depth: 0,
            row_scn: false,
        }
    }
}

//! PL/SQL blocks run: as statements of their own, and inside triggers.

use super::call::Call;
use super::datum::{self, Datum};
use super::errors::{Outcome, Stop, ora, stop};
use super::exec::{Exec, Scope, Variable, Variables};
use super::kinds::WIDE;
use super::plsql::{Block, Step};
use super::prepare::Body;
use super::sessions::SessionKey;
use super::state::State;
use super::{dbms_job, jobs};
use crate::api::{OraError, Reply};
use sqlparser::ast::Expr;

/// Runs a block as a statement of its own.
pub fn run(call: &mut Call<'_>, block: &Block, mut vars: Variables) -> Result<Reply, OraError> {
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
                if name == dbms_job::SUBMIT {
                    let target = dbms_job::target(arguments)?;
                    let number = Datum::int(dbms_job::submit(call, &values)?);
                    assign(vars, &target, number).map_err(plain)?;
                } else {
                    call_procedure(call, name, &values)?;
                }
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
        name if dbms_job::PROCEDURES.contains(&name) => dbms_job::procedure(call, name, values),
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
